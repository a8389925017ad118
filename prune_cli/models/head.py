"""The output layer, applied to a few rows and columns at a time, and how to tell that it is all that follows the trunk.

What a metric may want to know of a scored token follows from the distances d_v = z_v − z_y of all rivals v ≠ y of the token y that
came (z are the logits). With S = Σ exp d, Q = Σ exp 2d, D = Σ d·exp d:

    nll         log(1 + S)                  negative log-likelihood of y, nats
    error_norm  √(S² + Q) / (1 + S)         ‖p − onehot(y)‖₂
    entropy     log(1 + S) − D / (1 + S)    −Σ p log p, nats
    rank        how many rivals have d > 0  tokens that the model takes for more likely than y

Of nll and error_norm no term is a difference of nearly equal numbers where the model is sure of y, so that float32 keeps seven digits
there, too. The entropy is off by 2e-5 nats at most, where the model is sure of another token.
"""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigurationError

# Logits that exist at a time, rows and columns: products at full speed, and no more bytes than a processor's caches take. A card
# takes all columns at once, and as many rows as half a gigabyte holds.
ROWS, COLUMNS = 2048, 2048
CARD_BYTES = 1 << 29
# Where S lies outside of this, squares of float32 may run over, or under: such a row is done again in float64.
SMALLEST, LARGEST = 1e-15, 1e15
EXACT_ROWS = 64
NEVER = -1e4  # stands for the distance of y from itself: its exponential is 0, and 0 times it is 0


def split(
    network: Any, vocabulary: int, length: int, name: str
) -> tuple[Callable[[Tensor], Tensor], nn.Linear | None]:
    """The trunk and the output layer, where applying one to the other is all that the model does; else the model and None.

    Soft caps, scaled logits and transforms in between are found by trying, which needs no list of architectures; so are models
    that transformers would load as causal ones although their tokens see what comes after them (BERT).
    """
    trunk, layer = network.base_model, network.get_output_embeddings()
    with torch.inference_mode():
        probe = torch.linspace(0, vocabulary - 1, length, device=network.device).long().repeat(2, 1)
        probe[1, -1] = probe[0, 0]
        logits = network(input_ids=probe, use_cache=False).logits
        if not _close(logits[0, :-1], logits[1, :-1]):
            raise ConfigurationError(
                "its tokens see what comes after them", place=name, remedy="use a causal language model"
            )
        if isinstance(layer, nn.Linear) and trunk is not network:
            hidden = trunk(input_ids=probe, use_cache=False)[0]
            if hidden.shape[-1] == layer.in_features and _close(layer(hidden), logits):
                return lambda tokens: trunk(input_ids=tokens, use_cache=False)[0], layer
    return lambda tokens: network(input_ids=tokens, use_cache=False).logits, None


def _close(ours: Tensor, theirs: Tensor) -> bool:
    """The same operations on the same shapes: what differs by more than a few roundings of float32 is another formula."""
    scale = float(theirs.abs().max()) if theirs.numel() else 0.0
    return torch.allclose(ours.float(), theirs.float(), rtol=0, atol=1e-5 * scale, equal_nan=True)


