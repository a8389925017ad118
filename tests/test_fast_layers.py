"""Faster layers are used only where they agree with the plain ones: a change in torch costs speed, not
numbers.
"""

import logging

import pytest
import torch
import transformers

from prune_cli.models.fast_inference import Packed, has_packed_products, make_fast
from prune_cli.models.fast_training import make_fast as make_fast_to_train
from prune_cli.training.model import summed_loss

pytestmark = pytest.mark.skipif(not has_packed_products(torch.bfloat16), reason="needs oneDNN on x86")

IDS = torch.arange(48).view(3, 16)


def raises(*arguments):
    raise RuntimeError("mkldnn::_linear_pointwise() expected at most 5 argument(s)")


def leaves_out_the_activation(inputs, weight, bias, activation, scalars, algorithm):
    return OPERATION(inputs, weight, bias, "none", scalars, "")


def leaves_out_the_bias(inputs, weight, bias, activation, scalars, algorithm):
    return OPERATION(inputs, weight, None, activation, scalars, algorithm)


OPERATION = torch.ops.mkldnn._linear_pointwise


@pytest.fixture
def model():
    """A GPT-2 of two layers, its weights four times as large as they start, its biases not 0."""
    torch.manual_seed(1)
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=32, vocab_size=320)
    model = transformers.GPT2LMHeadModel(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(4) if weight.ndim > 1 else weight.add_(torch.randn_like(weight) / 2)
    return model


@torch.no_grad()
def logits(model):
    return model(input_ids=IDS).logits


def is_packed(model):
    return any(isinstance(module, Packed) for module in model.modules())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_scoring_uses_the_faster_layers_without_a_message(model, dtype, caplog):
    model = model.to(dtype)
    expected = logits(model)
    make_fast(model)
    assert is_packed(model)
    assert caplog.text == ""
    torch.testing.assert_close(
        logits(model), expected, rtol=0.1, atol=0.1 if dtype == torch.bfloat16 else 1e-4
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("broken", [raises, leaves_out_the_activation, leaves_out_the_bias])
def test_a_wrong_product_puts_the_plain_layers_back(model, dtype, broken, monkeypatch, caplog):
    model = model.to(dtype)
    expected = logits(model)
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", broken)
    make_fast(model)
    assert not is_packed(model)
    assert caplog.text.count("scoring without the faster layers") == 1
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=0)


def test_a_layout_that_cannot_be_made_puts_the_plain_layers_back(model, monkeypatch, caplog):
    expected = logits(model)
    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", raises)
    make_fast(model)
    assert "scoring without the faster layers" in caplog.text
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=0)


def gradients(model):
    """The loss in bfloat16, and the gradients of all weights."""
    loss = summed_loss(model, IDS, torch.bfloat16, 1.0)[0]
    return [loss.detach(), *torch.autograd.grad(loss, list(model.parameters()))]


def test_training_uses_the_faster_layers_without_a_message(model, caplog):
    make_fast_to_train(model, torch.bfloat16)
    assert "forward" in vars(model.transformer.h[0].attn)
    assert caplog.text == ""


def wrong_softmax_gradient(grad_output, output, dim, dtype):
    return grad_output * output


@pytest.mark.parametrize(
    ("where", "name", "broken"),
    [
        (torch.ops.mkldnn, "_linear_pointwise", raises),
        (torch.ops.mkldnn, "_linear_pointwise", leaves_out_the_bias),
        (torch, "_softmax_backward_data", raises),
        (torch, "_softmax_backward_data", wrong_softmax_gradient),
    ],
)
def test_a_wrong_operation_puts_the_plain_forward_back(model, where, name, broken, monkeypatch, caplog):
    with caplog.at_level(logging.WARNING):
        expected = gradients(model)
        monkeypatch.setattr(where, name, broken)
        make_fast_to_train(model, torch.bfloat16)
    assert "forward" not in vars(model.transformer.h[0].attn)
    assert caplog.text.count("training without the faster layers") == 1
    torch.testing.assert_close(gradients(model), expected, rtol=0, atol=0)


def test_a_model_with_fewer_positions_than_the_probe_is_loaded(caplog):
    config = transformers.GPT2Config(n_embd=32, n_layer=1, n_head=2, n_positions=4, vocab_size=320)
    model = transformers.GPT2LMHeadModel(config).eval()
    make_fast(model)
    assert is_packed(model)
    assert caplog.text == ""
