"""How well do predictions agree with labels? The metrics of GLUE (Wang et al. 2019), and their baselines."""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]  # labels or predictions, (examples); classes are 0, 1, …


def accuracy(labels: Numbers, predictions: Numbers) -> float:
    """The fraction of predictions that are right."""
    return float(np.mean(labels == predictions))


def f1(labels: Numbers, predictions: Numbers) -> float:
    """F1 of class 1, the harmonic mean of precision and recall; 0 if no label and no prediction is 1."""
    # 2 · true positives / (labelled + predicted) is the same without the two divisions that may be by zero.
    true_positives = np.count_nonzero((labels == 1) & (predictions == 1))
    positives = np.count_nonzero(labels == 1) + np.count_nonzero(predictions == 1)
    return float(2 * true_positives / positives) if positives else 0.0


def matthews(labels: Numbers, predictions: Numbers) -> float:
    """Matthews's correlation (1975) of two classes: Pearson's correlation of their zeros and ones."""
    return pearson(labels, predictions)


def pearson(labels: Numbers, predictions: Numbers) -> float:
    """Pearson's correlation; 0 if either side is constant, which leaves it undefined."""
    if np.ptp(labels) == 0 or np.ptp(predictions) == 0:
        return 0.0
    # Centred first: sums of squares of uncentred values would lose digits to cancellation.
    x = labels - labels.mean()
    y = predictions - predictions.mean()
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def spearman(labels: Numbers, predictions: Numbers) -> float:
    """Spearman's correlation: Pearson's of the ranks, where equal values share the middle of their ranks."""
    return pearson(_ranks(labels), _ranks(predictions))


METRICS: Mapping[str, Callable[[Numbers, Numbers], float]] = {
    "accuracy": accuracy,
    "f1": f1,
    "matthews": matthews,
    "pearson": pearson,
    "spearman": spearman,
}


def chance(metric: str, labels: Numbers, classes: int) -> float:
    """Baseline of random guessing: the expected value if each class is predicted equally often."""
    if metric == "f1":
        # The ratio of expectations: 2 · share/classes over share + 1/classes, and F1 only has two classes.
        share = float(np.mean(labels == 1))
        return share / (share + 1 / classes)
    # Every correlation with random guesses is 0.
    return 1 / classes if metric == "accuracy" else 0.0


def constant(metric: str, labels: Numbers, value: float) -> float:
    """Baseline of predicting `value` for every example, such as the majority class."""
    return METRICS[metric](labels, np.full(len(labels), value))


def _ranks(values: Numbers) -> Numbers:
    """The rank of each value, from 0. Equal values share the mean of their ranks."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    middles: Numbers = (np.cumsum(counts) - (counts + 1) / 2)[group]
    return middles
