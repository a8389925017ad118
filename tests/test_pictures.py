"""Small pictures close a run on a terminal, and never off one."""

import numpy as np
import pytest

from prune_cli.charts import between, by_group, curve, evenly, histogram
from prune_cli.statistics.quantile_grid import STEPS, QuantileGrid, grid_of

from .conftest import on_a_terminal, prune

EVEN = [100.0 + step for step in range(STEPS + 1)]  # spread evenly


def test_a_histogram_shows_the_kept_records():
    drawn = histogram("el2n", EVEN, "tokens", between(0.25, 0.75))
    assert drawn[0].split() == ["el2n", "tokens:", "█", "kept", "░", "cut"]
    bars = [line.partition("│")[2] for line in drawn[1:]]
    assert len(bars) == 10
    kept, cut = (sum(bar.count(mark) for bar in bars) for mark in "█░")
    assert kept == pytest.approx(cut, abs=4)
    assert set(bars[0]) == set(bars[-1]) == {"░"}
    assert set(bars[4]) == set(bars[5]) == {"█"}


def test_a_random_half_is_a_half_of_every_bar():
    for line in histogram("el2n", EVEN, "records", evenly(0.5))[1:]:
        bar = line.partition("│")[2]
        assert bar.count("█") == pytest.approx(bar.count("░"), abs=1)


def test_equal_scores_are_not_drawn():
    assert histogram("el2n", [1.0] * (STEPS + 1), "records") == []


def test_a_loss_curve_falls():
    drawn = curve("loss", [5.0, 4.0, 3.0, 2.5], [1, 2, 3, 4])
    columns = [line.partition("│")[2].find("•") for line in drawn if "•" in line]
    assert columns == sorted(columns)
    assert drawn[-1].split() == ["1", "4", "steps"]


@pytest.mark.parametrize("reverse", [False, True])
def test_the_shape_is_that_of_the_quantiles(reverse):
    scores = np.sort(np.random.default_rng(0).lognormal(size=1000))
    quantiles = (np.arange(1000) + 0.5) / 1000
    shape = QuantileGrid(reverse)
    for part in np.split(np.arange(1000), [3, 400, 990]):
        rows = 999 - part if reverse else part
        shape.add(scores[rows], quantiles[rows])
    expected = np.quantile(scores, np.arange(STEPS + 1) / STEPS, method="inverted_cdf")
    assert np.searchsorted(scores, shape.value()) == pytest.approx(np.searchsorted(scores, expected), abs=2)
    assert grid_of(scores, np.arange(1000)) == pytest.approx(expected, rel=0.05)


def test_a_slice_by_another_score_does_not_keep_the_chart_of_the_ranking(corpus, tmp_path):
    prune("rank", "--by", "tokens", corpus, "-o", tmp_path / "ranked.zst")
    by_length = "-k", "n_scored", "--keep", "top", "--frac", 0.5
    assert "n_scored  records: █ kept" in on_a_terminal(
        "stderr", "slice", *by_length, tmp_path / "ranked.zst", "-o", tmp_path / "long.zst"
    )
    assert "█" not in on_a_terminal(
        "stderr", "slice", "--range", "0:1", tmp_path / "long.zst", "-o", tmp_path / "same.zst"
    )


def test_rank_and_slice_draw_a_chart_only_on_a_terminal(corpus, tmp_path):
    ranked = tmp_path / "on-a-terminal.zst"
    assert "perplexity  records" in on_a_terminal("stderr", "rank", corpus, "-o", ranked)
    assert "█ kept  ░ cut" in on_a_terminal(
        "stderr", "slice", "--keep", "middle", "--frac", 0.5, ranked, "-o", tmp_path / "half.zst"
    )
    assert "█" not in on_a_terminal("stderr", "rank", "-q", corpus, "-f", "-o", ranked)
    assert prune("slice", "--keep", "middle", "--frac", 0.5, ranked).stderr.count("█".encode()) == 0


def test_the_chart_of_the_hard_end_fills_the_bars_of_the_hard_end(ranked, tmp_path):
    drawn = on_a_terminal(
        "stderr", "slice", "--keep", "hard", "--frac", 0.3, ranked, "-o", tmp_path / "hard.zst"
    )
    bars = [line.partition("│")[2] for line in drawn.splitlines() if "│" in line]
    assert "█" not in bars[0]
    assert "░" not in bars[-1]


@pytest.mark.parametrize(
    "scores",
    [(1.0, 1.157925e77), (-1.7e308, 1.7e308), (5e-324, 1.7e308), (1e-300, 2e-300), (0.0, 5e-324)],
)
def test_any_two_scores_have_a_histogram(scores):
    low, high = scores
    shape = [low] * 33 + [high] * 32
    lines = histogram("score", shape, "records")
    assert len(lines) == 11
    assert "nan" not in "".join(lines)


def test_stat_draws_each_score_whole_and_by_source(ranked):
    said = on_a_terminal("stderr", "stat", "-k", "perplexity", ranked)
    drawn = said[said.index("perplexity  records") :].splitlines()
    # Ten bars of the whole, the ends of the axis, and a line for each of the three sources.
    assert len(drawn) == 15
    assert sorted(line.split(" │")[0].strip() for line in drawn[12:]) == ["a", "b", "c"]
    assert all(set(line.split("│")[1]) <= set(" ▁▂▃▄▅▆▇█") for line in drawn[12:])


def test_small_bars_show_whatever_there_is():
    lines = by_group({"many": [1, 0, 1000], "a name that is too long": [0, 3, 3]}, [0, 1, 2, 3])
    assert lines[1:] == ["            many │▁ █", "a name that is … │ ██"]
