"""What do the records of a stream say, once their columns are read?"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np

from ... import charts, metrics
from ...errors import DataError
from ...records.reader import Source
from ...statistics.correlation import LengthCorrelation
from ...statistics.quantile_grid import grid_of
from ...stream.schema import RankSection
from ..measured_cut import MeasuredCut
from .columns import RecordTable
from .thresholds import bounds_of, scored_order, thresholds

GROUPS_SHOWN = 8  # on a terminal; the output has all


def describe(source: Source, table: RecordTable, ranking: RankSection | None) -> dict[str, Any]:
    """The statistics of a stream and of its groups. A `ranking` says in which unit and order.

    `table` holds the records of the source. Raises DataError if trailers of the stream count other records.
    """
    names = table.names
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
    shown = dict(sorted(groups.items())) if table.has_few_groups else {}
    correlation = _correlation(table.scores[0], table.tokens) if len(names) == 1 else None
    duplicates = {"duplicates": _duplicates(table.digests)} if table.digests is not None else {}
    return {**whole, "groups": shown, "length_correlation": correlation, "verified": True, **duplicates}


def pictures(table: RecordTable) -> list[str]:
    """Each score as a histogram of all records, and as a line for each of the largest groups."""
    lines: list[str] = []
    for name, scores in zip(table.names, table.scores, strict=True):
        shape = grid_of(scores, scored_order(scores))
        if shape is None:
            continue
        lines += charts.histogram(name, shape, "records")
        if table.has_few_groups:
            edges = charts.edges(shape)
            lines += charts.by_group(_heights(table, scores, edges), edges)
    return lines


def _heights(table: RecordTable, scores: np.ndarray, edges: Sequence[float]) -> dict[str, list[int]]:
    """Records between the edges in each of the largest groups; the outermost ranges take all beyond them."""
    sizes = np.bincount(table.groups[table.groups >= 0], minlength=len(table.group_names))
    largest = np.argsort(-sizes, kind="stable")[:GROUPS_SHOWN]
    clipped = np.clip(scores, edges[0], edges[-1]) if len(edges) else scores
    return {
        table.group_names[code]: np.histogram(clipped[table.groups == code], edges)[0].tolist()
        for code in largest.tolist()
        if len(edges)
    }


def measure(
    source: Source, table: RecordTable, fractions: tuple[Decimal, Decimal], ranking: RankSection | None
) -> MeasuredCut:
    """The cut between two fractions of the first score of a table, in the unit of a ranking by that score.

    Raises DataError if no record has a score, or no score lies between them.
    """
    key = table.names[0]
    unit = ranking.unit if ranking and ranking.key == key else "records"
    scores = table.scores[0]
    bounds = bounds_of(scores, fractions, table.tokens if unit == "tokens" else None)
    scored = scores[~np.isnan(scores)]
    if not len(scored):
        fault = f"no record has a score in `{key}`"
        raise DataError(fault, place=source.name, remedy="name another field with -k")
    inside = scored >= (-np.inf if bounds[0] is None else bounds[0])
    inside &= scored < (np.inf if bounds[1] is None else bounds[1])
    if not inside.any():
        fault = f"no `{key}` lies between the fractions {fractions[0]} and {fractions[1]}"
        raise DataError(fault, place=source.name, remedy="it may be that scores tie; choose a wider cut")
    return MeasuredCut(
        key=key,
        low=f"{fractions[0]:f}",
        high=f"{fractions[1]:f}",
        unit=unit,
        least=bounds[0],
        below=bounds[1],
        share=float(inside.mean()),
        records=len(scored),
    )


def _summary(
    scores: np.ndarray, tokens: np.ndarray, names: Sequence[str], ranking: RankSection | None
) -> dict[str, Any]:
    # Records without any of the scores.
    nulls = int(np.isnan(scores).all(0).sum()) if len(scores) else 0
    # A reversed ranking has the last of equal scores first, and its ranks count from there.
    step = -1 if ranking and ranking.reverse else 1
    by_tokens = ranking.key if ranking and ranking.unit == "tokens" else None
    described = {
        name: thresholds(row[::step], tokens[::step] if name == by_tokens else None) | _touched(name, row)
        for name, row in zip(names, scores, strict=True)
    }
    return {"records": len(tokens), "nulls": nulls, "tokens": int(tokens.sum()), "scores": described}


def _touched(name: str, scores: np.ndarray) -> dict[str, int]:
    """Of overlap, how many records share anything with the held-out set."""
    metric = metrics.of_field(name)
    return {"touched": int((scores > 0).sum())} if metric and metric.name == "overlap" else {}


def _correlation(scores: np.ndarray, tokens: np.ndarray) -> float | None:
    order = scored_order(scores)
    lengths = LengthCorrelation()
    lengths.add(scores[order], tokens[order])
    correlation = lengths.value()
    return None if correlation is None else round(correlation, 6)


def _duplicates(digests: Sequence[np.ndarray]) -> dict[str, int]:
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
    check_records(records, sum(trailer.totals.records for trailer in source.trailers))


def check_records(records: int, expected: int) -> None:
    """Raise DataError unless as many records were read as the trailers count."""
    if expected != records:
        fault = f"the trailer counts {expected} records, but {records} were read"
        raise DataError(fault, remedy="download or regenerate the file")
