"""How do records get their scores? In windows of the stream, with one pass of each model over each window.

The order of the records is kept.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import fmean
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from ...errors import DataError
from ...metrics import OF_TEXTS, UNPROMPTED, Metric
from ...records.batching import Bound, batched
from ...records.documents import PromptedContent, without_prompt
from ...records.fields import MISSING
from ...records.prefetch import prefetch
from .scoring import CONTINUED, PROMPT
from .scoring import Scoring as Scoring

if TYPE_CHECKING:  # metrics that need no model need no torch
    from ...models.language_model import LanguageModel, Statistics
    from ...models.ngram.model import NgramModel

log = logging.getLogger(__name__)

Payload = TypeVar("Payload")
Fields = dict[str, Any]
# Values of all records of a window, by name: what metrics are computed from (metrics/__init__.py), or fields.
Columns = dict[str, Iterable[Any]]
Place = Callable[[int], str]  # of the record at an index, for errors

# Records that are tokenized together: enough to keep the tokenizer's threads busy.
BLOCK_RECORDS = 256
BLOCK_CHARACTERS = 1 << 18
WINDOW_BYTES = 4 << 20  # most text in a window, which becomes one frame


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
        yield _scored(window, scoring, place, identity, on_batch)
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
        ((*item, size(item[0])) for item in items),
        Bound(lambda item: 1, BLOCK_RECORDS),
        Bound(lambda item: len(item[1]), BLOCK_CHARACTERS),
        most=Bound(lambda item: item[2], WINDOW_BYTES),
    )
    windows = batched(
        (_tokenized(block, scoring, place) for block in blocks),
        Bound(lambda window: window.n_tokens, window_tokens),
        most=Bound(lambda window: window.n_bytes, WINDOW_BYTES),
    )
    for parts in windows:
        yield Window.joined(parts)


def _tokenized(
    block: list[tuple[Payload, PromptedContent, int]],
    scoring: Scoring,
    place: Callable[[Payload], str],
) -> Window:
    """Records that are tokenized together: payload, content and bytes of each."""
    payloads, contents, sizes = map(list, zip(*block, strict=True))

    def place_of(index: int) -> str:
        return place(payloads[index])

    return Window(
        payloads=payloads,
        contents=contents,
        documents=scoring.models[0].encode_many(contents, place_of) if scoring.models else [],
        second=scoring.against.encode_many(contents, place_of) if scoring.against else [],
        n_bytes=sum(sizes),
    )


# --- New fields ---


def _scored(
    window: Window,
    scoring: Scoring,
    place: Callable[[Any], str],
    identity: Callable[[Any], Any],
    on_batch: Callable[[int], object],
) -> list[tuple[Any, Fields]]:
    """Each payload with its new fields, in the order in which they are written."""

    def place_of(index: int) -> str:
        return place(window.payloads[index])

    # Column by column, not record by record, which takes twice as long where a metric costs little.
    second = _of_second(window, scoring, place_of, on_batch)
    by_model = [_of_model(model, window, scoring, place_of, on_batch) for model in scoring.models]
    common = {**_of_records(window, scoring, place_of, identity), **second}
    columns: Columns = {}
    for metric in scoring.metrics:
        columns |= _scores(metric, window, scoring, common, by_model, place_of)
    if by_model:
        # The models of an ensemble share a tokenizer, and with it both counts.
        sums = [quantities["nll_sum"] for quantities in by_model]
        columns["nll_sum"] = sums[0] if len(sums) == 1 else map(fmean, zip(*sums, strict=True))
        columns |= {name: common[name] for name in ("n_scored", "n_bytes")}
    if second:
        columns["against_nll_sum"] = second["against_nll_sum"]
    names = list(columns)
    rows = zip(*columns.values(), strict=True) if columns else repeat((), len(window.payloads))
    return [
        (payload, dict(zip(names, row, strict=True)))
        for payload, row in zip(window.payloads, rows, strict=True)
    ]


def _scores(
    metric: Metric,
    window: Window,
    scoring: Scoring,
    common: Columns,
    by_model: Sequence[Columns],
    place: Place,
) -> Columns:
    """The field of a metric, and with `per_model` one for each model."""
    if not metric.needs_model:
        # A block of ids has no quantities of its text.
        of_texts = [common[name] for name in metric.needs & OF_TEXTS.keys()]
        rows = zip(*of_texts, strict=True) if of_texts else repeat((), len(window.payloads))
        return {metric.name: _values(metric, common, [MISSING not in row for row in rows], place)}
    # The means of metrics are undefined for no tokens at all, whatever `min_tokens` says.
    least = max(1, scoring.min_tokens)
    is_scored = [document.n_scored >= least for document in window.documents]
    values = [_values(metric, {**common, **of_model}, is_scored, place) for of_model in by_model]
    scores: Columns = {metric.name: _over_models(metric, values, place)}
    if scoring.per_model:
        scores |= {f"{metric.name}_{number}": column for number, column in enumerate(values, 1)}
    return scores


def _values(
    metric: Metric, quantities: Columns, is_scored: Sequence[bool], place: Place
) -> list[float | None]:
    """The metric of each record; None where it is not scored."""
    names = list(metric.needs)

    def value(scored: bool, *row: Any) -> float | None:
        return metric.score(**dict(zip(names, row, strict=True))) if scored else None

    return _each(value, zip(is_scored, *(quantities[name] for name in names), strict=False), place)


def _over_models(metric: Metric, values: Sequence[list[float | None]], place: Place) -> list[float | None]:
    """The scores of an ensemble: None where a model has none."""
    if len(values) == 1:
        # Not even a mean of one: a geometric mean may differ from its only value in the last digit.
        return values[0]

    def value(*row: Any) -> float | None:
        return None if None in row else metric.over_models(row)

    return _each(value, zip(*values, strict=True), place)


def _each(
    value: Callable[..., float | None], rows: Iterable[Sequence[Any]], place: Place
) -> list[float | None]:
    """The value of each row. Raises DataError for one that is too large."""
    values: list[float | None] = []
    try:
        for row in rows:
            values.append(value(*row))
    except OverflowError:
        fault = "a score is too large for a floating-point number"
        raise DataError(fault, place=place(len(values)), remedy="check the model's weights") from None
    return values


# --- What metrics are computed from ---


def _of_records(window: Window, scoring: Scoring, place: Place, identity: Callable[[Any], Any]) -> Columns:
    """What all models share."""
    contents = [without_prompt(content) for content in window.contents]
    columns: Columns = {"content": contents, "seed": repeat(scoring.seed), "top_k": repeat(scoring.top_k)}
    if "identity" in scoring.needs:
        columns["identity"] = list(map(identity, window.payloads))
    for resource in scoring.resources:
        columns |= resource.quantities(contents, place)
    for name in ("n_scored", "n_bytes", "tokens", "n_prefix") if scoring.models else ():
        columns[name] = [getattr(document, name) for document in window.documents]
    return columns


def _of_second(window: Window, scoring: Scoring, place: Place, on_batch: Callable[[int], object]) -> Columns:
    """What the model of --against says, if there is one."""
    if not scoring.against:
        return {}
    statistics = _columns(scoring.against.statistics(window.second, ("nll",), on_batch), place)
    of_documents = {"n_bytes": [document.n_bytes for document in window.second]}
    return {f"against_{name}": column for name, column in (statistics | of_documents).items()}


def _of_model(
    model: LanguageModel | NgramModel,
    window: Window,
    scoring: Scoring,
    place: Place,
    on_batch: Callable[[int], object],
) -> Columns:
    """The statistics of each document's tokens, and what else metrics need of the model."""
    documents = window.documents
    columns = _columns(model.statistics(documents, scoring.statistics, on_batch), place)
    if UNPROMPTED in scoring.needs:
        alone = [document.unprompted or document for document in documents]
        columns[UNPROMPTED] = [each["nll"] for each in model.statistics(alone, ("nll",), on_batch)]
    if "continuation" in scoring.needs:
        causal = cast("LanguageModel", model)
        columns["continuation"] = causal.continuations(documents, PROMPT, CONTINUED, on_batch)
    return columns


def _columns(statistics: Sequence[Statistics], place: Place) -> Columns:
    """The statistics by name, with the sums of nll, which an n-gram model gives by itself."""
    columns: Columns = {name: [each[name] for each in statistics] for name in statistics[0]}
    if "nll" in columns:
        # In double precision: a long document has millions of tokens.
        columns["nll_sum"] = [float(nll.sum(dtype=np.float64)) for nll in columns["nll"]]
    for index, total in enumerate(columns.get("nll_sum", ())):
        if not math.isfinite(total):
            fault = f"the model's log-likelihood of it is {total}"
            raise DataError(fault, place=place(index), remedy="check the model's weights")
    return columns
