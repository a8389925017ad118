"""How large is the difference between models that were measured on the same rows, and how sure is it?

A run's result on a row is two numbers, a sum and the units that it was taken over (nats and tokens, or a
score and 1); its result on many rows is their sums' quotient. Rows of different kinds, as those of several
tasks, are strata: each is resampled for itself, and the average over strata is compared.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from .bootstrap import (
    Floats,
    Sampling,
    Spread,
    coin_flip_sums,
    finite_or_none,
    interval,
    p_value,
    resampled_sums,
    t_quantile,
    t_tail,
    variance_of_mean,
    variance_of_sum,
)

Difference = dict[str, Any]


# --- Two models ---


def of_pair(strata: Sequence[Floats], sampling: Sampling) -> Difference:
    """Percentile interval and p value of the difference of two models; each stratum is (rows, 4).

    p is the share of random swaps of the two models within rows whose difference is as large (Good 2005).
    """
    # Another seed of the same recipe would have a different delta: one run a side cannot show by how much.
    about: Difference = {"includes_training_noise": False}
    if not all(map(len, strata)):
        return _nothing() | about
    delta = float(_average([difference(rows.sum(0), 1) for rows in strata]))
    return {
        "delta": delta,
        "interval": interval(_resampled(strata, 1, sampling)),
        "p": p_value(_swapped(strata, sampling), delta),
        **about,
    }


def _swapped(strata: Sequence[Floats], sampling: Sampling) -> Floats:
    """The difference of two models that are swapped at random within each row, (resamples,)."""
    differences = []
    for number, rows in enumerate(strata):
        sums = rows.sum(0)
        # With the same units on both sides a swap flips the sign of a row's difference.
        moved = coin_flip_sums(rows[:, 2:] - rows[:, :2], replace(sampling, stratum=number))
        differences.append(difference(np.hstack([sums[:2] + moved, sums[2:] - moved]), 1))
    return _average(differences)


def mcnemar(better: int, worse: int) -> float:
    """The exact p value of McNemar's test: of the rows on which two models differ, `better` are for one and
    `worse` for the other (McNemar 1947).

    Without a difference each such row is a fair coin: p is the binomial's two-sided tail, 1 at most.
    """
    flips = better + worse
    # Integers, because 0.5 ** flips is 0 from 1,075 flips on; each binomial coefficient from the one before.
    coefficient = tail = 1
    for heads in range(1, min(better, worse) + 1):
        coefficient = coefficient * (flips - heads + 1) // heads
        tail += coefficient
    return min(1.0, 2 * tail / (1 << flips))


# --- Two recipes with several seeds each ---


def of_groups(strata: Sequence[Floats], count: int, paired: bool, sampling: Sampling) -> Difference:
    """Student's interval and p value of the difference between the first `count` runs and the others.

    The variance is that between runs of the same recipe and that of the rows (Welch 1947), with
    Satterthwaite's degrees of freedom (1946). Runs that are `paired` share their seeds: then only the
    differences of pairs vary.
    """
    about: Difference = {"includes_training_noise": True, "paired_seeds": paired}
    if not all(map(len, strata)):
        return _nothing() | about
    results = _average([per_unit(rows.sum(0)) for rows in strata])
    models = results[:count]
    baselines = results[count:]
    # The two seeds of a pair vary together, so that only their difference counts.
    noisy = [models - baselines] if paired else [models, baselines]
    of_runs = [variance_of_mean(values) for values in noisy]
    of_documents = _of_documents(strata, count, sampling)
    spread = variance_of_sum(*of_runs, of_documents)
    delta = float(models.mean() - baselines.mean())
    # No variance at all: runs that are equal to the last digit.
    error = math.sqrt(spread.variance)
    reach = t_quantile(spread.freedom) * error if error else 0.0
    return {
        "delta": delta,
        "interval": [delta - reach, delta + reach],
        # Runs without any variance: p is 1 if they are equal, else 0.
        "p": t_tail(delta / error, spread.freedom) if error else float(delta == 0),
        "standard_errors": {
            "runs": math.sqrt(math.fsum(each.variance for each in of_runs)),
            "documents": math.sqrt(of_documents.variance),
        },
        "degrees_of_freedom": finite_or_none(spread.freedom),
        **about,
    }


def _of_documents(strata: Sequence[Floats], count: int, sampling: Sampling) -> Spread:
    """The variance of the difference over resampled rows: documents, or clusters of them."""
    # All runs read the same resampled documents: what is hard for all of them cancels out.
    deltas = _resampled(strata, count, sampling)
    freedom = sum(len(rows) - 1 for rows in strata)
    return Spread(float(deltas.var(ddof=1)), max(1, freedom))


# --- Sums ---


def ratio(numerator: Any, denominator: Any) -> Any:
    """The quotient; NaN unless the denominator is positive."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(denominator) > 0, np.divide(numerator, denominator), np.nan)


def difference(sums: Floats, count: int) -> Floats:
    """Mean result of the first `count` runs minus that of the others.

    (..., 2 · runs) becomes (...).
    """
    values = per_unit(sums)
    delta: Floats = values[..., :count].mean(-1) - values[..., count:].mean(-1)
    return delta


def per_unit(sums: Floats) -> Floats:
    """The result of each run: (..., 2 · runs), sums and units side by side, becomes (..., runs)."""
    pairs = sums.reshape(*sums.shape[:-1], -1, 2)
    values: Floats = ratio(pairs[..., 0], pairs[..., 1])
    return values


def _resampled(strata: Sequence[Floats], count: int, sampling: Sampling) -> Floats:
    """The difference of the first `count` runs from the others on resampled rows, (resamples,)."""
    drawn = [resampled_sums(rows, replace(sampling, stratum=number)) for number, rows in enumerate(strata)]
    return _average([difference(sums, count) for sums in drawn])


def _average(values: Sequence[Floats]) -> Floats:
    """The mean over strata, whatever the number of rows in each."""
    mean: Floats = np.mean(values, axis=0)
    return mean


def _nothing() -> Difference:
    """The difference if no row can be compared."""
    return {"delta": math.nan, "interval": None, "p": None}
