"""How do the values of documents make the value of a task? As a quotient of two sums, for most metrics.

An accuracy is a sum of zeros and ones over the number of documents, a perplexity per word the exponential of
a sum of nats over a sum of words. Metrics that need all documents at once (F1, Matthews' correlation, BLEU)
are not made of such sums.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....statistics.bootstrap import Floats
from ....statistics.differences import ratio
from ..likelihood import bits, exp

CLOSE = 1e-6  # relative; the harness adds up the same numbers in a different order
# Metrics whose samples are a log-likelihood, or one and the words or bytes that it covers.
LIKELIHOODS = {
    "perplexity": "nats per document",
    "word_perplexity": "nats per word",
    "byte_perplexity": "nats per byte",
    "bits_per_byte": "bits per byte",
}
# Of which less is better; asked only where the harness's own results, which say so, are missing.
LOWER = {*LIKELIHOODS, "brier_score", "ter", "wer", "cer", "mse", "mae"}


@dataclass(frozen=True)
class MetricScale:
    """How a metric is computed. `unit` is that of a difference."""

    unit: str
    higher_is_better: bool
    of_ratio: Callable[[Any], Any] = lambda ratio: ratio
    # Of differences: to bits, for example.
    scale: float = 1.0

    @property
    def is_likelihood(self) -> bool:
        """Whether differences are those of likelihoods, so that a relative change of perplexity is known."""
        return self.unit != "mean"


@dataclass(frozen=True)
class DocumentScores:
    """A metric's values on documents, as rows of a sum and its units, (documents, 2).

    A row is NaN where the metric measured nothing.
    """

    measure: MetricScale
    rows: Floats

    @property
    def is_present(self) -> np.ndarray:
        """Which documents have a value, bool (documents,)."""
        present: np.ndarray = ~np.isnan(self.rows[:, 0])
        return present

    @property
    def value(self) -> float:
        """The value of all documents together."""
        sums = self.rows[self.is_present].sum(0)
        return float(self.measure.of_ratio(ratio(*sums)))

    @property
    def is_share(self) -> bool:
        """Whether every value lies between 0 and 1, and 1 is best: such values can be averaged over tasks."""
        values = self.rows[self.is_present, 0]
        in_bounds = bool(((values >= 0) & (values <= 1)).all())
        return in_bounds and not self.measure.is_likelihood and self.measure.higher_is_better

    @property
    def is_right_or_wrong(self) -> bool:
        """Whether every value is 0 or 1: then McNemar's test applies."""
        return self.is_share and bool(np.isin(self.rows[self.is_present, 0], (0, 1)).all())


def scores(metric: str, values: Sequence[Any], higher_is_better: object = None) -> DocumentScores | None:
    """The values of a metric as sums; None if the metric is not made of such sums.

    `higher_is_better` is what the harness says, if it says anything.
    """
    present = [value for value in values if value is not None]
    higher = higher_is_better if isinstance(higher_is_better, bool) else metric not in LOWER
    if present and all(map(_is_number, present)):
        # The log-likelihood of a document that is predicted at once, as in LAMBADA.
        measure = _likelihood(metric) if metric == "perplexity" else MetricScale("mean", higher)
        sign = -1 if measure.is_likelihood else 1
        return DocumentScores(measure, _rows(values, lambda value: (sign * value, 1)))
    if present and metric in LIKELIHOODS and all(map(_is_pair, present)):
        return DocumentScores(_likelihood(metric), _rows(values, lambda value: (-value[0], value[1])))
    return None


def agrees(ours: float, theirs: object) -> bool:
    """Whether the value of the samples is the one that the harness reports, if it reports any."""
    if not _is_number(theirs):
        return True
    return math.isclose(ours, float(str(theirs)), rel_tol=CLOSE, abs_tol=CLOSE)


def _likelihood(metric: str) -> MetricScale:
    unit = LIKELIHOODS[metric]
    if metric == "bits_per_byte":
        return MetricScale(unit, higher_is_better=False, of_ratio=bits, scale=1 / math.log(2))
    return MetricScale(unit, higher_is_better=False, of_ratio=exp)


def _is_number(value: object) -> bool:
    # A bool is an int, too: some tasks report right or wrong as true or false.
    return isinstance(value, int | float)


def _is_pair(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _rows(values: Sequence[Any], row: Callable[[Any], tuple[float, float]]) -> Floats:
    nothing = (math.nan, math.nan)
    return np.array([nothing if value is None else row(value) for value in values], dtype=np.float64)
