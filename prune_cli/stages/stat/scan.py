"""What do the records of a stream say? Every record is read: 16 bytes of memory a record and score."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np

from ...errors import DataError
from ...records.columns import Labels, counts
from ...records.documents import content_fields, contents, no_content
from ...records.reader import MISSING, Anything, Batch, Count, Number, Source, Wanted
from ...settings.stat import Inspection
from ...statistics.correlation import LengthCorrelation
from ...stream.schema import RankSection
from ...stream.writer import GROUPS
from .thresholds import scored_order, thresholds


def describe(
    source: Source, inspection: Inspection, names: Sequence[str], ranking: RankSection | None
) -> dict[str, Any]:
    """The statistics of a stream and of its groups, for the scores `names`.

    A `ranking` says in which unit and order.

    Raises DataError if no record has one of the scores, and if trailers of the stream count other records.
    """
    table = _read(source, inspection, names)
    whole = {**_summary(table.scores, table.tokens, names, ranking), "bytes": table.size}
    _check(whole["records"], source)
    groups = {
        name: _summary(
            table.scores[:, table.groups == code], table.tokens[table.groups == code], names, ranking
        )
        for code, name in enumerate(table.group_names)
    }
    if table.size and not table.has_tokens:
        # The records do not say how many tokens they have, which is not the same as 0.
        for summary in (whole, *groups.values()):
            summary["tokens"] = None
    # A field with more values than a trailer counts is no group field: a list of ids, for example.
    shown = dict(sorted(groups.items())) if len(groups) <= GROUPS else {}
    correlation = _correlation(table.scores[0], table.tokens) if len(names) == 1 else None
    duplicates = {"duplicates": _duplicates(table.digests)} if inspection.duplicates else {}
    return {**whole, "groups": shown, "length_correlation": correlation, "verified": True, **duplicates}


@dataclass(frozen=True)
class _Table:
    """All records as columns.

    `scores` has a row for each score; `groups` has places in `group_names`, -1 for none.
    """

    scores: np.ndarray
    tokens: np.ndarray
    groups: np.ndarray
    group_names: list[str]
    digests: list[np.ndarray]
    size: int  # bytes of text
    has_tokens: bool


def _read(source: Source, inspection: Inspection, names: Sequence[str]) -> _Table:
    # One label more than a trailer counts shows that there are too many.
    labels = Labels(str, most=GROUPS + 1)
    # An empty part first, so that a stream without records has columns, too.
    parts = [(np.zeros((len(names), 0)), np.zeros(0, np.int64), np.zeros(0, np.int32))]
    digests: list[np.ndarray] = []
    size = 0
    absent = [*names, inspection.tokens_field]
    for batch in source.batches(_wanted(inspection, names)):
        absent = [name for name in absent if batch[name].count(MISSING) == len(batch)]
        parts.append(
            (
                _scores(batch, names),
                counts(batch[inspection.tokens_field]),
                labels.codes(batch[inspection.group_by]),
            )
        )
        if inspection.duplicates:
            digests.append(_digests(batch, inspection.text_field))
        size += len(batch.text)
    if size and absent not in ([], [inspection.tokens_field]):
        fault = f"no record has a field `{absent[0]}`"
        raise DataError(fault, place=source.name, remedy="name another score with -k")
    scores, tokens, groups = (np.concatenate(column, axis=-1) for column in zip(*parts, strict=True))
    return _Table(scores, tokens, groups, labels.names, digests, size=size, has_tokens=not absent)


def _wanted(inspection: Inspection, names: Sequence[str]) -> Wanted:
    fields: dict[str, Any] = {inspection.group_by: Anything, inspection.tokens_field: Count}
    fields |= dict.fromkeys(names, Number)
    if inspection.duplicates:
        fields |= content_fields(inspection.text_field, nullable=True)
    return Wanted(fields, tuple(fields), tuple(names))


def _scores(batch: Batch, names: Sequence[str]) -> np.ndarray:
    """A row for each score; NaN for a record that has none."""
    rows = [[None if value is MISSING else value for value in batch[name]] for name in names]
    return np.array(rows, dtype=float).reshape(len(names), len(batch))


def _summary(
    scores: np.ndarray, tokens: np.ndarray, names: Sequence[str], ranking: RankSection | None
) -> dict[str, Any]:
    # Records without any of the scores.
    nulls = int(np.isnan(scores).all(0).sum()) if len(scores) else 0
    # A reversed ranking has the last of equal scores first, and its ranks count from there.
    step = -1 if ranking and ranking.reverse else 1
    by_tokens = ranking.key if ranking and ranking.unit == "tokens" else None
    described = {
        name: thresholds(row[::step], tokens[::step] if name == by_tokens else None)
        for name, row in zip(names, scores, strict=True)
    }
    return {"records": len(tokens), "nulls": nulls, "tokens": int(tokens.sum()), "scores": described}


def _correlation(scores: np.ndarray, tokens: np.ndarray) -> float | None:
    order = scored_order(scores)
    lengths = LengthCorrelation()
    lengths.add(scores[order], tokens[order])
    correlation = lengths.value()
    return None if correlation is None else round(correlation, 6)


def _digests(batch: Batch, text_field: str) -> np.ndarray:
    """128 bits for each text, or for each list of token ids where there is one."""
    digests = []
    for index, content in enumerate(contents(batch, text_field)):
        if content is MISSING or content is None:
            raise no_content(batch, index, text_field)
        digests.append(_digest(content))
    return np.array(digests, dtype="V16")


def _digest(content: str | list[int]) -> bytes:
    # `person` keeps a text and a list of ids with the same bytes apart.
    kind = type(content).__name__.encode()
    data = content.encode() if isinstance(content, str) else np.array(content, dtype=np.int64).tobytes()
    return blake2b(data, digest_size=16, person=kind).digest()


def _duplicates(digests: list[np.ndarray]) -> dict[str, int]:
    # NumPy does not sort opaque bytes, but it sorts pairs of integers.
    pairs = np.concatenate([np.zeros(0, "V16"), *digests]).view(np.dtype([("high", "<u8"), ("low", "<u8")]))
    sizes = np.unique(pairs, return_counts=True)[1]
    return {
        "distinct": len(sizes),
        "copies": len(pairs) - len(sizes),
        "most_often": int(sizes.max(initial=0)),
    }


def _check(records: int, source: Source) -> None:
    """Compare the records that were read with the trailers, if every part of the stream has one."""
    if source.skipped or not source.trailers or len(source.trailers) != len(source.heads):
        return
    expected = sum(trailer.totals.records for trailer in source.trailers)
    if expected != records:
        fault = f"the trailer counts {expected} records, but {records} were read"
        raise DataError(fault, remedy="fetch the file again, or make it again")
