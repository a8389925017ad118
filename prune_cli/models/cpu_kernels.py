"""How a training step is made fast on a CPU: causal attention, the output layer with its loss, linear layers,
and the allocator.

Each operation is plain torch with a backward pass written by hand, so that no matrix over a whole batch
(attention probabilities, logits) ever exists. In shapes, B is the batch, T the positions, D the width of the
model, H its attention heads, E the width of a head, N rows (positions of all sequences) and V the vocabulary.
`grad_x` is the gradient of the loss with respect to x.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

# Sizes below were measured on 2 × 2.6 GHz with AMX; see tests/bench/train.py.
QUERY_ROWS = 256  # queries at a time: 128 to 512 are within a tenth of each other, for 512 to 2,048 positions
LONGEST_KEPT = (
    1024  # positions up to which attention probabilities are kept: T / 2 numbers a position, head and layer
)
WIDE_COLUMNS = 2048  # from which it pays to transpose a matrix before it is multiplied
TRANSPOSED_ROWS = 256  # transposed at a time: a whole matrix at once takes half as long again
LOGIT_ROWS = 2048  # of logits at a time: with fewer, adding to grad_weight (V × D) takes longer
SOFTMAX_ELEMENTS = (
    1 << 19
)  # at a time: 2 MB in float32, which stay in the cache from one operation to the next

# --- the output layer and its loss ---


def head_loss(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, row_weights: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`scale` times the summed cross-entropy, in nats, of `hidden` (N, D) @ `weight` (V, D)ᵀ against
    `targets` (N), and the cross-entropy of each row (N), which has no gradient.

    In the sum, each row counts as many times as `row_weights` (N) says, which are above 0; once by default.

    Products run in the dtype of `hidden`, the softmax and the sum in float32. The gradients are computed in
    the forward pass, while the logits exist: computing the logits again would cost a quarter of the layer's
    work, keeping them N × V numbers.
    """
    needs_grad = torch.is_grad_enabled()  # inside of an autograd.Function it is always off
    arguments = (hidden, weight, targets, scale, row_weights, needs_grad)
    return _HeadLoss.apply(*arguments)  # type: ignore[no-any-return, no-untyped-call]


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        scale: float,
        row_weights: Tensor | None,
        needs_grad: bool,
    ) -> tuple[Tensor, Tensor]:
        matrix = weight.to(hidden.dtype)
        losses = torch.empty(len(hidden), device=hidden.device)
        grad_hidden = torch.empty_like(hidden) if needs_grad else hidden
        grad_weight = torch.zeros_like(weight) if needs_grad else weight
        for start in range(0, len(hidden), LOGIT_ROWS):
            rows = slice(start, start + LOGIT_ROWS)
            logits = hidden[rows] @ matrix.T
            part_weights = None if row_weights is None else row_weights[rows, None]
            losses[rows] = _replace_by_grad(logits, targets[rows, None], part_weights)
            if needs_grad:
                grad_logits = logits  # which they are now
                grad_hidden[rows] = grad_logits @ matrix
                grad_weight += grad_logits.T @ hidden[rows]
        context.save_for_backward(grad_hidden, grad_weight)
        context.mark_non_differentiable(losses)
        context.scale = scale
        weighted = losses if row_weights is None else losses * row_weights
        return weighted.sum() * scale, losses

    @staticmethod
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        grad_hidden, grad_weight = context.saved_tensors
        factor = grad_outputs[0] * context.scale
        return grad_hidden * factor, grad_weight * factor, None, None, None, None


