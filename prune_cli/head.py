"""The output layer, applied to a few rows at a time, and how to tell that it is all that follows the trunk."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .errors import ConfigurationError

# Float32 logits that exist at a time: enough rows for a product at full speed, few enough for a cache.
HEAD_BYTES = {"cpu": 3 << 24, "cuda": 1 << 29}


def split(network: Any, vocabulary: int, length: int, name: str) -> tuple[Callable[[Tensor], Tensor], nn.Linear | None]:
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
            raise ConfigurationError("its tokens see what comes after them", place=name, remedy="use a causal language model")
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
    """The output layer for a few rows at a time, in buffers that are kept: fresh memory of this size costs as much as the product.

    Without a layer it is handed logits.
    """

    def __init__(self, layer: nn.Linear | None, vocabulary: int, dtype: torch.dtype, device: torch.device) -> None:
        self.layer = layer
        vocabulary = layer.out_features if layer else vocabulary
        self.rows = max(16, HEAD_BYTES[device.type] // (4 * vocabulary))
        self.wide = torch.empty(self.rows, vocabulary, dtype=torch.float32, device=device)
        self.narrow = self.wide if dtype == torch.float32 else torch.empty(self.rows, vocabulary, dtype=dtype, device=device)

    def __call__(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Each target's negative log-likelihood: hidden (R, D), targets (R) → (R)."""
        chunks = zip(hidden.split(self.rows), targets.split(self.rows), strict=True)
        return torch.cat([self._nll(*chunk) for chunk in chunks])

    def _nll(self, hidden: Tensor, targets: Tensor) -> Tensor:
        logits = self._logits(hidden, targets)  # (r, V)
        log_probabilities = torch.log_softmax(logits, -1, out=logits)
        return -log_probabilities.gather(-1, targets[:, None]).squeeze(-1)

    def _logits(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Float32 logits, shifted by about the target's own, which the softmax does not see.

        A product in bfloat16 comes out in bfloat16, with steps of ½ where logits are near 100 (GPT-2's are). Shifted inside the
        product, before that rounding, the target's comes out near 0 and its rivals in steps that are small beside their distance.
        """
        wide, narrow = self.wide[: len(hidden)], self.narrow[: len(hidden)]
        if self.layer is None:
            return wide.copy_(hidden)
        weight = self.layer.weight
        own = (hidden * weight[targets]).sum(-1, keepdim=True)
        torch.addmm(own, hidden, weight.t(), beta=-1, out=narrow)
        if self.narrow is not self.wide:
            wide.copy_(narrow)
        return wide if self.layer.bias is None else wide.add_(self.layer.bias)
