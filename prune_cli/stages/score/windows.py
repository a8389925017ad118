"""Score records: one number a metric, from one pass of each model over a window of the stream; order kept."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ...errors import ConfigurationError, DataError
from ...metrics import STATISTICS, Metric
from ...records.lines import ahead

if TYPE_CHECKING:  # metrics that need no model need no torch
    from ...models.language_model import Content, LanguageModel, Statistics, TokenizedDocument

log = logging.getLogger(__name__)

Payload = TypeVar("Payload")
Fields = dict[str, Any]
Known = dict[str, Any]  # what metrics may ask for, by the names that metrics/__init__.py lists

# Records that are tokenized together: enough to keep the tokenizer's threads busy.
BLOCK_RECORDS, BLOCK_CHARACTERS = 256, 1 << 18
WINDOW_BYTES = 4 << 20  # of lines in a list, which become one frame
PROMPT = CONTINUED = 32  # tokens: Marion et al. 2023, section 3.2


@dataclass(frozen=True)
class Scoring:
    """Which metrics are computed, and with what: several models are an ensemble, `against` is the second one of a two-model score.

    Raises ConfigurationError where the models do not fit together.
    """

    metrics: Sequence[Metric]
    models: Sequence[LanguageModel] = ()
    against: LanguageModel | None = None
    per_model: bool = False
    min_tokens: int = 1
    top_k: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for model in self.models[1:]:
            self._check_same_tokenizer(model, "an ensemble shares one", "score with each alone")
        two = [
            metric.name
            for metric in self.metrics
            if metric.needs_second_model and "against_n_bytes" not in metric.needs
        ]
        for model in self.models if "continuation" in self.needs else ():
            model.check_reads(PROMPT + CONTINUED)
        if self.against and two:
            self._check_same_tokenizer(
                self.against, f"{two[0]} compares token by token", "take -m excess_bits_per_byte"
            )

    def _check_same_tokenizer(self, model: LanguageModel, why: str, remedy: str) -> None:
        if model.tokenizer_hash != self.models[0].tokenizer_hash:
            raise ConfigurationError(
                f"its tokenizer is not that of {self.models[0].name}: {why}", place=model.name, remedy=remedy
            )

    @cached_property
    def needs(self) -> frozenset[str]:
        return frozenset().union(*(metric.needs for metric in self.metrics))

    @cached_property
    def statistics(self) -> list[str]:
        return [name for name in STATISTICS if name == "nll" or name in self.needs]

    @property
    def flops_per_token(self) -> float:
        """Of one pass of every model; a generated token costs as much again."""
        return float(
            sum(model.flops_per_token for model in (*self.models, *([self.against] if self.against else [])))
        )

    @property
    def flops_per_continuation(self) -> float:
        """Of what is generated of a record, its prompt included."""
        return (
            sum(model.flops_per_token for model in self.models) * float(PROMPT + CONTINUED)
            if "continuation" in self.needs
            else 0.0
        )


def score(
    items: Iterable[tuple[Payload, Content]],
    scoring: Scoring,
    *,
    window_tokens: int = 1 << 17,
    place: Callable[[Payload], str] = str,
    identity: Callable[[Payload], Any] = lambda payload: None,
    size: Callable[[Payload], int] = lambda payload: 0,
    pulse: Callable[[int], object] = lambda tokens: None,
) -> Iterator[list[tuple[Payload, Fields]]]:
    """Each payload with its new fields, in input order, in lists of about `window_tokens` tokens that were batched together.

    The fields are one a metric (with `per_model` one for each model, too: `perplexity_1`), then those of io/scores.py's `counts`. A
    record with fewer than `min_tokens` scored tokens, or none, has None for every metric of a model. The next list is read and
    tokenized while one is scored. Where a list ends depends on the records since the last one ended and on nothing else, so scoring
    can be taken up again there; its payloads have a `size` of at most WINDOW_BYTES together, or it holds but one. `place` names a
    record in errors, `identity` is its id; `pulse` is called after each batch with the tokens it scored.

    Raises DataError for ids that a model does not know and for likelihoods that are no numbers.
    """
    unknown = affected = 0
    for window in ahead(_windows(items, scoring, window_tokens, place, size), depth=0):
        known = _known(window, scoring, identity, pulse)
        yield [
            (payload, _fields(of_models, scoring, place(payload)))
            for payload, of_models in zip(window.payloads, known, strict=True)
        ]
        unknown += sum(document.n_unknown for document in window.documents)
        affected += sum(document.n_unknown > 0 for document in window.documents)
    if unknown:
        log.warning(
            "%d tokens in %d records are text that the model's vocabulary cannot spell", unknown, affected
        )


# --- what is known of a record ------------------------------------------------------------------------------------------------


@dataclass
class Window:
    """Records that are scored together; the documents are those of the first model, the second ones of `against`."""

    payloads: list[Any]
    contents: list[Content]
    documents: list[TokenizedDocument]
    second: list[TokenizedDocument]


def _known(
    window: Window, scoring: Scoring, identity: Callable[[Any], Any], pulse: Callable[[int], object]
) -> Iterator[list[tuple[Known, int]]]:
    """For each record and model of the ensemble what is known, and how many tokens are scored; without a model the record alone."""
    second = scoring.against.statistics(window.second, pulse=pulse) if scoring.against else []
    columns = [_of_model(model, window.documents, scoring, pulse) for model in scoring.models]
    for at, (payload, content) in enumerate(zip(window.payloads, window.contents, strict=True)):
        record: Known = {"content": content, "seed": scoring.seed, "top_k": scoring.top_k}
        if "identity" in scoring.needs:
            record["identity"] = identity(payload)
        if second:
            record |= {"against_nll": second[at]["nll"], "against_n_bytes": window.second[at].n_bytes}
        if not columns:
            yield [(record, 0)]
            continue
        document = window.documents[at]
        record |= {"n_bytes": document.n_bytes, "tokens": document.tokens, "n_prefix": document.n_prefix}
        yield [({**record, **column[at]}, document.n_scored) for column in columns]


def _of_model(
    model: LanguageModel, documents: list[TokenizedDocument], scoring: Scoring, pulse: Callable[[int], object]
) -> Sequence[Statistics | Known]:
    found = model.statistics(documents, scoring.statistics, pulse)
    if "continuation" not in scoring.needs:
        return found
    continuations = model.continuations(documents, PROMPT, CONTINUED, pulse)
    return [{**one, "continuation": ids} for one, ids in zip(found, continuations, strict=True)]


# --- what is said of it -------------------------------------------------------------------------------------------------------


def _fields(of_models: list[tuple[Known, int]], scoring: Scoring, place: str) -> Fields:
    try:
        fields = {
            name: value
            for metric in scoring.metrics
            for name, value in _scores(metric, of_models, scoring.min_tokens, scoring.per_model)
        }
    except OverflowError:
        raise DataError(
            "a score is too large for a number", place=place, remedy="check the model's weights"
        ) from None
    first, n_scored = of_models[0]
    if "nll" in first:
        fields |= {
            "nll_sum": fmean(_sum(known["nll"], place) for known, _ in of_models),
            "n_scored": n_scored,
            "n_bytes": first["n_bytes"],
        }
    if "against_nll" in first:
        fields["against_nll_sum"] = _sum(first["against_nll"], place)
    return fields


def _scores(
    metric: Metric, of_models: list[tuple[Known, int]], min_tokens: int, per_model: bool
) -> Iterator[tuple[str, float | None]]:
    """The field or fields of a metric."""
    if not metric.needs_model:
        yield metric.name, metric.of(of_models[0][0])
        return
    values = [metric.of(known) if n_scored >= max(1, min_tokens) else None for known, n_scored in of_models]
    present = [value for value in values if value is not None]
    yield (
        metric.name,
        None
        if len(present) < len(values)
        else present[0]
        if len(values) == 1
        else metric.over_models(present),
    )
    if per_model:
        yield from ((f"{metric.name}_{number}", value) for number, value in enumerate(values, 1))


def _sum(nll: Any, place: str) -> float:
    total = float(nll.sum(dtype=np.float64))
    if not math.isfinite(total):
        raise DataError(
            f"the model gives it a likelihood of {total}", place=place, remedy="check the model's weights"
        )
    return total


# --- windows ------------------------------------------------------------------------------------------------------------------


def _windows(
    items: Iterable[tuple[Payload, Content]],
    scoring: Scoring,
    window_tokens: int,
    place: Callable[[Payload], str],
    size: Callable[[Payload], int],
) -> Iterator[Window]:
    """Records until they hold `window_tokens` tokens, again and again; a record counts one more, so that empty ones fill it too."""
    window, tokens, n_bytes = Window([], [], [], []), 0, 0
    for block in _blocks(items, size):
        block_bytes = sum(size(payload) for payload, _ in block)
        if window.payloads and n_bytes + block_bytes > WINDOW_BYTES:
            yield window
            window, tokens, n_bytes = Window([], [], [], []), 0, 0
        tokens += _add(window, block, scoring, place)
        n_bytes += block_bytes
        if tokens >= window_tokens:
            yield window
            window, tokens, n_bytes = Window([], [], [], []), 0, 0
    if window.payloads:
        yield window


def _add(
    window: Window, block: list[tuple[Payload, Content]], scoring: Scoring, place: Callable[[Payload], str]
) -> int:
    """Put a block into a window; how many tokens that makes, one more for each record."""
    contents = [content for _, content in block]
    window.payloads += [payload for payload, _ in block]
    window.contents += contents
    encoded = (
        scoring.models[0].encode_many(contents, lambda index: place(block[index][0]))
        if scoring.models
        else []
    )
    window.documents += encoded
    if scoring.against:
        window.second += scoring.against.encode_many(contents, lambda index: place(block[index][0]))
    return len(block) + sum(len(document.tokens) for document in encoded)


def _blocks(
    items: Iterable[tuple[Payload, Content]], size: Callable[[Payload], int]
) -> Iterator[list[tuple[Payload, Content]]]:
    block: list[tuple[Payload, Content]] = []
    characters = n_bytes = 0
    for payload, content in items:
        n_bytes += size(payload)
        if block and n_bytes > WINDOW_BYTES:
            yield block
            block, characters, n_bytes = [], 0, size(payload)
        block.append((payload, content))
        characters += len(content)
        if len(block) == BLOCK_RECORDS or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters, n_bytes = [], 0, 0
    if block:
        yield block