def _replace_by_grad(logits: Tensor, targets: Tensor, row_weights: Tensor | None) -> Tensor:
    """The cross-entropy (N) of logits (N, V) against targets (N, 1). The logits are overwritten by their
    gradient, p − onehot(y), times `row_weights` (N, 1) if there are any.
    """
    losses = torch.empty(len(logits), device=logits.device)
    # A GPU has no use for small parts; on a CPU all operations on a part happen in the cache.
    count = max(1, SOFTMAX_ELEMENTS // logits.shape[1]) if logits.device.type == "cpu" else len(logits)
    for start in range(0, len(logits), count):
        rows = slice(start, start + count)
        part = logits[rows]
        target = targets[rows]
        exact = part.float()  # no copy if the logits are float32 already: then `part` itself is changed below
        exact -= exact.amax(-1, keepdim=True)  # so that no exponential overflows
        target_logit = exact.gather(1, target)
        sums = exact.exp_().sum(-1, keepdim=True)
        losses[rows] = (sums.log() - target_logit)[:, 0]
        ones = torch.ones_like(sums) if row_weights is None else row_weights[rows]
        # Weighted by way of the divisor, which takes no pass of its own over the matrix.
        probabilities = exact.div_(sums / ones)
        part.copy_(probabilities.scatter_add_(1, target, -ones))
    return losses


# --- attention ---


def causal_attention(packed: Tensor, heads: int, scale: float) -> Tensor:
    """softmax(`scale` · query keyᵀ, with later positions masked) value, from queries, keys and values side by
    side.

    `packed` is (B, T, 3 D), the result (B, T, D). In bfloat16 on a CPU it takes less than half the time of
    torch's scaled_dot_product_attention, with the same error in the gradients.
    """
    return _CausalAttention.apply(packed, heads, scale)  # type: ignore[no-any-return, no-untyped-call]


class _CausalAttention(torch.autograd.Function):
    """One sequence at a time, QUERY_ROWS queries at a time, each against the keys up to its own position:
    half of all products.

    With P the attention probabilities and O = P V: grad_V = Pᵀ grad_O, grad_P = grad_O Vᵀ, grad_S = the
    softmax's gradient, then grad_Q = scale · grad_S K and grad_K = scale · grad_Sᵀ Q (Dao et al. 2022,
    appendix B.2).
    """

    @staticmethod
    def forward(context: Any, packed: Tensor, heads: int, scale: float) -> Tensor:
        length = packed.shape[1]
        batch = _split_heads(packed, heads)
        mask = _mask(packed)
        output = torch.empty_like(batch[:, 0].transpose(1, 2), memory_format=torch.contiguous_format)
        kept = []
        for sequence, result in zip(batch, output, strict=True):
            query, key, value = _contiguous(sequence)
            for rows, end in _query_blocks(length):
                probabilities = _probabilities(
                    query[:, rows].contiguous(), key[:, :end].contiguous(), scale, mask
                )
                result[rows] = (probabilities @ value[:, :end].contiguous()).transpose(0, 1)
                if length <= LONGEST_KEPT:
                    kept.append(probabilities)
        context.save_for_backward(packed, *kept)
        context.heads = heads
        context.scale = scale
        return output.flatten(2)

    @staticmethod
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        packed, *kept = context.saved_tensors
        heads = context.heads
        grad_out = grad_outputs[0].unflatten(2, (heads, -1))
        grad_packed = torch.empty_like(packed)
        sequences = zip(_split_heads(packed, heads), grad_out, _split_heads(grad_packed, heads), strict=True)
        # Backwards, so that `kept` is a stack: what a step has used is freed before the next one begins.
        for sequence, sequence_grad_out, result in reversed(list(sequences)):
            result.copy_(_attention_grads(sequence, sequence_grad_out, kept, context.scale))
        return grad_packed, None, None


def _attention_grads(sequence: Tensor, grad_out: Tensor, kept: list[Tensor], scale: float) -> Tensor:
    """The gradients of one sequence's queries, keys and values (3, H, T, E), for `grad_out` (T, H, E).

    The attention probabilities are popped from `kept`, or computed again if it is empty.
    """
    query, key, value = _contiguous(sequence)
    mask = _mask(sequence)
    grads = torch.empty_like(sequence, memory_format=torch.contiguous_format)
    grad_query, grad_key, grad_value = grads
    for rows, end in reversed(list(_query_blocks(sequence.shape[2]))):
        block_query = query[:, rows].contiguous()
        block_key = key[:, :end].contiguous()
        block_grad_out = grad_out[rows].transpose(0, 1).contiguous()
        probabilities = kept.pop() if kept else _probabilities(block_query, block_key, scale, mask)
        _add_to_first(grad_value, probabilities.transpose(1, 2) @ block_grad_out)
        grad_probabilities = block_grad_out @ value[:, :end].contiguous().transpose(1, 2)
        # A private function of torch: written out, it would take three passes over the matrix instead of one.
        grad_scores = torch._softmax_backward_data(grad_probabilities, probabilities, -1, probabilities.dtype)
        grad_query[:, rows] = _scaled_product(grad_scores, block_key, scale)
        _add_to_first(grad_key, _scaled_product(grad_scores.transpose(1, 2), block_query, scale))
    return grads


def _split_heads(packed: Tensor, heads: int) -> Tensor:
    """A view of (B, T, 3 D) as (B, 3, H, T, E)."""
    view: Tensor = packed.unflatten(2, (3, heads, -1)).permute(0, 2, 3, 1, 4)
    return view


def _contiguous(sequence: Tensor) -> Tensor:
    """A copy that is contiguous in memory: a product of strided matrices copies them, too, and does so ten
    times as slowly.
    """
    return sequence.clone(memory_format=torch.contiguous_format)


def _mask(like: Tensor) -> Tensor:
    """−∞ above the diagonal, (QUERY_ROWS, QUERY_ROWS): added to scores, it hides the later positions of a
    block of queries.
    """
    return torch.full((QUERY_ROWS, QUERY_ROWS), -torch.inf, dtype=like.dtype, device=like.device).triu_(1)


def _query_blocks(length: int) -> Iterator[tuple[slice, int]]:
    """The rows of each block of QUERY_ROWS queries, and the end of the keys that they may look at."""
    for start in range(0, length, QUERY_ROWS):
        end = min(start + QUERY_ROWS, length)
        yield slice(start, end), end


def _probabilities(query: Tensor, key: Tensor, scale: float, mask: Tensor) -> Tensor:
    """Attention probabilities (H, Q, T) of the last Q positions' queries (H, Q, E) over keys (H, T, E)."""
    scores = _scaled_product(query, key.transpose(1, 2), scale)
    rows = query.shape[1]
    scores[:, :, -rows:] += mask[:rows, :rows]  # all keys before the block are visible to all of its queries
    return torch.softmax(scores, -1)


def _scaled_product(left: Tensor, right: Tensor, scale: float) -> Tensor:
    """`scale` · `left` @ `right`, for a batch of matrices. With beta=0 baddbmm ignores its first argument,
    and scales for free.
    """
    return torch.baddbmm(left.new_empty(1, 1, 1), left, right, beta=0, alpha=scale)


def _add_to_first(total: Tensor, part: Tensor) -> None:
    """Add the gradient of the first positions to `total` (H, T, E), which is not initialised.

    Blocks come in reverse order, so the first part to come covers all positions and is copied.
    """
    if part.shape == total.shape:
        total.copy_(part)
    else:
        total[:, : part.shape[1]] += part


# --- linear layers ---


def linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`inputs` (..., D) @ `weight` (D, E) + `bias` (E) in bfloat16, with gradients in the dtypes of the
    arguments. Needs oneDNN.

    torch's own addmm copies the bias over the whole result first, and takes a third longer for the gradient
    of a wide weight, since oneDNN is slow at a product whose left matrix is transposed.
    """
    return _Linear.apply(inputs, weight, bias)  # type: ignore[no-any-return, no-untyped-call]


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(context: Any, inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        rows = inputs.flatten(0, -2).to(torch.bfloat16)  # (N, D)
        matrix = weight.to(torch.bfloat16)
        context.save_for_backward(rows, matrix)
        context.dtypes = (inputs.dtype, weight.dtype, bias.dtype)
        # A private function of torch; models/fast_training.py compares it with the plain way before it is
        # used.
        result: Tensor = torch.ops.mkldnn._linear_pointwise(
            rows, matrix.T, bias.to(torch.bfloat16), "none", [], ""
        )
        return result.view(*inputs.shape[:-1], -1)

    @staticmethod
    def backward(context: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rows, matrix = context.saved_tensors
        inputs_dtype, weight_dtype, bias_dtype = context.dtypes
        grad_out = grad_outputs[0].flatten(0, -2).to(torch.bfloat16)  # (N, E)
        grad_inputs = (grad_out @ matrix.T).unflatten(0, grad_outputs[0].shape[:-1])
        grad_weight = _grad_weight(rows, grad_out)
        grad_bias = grad_out.sum(0)
        return grad_inputs.to(inputs_dtype), grad_weight.to(weight_dtype), grad_bias.to(bias_dtype)


def _grad_weight(rows: Tensor, grad_out: Tensor) -> Tensor:
    """`rows` (N, D)ᵀ @ `grad_out` (N, E). If either is wide, the narrower one is transposed first."""
    if max(rows.shape[1], grad_out.shape[1]) < WIDE_COLUMNS:
        return rows.T @ grad_out
    if rows.shape[1] <= grad_out.shape[1]:
        return _transposed(rows) @ grad_out
    return _transposed(_transposed(grad_out) @ rows)


def _transposed(matrix: Tensor) -> Tensor:
    """A contiguous copy of (N, D) as (D, N), made of as many rows at a time as stay in the cache."""
    result = torch.empty(matrix.shape[::-1], dtype=matrix.dtype, device=matrix.device)
    for start in range(0, len(matrix), TRANSPOSED_ROWS):
        rows = slice(start, start + TRANSPOSED_ROWS)
        result[:, rows] = matrix[rows].T
    return result
