"""The operations on a CPU that training is made of: the numbers and gradients of plain torch."""

import pytest
import torch
import torch.nn.functional as F

from prune_cli.models import cpu_kernels as kernels
from prune_cli.models.fast_inference import has_packed_products


def test_attention_is_that_of_torch():
    packed = torch.randn(2, 600, 3 * 32, dtype=torch.float64, requires_grad=True)
    ours = kernels.causal_attention(packed, 2, 0.3)
    query, key, value = packed.unflatten(2, (3, 2, 16)).permute(2, 0, 3, 1, 4)
    theirs = (
        F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3)
        .transpose(1, 2)
        .flatten(2)
    )
    slope = torch.randn_like(ours)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, packed, slope), torch.autograd.grad(theirs, packed, slope)
    )


def test_long_attention_is_recomputed_with_the_same_gradients(monkeypatch):
    packed = torch.randn(2, 600, 3 * 32, requires_grad=True)
    found = [torch.autograd.grad(kernels.causal_attention(packed, 2, 0.3).square().sum(), packed)]
    monkeypatch.setattr(kernels, "LONGEST_KEPT", 512)
    found += [torch.autograd.grad(kernels.causal_attention(packed, 2, 0.3).square().sum(), packed)]
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.skipif(not has_packed_products(torch.bfloat16), reason="oneDNN on x86")
@pytest.mark.parametrize("widths", [(24, 40), (40, 24), (24, 24)])
def test_products_are_those_of_torch_in_bfloat16(widths, monkeypatch):
    monkeypatch.setattr(kernels, "WIDE_COLUMNS", 32)
    inputs, weight, bias = (
        torch.randn(shape, requires_grad=True) for shape in ((3, 200, widths[0]), widths, widths[1:])
    )
    slope = torch.randn(3, 200, widths[1]).bfloat16()
    ours = kernels.linear(inputs, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = F.linear(inputs, weight.T, bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=0.05)
    exactly = torch.autograd.grad(
        inputs.double() @ weight.double() + bias.double(), (inputs, weight, bias), slope.double()
    )
    for found, exact in zip(torch.autograd.grad(ours, (inputs, weight, bias), slope), exactly, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact, rtol=1e-2, atol=0.3)


def test_a_weighted_loss_is_that_of_torch(monkeypatch):
    # Rows in several parts, and weights of their own in each.
    monkeypatch.setattr(kernels, "SOFTMAX_ELEMENTS", 7 * 70)
    hidden, weight = torch.randn(50, 8, requires_grad=True), torch.randn(70, 8, requires_grad=True)
    targets, weights = torch.randint(70, (50,)), torch.rand(50) + 0.5
    ours, of_rows = kernels.head_loss(hidden, weight, targets, 1 / 50, weights)
    theirs = F.cross_entropy(hidden @ weight.T, targets, reduction="none")
    torch.testing.assert_close(of_rows, theirs)
    assert not of_rows.requires_grad
    torch.testing.assert_close(ours, (theirs * weights).mean())
    torch.testing.assert_close(
        torch.autograd.grad(3 * ours, (hidden, weight)),
        torch.autograd.grad(3 * (theirs * weights).mean(), (hidden, weight)),
    )


def test_the_loss_is_that_of_torch():
    hidden, weight = torch.randn(2500, 8, requires_grad=True), torch.randn(70, 8, requires_grad=True)
    targets = torch.randint(70, (2500,))
    ours, theirs = (
        kernels.head_loss(hidden, weight, targets, 1 / 2500)[0],
        F.cross_entropy(hidden @ weight.T, targets),
    )
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(3 * ours, (hidden, weight)), torch.autograd.grad(3 * theirs, (hidden, weight))
    )
