"""How sure a number is: bootstraps over rows (Efron & Tibshirani 1993), random sign flips, and Student's t for a handful of runs.

A row is what is drawn: a document, or a cluster of documents that hang together.
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
BATCH = (
    1 << 20
)  # draws that a thread makes at a time: of 100,000 rows, ten resamples go through one matrix product
NODES, WEIGHTS = np.polynomial.legendre.leggauss(128)

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sampling:
    """How resamples are drawn. They depend on the seed, never on how many `threads` draw them."""

    seed: int = 0
    resamples: int = RESAMPLES
    threads: int = 1


def clustered(columns: Floats, clusters: NDArray[np.int64]) -> Floats:
    """The rows (n, k) of each cluster added up, (clusters, k); `clusters` numbers each row's, in any numbers."""
    codes = np.unique(clusters, return_inverse=True)[1]
    return np.stack([np.bincount(codes, column) for column in columns.T], axis=1)


def resampled(columns: Floats, sampling: Sampling) -> Floats:
    """Column sums of as many samples of the rows, each of n drawn with replacement: (n, k) → (resamples, k)."""
    n = len(columns)

    def draw(random: np.random.Generator, count: int) -> Floats:
        drawn = random.integers(n, size=(count, n))
        drawn += np.arange(count)[:, None] * n
        return np.bincount(drawn.ravel(), minlength=count * n).reshape(count, n).astype(np.float64) @ columns

    return _in_batches(draw, n, sampling, 0) if n else np.empty((0, columns.shape[1]))


def flipped(columns: Floats, sampling: Sampling) -> Floats:
    """Column sums over the rows that a fair coin picks, as often: (n, k) → (resamples, k)."""
    n = len(columns)

    def draw(random: np.random.Generator, count: int) -> Floats:
        coins = random.integers(256, size=(count, -(-n // 8)), dtype=np.uint8)
        return np.unpackbits(coins, axis=1, count=n).astype(np.float64) @ columns

    return _in_batches(draw, n, sampling, 1)


def _in_batches(
    draw: Callable[[np.random.Generator, int], Floats], n: int, sampling: Sampling, kind: int
) -> Floats:
    """What `draw` makes of every batch, each with random numbers of its own."""
    size = max(1, BATCH // max(1, n))
    starts = range(0, sampling.resamples, size)

    def batch(start: int) -> Floats:
        return draw(
            np.random.default_rng([sampling.seed, kind, start]), min(size, sampling.resamples - start)
        )

    with ThreadPoolExecutor(sampling.threads) as pool:
        return np.concatenate(list(pool.map(batch, starts)))


def interval(values: Floats) -> list[float] | None:
    """The middle 95 % of resampled values; None where some are no numbers."""
    if not len(values) or not np.isfinite(values).all():
        return None
    tail = (1 - LEVEL) / 2
    return [float(end) for end in np.quantile(values, [tail, 1 - tail])]


def share_as_far(values: Floats, observed: float) -> float:
    """A p value: how many of the values that chance made are as far from 0 as the one that was observed, (b + 1) / (B + 1)."""
    b = int(np.count_nonzero(np.abs(values) >= abs(observed) * (1 - 1e-9)))  # equal but for rounding is equal
    return (b + 1) / (len(values) + 1)


# --- a handful of runs --------------------------------------------------------------------------------------------------------


class Spread(NamedTuple):
    """A variance of a mean, and from how many degrees of freedom it is known."""

    variance: float
    freedom: float


def of_mean(values: Floats) -> Spread:
    """s²/n and n − 1."""
    return Spread(float(values.var(ddof=1)) / len(values), len(values) - 1)


def together(*spreads: Spread) -> Spread:
    """The variance of a sum, with Satterthwaite's degrees of freedom (1946)."""
    total = math.fsum(one.variance for one in spreads)
    below = math.fsum(one.variance**2 / one.freedom for one in spreads)
    return Spread(total, total**2 / below if below else math.inf)


def t_tail(t: float, freedom: float) -> float:
    """How likely Student's t lies at least this far from 0.

    With t = √freedom · tan θ its density is proportional to cos θ to the power freedom − 1, and a smooth function of θ.
    """
    if math.isinf(freedom):
        return math.erfc(abs(t) / math.sqrt(2))
    half = math.atan2(abs(t), math.sqrt(freedom)) / 2
    within = half * float(WEIGHTS @ np.cos(half * (NODES + 1)) ** (freedom - 1))
    scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    return max(0.0, 1 - 2 * within * math.exp(scale))


def t_quantile(freedom: float, level: float = LEVEL) -> float:
    """How far from 0 Student's t lies in this share of the cases at most."""
    low, high = 0.0, 1e4
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > 1 - level else (low, middle)
    return high


def number(value: Any) -> float | None:
    """None where it is none: nothing to divide by, or too large."""
    return float(value) if np.isfinite(value) else None
