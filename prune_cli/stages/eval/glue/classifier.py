"""A causal language model that tells examples apart: texts joined to rows of ids, and a linear layer on the state at a row's end.

EOD first EOD second EOD goes through the trunk, padded on the right without a mask (causal attention never looks there), and the layer
reads the state at the last EOD, which the row's length finds: a search for the last id that is no padding would pass over real ends.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ....errors import OutOfMemoryError
from ....models.loading import Loaded, is_out_of_memory
from ....models.pretrained import encode

log = logging.getLogger(__name__)

# Attention over a whole batch falls out of a processor's cache: a step of RTE on `tiny` takes 267 ms so, 280 with 2,048 and 376 with 4,096.
TOKENS = {"cpu": 1024, "cuda": 1 << 16}

Ids = NDArray[np.int32]
Floats = NDArray[np.float64]
Result = TypeVar("Result")


def rows(tokenizer: Any, texts: Sequence[tuple[str, ...]], length: int) -> list[Ids]:
    """Each example's one or two texts as a row of at most `length` ids; an end of text that a text spells out is text."""
    flat, width = encode(tokenizer, [text for example in texts for text in example]), len(texts[0])
    return [
        joined(flat[at : at + width], tokenizer.eos_token_id, length) for at in range(0, len(flat), width)
    ]


def joined(texts: Sequence[Ids], end: int, length: int) -> Ids:
    """One or two texts between ends; what is too much is cut off the longer one, and off both once they are as long."""
    mark, room = np.array([end], np.int32), length - len(texts) - 1
    if len(texts) == 1:
        return np.concatenate([mark, texts[0][:room], mark])
    first, second = texts
    kept = min(len(second), max(room - len(first), room // 2))
    return np.concatenate([mark, first[: room - kept], mark, second[:kept], mark])


class Classifier(torch.nn.Module):
    """A trunk and a linear layer without a bias, which starts as N(0, `deviation`); with a single output it tells a number."""

    def __init__(self, loaded: Loaded, outputs: int, deviation: float, seed: int) -> None:
        super().__init__()
        settings = loaded.settings
        self.trunk, self.outputs, self.context = loaded.network.base_model, outputs, settings.context or 0
        self.device, self.dtype = torch.device(settings.device), getattr(torch, settings.dtype)
        self.tokens = min(
            settings.batch_tokens or 1, TOKENS[self.device.type]
        )  # through the trunk at a time, padding included
        width = loaded.network.get_output_embeddings().weight.shape[1]
        weight = torch.empty(outputs, width).normal_(
            0, deviation, generator=torch.Generator().manual_seed(seed)
        )
        self.layer = torch.nn.Parameter(weight.to(self.device))

    def forward(self, batch: Sequence[Ids]) -> Tensor:
        """What the layer says of B rows, in float32: (B, outputs)."""
        lengths = torch.tensor([len(row) for row in batch])
        inputs = np.zeros((len(batch), min(padded(int(lengths.max())), self.context)), np.int64)  # (B, T)
        for at, row in enumerate(batch):
            inputs[at, : len(row)] = row
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            states = self.trunk(
                input_ids=torch.from_numpy(inputs).to(self.device), use_cache=False
            ).last_hidden_state  # (B, T, D)
        last: Tensor = states[torch.arange(len(batch)), lengths - 1]  # (B, D)
        return last.float() @ self.layer.T

    def gradients(self, batch: Sequence[Ids], labels: Floats) -> float:
        """Add the gradients of a batch's mean loss to the weights' (cross-entropy, or squared error of a number); that loss."""
        return self._while_memory_lasts(
            lambda: sum(self._part(batch, labels, part) for part in parts(batch, self.tokens))
        )

    def _part(self, batch: Sequence[Ids], labels: Floats, part: NDArray[np.int64]) -> float:
        outputs, truth = self([batch[at] for at in part]), torch.from_numpy(labels[part]).to(self.device)
        if self.outputs == 1:
            loss = F.mse_loss(outputs[:, 0], truth.float(), reduction="sum") / len(batch)
        else:
            loss = F.cross_entropy(outputs, truth.long(), reduction="sum") / len(batch)
        loss.backward()
        return loss.item()

    @torch.no_grad()
    def predictions(self, examples: Sequence[Ids]) -> Floats:
        """The likeliest class of each row, or its number."""
        return self._while_memory_lasts(lambda: self._predictions(examples))

    def _predictions(self, examples: Sequence[Ids]) -> Floats:
        found = np.empty(len(examples))
        for part in parts(examples, self.tokens):
            outputs = self([examples[at] for at in part])
            found[part] = (outputs[:, 0] if self.outputs == 1 else outputs.argmax(-1)).cpu().numpy()
        return found

    def _while_memory_lasts(self, work: Callable[[], Result]) -> Result:
        """What comes of the work, begun again with fewer rows at a time where memory runs out."""
        while True:
            try:
                return work()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            if self.tokens == 1:
                raise OutOfMemoryError("a single example is too much", remedy="take a smaller model")
            self.tokens //= 2
            self.zero_grad()
            log.warning("out of memory: going on with %d tokens at a time", self.tokens)


def parts(examples: Sequence[Ids], tokens: int) -> Iterator[NDArray[np.int64]]:
    """Which rows go through the trunk together, the longest first: about `tokens`, so that long ones alone are padded to their length."""
    lengths = np.array([len(row) for row in examples])
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        count = max(1, tokens // padded(lengths[order[0]]))
        yield order[:count]
        order = order[count:]


def padded(width: int) -> int:
    """The next of a few dozen widths: a processor's matrix products keep code and buffers for every shape they have met."""
    step = 8 if width <= 64 else 32
    return -(-width // step) * step
