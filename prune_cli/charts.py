"""How are charts drawn in a terminal? As lines of text: the histogram of a score, the curve of a loss."""

import itertools
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence

ROWS = 10  # lines of a chart
WIDTH = 48  # columns of its longest bar: with labels, a chart fits into 80
LARGEST_EXPONENT = 709.0  # exp() of more is too large for a float; fences may lie beyond every score
LOG_RATIO = 20  # scores that span a larger factor get a logarithmic scale
KEPT = "█"
CUT = "░"
EIGHTHS = " ▁▂▃▄▅▆▇█"  # of a line
NAME = 16  # columns of the name of a group
Share = Callable[[float, float], float]  # the fraction that is kept between two quantiles


def histogram(name: str, shape: Sequence[float], unit: str, kept: Share | None = None) -> list[str]:
    """A bar for each range of a score: how many of the `unit` lie in it. The kept part is black.

    `shape` has the scores at equally spaced quantiles. The first and the last are the extremes, and are not
    drawn. There is no chart if all scores are equal.

    The chart ends at Tukey's outer fences, three interquartile ranges beyond the quartiles. The row there
    holds everything below (<) or above (≥), so that a few outliers do not take the rows of all others.
    """
    low = shape[1]
    high = shape[-2]
    # Written so that it catches NaN, too.
    if not low < high:
        return []
    is_log = low > 0 and high / low > LOG_RATIO
    least, most = _fences(shape, low, high, is_log)
    edges = [_between(least, most, row / ROWS, is_log) for row in range(ROWS + 1)]
    # The outer ranges hold everything beyond them, so that the bars add up to all records.
    quantiles_at = [0.0, *(_quantile(shape, edge) for edge in edges[1:-1]), 1.0]
    labels = [f"{edge:.4g}" for edge in edges[:-1]]
    if least > low:
        labels[0] = f"< {edges[1]:.4g}"
    if most < high:
        labels[-1] = f"≥ {labels[-1]}"
    largest = max(upper - lower for lower, upper in itertools.pairwise(quantiles_at))
    lines = [f"{name:>10}  {f'{unit}: {KEPT} kept  {CUT} cut' if kept else unit}"]
    for label, lower, upper in zip(labels, quantiles_at, quantiles_at[1:], strict=False):
        bar = round(WIDTH * (upper - lower) / largest)
        black = bar if kept is None else round(bar * kept(lower, upper))
        lines.append(f"{label:>10} │{KEPT * black}{CUT * (bar - black)}".rstrip())
    return lines


def edges(shape: Sequence[float]) -> list[float]:
    """The ends of WIDTH ranges over what `histogram` draws of a distribution; none if all is equal."""
    low = shape[1]
    high = shape[-2]
    if not low < high:
        return []
    is_log = low > 0 and high / low > LOG_RATIO
    least, most = _fences(shape, low, high, is_log)
    return [_between(least, most, column / WIDTH, is_log) for column in range(WIDTH + 1)]


def by_group(heights: Mapping[str, Sequence[int]], ends: Sequence[float]) -> list[str]:
    """A line of small bars for each group, each to its own height, over the ranges between `ends`."""
    if len(heights) < 2:
        return []
    names = [name if len(name) <= NAME else f"{name[: NAME - 1]}…" for name in heights]
    width = max(map(len, names))
    lines = [f"{'':{width}} │{f'{ends[0]:.4g}':<{WIDTH // 2}}{f'{ends[-1]:.4g}':>{WIDTH - WIDTH // 2}}"]
    for name, counts in zip(names, heights.values(), strict=True):
        most = max([*counts, 1])
        # A range that holds anything shows something.
        bars = "".join(EIGHTHS[-(-count * (len(EIGHTHS) - 1) // most)] for count in counts)
        lines.append(f"{name:>{width}} │{bars}".rstrip())
    return lines


def _fences(shape: Sequence[float], low: float, high: float, is_log: bool) -> tuple[float, float]:
    """The part of low … high that is drawn: without scores that lie far from the quartiles."""
    quarter = (len(shape) - 1) // 4
    first = shape[quarter]
    third = shape[3 * quarter]
    # Half of all records have one score: there is no width to measure by.
    if not first < third:
        return low, high
    return max(low, _between(first, third, -3, is_log)), min(high, _between(first, third, 4, is_log))


def between(low: float, high: float, *, invert: bool = False) -> Share:
    """The fraction that a cut between two quantiles keeps, or with `invert` removes."""

    def kept(lower: float, upper: float) -> float:
        overlap = max(0.0, min(upper, high) - max(lower, low))
        inside = overlap / (upper - lower) if upper > lower else 0.0
        return 1 - inside if invert else inside

    return kept


def evenly(share: float) -> Share:
    """The fraction that a cut keeps that does not depend on the score."""
    return lambda lower, upper: share


def quantiles(shape: Sequence[float], least: float, most: float) -> tuple[float, float]:
    """The quantiles of two scores."""
    # Several quantiles may have the extreme score: a cut that includes it includes all of them.
    low = _quantile(shape, least) if least > shape[0] else 0.0
    high = _quantile(shape, most) if most < shape[-1] else 1.0
    return low, high


def _between(low: float, high: float, share: float, is_log: bool) -> float:
    if not is_log:
        # Not low + (high - low) * share: that difference of two numbers may be too large for a float.
        return low * (1 - share) + high * share
    exponent = math.log(low) + (math.log(high) - math.log(low)) * share
    return math.exp(min(exponent, LARGEST_EXPONENT))


def _quantile(shape: Sequence[float], score: float) -> float:
    """The fraction of the distribution below a score, interpolated linearly between the points of `shape`."""
    after = min(max(bisect_left(shape, score), 1), len(shape) - 1)
    lower = shape[after - 1]
    upper = shape[after]
    # Halved first, because the difference of two numbers may be too large for a float.
    width = upper / 2 - lower / 2
    part = (score / 2 - lower / 2) / width if width > 0 else 0.0
    return (after - 1 + min(max(part, 0.0), 1.0)) / (len(shape) - 1)


def curve(name: str, values: Sequence[float], steps: Sequence[int]) -> list[str]:
    """A dot plot of a value over the steps of a run. A column shows the mean of a stretch of steps."""
    columns = min(WIDTH, len(values))
    cuts = [len(values) * column // columns for column in range(columns + 1)]
    means = [sum(values[start:stop]) / (stop - start) for start, stop in itertools.pairwise(cuts)]
    low = min(means)
    high = max(means)
    # A single dot, a flat line and a loss that is not finite say nothing.
    if len(means) < 2 or not math.isfinite(high - low) or low == high:
        return []
    row_of = [round((high - mean) / (high - low) * (ROWS - 1)) for mean in means]
    lines = [f"{name:>10}"]
    for row in range(ROWS):
        label = f"{high - (high - low) * row / (ROWS - 1):10.4g}" if row in (0, ROWS - 1) else " " * 10
        lines.append(f"{label} │{''.join('•' if dot == row else ' ' for dot in row_of)}".rstrip())
    return [*lines, *_step_axis(columns, steps)]


def _step_axis(columns: int, steps: Sequence[int]) -> list[str]:
    """The horizontal axis, and the first and last step below its ends."""
    first = f"{steps[0]:,}"
    last = f"{steps[-1]:,} steps"
    # A short curve is narrower than its labels: at least a space stays between them.
    width = max(columns - len(first), len(last) + 1)
    return [f"{'':10} └{'─' * columns}", f"{'':12}{first}{last:>{width}}"]
