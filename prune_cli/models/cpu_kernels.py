"""The operations that decide what a training step costs (causal attention on a CPU, the head with its loss), and the allocator.

Both operations are plain torch with a backward pass written by hand, so that no matrix over a whole batch (attention probabilities,
logits) ever exists. B is a batch, T positions, D the width of the model, H its heads, E the width of one, N rows, V the vocabulary.
"""

import ctypes
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

QUERIES = 256  # rows of attention at a time: 128 to 512 are within a tenth of each other, from 512 to 2,048 positions
KEPT = 1024  # positions up to which attention is kept for the backward pass: T / 2 numbers a position, head and layer; made anew past it
WIDE = 2048  # columns from which it pays to transpose a matrix before it is multiplied
TURNED = 256  # rows of a matrix that is transposed at a time: all at once take half as long again
ROWS = 2048  # rows of logits at a time: of fewer, the products and adding up the head's gradient (V × D) take longer
CACHED = (
    1 << 19
)  # logits that go through the softmax at a time: as many as stay in a processor's cache from one operation to the next


def head_loss(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float) -> Tensor:
    """`scale` times the summed cross-entropy, in nats, of `hidden` (N, D) @ `weight` (V, D)ᵀ against `targets` (N).

    The products run in the type of `hidden`, the softmax and the sum in float32. The gradients are made in the forward pass,
    while the logits are there: computing them again would cost a quarter of the head's work, keeping them N × V numbers.
    """
    return _HeadLoss.apply(hidden, weight, targets, scale, torch.is_grad_enabled())  # type: ignore[no-any-return, no-untyped-call]


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, learning: bool
    ) -> Tensor:
        matrix, total = weight.to(hidden.dtype), torch.zeros((), device=hidden.device)
        of_hidden, of_weight = (
            (torch.empty_like(hidden), torch.zeros_like(weight)) if learning else (hidden, weight)
        )
        for start in range(0, len(hidden), ROWS):
            rows = hidden[start : start + ROWS]
            slope = rows @ matrix.T
            total += _into_slopes(slope, targets[start : start + ROWS, None])
            if learning:
                of_hidden[start : start + ROWS] = slope @ matrix
                of_weight += slope.T @ rows
        context.save_for_backward(of_hidden, of_weight)
        context.scale = scale
        return total * scale

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None, None]:
        of_hidden, of_weight = context.saved_tensors
        factor = gradients[0] * context.scale
        return of_hidden * factor, of_weight * factor, None, None, None


def _into_slopes(logits: Tensor, targets: Tensor) -> Tensor:
    """Their cross-entropy, summed; logits (N, V) become what it changes by with each of them."""
    total = torch.zeros((), device=logits.device)
    count = max(1, CACHED // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    for part, wanted in zip(logits.split(count), targets.split(count), strict=True):
        exact = part.float()  # in float32 it is the part itself
        exact -= exact.amax(-1, keepdim=True)
        own = exact.gather(1, wanted)
        sums = exact.exp_().sum(-1, keepdim=True)
        total += (sums.log() - own).sum()
        part.copy_(exact.div_(sums).scatter_add_(1, wanted, torch.full_like(own, -1)))
    return total


def causal_attention(packed: Tensor, heads: int, scale: float) -> Tensor:
    """softmax(`scale` · query keyᵀ, no position seeing a later one) value; queries, keys, values side by side (B, T, 3 D) → (B, T, D).

    In bfloat16 on a CPU it takes less than half the time of torch's own, at the same error in the gradients.
    """
    return _CausalAttention.apply(packed, heads, scale)  # type: ignore[no-any-return, no-untyped-call]


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, packed: Tensor, heads: int, scale: float) -> Tensor:
        batch, mask, kept = _divided(packed, heads), _mask(packed), []
        mixed = torch.empty_like(batch[:, 0].transpose(1, 2), memory_format=torch.contiguous_format)
        for sequence, result in zip(batch, mixed, strict=True):
            query, key, value = _whole(sequence)
            for rows, end in _stretches(packed.shape[1]):
                chances = _chances(query[:, rows].contiguous(), key[:, :end].contiguous(), scale, mask)
                result[rows] = (chances @ value[:, :end].contiguous()).transpose(0, 1)
                kept.append(chances)
        context.save_for_backward(packed, *(kept if packed.shape[1] <= KEPT else ()))
        context.heads, context.scale = heads, scale
        return mixed.flatten(2)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        packed, *kept = context.saved_tensors
        heads, scale = context.heads, context.scale
        batch, mask, above = _divided(packed, heads), _mask(packed), gradients[0].unflatten(2, (heads, -1))
        found = torch.empty_like(packed)
        for sequence, slope, result in reversed(list(zip(batch, above, _divided(found, heads), strict=True))):
            query, key, value = _whole(sequence)
            of_query, of_key, of_value = parts = torch.empty_like(
                sequence, memory_format=torch.contiguous_format
            )
            for rows, end in reversed(list(_stretches(packed.shape[1]))):
                asking, seen = query[:, rows].contiguous(), key[:, :end].contiguous()
                chances = kept.pop() if kept else _chances(asking, seen, scale, mask)
                steep = slope[rows].transpose(0, 1).contiguous()
                _put(of_value, chances.transpose(1, 2) @ steep)
                of_chances = steep @ value[:, :end].contiguous().transpose(1, 2)
                of_scores = torch._softmax_backward_data(of_chances, chances, -1, chances.dtype)
                of_query[:, rows] = _scaled(of_scores, seen, scale)
                _put(of_key, _scaled(of_scores.transpose(1, 2), asking, scale))
            result.copy_(parts)
        return found, None, None


