"""How likely a causal language model finds texts, and how it continues them: windows, batches, and results
put back in place.

A document is cut into windows that fit the context. Windows of many documents of about equal length form a
batch, padded on the right without an attention mask: causal attention never looks at the padding behind a
token. Only the positions that are scored go through the output layer.
"""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigurationError, OutOfMemoryError
from ..records.documents import PromptedContent
from ..settings.model import ModelSettings as ModelSettings
from .description import first_rotations
from .head import OutputHead, split
from .load import LoadedModel, resolve, versions
from .load import load as load_network_and_tokenizer
from .memory import halve_until_it_fits, padded_width
from .safety import directory_hash
from .text import chat
from .text.encoding import Content as Content
from .text.encoding import Encoder, Ids
from .text.encoding import TokenizedDocument as TokenizedDocument
from .text.special_tokens import warnings_about_start
from .text.tokenizer import tokenizer_hash

log = logging.getLogger(__name__)

Result = TypeVar("Result")
# By the names that models/head.py explains: one number for each scored token of a document, in order.
Statistics = dict[str, NDArray[np.float32]]

# A batch that is at least FULL_ENOUGH of batch_tokens ends before the window that would make more than
# MOST_PADDING of it padding.
FULL_ENOUGH = 1 / 4
MOST_PADDING = 1 / 16
WHOLE_LOGITS_BYTES = 1 << 28  # of logits at a time, for a model whose own forward has to be used
CACHE_BYTES = {"cpu": 1 << 28, "cuda": 1 << 32}  # of keys and values, while tokens are generated
MOST_SEQUENCES = 256  # that are generated side by side
GENERATED_LENGTH = 65  # tokens of such a sequence: BOS, 32 of the document, 32 generated


def load(name: str, settings: ModelSettings = ModelSettings()) -> "LanguageModel":
    """Load a model and its tokenizer, ready to score. Raises as `models.load.load` does."""
    return LanguageModel(name, load_network_and_tokenizer(name, settings))


def provenance(name: str, settings: ModelSettings = ModelSettings()) -> dict[str, Any]:
    """Hashes, settings and versions: all that the numbers of a model depend on, without loading its weights.

    Raises as `models.load.resolve` does.
    """
    resolved = resolve(name, settings)
    return {
        "model": directory_hash(resolved.directory),
        "tokenizer": tokenizer_hash(resolved.tokenizer),
        **resolved.settings.recorded(),
        "versions": versions(),
    }


def chat_template(name: str, settings: ModelSettings = ModelSettings()) -> str:
    """The hash of the chat template of a model.

    Raises ConfigurationError if it has none, and as `models.load.resolve` does.
    """
    tokenizer = resolve(name, settings).tokenizer
    chat.check_template(tokenizer, name)
    return chat.template_hash(tokenizer)