class Head:
    """The output layer, in buffers that are kept: fresh memory of this size costs as much as the product. Without a layer it is
    handed logits.

    R are rows (scored tokens), D is the width of the model, V the vocabulary, C the columns of logits that exist at a time.
    """

    def __init__(
        self, layer: nn.Linear | None, vocabulary: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self.weight: Tensor | None = layer.weight if layer else None
        self.bias: Tensor | None = layer.bias if layer else None
        self.vocabulary = layer.out_features if layer else vocabulary
        self.rows, self.columns = ROWS, min(COLUMNS, self.vocabulary)
        if device.type == "cuda":
            self.rows, self.columns = max(16, CARD_BYTES // (4 * self.vocabulary)), self.vocabulary
        size = self.rows * self.columns
        self.product = torch.empty(size if dtype != torch.float32 else 0, dtype=dtype, device=device)
        self.distances = torch.empty(size, device=device)
        self.dtype, self.spare = dtype, torch.empty(0, device=device)
        self.exact = (
            torch.float64 if dtype == torch.float32 else torch.float32
        )  # which holds a product of two numbers

    def __call__(self, hidden: Tensor, targets: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """The `wanted` ones of the above for each row, in float32: hidden (R, D) or logits (R, V), targets (R) → (R) each."""
        chunks = zip(hidden.split(self.rows), targets.split(self.rows), strict=True)
        found = [self._statistics(*chunk, wanted) for chunk in chunks]
        return {name: torch.cat([each[name] for each in found]) for name in wanted}

    def _statistics(self, hidden: Tensor, targets: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        own = self._own(hidden, targets)  # (R)
        rounded = own.to(self.dtype)
        rest = (own - rounded).float()[:, None]  # z_y is not quite a number of the product's type
        near, square, product, rank = (
            torch.zeros(len(targets), dtype=torch.float64, device=targets.device) for _ in range(4)
        )
        for start in range(0, self.vocabulary, self.columns):
            distances = self._distances(hidden, rounded[:, None], start)  # (R, C)
            self._leave_out(distances, targets - start)
            if "rank" in wanted:
                rank += torch.gt(distances, rest, out=self._spare(distances)).sum(-1)
            chances = torch.exp(distances, out=self._spare(distances) if "entropy" in wanted else distances)
            near += chances.sum(-1)
            if "error_norm" in wanted:
                square += torch.linalg.vector_norm(chances, dim=-1).double().square()
            if "entropy" in wanted:
                product += distances.mul_(chances).sum(-1)
        shift = rest[:, 0].double()
        near, square, product = (
            near * torch.exp(-shift),
            square * torch.exp(-2 * shift),
            product * torch.exp(-shift),
        )
        found = _formulas(near, square, product - shift * near, rank)
        self._repeat_exactly(found, ~((near > SMALLEST) & (near < LARGEST)), hidden, targets)
        return {name: found[name].float() for name in wanted}

    def _own(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """The logit of each target (R), exact but for the roundings of the model itself."""
        if self.weight is None:
            return hidden.gather(1, targets[:, None])[:, 0].to(self.exact)
        own = self.weight[targets].to(self.exact).mul_(hidden).sum(-1)
        return own if self.bias is None else own + self.bias[targets]

    def _distances(self, hidden: Tensor, own: Tensor, start: int) -> Tensor:
        """Float32 logits of the columns from `start` on, less the target's own: (R, C).

        A product in bfloat16 comes out in bfloat16, with steps of ½ where logits are near 100 (GPT-2's are). Shifted inside the
        product, before that rounding, the target's would come out near 0 and its rivals in steps that are small beside their distance.
        """
        columns = slice(start, min(start + self.columns, self.vocabulary))
        shape = (len(hidden), columns.stop - start)
        distances = self.distances[: shape[0] * shape[1]].view(shape)
        if self.weight is None:
            return distances.copy_(hidden[:, columns]).sub_(own)
        product = (
            distances if self.dtype == torch.float32 else self.product[: shape[0] * shape[1]].view(shape)
        )
        torch.addmm(own, hidden, self.weight[columns].t(), beta=-1, out=product)
        if product is not distances:
            distances.copy_(product)
        return distances if self.bias is None else distances.add_(self.bias[columns])

    def _leave_out(self, distances: Tensor, places: Tensor) -> None:
        """The target is no rival of itself; `places` (R) are the targets' columns, some of them in other stretches."""
        if distances.shape[1] == self.vocabulary:
            distances.scatter_(1, places[:, None], NEVER)
        else:
            rows = ((places >= 0) & (places < distances.shape[1])).nonzero()[:, 0]
            distances[rows, places[rows]] = NEVER

    def _spare(self, like: Tensor) -> Tensor:
        """A second buffer, made when it is first needed."""
        if len(self.spare) < like.numel():
            self.spare = torch.empty_like(self.distances)
        return self.spare[: like.numel()].view(like.shape)

    def _repeat_exactly(self, found: dict[str, Tensor], bad: Tensor, hidden: Tensor, targets: Tensor) -> None:
        """Put the rows where float32 does not reach in once more, by way of logarithms in float64."""
        for rows in bad.nonzero()[:, 0].split(EXACT_ROWS):
            for name, values in _exactly(self._exact_logits(hidden[rows].double()), targets[rows]).items():
                found[name][rows] = values

    def _exact_logits(self, hidden: Tensor) -> Tensor:
        """In float64, a stretch of columns at a time: (R, D) → (R, V)."""
        if self.weight is None:
            return hidden
        logits = torch.cat([hidden @ part.double().t() for part in self.weight.split(COLUMNS)], -1)
        return logits if self.bias is None else logits + self.bias


def _formulas(near: Tensor, square: Tensor, product: Tensor, rank: Tensor) -> dict[str, Tensor]:
    """S, Q, D and the rank → the statistics of the same shape."""
    nll = torch.log1p(near)
    return {
        "nll": nll,
        "error_norm": (near.square() + square).sqrt() / (1 + near),
        "entropy": nll - product / (1 + near),
        "rank": rank,
    }


def _exactly(logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The same from logits (R, V) in float64, as far as its exponents reach."""
    distances = logits - logits.gather(1, targets[:, None])
    rivals = distances.scatter(1, targets[:, None], -torch.inf)
    near = torch.logsumexp(rivals, -1)
    nll = torch.logaddexp(torch.zeros_like(near), near)
    square = torch.exp(2 * (near - nll)) + torch.exp(torch.logsumexp(2 * rivals, -1) - 2 * nll)
    entropy = -torch.special.xlogy(chances := torch.softmax(distances, -1), chances).sum(-1)
    return {
        "nll": nll,
        "error_norm": square.sqrt(),
        "entropy": entropy,
        "rank": (rivals > 0).sum(-1).double(),
    }
