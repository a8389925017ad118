"""The operations that decide what a training step costs (causal attention on a CPU, the head with its loss), and the allocator.

Both operations are plain torch with a backward pass written by hand, so that no matrix over a whole batch (attention probabilities,
logits) ever exists. B is a batch, H heads, T positions, E the width of a head, N rows, D the width of the model, V the vocabulary.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

QUERIES = 256  # rows of attention at a time: 128 to 512 are within a tenth of each other, from 512 to 2,048 positions
ROWS = 1024  # rows of logits at a time: fewer, and adding up the head's gradient (V × D) costs more than the products


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float) -> Tensor:
    """`scale` times the summed cross-entropy, in nats, of `hidden` (N, D) @ `weight` (V, D)ᵀ against `targets` (N).

    The products run in the type of `hidden`, the softmax and the sum in float32. The gradients are made in the forward pass,
    while the logits are there: computing them again would cost a quarter of the head's work, keeping them N × V numbers.
    """
    return _HeadLoss.apply(hidden, weight, targets, scale)  # type: ignore[no-any-return, no-untyped-call]


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float) -> Tensor:
        matrix = weight.to(hidden.dtype)
        of_hidden, of_weight = torch.empty_like(hidden), torch.zeros_like(weight)
        total = torch.zeros((), device=hidden.device)
        for start in range(0, len(hidden), ROWS):
            rows, wanted = hidden[start : start + ROWS], targets[start : start + ROWS, None]
            logs = torch.log_softmax(rows @ matrix.T, -1, dtype=torch.float32)
            total -= logs.gather(1, wanted).sum()
            slope = logs.exp_().scatter_add_(1, wanted, torch.full_like(wanted, -1, dtype=logs.dtype))
            slope = slope.mul_(scale).to(hidden.dtype)
            of_hidden[start : start + ROWS] = slope @ matrix
            of_weight += slope.T @ rows
        context.save_for_backward(of_hidden, of_weight)
        return total * scale

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        of_hidden, of_weight = context.saved_tensors
        return of_hidden * gradients[0], of_weight * gradients[0], None, None


def causal_attention(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(`scale` · query keyᵀ, no position seeing a later one) value, each (B, H, T, E), as (B, T, H, E).

    In bfloat16 on a CPU it takes half the time of torch's own (forward and backward, 8 heads of 64: 52 against 107 ms on 8 × 512
    positions, 123 against 211 on 2 × 2,048), at the same error in the gradients.
    """
    return _CausalAttention.apply(query, key, value, scale)  # type: ignore[no-any-return, no-untyped-call]


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        context.save_for_backward(query, key, value)
        context.scale = scale
        mixed = torch.empty_like(query.transpose(1, 2), memory_format=torch.contiguous_format)
        for one in range(len(query)):
            for rows, seen, chances in _attended(query[one] * scale, key[one]):
                mixed[one, rows] = (chances @ value[one, :, seen]).transpose(0, 1)
        return mixed

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        query, key, value = context.saved_tensors
        of_query, of_key, of_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        above = gradients[0].transpose(1, 2)
        for one in range(len(query)):
            scaled = query[one] * context.scale
            for rows, seen, chances in _attended(scaled, key[one]):
                of_value[one, :, seen] += chances.transpose(1, 2) @ above[one, :, rows]
                of_chances = above[one, :, rows] @ value[one, :, seen].transpose(1, 2)
                of_scores = torch._softmax_backward_data(of_chances, chances, -1, chances.dtype)
                of_query[one, :, rows] = of_scores @ key[one, :, seen]
                of_key[one, :, seen] += of_scores.transpose(1, 2) @ scaled[:, rows]
        return of_query * context.scale, of_key, of_value, None


def _attended(query: Tensor, key: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    """A stretch of queries (H, QUERIES, E) at a time: its rows, the positions it may see, and how much of each it takes."""
    length = query.shape[1]
    future = torch.full((QUERIES, QUERIES), -torch.inf, dtype=query.dtype, device=query.device).triu(1)
    for start in range(0, length, QUERIES):
        end = min(start + QUERIES, length)
        scores = query[:, start:end] @ key[:, :end].transpose(1, 2)
        scores[:, :, start:end] += future[: end - start, : end - start]
        yield slice(start, end), slice(0, end), torch.softmax(scores, -1)


def keep_freed_memory() -> None:
    """Have glibc keep big blocks that were freed: the system clears them anew for every tensor, which took a third of the time."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, value in ((-4, 0), (-1, -1)):  # M_MMAP_MAX: none by mmap; M_TRIM_THRESHOLD: never shrink
            libc.mallopt(parameter, value)