class LanguageModel:
    """A loaded model that scores documents and continues them. `settings` has neither `auto` nor None."""

    def __init__(self, name: str, loaded: LoadedModel) -> None:
        settings = loaded.settings
        config = loaded.network.config.get_text_config()
        dtype: torch.dtype = getattr(torch, settings.dtype)
        assert settings.context is not None  # `load` has put numbers in the place of None
        assert settings.stride is not None
        assert settings.batch_tokens is not None
        self.name = name
        self.tokenizer = loaded.tokenizer
        self.settings = settings
        self.vocabulary: int = config.vocab_size
        self.flops_per_token = 2 * loaded.parameters  # a multiplication and an addition for each weight
        self._network = loaded.network
        self._directory = loaded.directory
        self._device = torch.device(settings.device)
        self._context = settings.context
        self._first_rotations = first_rotations(config)
        self._stride = settings.stride
        self._batch_tokens = settings.batch_tokens
        self._eos = _eos_tokens(loaded.network, loaded.tokenizer)
        self._sequences = _sequences_at_a_time(config, dtype, self._device)
        if settings.bos != "never":
            for sentence in warnings_about_start(loaded.tokenizer, loaded.directory):
                log.warning("%s: %s", name, sentence)
        self._encoder = Encoder(loaded.tokenizer, self.vocabulary, settings.bos, name)
        self._trunk, layer = split(loaded.network, self.vocabulary, min(8, self._context), name)
        self._head = OutputHead(layer, self.vocabulary, dtype, self._device)
        if layer is None:
            log.info("%s: its output is more than a matrix product, so scoring is slower", name)
            self._batch_tokens = min(self._batch_tokens, max(1, WHOLE_LOGITS_BYTES // (4 * self.vocabulary)))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the configuration and the weights."""
        return directory_hash(self._directory)

    def recorded(self) -> dict[str, Any]:
        """The tokenizer, settings and versions that decide the scores, for the head of a stream."""
        return {"tokenizer": self.tokenizer_hash, **self.settings.recorded(), "versions": self.versions}

    @property
    def versions(self) -> dict[str, str]:
        """The versions of the libraries that decide the last digits of a score."""
        return versions()

    @property
    def tokenizer_hash(self) -> str:
        """The same for two tokenizers that turn every text into the same ids."""
        return tokenizer_hash(self.tokenizer)

    def encode(self, content: PromptedContent) -> TokenizedDocument:
        """The tokens of one record; see `Encoder.documents`."""
        return self.encode_many([content])[0]

    def encode_many(
        self, contents: Sequence[PromptedContent], place: Callable[[int], str] = "record {}".format
    ) -> list[TokenizedDocument]:
        """The tokens of many records; see `Encoder.documents`. None is scored behind too long a prompt."""
        return [document.within(self._context) for document in self._encoder.documents(contents, place)]

    def check_reads(self, tokens: int) -> None:
        """Raise ConfigurationError if a window is shorter than `tokens`."""
        if tokens > self._context:
            fault = f"it reads {self._context} tokens, and {tokens} are needed"
            raise ConfigurationError(fault, place=self.name, remedy="raise --context, or take another model")

    # --- scoring ---

    @torch.inference_mode()
    def statistics(
        self,
        documents: Sequence[TokenizedDocument],
        wanted: Collection[str] = ("nll",),
        pulse: Callable[[int], object] = lambda tokens: None,
    ) -> list[Statistics]:
        """The `wanted` statistics of the scored tokens of each document: of every token but the first, or of
        those that it marks. Each is scored exactly once.

        The longest windows come first, so memory is highest in the first batch. Where it runs out, batches
        are halved for the rest of the run. `pulse` is called after each batch with the number of tokens that
        it scored.

        Raises OutOfMemoryError if a single window is too much.
        """
        results = [
            {name: np.empty(document.n_scored, np.float32) for name in wanted} for document in documents
        ]
        windows = self._windows(documents)
        while windows:
            batch, columns = self._score_batch(windows, documents, wanted)
            _put_in_place(results, batch, columns)
            windows = windows[len(batch) :]
            pulse(sum(window.n_scored for window in batch))
        return results

    def _windows(self, documents: Sequence[TokenizedDocument]) -> "list[_Window]":
        """The windows of all documents, the longest first."""
        found = [
            _Window(index, start, end, first, document.scored_before(first), document.scored_before(end))
            for index, document in enumerate(documents)
            for start, end, first in window_bounds(len(document.tokens), self._context, self._stride)
        ]
        # A window of a prompt alone, or between the turns of a conversation, is not read at all.
        return sorted((window for window in found if window.n_scored), key=lambda window: -window.width)

    def _score_batch(
        self, windows: "list[_Window]", documents: Sequence[TokenizedDocument], wanted: Collection[str]
    ) -> "tuple[list[_Window], Statistics]":
        """Score as many of the first windows as make a batch. Returns them, and the statistics of their
        tokens one after the other.
        """
        width = windows[0].width
        planned = self._batch_size(windows)
        columns, count = self._while_memory_lasts(
            lambda count: self._run(windows[:count], documents, wanted), planned, "windows", width
        )
        if count < planned:
            self._batch_tokens = count * width
        return windows[:count], columns

    def _batch_size(self, windows: "list[_Window]") -> int:
        """How many of the windows, the longest first, form a batch: `batch_tokens`, or fewer if more would be
        mostly padding.
        """
        width = self._padded(windows[0].width)
        most = min(len(windows), max(1, self._batch_tokens // width))
        filled = windows[0].width  # tokens that are not padding
        for count in range(1, most):
            if width > self._most_beside(windows[count].width):
                return count
            filled += windows[count].width
            is_full_enough = count * width >= FULL_ENOUGH * self._batch_tokens
            if is_full_enough and filled < (1 - MOST_PADDING) * (count + 1) * width:
                return count
        return most

    def _most_beside(self, width: int) -> int:
        """The greatest width of a batch, padding included, in which a window of this width keeps its
        scores.
        """
        # Models with two sets of rotations choose one for the whole batch, by its width.
        limit = self._first_rotations
        return self._context if limit is None or width > limit else min(limit, self._context)

    def _padded(self, width: int) -> int:
        return min(padded_width(width), self._most_beside(width))

    def _while_memory_lasts(
        self, work: Callable[[int], Result], size: int, unit: str, width: int
    ) -> tuple[Result, int]:
        fault = f"there is not enough memory for a window of {width} tokens"
        too_large = OutOfMemoryError(fault, place=self.name, remedy="lower --context")
        return halve_until_it_fits(work, size, unit=unit, too_large=too_large)

    def _run(
        self, batch: "Sequence[_Window]", documents: Sequence[TokenizedDocument], wanted: Collection[str]
    ) -> Statistics:
        """The statistics of all tokens that a batch scores, one window after the other: (R) each."""
        shape = (len(batch), self._padded(batch[0].width))  # (B, T)
        inputs = np.zeros(shape, np.int64)
        targets = np.zeros(shape, np.int64)
        is_scored = np.zeros(shape, bool)
        for row, window in enumerate(batch):
            document = documents[window.document]
            tokens = document.tokens[window.start : window.end]
            inputs[row, : window.width] = tokens[:-1]
            targets[row, : window.width] = tokens[1:]
            marked = True if document.is_scored is None else document.is_scored[window.first : window.end]
            is_scored[row, window.first - window.start - 1 : window.width] = marked
        keep = torch.from_numpy(is_scored).to(self._device)
        hidden = self._trunk(torch.from_numpy(inputs).to(self._device))[keep]  # (R, D)
        columns = self._head(hidden, torch.from_numpy(targets).to(self._device)[keep], wanted)
        return {name: column.cpu().numpy() for name, column in columns.items()}

    # --- generating ---

    @torch.inference_mode()
    def continuations(
        self,
        documents: Sequence[TokenizedDocument],
        prompt: int,
        count: int,
        pulse: Callable[[int], object] = lambda tokens: None,
    ) -> list[Ids | None]:
        """The `count` tokens that the model generates greedily after the prefix and the first `prompt` tokens
        of each document.

        EOS is never generated, as with `min_new_tokens` of transformers' `generate`. None for a document with
        fewer than `prompt + count` tokens. `pulse` is called after each batch.
        """
        results: list[Ids | None] = [None] * len(documents)
        for n_prefix in (0, 1):  # prompts of one length need no padding
            length = n_prefix + prompt
            remaining = [
                index
                for index, document in enumerate(documents)
                if document.n_prefix == n_prefix and len(document.tokens) >= length + count
            ]
            while remaining:
                generated = self._continue_batch(remaining, documents, length, count)
                for index, ids in zip(remaining, generated, strict=False):
                    results[index] = ids
                remaining = remaining[len(generated) :]
                pulse(0)
        return results

    def _continue_batch(
        self, indices: list[int], documents: Sequence[TokenizedDocument], length: int, count: int
    ) -> Ids:
        """Continue as many of the first documents as memory has room for: (B, count)."""
        prompts = np.stack([documents[index].tokens[:length] for index in indices[: self._sequences]])
        generated, size = self._while_memory_lasts(
            lambda size: self._generate(prompts[:size].astype(np.int64), count),
            len(prompts),
            "continuations",
            length + count,
        )
        if size < len(prompts):
            self._sequences = size
        return generated

    def _generate(self, prompts: NDArray[np.int64], count: int) -> Ids:
        """Greedy continuations of prompts (B, T): (B, count). Keys and values of the tokens before are kept,
        not computed again.
        """
        tokens = torch.from_numpy(prompts).to(self._device)
        cache = None
        chosen = []
        for _ in range(count):
            step = self._network(input_ids=tokens, past_key_values=cache, use_cache=True, logits_to_keep=1)
            logits = step.logits[:, -1].float()
            logits[:, self._eos] = -torch.inf
            tokens = logits.argmax(-1, keepdim=True)
            cache = step.past_key_values
            chosen.append(tokens)
        return torch.cat(chosen, -1).cpu().numpy().astype(np.int32)


class _Window(NamedTuple):
    """A window of a document: `tokens[start:end]` are read, `tokens[first:end]` are scored if they are to be.

    `scored_before` counts the scored tokens before `first`, `scored_through` those before `end`.
    """

    document: int
    start: int
    end: int
    first: int
    scored_before: int
    scored_through: int

    @property
    def width(self) -> int:
        """Tokens fed to the model: the last one is only predicted."""
        return self.end - self.start - 1

    @property
    def n_scored(self) -> int:
        return self.scored_through - self.scored_before


def window_bounds(length: int, context: int, stride: int) -> Iterator[tuple[int, int, int]]:
    """Cut `length` tokens, the first of which is not scored, into windows (start, end, first scored) that fit
    the context.

    A window reads `tokens[start:end]`: it feeds all but the last to the model, at most `context`, and scores
    `tokens[first:end]`. The first window scores `context` tokens; each later one scores the next `stride`,
    with as much left context as fits; the last one ends where the tokens end. Every token is scored exactly
    once. At stride = context these are lm-evaluation-harness's rolling windows.
    """
    if length < 2:
        return
    end = min(length, context + 1)
    yield 0, end, 1
    while end < length:
        first = end
        end = min(end + stride, length)
        yield end - context - 1, end, first


def _put_in_place(results: list[Statistics], batch: Sequence[_Window], columns: Statistics) -> None:
    """Copy the statistics of a batch, one window after the other, to the documents that the windows belong
    to.
    """
    ends = np.cumsum([window.n_scored for window in batch])
    for name, column in columns.items():
        for window, values in zip(batch, np.split(column, ends[:-1]), strict=True):
            results[window.document][name][window.scored_before : window.scored_through] = values


def _sequences_at_a_time(config: Any, dtype: torch.dtype, device: torch.device) -> int:
    """How many sequences can be generated side by side with their keys and values in memory."""
    # Models with grouped-query attention have fewer heads of keys and values, and take less than this.
    sequence = 2 * config.num_hidden_layers * config.hidden_size * dtype.itemsize * GENERATED_LENGTH
    return int(max(1, min(MOST_SEQUENCES, CACHE_BYTES[device.type] // sequence)))


def _eos_tokens(network: Any, tokenizer: Any) -> list[int]:
    """The ids that end a text: one or several in generation_config.json, and the tokenizer's."""
    configured = network.generation_config.eos_token_id if network.generation_config else None
    ids = configured if isinstance(configured, list) else [configured]
    return sorted({token for token in (*ids, tokenizer.eos_token_id) if token is not None})
