"""How a causal language model classifies: texts joined to rows of ids, and a linear layer on the hidden state
at the end of a row.

EOS first EOS second EOS goes through the trunk, padded on the right without an attention mask (causal
attention never looks there). The layer reads the state at the last EOS, whose position is the row's length: a
search for the last id that is not padding would stop too early where the padding id is itself a token.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ....errors import OutOfMemoryError
from ....models.load import LoadedModel
from ....models.memory import halve_until_it_fits, padded_width
from ....models.text.tokenizer import encode

# Tokens through the trunk at a time. Attention over more falls out of a CPU's cache: a step of RTE on `tiny`
# takes 267 ms with 1,024, 280 ms with 2,048 and 376 ms with 4,096.
TOKENS = {"cpu": 1024, "cuda": 1 << 16}

Ids = NDArray[np.int32]
Floats = NDArray[np.float64]
Result = TypeVar("Result")


def rows(tokenizer: Any, texts: Sequence[tuple[str, ...]], length: int) -> list[Ids]:
    """Each example's one or two texts as a row of at most `length` ids. An EOS that a text spells out is
    ordinary text.
    """
    flat = encode(tokenizer, [text for example in texts for text in example])
    count = len(texts[0])  # texts of an example: 1 or 2, the same for all of a task
    return [
        joined(flat[at : at + count], tokenizer.eos_token_id, length) for at in range(0, len(flat), count)
    ]


def joined(texts: Sequence[Ids], eos: int, length: int) -> Ids:
    """One or two texts between EOS tokens, at most `length` ids: the longer text is cut first, and both once
    they are equally long.
    """
    mark = np.array([eos], np.int32)
    room = length - len(texts) - 1
    if len(texts) == 1:
        return np.concatenate([mark, texts[0][:room], mark])
    first, second = texts
    second = second[: max(room - len(first), room // 2)]
    return np.concatenate([mark, first[: room - len(second)], mark, second, mark])


class Classifier(torch.nn.Module):
    """A trunk and a linear layer without a bias. With one output it predicts a number, with more a class.

    The layer's weights start as N(0, `deviation`²), drawn from `seed`.
    """

    def __init__(self, loaded: LoadedModel, outputs: int, deviation: float, seed: int) -> None:
        super().__init__()
        settings = loaded.settings
        self.trunk = loaded.network.base_model
        self.outputs = outputs
        self.context = settings.context or 0
        self.device = torch.device(settings.device)
        self.dtype = getattr(torch, settings.dtype)
        self.tokens = min(settings.batch_tokens or 1, TOKENS[self.device.type])  # at a time, padding included
        width = loaded.network.get_output_embeddings().weight.shape[1]
        generator = torch.Generator().manual_seed(
            seed
        )  # on the CPU, so that every device starts from the same
        weight = torch.empty(outputs, width).normal_(0, deviation, generator=generator)
        self.layer = torch.nn.Parameter(weight.to(self.device))

    def forward(self, batch: Sequence[Ids]) -> Tensor:
        """The layer's outputs for B rows, in float32: (B, outputs)."""
        lengths = torch.tensor([len(row) for row in batch])
        width = min(padded_width(int(lengths.max())), self.context)
        inputs = np.zeros((len(batch), width), np.int64)  # (B, T)
        for at, row in enumerate(batch):
            inputs[at, : len(row)] = row
        ids = torch.from_numpy(inputs).to(self.device)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            states = self.trunk(input_ids=ids, use_cache=False).last_hidden_state  # (B, T, D)
        last: Tensor = states[torch.arange(len(batch)), lengths - 1]  # (B, D)
        return last.float() @ self.layer.T

    def gradients(self, batch: Sequence[Ids], labels: Floats) -> float:
        """Add the gradients of a batch's mean loss to those of the weights. Returns the loss: cross-entropy,
        or squared error.

        Raises OutOfMemoryError if a single example does not fit.
        """
        return self._while_memory_lasts(
            lambda tokens: sum(
                self._accumulate(batch, labels, micro) for micro in micro_batches(batch, tokens)
            )
        )

    def _accumulate(self, batch: Sequence[Ids], labels: Floats, micro_batch: NDArray[np.int64]) -> float:
        """Add the gradients of a part of the batch; its share of the batch's mean loss."""
        outputs = self([batch[at] for at in micro_batch])
        truth = torch.from_numpy(labels[micro_batch]).to(self.device)
        if self.outputs == 1:
            loss = F.mse_loss(outputs[:, 0], truth.float(), reduction="sum") / len(batch)
        else:
            loss = F.cross_entropy(outputs, truth.long(), reduction="sum") / len(batch)
        loss.backward()
        return loss.item()

    @torch.no_grad()
    def predictions(self, examples: Sequence[Ids]) -> Floats:
        """The most likely class of each row, or its number. Raises OutOfMemoryError if a single example does
        not fit.
        """
        return self._while_memory_lasts(lambda tokens: self._predictions(examples, tokens))

    def _predictions(self, examples: Sequence[Ids], tokens: int) -> Floats:
        predicted = np.empty(len(examples))
        for micro_batch in micro_batches(examples, tokens):
            outputs = self([examples[at] for at in micro_batch])
            values = outputs[:, 0] if self.outputs == 1 else outputs.argmax(-1)
            predicted[micro_batch] = values.cpu().numpy()
        return predicted

    def _while_memory_lasts(self, work: Callable[[int], Result]) -> Result:
        """The result of `work(tokens)`, started again with fewer tokens at a time where memory runs out."""
        result, self.tokens = halve_until_it_fits(
            work,
            self.tokens,
            unit="tokens",
            too_large=OutOfMemoryError(
                "there is not enough memory for a single example", remedy="take a smaller model"
            ),
            undo=self.zero_grad,
        )
        return result


def micro_batches(examples: Sequence[Ids], tokens: int) -> Iterator[NDArray[np.int64]]:
    """The indices of the rows that go through the trunk together, about `tokens`; the longest first, so that
    few are padded much.
    """
    lengths = np.array([len(row) for row in examples])
    order = np.argsort(-lengths, kind="stable")
    while len(order):
        count = max(1, tokens // padded_width(lengths[order[0]]))
        yield order[:count]
        order = order[count:]
