"""GLUE's metrics are scikit-learn's and SciPy's, and guessing gets what it is said to get."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from prune_cli.statistics import classification

DICE = np.random.default_rng(0)
TRUTH = (DICE.random(500) < 0.7).astype(float)
FOUND = np.where(DICE.random(500) < 0.8, TRUTH, 1 - TRUTH)


@pytest.mark.parametrize(
    ("name", "oracle"),
    [("accuracy", metrics.accuracy_score), ("f1", metrics.f1_score), ("matthews", metrics.matthews_corrcoef)],
)
def test_metrics_of_two_classes_are_those_of_scikit_learn(name, oracle):
    for truth, found in (
        (TRUTH, FOUND),
        (TRUTH, TRUTH),
        (TRUTH, 1 - TRUTH),
        (TRUTH, np.ones(500)),
        (TRUTH, np.zeros(500)),
    ):
        assert classification.METRICS[name](truth, found) == pytest.approx(oracle(truth, found), abs=1e-12)


def test_accuracy_of_three_classes_is_that_of_scikit_learn():
    truth, found = DICE.integers(3, size=200).astype(float), DICE.integers(3, size=200).astype(float)
    assert classification.accuracy(truth, found) == pytest.approx(metrics.accuracy_score(truth, found))


def test_correlations_are_those_of_scipy_with_and_without_ties():
    truth = DICE.normal(2.5, 1, 300)
    for found in (truth + DICE.normal(0, 1, 300), np.round(truth), -(truth**3)):
        for left in (truth, np.round(truth * 2) / 2):
            assert classification.pearson(left, found) == pytest.approx(stats.pearsonr(left, found).statistic)
            assert classification.spearman(left, found) == pytest.approx(
                stats.spearmanr(left, found).statistic
            )


def test_a_constant_side_has_correlation_zero():
    assert (
        classification.pearson(TRUTH, np.full(500, 2.5))
        == classification.spearman(np.full(500, 2.5), TRUTH)
        == 0
    )
    assert classification.constant("accuracy", TRUTH, 1) == TRUTH.mean()
    assert classification.constant("f1", TRUTH, 1) == pytest.approx(metrics.f1_score(TRUTH, np.ones(500)))
    assert classification.constant("matthews", TRUTH, 1) == 0


@pytest.mark.parametrize("name", ["accuracy", "f1", "matthews"])
def test_chance_is_the_mean_of_random_predictions(name):
    coins = [
        classification.METRICS[name](TRUTH, DICE.integers(2, size=500).astype(float)) for _ in range(400)
    ]
    assert classification.chance(name, TRUTH, 2) == pytest.approx(np.mean(coins), abs=0.01)
    assert classification.chance("accuracy", TRUTH, 3) == 1 / 3
