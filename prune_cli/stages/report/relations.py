"""How do scores go together, with each other and with length? From a sample of the records."""

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from ...statistics import agreement
from .collect.sampling import RowSample
from .content import Agreement, Length, Shared

POINTS = 1_500  # that a chart shows: more are a blot


def lengths(fields: Sequence[str], sample: RowSample) -> list[Length]:
    """Each score against length: tokens if the records count them, else bytes of the line."""
    rows = sample.rows()
    has_tokens = bool(rows[:, -2].any())
    sizes = rows[:, -2 if has_tokens else -1]
    return [
        _length(field, rows[:, number], sizes, sample, "tokens" if has_tokens else "bytes")
        for number, field in enumerate(fields)
    ]


def _length(field: str, scores: np.ndarray, sizes: np.ndarray, sample: RowSample, of: str) -> Length:
    scored = ~np.isnan(scores)
    pairs = np.stack([sizes[scored], scores[scored]], axis=1)
    return Length(
        field=field,
        correlation=_correlation(pairs),
        sampled=len(pairs),
        is_exact=sample.is_all,
        of=of,
        points=_points(pairs),
    )


def agreements(fields: Sequence[str], sample: RowSample) -> list[Agreement]:
    """Each pair of scores, over the records of the sample that have both."""
    rows = sample.rows()
    return [
        _agreement((fields[first], fields[second]), rows[:, [first, second]], sample.is_all)
        for first, second in combinations(range(len(fields)), 2)
    ]


def _agreement(names: tuple[str, str], scores: np.ndarray, is_exact: bool) -> Agreement:
    both = scores[~np.isnan(scores).any(1)]
    first, second = (agreement.ScorePlaces(column, None) for column in both.T)
    nobody = np.full(len(both), -1)
    overlaps = agreement.overlaps(first, second, np.zeros(len(both), np.int64), nobody, 0)
    quantiles = (np.stack([first.ranks, second.ranks], axis=1) + 0.5) / max(len(both), 1)
    return Agreement(
        first=names[0],
        second=names[1],
        correlation=_correlation(both),
        sampled=len(both),
        is_exact=is_exact,
        shared=[Shared(each.part, float(each.size), each.whole.share or 0.0) for each in overlaps],
        points=_points(quantiles),
    )


def _correlation(pairs: np.ndarray) -> float | None:
    value = agreement.spearman(pairs[:, 0], pairs[:, 1])
    return None if value is None else round(value, 4)


def _points(pairs: np.ndarray) -> list[tuple[float, float]]:
    # The rows of a sample are in random order, so that the first are a sample again.
    return [(float(f"{x:.5g}"), float(f"{y:.5g}")) for x, y in pairs[:POINTS]]
