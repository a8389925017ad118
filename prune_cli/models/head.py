"""What metrics learn about each scored token: the output layer, applied to a few rows and columns of logits
at a time.

All statistics of a token y follow from the distances d_v = z_v − z_y of all its rivals v ≠ y, where z are the
logits. With

    S = Σ exp d      Q = Σ exp 2d      D = Σ d·exp d

they are

    nll         log(1 + S)                  negative log-likelihood of y, nats
    error_norm  √(S² + Q) / (1 + S)         ‖p − onehot(y)‖₂
    entropy     log(1 + S) − D / (1 + S)    −Σ p log p, nats
    rank        how many rivals have d > 0  tokens that the model finds more likely than y

(with p_y = 1 / (1 + S) and p_v = exp d_v / (1 + S)). No term of nll and error_norm is a difference of nearly
equal numbers where the model is sure of y, so float32 keeps seven digits there, too. The entropy is off by at
most 2e-5 nats, where the model is sure of another token.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigurationError

# Rows and columns of logits that exist at a time on a CPU: products at full speed, and 16 MB of float32,
# which its caches hold. A GPU takes all columns at once, and as many rows as GPU_BYTES hold.
ROWS = 2048
COLUMNS = 2048
GPU_BYTES = 1 << 29
# Where S lies outside of these, its square may overflow or underflow in float32: such a row is computed again
# in float64.
SMALLEST_SUM = 1e-15
LARGEST_SUM = 1e15
EXACT_ROWS = 64  # at a time: a row of GPT-2's logits takes 400 KB in float64
TARGET_DISTANCE = (
    -1e4
)  # stands for the distance of y from itself: its exponential is 0, and so is their product

Trunk = Callable[[Tensor], Tensor]


def split(network: Any, vocabulary: int, length: int, name: str) -> tuple[Trunk, nn.Linear | None]:
    """Split a network into its trunk and its output layer, or return the whole network and None if that is
    not all it does.

    The trunk maps token ids (B, T) to hidden states (B, T, D), the whole network to logits (B, T, V). Whether
    the logits are just the layer of the hidden states is tried on `length` tokens, which needs no list of
    architectures: caps, scales and transforms in between show themselves.

    Raises ConfigurationError for a model that is not causal, such as BERT, which transformers would load as
    if it were.
    """
    trunk = network.base_model
    layer = network.get_output_embeddings()
    with torch.inference_mode():
        probe = torch.linspace(0, vocabulary - 1, length, device=network.device).long().repeat(2, 1)
        probe[1, -1] = probe[0, 0]  # the two rows differ in their last token only
        logits = network(input_ids=probe, use_cache=False).logits
        if not _nearly_equal(logits[0, :-1], logits[1, :-1]):
            fault = "not a causal model: its attention is bidirectional"
            raise ConfigurationError(fault, place=name, remedy="use a causal language model")
        if isinstance(layer, nn.Linear) and trunk is not network:
            hidden = trunk(input_ids=probe, use_cache=False)[0]
            if hidden.shape[-1] == layer.in_features and _nearly_equal(layer(hidden), logits):
                return lambda tokens: trunk(input_ids=tokens, use_cache=False)[0], layer
    return lambda tokens: network(input_ids=tokens, use_cache=False).logits, None


def _nearly_equal(actual: Tensor, expected: Tensor) -> bool:
    """Whether two results of the same operations on the same shapes differ by no more than a few roundings of
    float32.
    """
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    return torch.allclose(actual.float(), expected.float(), rtol=0, atol=1e-5 * scale, equal_nan=True)


@dataclass
class _Sums:
    """S, Q and D of each row, in float64 (R), and its rank."""

    s: Tensor
    q: Tensor
    d: Tensor
    rank: Tensor

    @classmethod
    def zeros(cls, rows: int, device: torch.device) -> "_Sums":
        return cls(*(torch.zeros(rows, dtype=torch.float64, device=device) for _ in range(4)))

    def shifted(self, residual: Tensor) -> "_Sums":
        """The sums of d − `residual` (R) instead of d."""
        factor = torch.exp(-residual)
        return _Sums(
            self.s * factor, self.q * factor.square(), (self.d - residual * self.s) * factor, self.rank
        )

    def statistics(self) -> dict[str, Tensor]:
        """The formulas at the top of this file: (R) each."""
        nll = torch.log1p(self.s)
        return {
            "nll": nll,
            "error_norm": (self.s.square() + self.q).sqrt() / (1 + self.s),
            "entropy": nll - self.d / (1 + self.s),
            "rank": self.rank,
        }


class OutputHead:
    """The output layer, or a stand-in for it where the network returns logits.

    Its buffers are kept from call to call, because fresh memory of this size costs as much time as the
    product. In shapes, R are rows (scored tokens), D is the width of the model, V the vocabulary and C the
    columns of logits that exist at a time.
    """

    def __init__(
        self, layer: nn.Linear | None, vocabulary: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.weight: Tensor | None = layer.weight if layer else None
        self.bias: Tensor | None = layer.bias if layer else None
        self.dtype = dtype
        self.vocabulary = layer.out_features if layer else vocabulary
        self.rows = ROWS
        self.columns = min(COLUMNS, self.vocabulary)
        if device.type == "cuda":
            self.rows = max(16, GPU_BYTES // (4 * self.vocabulary))
            self.columns = self.vocabulary
        size = self.rows * self.columns
        self._product = torch.empty(size if dtype != torch.float32 else 0, dtype=dtype, device=device)
        self._buffer = torch.empty(size, device=device)
        self._second_buffer = torch.empty(0, device=device)  # made when it is first needed
        # The target's logit is computed in a format that holds the product of two numbers of `dtype` without
        # rounding.
        self._exact = torch.float64 if dtype == torch.float32 else torch.float32

    def __call__(self, hidden: Tensor, targets: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """The `wanted` statistics of each row, in float32: hidden (R, D) or logits (R, V), targets (R) → (R)
        each.
        """
        chunks = zip(hidden.split(self.rows), targets.split(self.rows), strict=True)
        results = [self._statistics(*chunk, wanted) for chunk in chunks]
        return {name: torch.cat([result[name] for result in results]) for name in wanted}

    def _statistics(self, hidden: Tensor, targets: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        target_logit = self._target_logit(hidden, targets)  # (R)
        rounded = target_logit.to(self.dtype)
        # The product subtracts z_y rounded to its dtype. The residual is what the rounding took away.
        residual = (target_logit - rounded).float()
        sums = _Sums.zeros(len(targets), targets.device)
        for start in range(0, self.vocabulary, self.columns):
            distances = self._distances(hidden, rounded[:, None], start)  # (R, C)
            self._hide_targets(distances, targets - start)
            self._add(sums, distances, residual[:, None], wanted)
        sums = sums.shifted(residual.double())
        statistics = sums.statistics()
        is_exact = (sums.s > SMALLEST_SUM) & (sums.s < LARGEST_SUM)  # false for NaN, too
        self._repeat_exactly(statistics, ~is_exact, hidden, targets)
        return {name: statistics[name].float() for name in wanted}

    def _add(self, sums: _Sums, distances: Tensor, residual: Tensor, wanted: Collection[str]) -> None:
        """Add the columns of `distances` (R, C) to the sums. `distances` are overwritten."""
        if "rank" in wanted:
            sums.rank += torch.gt(distances, residual, out=self._spare(distances)).sum(-1)
        needs_distances = "entropy" in wanted
        exponentials = torch.exp(distances, out=self._spare(distances) if needs_distances else distances)
        sums.s += exponentials.sum(-1)
        if "error_norm" in wanted:
            sums.q += torch.linalg.vector_norm(exponentials, dim=-1).double().square()
        if needs_distances:
            sums.d += distances.mul_(exponentials).sum(-1)

    def _target_logit(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """z_y of each row (R), exact but for the roundings of the model itself."""
        if self.weight is None:
            return hidden.gather(1, targets[:, None])[:, 0].to(self._exact)
        logit = self.weight[targets].to(self._exact).mul_(hidden).sum(-1)
        return logit if self.bias is None else logit + self.bias[targets]

    def _distances(self, hidden: Tensor, target_logit: Tensor, start: int) -> Tensor:
        """z_v − z_y for the columns from `start` on, in float32: (R, C).

        A product in bfloat16 comes out in bfloat16, which has steps of ½ where logits are near 100 (GPT-2's
        are). Subtracted inside of the product, before that rounding, z_y leaves numbers near 0 for its
        closest rivals, and the steps are small beside the others.
        """
        columns = slice(start, min(start + self.columns, self.vocabulary))
        shape = (len(hidden), columns.stop - start)
        size = shape[0] * shape[1]
        distances = self._buffer[:size].view(shape)
        if self.weight is None:
            return distances.copy_(hidden[:, columns]).sub_(target_logit)
        product = distances if self.dtype == torch.float32 else self._product[:size].view(shape)
        torch.addmm(target_logit, hidden, self.weight[columns].t(), beta=-1, out=product)
        if product is not distances:
            distances.copy_(product)
        return distances if self.bias is None else distances.add_(self.bias[columns])

    def _hide_targets(self, distances: Tensor, columns: Tensor) -> None:
        """Remove each target from its own rivals. `columns` (R) are the targets' columns, which may lie
        outside of these `distances`.
        """
        if distances.shape[1] == self.vocabulary:
            distances.scatter_(1, columns[:, None], TARGET_DISTANCE)
        else:
            rows = ((columns >= 0) & (columns < distances.shape[1])).nonzero()[:, 0]
            distances[rows, columns[rows]] = TARGET_DISTANCE

    def _spare(self, like: Tensor) -> Tensor:
        """A part of the second buffer, with the shape of a tensor that takes a part of the first."""
        if len(self._second_buffer) < like.numel():
            self._second_buffer = torch.empty_like(self._buffer)
        return self._second_buffer[: like.numel()].view(like.shape)

    def _repeat_exactly(
        self, statistics: dict[str, Tensor], inexact: Tensor, hidden: Tensor, targets: Tensor
    ) -> None:
        """Compute the rows where `inexact` (R) is true again, by way of logarithms in float64."""
        for rows in inexact.nonzero()[:, 0].split(EXACT_ROWS):
            logits = self._exact_logits(hidden[rows].double())
            for name, values in exact_statistics(logits, targets[rows]).items():
                statistics[name][rows] = values

    def _exact_logits(self, hidden: Tensor) -> Tensor:
        """Logits in float64, (R, D) → (R, V). The weight is converted a few columns at a time: a copy of all
        would double its memory.
        """
        if self.weight is None:
            return hidden
        logits = torch.cat([hidden @ part.double().t() for part in self.weight.split(COLUMNS)], -1)
        return logits if self.bias is None else logits + self.bias


def exact_statistics(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The same statistics from logits (R, V) in float64: log S in place of S never overflows."""
    distances = logits - logits.gather(1, targets[:, None])
    rivals = distances.scatter(1, targets[:, None], -torch.inf)
    log_s = torch.logsumexp(rivals, -1)
    nll = torch.logaddexp(torch.zeros_like(log_s), log_s)
    # (S² + Q) / (1 + S)², whose denominator is exp(2 · nll)
    squared_norm = torch.exp(2 * (log_s - nll)) + torch.exp(torch.logsumexp(2 * rivals, -1) - 2 * nll)
    probabilities = torch.softmax(distances, -1)
    return {
        "nll": nll,
        "error_norm": squared_norm.sqrt(),
        "entropy": -torch.special.xlogy(probabilities, probabilities).sum(-1),  # xlogy(0, 0) is 0
        "rank": (rivals > 0).sum(-1).double(),
    }
