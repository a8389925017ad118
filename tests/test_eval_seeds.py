"""Comparisons of several seeds a side, and how often intervals and tests are right."""

import math

import numpy as np
import pytest
from scipy import stats

from .measurements import grouped, made_up, run

# --- Two models ---


def compared(ours, theirs, **more):
    [*_, result] = run(ours, against=[theirs], **more)
    assert (result["result"], result["model"], result["against"]) == ("comparison", ours.model, theirs.model)
    return result


# --- Several seeds a side ---


def group_of_seeds(name, per_token, noise=0.0, documents=400, seed=0):
    """Runs of one recipe with these mean likelihoods per token, on documents that are as hard for each run.

    `noise` is added to each run and document.
    """
    dice = np.random.default_rng(seed)
    hardness = dice.normal(0, 1, documents)
    runs = []
    for at, level in enumerate(per_token):
        own = np.random.default_rng([seed, at, *name.encode()]).normal(0, noise, documents) if noise else 0
        values = 4 + level + hardness + own
        runs.append(
            made_up(
                10 * (values - values.mean() + 4 + level),
                [10] * documents,
                name=f"{name}{at}",
                data="held out",
            )
        )
    return runs


def test_groups_of_seeds_are_compared_by_welchs_formula():
    """Documents that all runs find as hard add nothing: what is left is Welch's t test between the runs."""
    ours, theirs = [0.02, 0.05, 0.03], [0.06, 0.10, 0.05, 0.09]
    result = run(*group_of_seeds("a", ours), against=group_of_seeds("b", theirs), grouped=True)[-1]
    expected = stats.ttest_ind(ours, theirs, equal_var=False)
    interval = expected.confidence_interval(0.95)
    assert result["model"] == ["a0", "a1", "a2"]
    assert result["against"] == ["b0", "b1", "b2", "b3"]
    assert result["delta"] == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert result["delta_interval"] == pytest.approx([interval.low, interval.high], rel=1e-6)
    assert result["effect_interval"] == pytest.approx(np.expm1([interval.low, interval.high]), rel=1e-6)
    assert result["degrees_of_freedom"] == pytest.approx(expected.df, rel=1e-6)
    assert result["p"] == pytest.approx(expected.pvalue, rel=1e-6)
    assert result["includes_training_noise"] is True


def test_the_noise_of_documents_is_added_to_that_of_training():
    result = run(
        *group_of_seeds("a", [0.02, 0.05], 0.4),
        against=group_of_seeds("b", [0.06, 0.10], 0.4),
        grouped=True,
        resamples=4000,
    )[-1]
    of_documents = math.sqrt(
        0.4**2 / 400
    )  # two runs a side, each with noise of its own: 4 · (0.4 / 2)² / 400
    assert result["standard_errors"]["documents"] == pytest.approx(of_documents, rel=0.1)
    assert result["standard_errors"]["runs"] == pytest.approx(math.sqrt(0.03**2 / 2 / 2 + 0.04**2 / 2 / 2))
    variances = [0.03**2 / 4, 0.04**2 / 4, result["standard_errors"]["documents"] ** 2]
    freedom = sum(variances) ** 2 / (variances[0] ** 2 + variances[1] ** 2 + variances[2] ** 2 / 399)
    reach = stats.t.ppf(0.975, freedom) * math.sqrt(sum(variances))
    assert result["degrees_of_freedom"] == pytest.approx(freedom)
    assert result["delta_interval"] == pytest.approx([result["delta"] - reach, result["delta"] + reach])


def test_paired_seeds_leave_only_the_differences_of_pairs():
    ours, theirs = [0.02, 0.12, 0.33], [0.06, 0.15, 0.38]
    result = run(*group_of_seeds("a", ours), against=group_of_seeds("b", theirs), grouped=True, paired=True)[
        -1
    ]
    expected = stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval(0.95)
    assert result["delta_interval"] == pytest.approx([interval.low, interval.high], rel=1e-6)
    assert (result["degrees_of_freedom"], result["p"]) == (pytest.approx(2), pytest.approx(expected.pvalue))


def test_a_pair_of_runs_warns_about_training_noise(caplog):
    result = compared(made_up([1.0] * 60, [1] * 60), made_up([2.0] * 60, [1] * 60, name="base"))
    assert result["includes_training_noise"] is False
    assert [one.message for one in caplog.records] == [
        "each side is one training run: the intervals do not cover training noise"
    ]


# --- Whether the numbers keep what they promise ---


def corpus(dice, clusters, size):
    """Documents of random length; those of a cluster have a common part. The pooled mean is 3 in the
    limit.
    """
    tokens = dice.integers(20, 200, clusters * size)
    level = 3 + np.repeat(dice.normal(0, 0.3, clusters), size) + dice.normal(0, 0.4, clusters * size)
    return tokens, tokens * level, grouped(*np.repeat(np.arange(clusters), size).tolist(), field="cluster")


@pytest.mark.parametrize(("clusters", "size"), [(300, 1), (150, 4)])
def test_intervals_hold_the_truth_95_times_in_100(clusters, size):
    dice, held = np.random.default_rng(clusters), []
    for seed in range(500):
        tokens, nll, items = corpus(dice, clusters, size)
        low, high = run(made_up(nll, tokens, items=items), seed=seed, resamples=400)[0]["perplexity_interval"]
        held.append(low <= math.exp(3) <= high)
    assert 0.93 <= np.mean(held) <= 0.97


def test_a_true_null_is_rejected_5_times_in_100_at_the_5_percent_level():
    dice, rejected, held = np.random.default_rng(11), [], []
    for seed in range(500):
        tokens, nll, items = corpus(dice, 100, 2)
        sides = [
            made_up(nll + tokens * dice.normal(0, 0.1, len(tokens)), tokens, items=items, name=name)
            for name in "ab"
        ]
        result = compared(*sides, seed=seed, resamples=400)
        rejected.append(result["p"] <= 0.05)
        held.append(result["delta_interval"][0] <= 0 <= result["delta_interval"][1])
    assert 0.03 <= np.mean(rejected) <= 0.07
    assert 0.93 <= np.mean(held) <= 0.97


@pytest.mark.parametrize("paired", [False, True])
def test_intervals_of_groups_hold_the_truth_95_times_in_100(paired):
    """Every seed adds noise, of which pairs share a part, and every recipe has its own noise per document."""
    dice, held, truth = np.random.default_rng(12), [], -0.02
    for seed in range(300):
        documents = 100
        hardness, recipes = dice.normal(0, 0.5, documents), dice.normal(0, 0.1, (2, documents))
        shared = dice.normal(0, 0.02, 3) if paired else np.zeros(3)
        sides = [
            [
                made_up(
                    10 * (4 + level + hardness + recipe + noise + dice.normal(0, 0.01)),
                    [10] * documents,
                    name=f"{level}{at}",
                )
                for at, noise in enumerate(shared)
            ]
            for level, recipe in zip((truth, 0), recipes, strict=True)
        ]
        result = run(*sides[0], against=sides[1], grouped=True, paired=paired, seed=seed, resamples=100)[-1]
        low, high = result["delta_interval"]
        held.append(low <= truth <= high)
    assert 0.93 <= np.mean(held) <= 0.97
