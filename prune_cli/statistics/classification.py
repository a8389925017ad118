"""How well predictions agree with what is true: GLUE's metrics (Wang et al. 2019), and what guessing would get."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def accuracy(truth: Numbers, found: Numbers) -> float:
    """The share of predictions that are right."""
    return float(np.mean(truth == found))


def f1(truth: Numbers, found: Numbers) -> float:
    """The harmonic mean of precision and recall of class 1; 0 where it is neither true nor predicted."""
    both = np.count_nonzero((truth == 1) & (found == 1))
    either = np.count_nonzero(truth == 1) + np.count_nonzero(found == 1)
    return float(2 * both / either) if either else 0.0


def matthews(truth: Numbers, found: Numbers) -> float:
    """Matthews's correlation of two classes: Pearson's, of zeros and ones (Matthews 1975)."""
    return pearson(truth, found)


def pearson(truth: Numbers, found: Numbers) -> float:
    """Pearson's correlation; 0 where either side is constant and says nothing of the other."""
    if np.ptp(truth) == 0 or np.ptp(found) == 0:
        return 0.0
    left, right = truth - truth.mean(), found - found.mean()
    return float(left @ right / np.sqrt((left @ left) * (right @ right)))


def spearman(truth: Numbers, found: Numbers) -> float:
    """Spearman's correlation: Pearson's of the ranks, equal values sharing their middle one."""
    return pearson(_ranks(truth), _ranks(found))


METRICS: Mapping[str, Callable[[Numbers, Numbers], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def chance(metric: str, truth: Numbers, classes: int) -> float:
    """What a guess that takes each class equally often is expected to get; of F1, the ratio of what is expected."""
    if metric == "f1":
        share = float(np.mean(truth == 1))
        return share / (share + 1 / classes)  # 2 · share/classes over share + 1/classes, at two classes
    return 1 / classes if metric == "accuracy" else 0.0


def constant(metric: str, truth: Numbers, value: float) -> float:
    """What predicting `value` every time gets: the level of the majority class."""
    return METRICS[metric](truth, np.full(len(truth), value))


def _ranks(values: Numbers) -> Numbers:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    middles: Numbers = (np.cumsum(counts) - (counts + 1) / 2)[place]
    return middles
