"""Small pictures for a terminal: how a score is distributed and what a cut keeps of it, how a loss falls.

Lines of text, no more.
"""

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Sequence

ROWS, WIDTH = 10, 48
KEPT, CUT = "█", "░"
Share = Callable[[float, float], float]  # how much is kept of what lies between two quantiles


def histogram(name: str, shape: Sequence[float], unit: str, kept: Share | None = None) -> list[str]:
    """A bar for each range of a score: how many of the `unit` lie in it. The kept part is black.

    `shape` are the scores at equal steps of the distribution, of which the first and the last lie beyond the
    picture.

    The scale is logarithmic where the scores span a factor of 20. Nothing is drawn of equal scores.
    """
    low, high = shape[1], shape[-2]
    if not low < high:
        return []
    is_log = low > 0 and high / low > 20
    edges = [_between(low, high, row / ROWS, is_log) for row in range(ROWS + 1)]
    places = [0.0, *(_quantile(shape, edge) for edge in edges[1:-1]), 1.0]
    most = max(upper - lower for lower, upper in itertools.pairwise(places))
    lines = [f"{name:>10}  {f'{unit}: {KEPT} kept  {CUT} cut' if kept else unit}"]
    for edge, lower, upper in zip(edges, places, places[1:], strict=False):
        bar = round(WIDTH * (upper - lower) / most)
        black = bar if kept is None else round(bar * kept(lower, upper))
        lines.append(f"{edge:10.4g} │{KEPT * black}{CUT * (bar - black)}".rstrip())
    return lines


def between(low: float, high: float, *, invert: bool = False) -> Share:
    """What a cut between two quantiles keeps, or with `invert` what it leaves."""

    def kept(lower: float, upper: float) -> float:
        inside = max(0.0, min(upper, high) - max(lower, low)) / (upper - lower) if upper > lower else 0.0
        return 1 - inside if invert else inside

    return kept


def evenly(share: float) -> Share:
    """What a cut keeps that does not look at the score."""
    return lambda lower, upper: share


def quantiles(shape: Sequence[float], least: float, most: float) -> tuple[float, float]:
    """Where two scores lie in the distribution."""
    return _quantile(shape, least) if least > shape[0] else 0.0, _quantile(shape, most) if most < shape[
        -1
    ] else 1.0


def _between(low: float, high: float, share: float, is_log: bool) -> float:
    return low * (high / low) ** share if is_log else low + (high - low) * share


def _quantile(shape: Sequence[float], score: float) -> float:
    """The share of the distribution below a score, straight lines between its steps."""
    after = min(max(bisect_left(shape, score), 1), len(shape) - 1)
    lower, upper = shape[after - 1], shape[after]
    part = (score - lower) / (upper - lower) if upper > lower else 0.0
    return (after - 1 + min(max(part, 0.0), 1.0)) / (len(shape) - 1)


def curve(name: str, values: Sequence[float], steps: Sequence[int]) -> list[str]:
    """How a number goes over the steps: a dot for the mean of each stretch of them."""
    columns = min(WIDTH, len(values))
    cuts = [len(values) * column // columns for column in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in itertools.pairwise(cuts)]
    low, high = min(means), max(means)
    if len(means) < 2 or not math.isfinite(high - low) or low == high:
        return []
    rows = [round((high - mean) / (high - low) * (ROWS - 1)) for mean in means]
    lines = [f"{name:>10}"]
    for row in range(ROWS):
        label = f"{high - (high - low) * row / (ROWS - 1):10.4g}" if row in (0, ROWS - 1) else " " * 10
        lines.append(f"{label} │{''.join('•' if at == row else ' ' for at in rows)}".rstrip())
    first, last = f"{steps[0]:,}", f"{steps[-1]:,} steps"
    return [
        *lines,
        f"{'':10} └{'─' * columns}",
        f"{'':12}{first}{last:>{max(columns - len(first), len(last) + 1)}}",
    ]
