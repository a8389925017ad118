"""How is a score distributed, and what of it does each slice keep? Fine histograms become bars."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from ...statistics.quantile_grid import FRACTIONS
from .collect.histograms import RECORDS, TOKENS, GroupHistograms, Scale
from .collect.slices import SliceReading
from .content import Bins, Distribution

BARS = 64
FENCE = 3  # interquartile ranges beyond the quartiles that are drawn: Tukey's outer fences


def distribution(
    field: str,
    unit: str,
    histograms: GroupHistograms,
    groups: Mapping[str, int],
    slices: Sequence[SliceReading],
) -> Distribution | None:
    """The distribution of one score in the given unit; `groups` has the number of each that is shown.

    None if no record has the score.
    """
    column = TOKENS if unit == "tokens" else RECORDS
    whole = histograms.whole()
    if not whole.total(column):
        return None
    by_group = {name: histograms.of(code) for name, code in groups.items()}
    kept = {each.name: each.histograms[field].whole() for each in slices if field in each.histograms}

    def bins(logarithmic: bool) -> Bins:
        return _bins(whole, by_group, kept, column=column, logarithmic=logarithmic)

    return Distribution(
        field=field,
        unit=unit,
        records=whole.total(RECORDS),
        quantiles=_thresholds(whole, column),
        group_quantiles={name: _thresholds(scale, column) for name, scale in by_group.items()},
        linear=bins(False),
        logarithmic=bins(True) if _is_skewed(whole, column) else None,
    )


def _is_skewed(whole: Scale, column: int) -> bool:
    """Whether a logarithmic axis makes the distribution more symmetrical, by its octiles (Hinkley 1975)."""
    low, middle, high = whole.quantiles([0.125, 0.5, 0.875], column)
    if whole.scores[0] <= 0 or not low < high:
        return False
    ends = [low, middle, high]
    return abs(_skewness(*map(math.log, ends))) < abs(_skewness(*ends))


def _skewness(low: float, middle: float, high: float) -> float:
    return (high + low - 2 * middle) / (high - low)


def _thresholds(scale: Scale, column: int) -> dict[str, float]:
    values = scale.quantiles([float(fraction) for fraction in FRACTIONS], column)
    return dict(zip(FRACTIONS, values, strict=False))


def _bins(
    whole: Scale,
    by_group: Mapping[str, Scale],
    kept: Mapping[str, Scale],
    *,
    column: int,
    logarithmic: bool,
) -> Bins:
    least, most = _fences(whole, column, logarithmic)
    edges = np.geomspace(least, most, BARS + 1) if logarithmic else np.linspace(least, most, BARS + 1)
    counts = whole.between(edges, column)
    below = np.concatenate(([0], np.cumsum(counts))) / max(counts.sum(), 1)
    return Bins(
        edges=_rounded(edges),
        quantiles=_rounded(below),
        whole=counts.tolist(),
        kept={name: scale.between(edges, column).tolist() for name, scale in kept.items()},
        by_group={name: scale.between(edges, column).tolist() for name, scale in by_group.items()},
        clips_low=bool(whole.scores[0] < least),
        clips_high=bool(whole.scores[-1] > most),
    )


def _rounded(values: np.ndarray) -> list[float]:
    """Six digits are more than a chart shows, and a third of the bytes of all digits."""
    return [float(f"{value:.6g}") for value in values]


def _fences(whole: Scale, column: int, logarithmic: bool) -> tuple[float, float]:
    """The part of the scores that is drawn: without those that lie far from the quartiles."""
    low = float(whole.scores[0])
    high = float(whole.scores[-1])
    first, third = whole.quantiles([0.25, 0.75], column)
    if logarithmic:
        ends = _fences_between(math.log(low), math.log(first), math.log(third), math.log(high))
        least, most = (math.exp(end) for end in ends)
    else:
        least, most = _fences_between(low, first, third, high)
    if not least < most:
        # All scores are equal: a bar of some width shows that, too.
        return (least * 0.99, least * 1.01) if logarithmic else (least - 0.5, least + 0.5)
    return least, most


def _fences_between(low: float, first: float, third: float, high: float) -> tuple[float, float]:
    if not first < third:
        return low, high
    reach = FENCE * (third - first)
    return max(low, first - reach), min(high, third + reach)
