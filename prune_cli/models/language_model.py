"""A causal language model that says how likely texts are: batches formed, the trunk run, its numbers put in their places.

A document becomes windows that fit the context, windows of many documents become batches of about equal length, padded on the right
without a mask (causal attention never looks there), and of a batch only the scored positions reach the output layer.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigurationError, OutOfMemoryError
from ..settings.model import ModelSettings as ModelSettings
from . import loading
from .encoding import Content as Content
from .encoding import Document as Document
from .encoding import Encoder, Ids
from .head import Head, split
from .loading import Loaded, is_out_of_memory
from .pretrained import tokenizer_hash
from .safety import directory_hash

log = logging.getLogger(__name__)

Statistics = dict[
    str, NDArray[np.float32]
]  # by the names that models/head.py explains, a number for each scored token, in order

ENOUGH, PADDING = (
    1 / 4,
    1 / 16,
)  # a batch that is this full ends where one more row would make more than this share of it padding
WHOLE_LOGITS_BYTES = 1 << 28  # for models whose own forward has to be used
CACHE_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}  # of keys and values, while tokens are generated
SEQUENCES, LENGTH = 256, 65  # generated side by side at most, and of about so many tokens

Result = TypeVar("Result")


def load(name: str, settings: ModelSettings = ModelSettings()) -> "LanguageModel":
    """A model and its tokenizer, ready to score; raises what `loading.load` raises."""
    return LanguageModel(name, loading.load(name, settings))


def provenance(name: str, settings: ModelSettings = ModelSettings()) -> dict[str, Any]:
    """What a model's numbers hang on, found out without loading its weights; raises what `loading.load` raises."""
    found = loading.find(name, settings)
    hashes = {"model": directory_hash(found.directory), "tokenizer": tokenizer_hash(found.tokenizer)}
    return {**hashes, **found.settings.recorded(), "versions": loading.versions()}


