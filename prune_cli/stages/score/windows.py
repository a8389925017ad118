"""How do records get their scores? In windows of the stream, with one pass of each model over each window.

The order of the records is kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ...errors import DataError
from ...metrics import UNPROMPTED, Metric
from ...records.batching import Bound, batched
from ...records.documents import PromptedContent, without_prompt
from ...records.prefetch import prefetch
from .scoring import CONTINUED, PROMPT
from .scoring import Scoring as Scoring

if TYPE_CHECKING:  # metrics that need no model need no torch
    from ...models.language_model import LanguageModel, Statistics
    from ...models.ngram.model import NgramModel

log = logging.getLogger(__name__)

Payload = TypeVar("Payload")
Fields = dict[str, Any]
Quantities = dict[str, Any]  # what metrics are computed from, by the names that metrics/__init__.py lists

# Records that are tokenized together: enough to keep the tokenizer's threads busy.
BLOCK_RECORDS = 256
BLOCK_CHARACTERS = 1 << 18
WINDOW_BYTES = 4 << 20  # most text in a window, which becomes one frame


@dataclass(frozen=True)
class Scored:
    """The quantities of one record by one model."""

    quantities: Quantities
    n_scored: int  # tokens


@dataclass(frozen=True)
class Window:
    """Records that are scored together."""

    payloads: list[Any]
    contents: list[PromptedContent]
    documents: list[Any]  # TokenizedDocument or Sentences, as the first model reads them
    second: list[Any]  # as the model of --against does
    n_bytes: int

    @classmethod
    def joined(cls, parts: Sequence[Window]) -> Window:
        """The records of all parts."""
        # A window of tiny records has hundreds of parts: adding them up one by one would be quadratic.
        lists = ("payloads", "contents", "documents", "second")
        joined = {name: [item for part in parts for item in getattr(part, name)] for name in lists}
        return cls(**joined, n_bytes=sum(part.n_bytes for part in parts))

    @property
    def n_tokens(self) -> int:
        """The tokens by the first model, plus one for each record.

        Counting each record too lets empty records, and records that no model tokenizes, fill a window.
        """
        return len(self.payloads) + sum(len(document.tokens) for document in self.documents)


def score(
    items: Iterable[tuple[Payload, PromptedContent]],
    scoring: Scoring,
    *,
    window_tokens: int = 1 << 17,
    place: Callable[[Payload], str] = str,
    identity: Callable[[Payload], Any] = lambda payload: None,
    size: Callable[[Payload], int] = lambda payload: 0,
    on_batch: Callable[[int], object] = lambda tokens: None,
) -> Iterator[list[tuple[Payload, Fields]]]:
    """Each payload with its new fields, in input order: a list for each window.

    A window has about `window_tokens` tokens. The fields are one for each metric (with `per_model` one for
    each model too: `perplexity_1`), then those of layout.py's `count_fields`. Metrics that need a model are
    None for a record with fewer than `min_tokens` scored tokens, or none.

    `place` names a record in errors, and `identity` is its id. `size` is its length in bytes: a window
    holds at most WINDOW_BYTES, or one record. `on_batch` is called after each batch with the number of its
    scored tokens.

    Raises DataError for ids outside a model's vocabulary and for likelihoods that are not finite.
    """
    unknown = 0  # tokens
    affected = 0  # records
    unfit = 0  # records whose prompt is too long
    # Where a window ends depends only on the records since the last one ended: a resumed run makes the same
    # windows. The next window is read and tokenized in a thread while this one is scored; depth 0 keeps it
    # at one.
    for window in prefetch(_windows(items, scoring, window_tokens, place, size), depth=0):
        by_record = _scored(window, scoring, place, identity, on_batch)
        yield [
            (payload, _fields(by_model, scoring, partial(place, payload)))
            for payload, by_model in zip(window.payloads, by_record, strict=True)
        ]
        unknown += sum(document.n_unknown for document in window.documents)
        affected += sum(document.n_unknown > 0 for document in window.documents)
        unfit += sum(document.is_unfit for document in window.documents)
    if unknown:
        log.warning("%d tokens in %d records are text outside the model's vocabulary", unknown, affected)
    if unfit:
        log.warning("%d records have no score: their prompt is longer than the model's context", unfit)


# --- Windows ---


def _windows(
    items: Iterable[tuple[Payload, PromptedContent]],
    scoring: Scoring,
    window_tokens: int,
    place: Callable[[Payload], str],
    size: Callable[[Payload], int],
) -> Iterator[Window]:
    """Windows of `window_tokens` tokens and at most WINDOW_BYTES bytes, made of whole blocks."""
    blocks = batched(
        items,
        Bound(lambda item: 1, BLOCK_RECORDS),
        Bound(lambda item: len(item[1]), BLOCK_CHARACTERS),
        most=Bound(lambda item: size(item[0]), WINDOW_BYTES),
    )
    windows = batched(
        (_tokenized(block, scoring, place, size) for block in blocks),
        Bound(lambda window: window.n_tokens, window_tokens),
        most=Bound(lambda window: window.n_bytes, WINDOW_BYTES),
    )
    for parts in windows:
        yield Window.joined(parts)


def _tokenized(
    block: list[tuple[Payload, PromptedContent]],
    scoring: Scoring,
    place: Callable[[Payload], str],
    size: Callable[[Payload], int],
) -> Window:
    """Records that are tokenized together."""
    contents = [content for _, content in block]

    def place_of(index: int) -> str:
        return place(block[index][0])

    return Window(
        payloads=[payload for payload, _ in block],
        contents=contents,
        documents=scoring.models[0].encode_many(contents, place_of) if scoring.models else [],
        second=scoring.against.encode_many(contents, place_of) if scoring.against else [],
        n_bytes=sum(size(payload) for payload, _ in block),
    )


# --- What metrics are computed from ---


def _scored(
    window: Window,
    scoring: Scoring,
    place: Callable[[Any], str],
    identity: Callable[[Any], Any],
    on_batch: Callable[[int], object],
) -> Iterator[list[Scored]]:
    """For each record an entry for each model of the ensemble; without a model, one entry."""
    second: Sequence[Statistics] = []
    if scoring.against:
        second = scoring.against.statistics(window.second, ("nll",), on_batch)
    contents = [without_prompt(content) for content in window.contents]
    columns = [_statistics(model, window.documents, scoring, on_batch) for model in scoring.models]
    of_texts = [
        resource.quantities(contents, lambda index: place(window.payloads[index]))
        for resource in scoring.resources
    ]
    for at, (payload, content) in enumerate(zip(window.payloads, contents, strict=True)):
        common: Quantities = {"content": content, "seed": scoring.seed, "top_k": scoring.top_k}
        if "identity" in scoring.needs:
            common["identity"] = identity(payload)
        for quantities in of_texts:
            common |= quantities[at]
        if second:
            common |= {
                f"against_{name}": value
                for name, value in _with_sum(second[at], partial(place, payload)).items()
            }
            common["against_n_bytes"] = window.second[at].n_bytes
        if not columns:
            yield [Scored(common, 0)]
            continue
        document = window.documents[at]
        common |= {"n_bytes": document.n_bytes, "tokens": document.tokens, "n_prefix": document.n_prefix}
        common["n_scored"] = document.n_scored
        yield [
            Scored({**common, **_with_sum(column[at], partial(place, payload))}, document.n_scored)
            for column in columns
        ]


def _with_sum(statistics: Mapping[str, Any], place: Callable[[], str]) -> Mapping[str, Any]:
    """The statistics with the sum of nll, which an n-gram model gives by itself."""
    if "nll" not in statistics:
        return statistics
    return {**statistics, "nll_sum": _sum(statistics["nll"], place)}


def _statistics(
    model: LanguageModel | NgramModel,
    documents: list[Any],
    scoring: Scoring,
    on_batch: Callable[[int], object],
) -> list[Quantities]:
    """The statistics of each document's tokens, and what else metrics need of the model."""
    quantities: list[Quantities] = [*model.statistics(documents, scoring.statistics, on_batch)]
    if UNPROMPTED in scoring.needs:
        alone = [document.unprompted or document for document in documents]
        unprompted = model.statistics(alone, ("nll",), on_batch)
        for of_document, statistics in zip(quantities, unprompted, strict=True):
            of_document[UNPROMPTED] = statistics["nll"]
    if "continuation" in scoring.needs:
        continuations = cast("LanguageModel", model).continuations(documents, PROMPT, CONTINUED, on_batch)
        for of_document, ids in zip(quantities, continuations, strict=True):
            of_document["continuation"] = ids
    return quantities


