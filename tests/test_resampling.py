"""Resamples are bootstraps and fair coins, whatever the number of threads; Student's t is SciPy's."""

import math

import numpy as np
import pytest
from scipy import stats

from prune_cli.statistics import bootstrap
from prune_cli.statistics.bootstrap import (
    Sampling,
    Spread,
    cluster_sums,
    coin_flip_sums,
    interval,
    p_value,
    resampled_sums,
    t_quantile,
    t_tail,
    variance_of_sum,
)

ROWS = np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]])


def test_resampling_is_a_bootstrap_over_rows():
    sums = resampled_sums(ROWS, Sampling(seed=1, resamples=4000))
    assert sums.shape == (4000, 2)
    assert np.array_equal(sums[:, 1], 10 * sums[:, 0]), "columns of a row stay together"
    chances = {3: 1, 4: 3, 5: 6, 6: 7, 7: 6, 8: 3, 9: 1}  # of 27 ways to draw three
    counts = [np.count_nonzero(sums[:, 0] == total) for total in chances]
    assert stats.chisquare(counts, [4000 * ways / 27 for ways in chances.values()]).pvalue > 0.01


def test_rows_of_few_kinds_are_drawn_by_their_numbers():
    """The distribution is that of rows which differ in the ninth digit, and are drawn one by one."""
    few = np.repeat([[1.0, 5.0], [0.0, 7.0]], [40, 60], axis=0)
    many = few + np.arange(100)[:, None] * 1e-9
    sampling = Sampling(seed=1, resamples=4000)
    drawn, plain = resampled_sums(few, sampling), resampled_sums(many, sampling)
    assert np.array_equal(drawn[:, 1], 700 - 2 * drawn[:, 0]), "columns of a row stay together"
    assert stats.ks_2samp(drawn[:, 0], plain[:, 0].round()).pvalue > 0.01
    flipped, plain = coin_flip_sums(few, sampling), coin_flip_sums(many, sampling)
    for column in range(2):
        assert stats.ks_2samp(flipped[:, column], plain[:, column].round()).pvalue > 0.01
    other = Sampling(seed=1, resamples=4000, stratum=1)
    assert not np.array_equal(resampled_sums(few, other), drawn)


def test_sign_flips_are_fair_and_independent():
    sums = coin_flip_sums(np.diag(np.ones(9)), Sampling(seed=1, resamples=4000))
    assert set(np.unique(sums)) == {0, 1}
    assert np.abs(sums.mean(0) - 0.5).max() < 0.03
    assert np.abs(np.corrcoef(sums.T) - np.eye(9)).max() < 0.06


@pytest.mark.parametrize("draw", [resampled_sums, coin_flip_sums])
def test_resamples_depend_on_the_seed_alone(draw, monkeypatch):
    rows = np.random.default_rng(0).normal(5, 1, (1000, 3))
    monkeypatch.setattr(bootstrap, "BATCH", 20_000)
    one = draw(rows, Sampling(3, 300))
    assert np.array_equal(one, draw(rows, Sampling(3, 300, threads=4)))
    assert not np.array_equal(one, draw(rows, Sampling(4, 300)))
    assert len(np.unique(one[:, 0])) == 300, "every batch has numbers of its own"


def test_no_rows_make_no_interval():
    assert resampled_sums(np.empty((0, 2)), Sampling()).shape == (0, 2)
    assert interval(np.empty(0)) is None
    assert interval(np.array([1, np.nan])) is None


def test_an_interval_is_the_middle_of_the_values():
    assert interval(np.arange(1001.0)) == pytest.approx([25, 975])


def test_rows_of_a_cluster_are_added_up():
    assert cluster_sums(ROWS, np.array([7, 2, 7])).tolist() == [[2, 20], [4, 40]]


def test_p_counts_values_as_extreme_and_is_never_zero():
    assert p_value(np.array([-3, 1, 3 - 1e-12, 2]), 3) == 3 / 5
    assert p_value(np.zeros(99), 1) == 1 / 100


@pytest.mark.parametrize("freedom", [1, 1.4, 2, 5.5, 30, 1e5])
def test_students_distribution_equals_scipy(freedom):
    for t in (0, 0.1, -1, 2, 5, 40):
        assert t_tail(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), abs=1e-9)
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom))


def test_student_with_infinite_freedom_is_normal():
    assert t_tail(1.959963984540054, math.inf) == pytest.approx(0.05)
    assert variance_of_sum(Spread(0.0, 3)) == (0, math.inf)


def test_variances_add_and_freedoms_follow_satterthwaite():
    assert variance_of_sum(Spread(2.0, 4), Spread(1.0, 2)) == (3.0, pytest.approx(9 / (4 / 4 + 1 / 2)))
