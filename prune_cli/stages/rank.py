"""Order records by a score, and tell each its rank and its quantile."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import DataError
from ..io.records import Anything, Count, Number, Record, Source, Wanted, splice

ADDED = ("rank", "quantile")


@dataclass(frozen=True)
class Ranking:
    """Which field is ranked, by which unit, and in which direction the file runs."""

    key: str
    by: str = "records"
    tokens_field: str = "n_scored"
    reverse: bool = False
    group: str = "source"
    prefix: str = ""
    overwrite: bool = False


@dataclass(frozen=True)
class Ranked:
    """What is known once everything was read: the part of the head that other verbs need, and the records in order."""

    head: dict[str, Any]
    records: Iterator[Record]


def wanted(ranking: Ranking) -> Wanted:
    """The fields that ranking reads."""
    fields = {ranking.group: Anything, ranking.tokens_field: Count, ranking.key: Number}
    optional = (ranking.group,) if ranking.by == "tokens" else (ranking.group, ranking.tokens_field)
    fresh = tuple(ranking.prefix + name for name in ADDED)
    return Wanted(fields, tuple(name for name in optional if name != ranking.key), (ranking.key,), fresh, ranking.overwrite)


def rank(source: Source, ranking: Ranking) -> Ranked:
    """Read everything, then give the records out in order: score first, input order among equals, `null` last.

    `rank` counts scored records from 0 for the lowest score; `quantile` is (rank + 1/2) / N by records, and (tokens of lower
    records + half its own) / all tokens by tokens. `reverse` turns the file's order, not the ranks.
    """
    lines: list[bytes] = []
    keys: list[float | None] = []
    tokens: list[int | None] = []
    groups: list[Any] = []
    for batch in source.batches(wanted(ranking)):
        lines += batch.lines
        keys += batch[ranking.key]
        tokens += batch[ranking.tokens_field]
        groups += batch[ranking.group]
    scores = np.array([np.nan if key is None else key for key in keys])
    weights = np.array([count or 0 for count in tokens], dtype=np.int64)  # UNSET and null count nothing
    scored = int(np.isfinite(scores).sum())
    order = np.argsort(scores, kind="stable")  # NaN, that is null, last
    quantiles = _quantiles(weights[order[:scored]], ranking.by).tolist()
    positions = np.arange(scored)[::-1] if ranking.reverse else np.arange(scored)

    def records() -> Iterator[Record]:
        for position in positions.tolist():
            at = order[position]
            yield _record(lines[at], weights[at], position, quantiles[position], groups[at], ranking.prefix)
        for at in order[scored:]:
            yield _record(lines[at], weights[at], None, None, groups[at], ranking.prefix)

    head = {"key": ranking.key, "n": scored, "nulls": len(lines) - scored, "unit": ranking.by, "reverse": ranking.reverse}
    return Ranked({**head, "prefix": ranking.prefix, "tokens": int(weights[order[:scored]].sum())}, records())


def _quantiles(weights: np.ndarray, by: str) -> np.ndarray:
    """Quantiles of records in the order of their scores, each the middle of its own share."""
    if by == "records":
        return (np.arange(len(weights)) + 0.5) / max(len(weights), 1)
    total = int(weights.sum())
    if len(weights) and not total:
        raise DataError("no scored record has any tokens", remedy="rank --by records, or name the count with --tokens-field")
    middles: np.ndarray = (2 * np.cumsum(weights) - weights) / max(2 * total, 1)
    return middles


def _record(line: bytes, tokens: int, rank: int | None, quantile: float | None, group: Any, prefix: str) -> Record:
    shown = "null" if rank is None else str(rank), "null" if quantile is None else repr(quantile)
    added = f'"{prefix}rank":{shown[0]},"{prefix}quantile":{shown[1]}'.encode()
    return Record(splice(line, added), int(tokens), rank is None, rank, group if isinstance(group, str) else None)
