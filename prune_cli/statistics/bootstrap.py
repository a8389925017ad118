"""How certain a number is: bootstraps over rows, random sign flips, and Student's t for a handful of runs.

Bootstrap intervals are percentile intervals (Efron & Tibshirani 1993, chapter 13). A row is what is drawn: a
document, or a cluster of documents that depend on each other.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
LEVEL = 0.95
BATCH = 1 << 20  # draws that a thread makes at a time: of 100,000 rows, ten resamples go through one product
# Different rows at most for which their numbers are drawn instead of the rows. Answers are right or wrong, so
# two models have four kinds of rows on a task of any length.
KINDS = 64
NODES, WEIGHTS = np.polynomial.legendre.leggauss(128)  # p values are right to 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """How resamples are drawn. They depend on the seed, never on how many `threads` draw them.

    Each `stratum` of one estimate has random numbers of its own.
    """

    seed: int = 0
    resamples: int = RESAMPLES
    threads: int = 1
    stratum: int = 0


def cluster_sums(columns: Floats, clusters: NDArray[np.int64]) -> Floats:
    """The rows (n, k) of each cluster added up, (clusters, k). `clusters` (n) says which cluster each row is
    in, by any numbers.
    """
    codes = np.unique(clusters, return_inverse=True)[1]
    return np.stack([np.bincount(codes, column) for column in columns.T], axis=1)


def resampled_sums(columns: Floats, sampling: Sampling) -> Floats:
    """Column sums of bootstrap samples, each of n rows drawn with replacement: (n, k) → (resamples, k)."""
    n = len(columns)
    if kinds := _kinds(columns):
        random = _generator(sampling, stream=2)
        return random.multinomial(n, kinds.counts / n, sampling.resamples) @ kinds.rows

    def draw(random: np.random.Generator, count: int) -> Floats:
        drawn = random.integers(n, size=(count, n))
        # One bincount makes the counts of all samples: each sample's draws are shifted to numbers of its own.
        drawn += np.arange(count)[:, None] * n
        counts = np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n)
        return counts.astype(np.float64) @ columns

    return _in_batches(draw, n, sampling, stream=0) if n else np.empty((0, columns.shape[1]))


def coin_flip_sums(columns: Floats, sampling: Sampling) -> Floats:
    """Column sums over the rows for which a fair coin shows heads, flipped anew for each result: (n, k) →
    (resamples, k).
    """
    n = len(columns)
    if kinds := _kinds(columns):
        size = (sampling.resamples, len(kinds.rows))
        return _generator(sampling, stream=3).binomial(kinds.counts, 0.5, size) @ kinds.rows

    def draw(random: np.random.Generator, count: int) -> Floats:
        coins = random.integers(256, size=(count, -(-n // 8)), dtype=np.uint8)  # eight coins a byte
        return np.unpackbits(coins, axis=1, count=n).astype(np.float64) @ columns

    return _in_batches(draw, n, sampling, stream=1)


def _in_batches(
    draw: Callable[[np.random.Generator, int], Floats], n: int, sampling: Sampling, *, stream: int
) -> Floats:
    """All resamples, drawn in batches. A batch has random numbers of its own, so it does not matter which
    thread draws it.

    `stream` keeps the random numbers of two kinds of draws apart.
    """
    size = max(1, BATCH // max(1, n))
    starts = range(0, sampling.resamples, size)

    def batch(start: int) -> Floats:
        random = _generator(sampling, stream, start)
        return draw(random, min(size, sampling.resamples - start))

    with ThreadPoolExecutor(sampling.threads) as pool:
        return np.concatenate(list(pool.map(batch, starts)))


def _generator(sampling: Sampling, stream: int, start: int = 0) -> np.random.Generator:
    """The random numbers of the draws of one kind (`stream`) from `start` on."""
    # The first stratum has the numbers of an estimate without strata.
    stratum = [sampling.stratum] if sampling.stratum else []
    return np.random.default_rng([sampling.seed, stream, start, *stratum])


class _Kinds(NamedTuple):
    """The different rows, and how often each occurs."""

    rows: Floats
    counts: NDArray[np.int64]


def _kinds(columns: Floats) -> _Kinds | None:
    """The kinds of rows, if there are so few of them that it pays."""
    limit = min(KINDS, len(columns) // 16)
    # A look at the first rows, because sorting all of them takes a while, and likelihoods have no equal.
    if not limit or len(np.unique(columns[: 4 * KINDS], axis=0)) > limit:
        return None
    kinds = _Kinds(*np.unique(columns, axis=0, return_counts=True))
    return kinds if len(kinds.rows) <= limit else None


def interval(values: Floats) -> list[float] | None:
    """The ends of the middle 95 % of resampled values; None if there are none, or some are not finite."""
    if not len(values) or not np.isfinite(values).all():
        return None
    tail = (1 - LEVEL) / 2
    return [float(end) for end in np.quantile(values, [tail, 1 - tail])]


def p_value(values: Floats, observed: float) -> float:
    """The fraction of the values under the null hypothesis that are as far from 0 as the observed one: (b +
    1) / (B + 1).

    Counting the observed value among them keeps p above 0 (Phipson & Smyth 2010).
    """
    nearly = abs(observed) * (1 - 1e-9)  # a value that equals the observed one but for rounding counts
    b = int(np.count_nonzero(np.abs(values) >= nearly))
    return (b + 1) / (len(values) + 1)


# --- a handful of runs ---


class Spread(NamedTuple):
    """The variance of an estimate, and the degrees of freedom that the variance was estimated with."""

    variance: float
    freedom: float


def variance_of_mean(values: Floats) -> Spread:
    """s²/n, with n − 1 degrees of freedom."""
    return Spread(float(values.var(ddof=1)) / len(values), len(values) - 1)


def variance_of_sum(*spreads: Spread) -> Spread:
    """The variance of a sum of independent estimates, with the degrees of freedom of Satterthwaite (1946)."""
    total = math.fsum(spread.variance for spread in spreads)
    denominator = math.fsum(spread.variance**2 / spread.freedom for spread in spreads)
    return Spread(total, total**2 / denominator if denominator else math.inf)


def t_tail(t: float, freedom: float) -> float:
    """The probability that Student's t is at least as far from 0 as `t`.

    With t = √freedom · tan θ, its density is proportional to cos θ to the power freedom − 1: a smooth
    function of θ on a finite interval, which Gauss-Legendre integrates exactly enough without SciPy.
    """
    if math.isinf(freedom):
        return math.erfc(abs(t) / math.sqrt(2))
    half = math.atan2(abs(t), math.sqrt(freedom)) / 2
    integral = half * float(WEIGHTS @ np.cos(half * (NODES + 1)) ** (freedom - 1))  # from 0 to θ
    log_factor = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    return max(0.0, 1 - 2 * integral * math.exp(log_factor))


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """The distance from 0 within which Student's t lies with probability `level`, by bisection."""
    low = 0.0
    high = 1e4
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        if t_tail(middle, freedom) > 1 - level:
            low = middle
        else:
            high = middle
    return high


def finite_or_none(value: Any) -> float | None:
    """The value as a float; None if it is infinite or NaN, which JSON cannot hold."""
    return float(value) if np.isfinite(value) else None