def _divided(packed: Tensor, heads: int) -> Tensor:
    """(B, T, 3 D) seen as (B, 3, H, T, E)."""
    divided: Tensor = packed.unflatten(2, (3, heads, -1)).permute(0, 2, 3, 1, 4)
    return divided


def _whole(sequence: Tensor) -> Tensor:
    """A copy in one piece: a product of matrices that are not copies them, and transposes them while at it, ten times as slowly."""
    return sequence.clone(memory_format=torch.contiguous_format)


def _mask(like: Tensor) -> Tensor:
    """What takes away a later position among QUERIES."""
    return torch.full((QUERIES, QUERIES), -torch.inf, dtype=like.dtype, device=like.device).triu_(1)


def _stretches(length: int) -> Iterator[tuple[slice, int]]:
    """QUERIES rows at a time, and the end of the positions that they may see."""
    for start in range(0, length, QUERIES):
        end = min(start + QUERIES, length)
        yield slice(start, end), end


def _chances(query: Tensor, key: Tensor, scale: float, mask: Tensor) -> Tensor:
    """How much the last positions (H, QUERIES, E) take of each (H, T, E), as (H, QUERIES, T)."""
    scores, rows = _scaled(query, key.transpose(1, 2), scale), query.shape[1]
    scores[:, :, -rows:] += mask[:rows, :rows]
    return torch.softmax(scores, -1)


def _scaled(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """`scale` · `left` @ `right`, in one pass."""
    return torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=scale)


def _put(total: Tensor, part: Tensor) -> None:
    """Add the gradient of the first positions to that of all (H, T, E), which the last stretch, whose part comes first, sets."""
    if part.shape == total.shape:
        total.copy_(part)
    else:
        total[:, : part.shape[1]] += part


def product(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`inputs` (..., D) @ `weight` (D, E) + `bias` (E) in bfloat16, its gradients those of float32 weights; for oneDNN on x86.

    torch's own copies the bias over the whole result first, and takes a third longer for a wide weight's gradient, since oneDNN is slow
    at a product whose left matrix is transposed.
    """
    return _Product.apply(inputs, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows, matrix = inputs.flatten(0, -2).to(torch.bfloat16), weight.to(torch.bfloat16)
        context.save_for_backward(rows, matrix)
        context.types = inputs.dtype, weight.dtype, bias.dtype
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, matrix.T, bias.to(torch.bfloat16), "none", [], ""
        )
        return result.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (rows, matrix), types = context.saved_tensors, context.types
        slope = gradients[0].flatten(0, -2).to(torch.bfloat16)
        of_inputs = (slope @ matrix.T).unflatten(0, gradients[0].shape[:-1])
        return of_inputs.to(types[0]), _of_weight(rows, slope).to(types[1]), slope.sum(0).to(types[2])


def _of_weight(rows: Tensor, slope: Tensor) -> Tensor:
    """`rows` (N, D)ᵀ @ `slope` (N, E); where one of them is wide, the narrower is transposed before."""
    if max(rows.shape[1], slope.shape[1]) < WIDE:
        return rows.T @ slope
    return (
        _transposed(rows) @ slope
        if rows.shape[1] <= slope.shape[1]
        else _transposed(_transposed(slope) @ rows)
    )


def _transposed(matrix: Tensor) -> Tensor:
    """(N, D) → (D, N), as many rows at a time as stay in a processor's cache."""
    turned = torch.empty(matrix.shape[::-1], dtype=matrix.dtype, device=matrix.device)
    for start in range(0, len(matrix), TURNED):
        turned[:, start : start + TURNED] = matrix[start : start + TURNED].T
    return turned


def keep_freed_memory() -> None:
    """Have glibc keep big blocks that were freed: the system clears them anew for every tensor, which took a third of the time."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter, value in (
            (-4, 0),
            (-1, -1),
        ):  # M_MMAP_MAX: none by mmap; M_TRIM_THRESHOLD: never shrink
            libc.mallopt(parameter, value)