# --- New fields ---


def _fields(by_model: list[Scored], scoring: Scoring, place: Callable[[], str]) -> Fields:
    """The new fields of a record, in the order in which they are written; `place` names it in errors."""
    fields: Fields = {}
    try:
        for metric in scoring.metrics:
            fields |= _scores(metric, by_model, scoring)
    except OverflowError:
        fault = "a score is too large for a floating-point number"
        raise DataError(fault, place=place(), remedy="check the model's weights") from None
    first = by_model[0].quantities
    if "nll_sum" in first:
        # The models of an ensemble share a tokenizer, and with it both counts.
        sums = [scored.quantities["nll_sum"] for scored in by_model]
        fields["nll_sum"] = fmean(sums) if len(sums) > 1 else sums[0]
        fields["n_scored"] = by_model[0].n_scored
        fields["n_bytes"] = first["n_bytes"]
    if "against_nll_sum" in first:
        fields["against_nll_sum"] = first["against_nll_sum"]
    return fields


def _scores(metric: Metric, by_model: list[Scored], scoring: Scoring) -> Fields:
    """The field of a metric, and with `per_model` one for each model."""
    if not metric.needs_model:
        quantities = by_model[0].quantities
        # A block of ids has no quantities of its text.
        is_scored = metric.needs <= quantities.keys()
        return {metric.name: metric.of(quantities) if is_scored else None}
    # The means of metrics are undefined for no tokens at all, whatever `min_tokens` says.
    least = max(1, scoring.min_tokens)
    values = [metric.of(scored.quantities) if scored.n_scored >= least else None for scored in by_model]
    scores = {metric.name: _over_models(metric, values)}
    if scoring.per_model:
        scores |= {f"{metric.name}_{number}": value for number, value in enumerate(values, 1)}
    return scores


def _over_models(metric: Metric, values: list[float | None]) -> float | None:
    """The score of an ensemble: None if a model has none."""
    present = [value for value in values if value is not None]
    if len(present) < len(values):
        return None
    # Not even a mean of one: a geometric mean may differ from its only value in the last digit.
    return present[0] if len(present) == 1 else metric.over_models(present)


def _sum(nll: Any, place: Callable[[], str]) -> float:
    """The sum over tokens, in double precision: a long document has millions of them."""
    total = float(nll.sum(dtype=np.float64))
    if not math.isfinite(total):
        fault = f"the model's log-likelihood of it is {total}"
        raise DataError(fault, place=place(), remedy="check the model's weights")
    return total