class LanguageModel:
    """Says how likely texts are, and how they go on. `settings` has no `auto` left in it."""

    def __init__(self, name: str, loaded: Loaded) -> None:
        self.name, self.tokenizer, self.settings, self._network = (
            name,
            loaded.tokenizer,
            loaded.settings,
            loaded.network,
        )
        settings = loaded.settings
        assert settings.context is not None  # `loading.load` has put numbers in their place
        assert settings.stride is not None
        assert settings.batch_tokens is not None
        self._context, self._stride, self._batch_tokens = (
            settings.context,
            settings.stride,
            settings.batch_tokens,
        )
        self._directory, self._device = loaded.directory, torch.device(settings.device)
        self.vocabulary: int = loaded.network.config.get_text_config().vocab_size
        self.flops_per_token = 2 * loaded.parameters
        self._ends = _ends(loaded.network, loaded.tokenizer)
        self._sequences = _sequences(
            loaded.network.config.get_text_config(), getattr(torch, settings.dtype), self._device, LENGTH
        )
        self._encoder = Encoder(loaded.tokenizer, self.vocabulary, settings.bos, name)
        self._trunk, layer = split(loaded.network, self.vocabulary, min(8, self._context), name)
        self._head = Head(layer, self.vocabulary, getattr(torch, settings.dtype), self._device)
        if layer is None:
            log.info(
                "%s: its output is more than a matrix product; its own forward is used, which is slower", name
            )
            self._batch_tokens = min(self._batch_tokens, max(1, WHOLE_LOGITS_BYTES // (4 * self.vocabulary)))

    @cached_property
    def hash(self) -> str:
        """The same for two directories with the same weights and configuration."""
        return directory_hash(self._directory)

    @property
    def versions(self) -> dict[str, str]:
        """Of the libraries that decide the last digits."""
        return loading.versions()

    @property
    def tokenizer_hash(self) -> str:
        """The same for two tokenizers that turn every text into the same ids."""
        return tokenizer_hash(self.tokenizer)

    def encode(self, content: Content) -> Document:
        """One record's tokens; see `Encoder.documents`."""
        return self.encode_many([content])[0]

    def encode_many(
        self, contents: Sequence[Content], place: Callable[[int], str] = "record {}".format
    ) -> list[Document]:
        """Many records' tokens; see `Encoder.documents`."""
        return self._encoder.documents(contents, place)

    @torch.inference_mode()
    def statistics(
        self,
        documents: Sequence[Document],
        wanted: Collection[str] = ("nll",),
        pulse: Callable[[int], object] = lambda tokens: None,
    ) -> list[Statistics]:
        """The `wanted` statistics of every token but the first of each document, each token scored exactly once.

        The longest windows come first, so that memory is at its highest at once. Where it runs out, batches are halved for
        the rest of the run. `pulse` is called after each batch with the tokens it scored. Raises OutOfMemoryError when a single
        window is too much.
        """
        found = [{name: np.empty(document.n_scored, np.float32) for name in wanted} for document in documents]
        rows = self._rows(documents)
        while rows:
            batch = rows[: self._batch_size(rows)]
            values = self._try(partial(self._run, batch, documents, wanted), len(batch), batch[0].width)
            if values is None:
                self._batch_tokens = len(batch) // 2 * batch[0].width
                log.warning("out of memory: going on with batches of %d tokens", self._batch_tokens)
                continue
            ends = np.cumsum([row.end - row.first for row in batch])
            for name, column in values.items():
                for row, value in zip(batch, np.split(column, ends[:-1]), strict=True):
                    found[row.document][name][row.first - 1 : row.end - 1] = value
            rows = rows[len(batch) :]
            pulse(int(ends[-1]))
        return found

    def _rows(self, documents: Sequence[Document]) -> "list[_Row]":
        rows = [
            _Row(index, *window)
            for index, document in enumerate(documents)
            for window in windows(len(document.tokens), self._context, self._stride)
        ]
        return sorted(rows, key=lambda row: -row.width)

    def _batch_size(self, rows: "list[_Row]") -> int:
        """How many of the rows, the longest first, go together: until they are `batch_tokens`, or enough of them and much padding."""
        width = self._padded(rows[0].width)
        most, filled = min(len(rows), max(1, self._batch_tokens // width)), rows[0].width
        for count in range(1, most):
            filled += rows[count].width
            if count * width >= ENOUGH * self._batch_tokens and filled < (1 - PADDING) * (count + 1) * width:
                return count
        return most

    def _padded(self, width: int) -> int:
        """The next of a few dozen widths: a processor's matrix products keep code and buffers for every shape they have met."""
        step = 8 if width <= 64 else 32
        return min(-(-width // step) * step, self._context)

    def _try(self, run: Callable[[], Result], size: int, width: int) -> Result | None:
        """What comes of a batch of `size` windows; None if there is not enough memory for it."""
        try:
            return run()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if size == 1:
            raise OutOfMemoryError(
                f"a window of {width} tokens is too much", place=self.name, remedy="lower --context"
            )
        return None

    def _run(
        self, batch: "Sequence[_Row]", documents: Sequence[Document], wanted: Collection[str]
    ) -> Statistics:
        """The statistics of all tokens that the rows of a batch score, one row after the other."""
        shape = (len(batch), self._padded(batch[0].width))  # (B, T)
        inputs, targets, scored = np.zeros(shape, np.int64), np.zeros(shape, np.int64), np.zeros(shape, bool)
        for at, row in enumerate(batch):
            tokens = documents[row.document].tokens[row.start : row.end]
            inputs[at, : row.width], targets[at, : row.width] = tokens[:-1], tokens[1:]
            scored[at, row.first - row.start - 1 : row.width] = True
        keep = torch.from_numpy(scored).to(self._device)
        hidden = self._trunk(torch.from_numpy(inputs).to(self._device))[keep]  # (R, D)
        values = self._head(hidden, torch.from_numpy(targets).to(self._device)[keep], wanted)
        return {name: column.cpu().numpy() for name, column in values.items()}

    def check_reads(self, tokens: int) -> None:
        """Raise ConfigurationError where so many tokens do not fit into a window."""
        if tokens > self._context:
            fault = f"it reads {self._context} tokens, and {tokens} are needed"
            raise ConfigurationError(fault, place=self.name, remedy="raise --context, or take another model")

    @torch.inference_mode()
    def continuations(
        self,
        documents: Sequence[Document],
        prompt: int,
        count: int,
        pulse: Callable[[int], object] = lambda tokens: None,
    ) -> list[Ids | None]:
        """The `count` tokens that the model itself puts after the prefix and the first `prompt` tokens of each document, always the
        most likely one, never an end of text; None for a document with fewer than `prompt + count`. As transformers' `generate`.
        """
        found: list[Ids | None] = [None] * len(documents)
        for n_prefix in (0, 1):  # prompts of one length need no padding
            length = n_prefix + prompt
            able = [
                at
                for at, one in enumerate(documents)
                if one.n_prefix == n_prefix and len(one.tokens) >= length + count
            ]
            while able:
                batch = able[: self._sequences]
                prompts = np.stack([documents[at].tokens[:length] for at in batch]).astype(np.int64)
                generated = self._try(partial(self._generate, prompts, count), len(batch), length + count)
                if generated is None:
                    self._sequences = len(batch) // 2
                    log.warning("out of memory: going on with %d continuations at a time", self._sequences)
                    continue
                for at, ids in zip(batch, generated, strict=True):
                    found[at] = ids
                able = able[len(batch) :]
                pulse(0)
        return found

    def _generate(self, prompts: NDArray[np.int64], count: int) -> Ids:
        """Greedy continuations of prompts (B, T), with the keys and values of what was read kept: (B, count)."""
        tokens, cache, chosen = torch.from_numpy(prompts).to(self._device), None, []
        for _ in range(count):
            step = self._network(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits = step.logits[:, -1].float()
            logits[:, self._ends] = -torch.inf
            tokens, cache = logits.argmax(-1, keepdim=True), step.past_key_values
            chosen.append(tokens)
        return torch.cat(chosen, -1).cpu().numpy().astype(np.int32)


class _Row(NamedTuple):
    """A window of a document: `tokens[start:end]` are read, `tokens[first:end]` are scored."""

    document: int
    start: int
    end: int
    first: int

    @property
    def width(self) -> int:
        """Tokens fed to the model: the last one is only predicted."""
        return self.end - self.start - 1


def windows(length: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Cut a sequence of tokens, the first of which is not scored, into windows (start, end, first scored) that fit the context.

    A window reads `tokens[start:end]`: it feeds all but the last to the model, at most `context`, and scores `tokens[first:end]`.
    The first scores `context` tokens; each later one the next `stride`, with as much left context as fits; the last ends at the
    end. Every token is scored exactly once. At stride = context these are lm-evaluation-harness's rolling windows.
    """
    if length < 2:
        return
    end = min(length, context + 1)
    yield 0, end, 1
    while end < length:
        first, end = end, min(end + stride, length)
        yield end - context - 1, end, first


def _sequences(config: Any, dtype: torch.dtype, device: torch.device, length: int) -> int:
    """How many sequences of so many tokens may be generated side by side."""
    each = (
        2 * config.num_hidden_layers * config.hidden_size * dtype.itemsize * length
    )  # grouped heads take less
    return int(max(1, min(SEQUENCES, CACHE_BYTES[device.type] // each)))


def _ends(network: Any, tokenizer: Any) -> list[int]:
    """The ids that end a text."""
    configured = network.generation_config.eos_token_id if network.generation_config else None
    named = configured if isinstance(configured, list) else [configured]
    return sorted({one for one in (*named, tokenizer.eos_token_id) if one is not None})
