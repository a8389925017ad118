"""Counts with K, M and G, fractions in per cent, and histograms of long tails."""

import json

import numpy as np
import pytest

import prune_cli
from prune_cli import charts, sizes
from prune_cli.errors import UsageError
from prune_cli.statistics.quantile_grid import grid_of

from ..conftest import lines, records

CORPUS = [{"id": at, "text": "t", "perplexity": at, "n_scored": 100} for at in range(40)]


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("17", 17), ("1K", 1000), ("1.5M", 1_500_000), ("2g", 2_000_000_000), ("1.1K", 1100)],
)
def test_counts_are_in_powers_of_1000(text, count):
    assert sizes.parse_count(text) == count


@pytest.mark.parametrize("text", ["1.5", "-1", "1MB", "M", "1e6", "1.0001K", "5000000000G", "١K"])
def test_anything_else_is_no_count(text):
    with pytest.raises(UsageError):
        sizes.parse_count(text)


def test_a_budget_of_tokens_takes_a_suffix(here):
    cut = ("slice", "-k", "perplexity", "--keep", "bottom", "--tokens")
    assert len(records(here(*cut, "1K", stdin=lines(CORPUS)).stdout)) == 10
    assert len(list(prune_cli.slice(CORPUS, key="perplexity", keep="bottom", tokens="1K"))) == 10
    said = here(*cut, "1MB", stdin=lines(CORPUS), status=2).stderr
    assert b"'1MB' is not a whole number" in said
    here(*cut, "-1", stdin=lines(CORPUS), status=2)
    here("rank", "--expect-records", "0.04K", stdin=lines(CORPUS))
    assert (
        b"1000 were expected" in here("rank", "--expect-records", "1K", stdin=lines(CORPUS), status=65).stderr
    )


@pytest.mark.parametrize(
    ("per_cent", "plain"),
    [
        (["--keep", "top", "--frac", "50%"], ["--keep", "top", "--frac", "0.5"]),
        (["--keep", "middle", "--frac", "12.5%"], ["--keep", "middle", "--frac", "0.125"]),
        (["--range", "25%:75%"], ["--range", "0.25:0.75"]),
        (["--range", "0:100%"], ["--range", "0:1"]),
    ],
)
def test_fractions_may_be_per_cent(per_cent, plain, here, tmp_path):
    cut = ("slice", "-k", "perplexity", "--summary", tmp_path / "summary", "-f")
    told = []
    for options in (per_cent, plain):
        out = here(*cut, *options, stdin=lines(CORPUS)).stdout
        told.append((records(out), json.loads((tmp_path / "summary").read_text())))
    assert told[0] == told[1]


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--range", "25:75"], b"25%:75%"),
        (["--keep", "top", "--frac", "50"], b"50%"),
        (["--keep", "top", "--frac", "150%"], b"between 0 and 1"),
    ],
)
def test_numbers_over_1_are_answered_with_per_cent(options, hint, here, ranked):
    assert hint in here("slice", *options, ranked, status=2).stderr


def bars(lines):
    return [line.count("█") for line in lines[1:]]


@pytest.mark.parametrize("outliers", [[900, 950, 2000, 5000, 9000, 10000], [-900, -9000, -(10**5)]])
def test_a_long_tail_shares_a_row_and_the_shape_is_seen(outliers):
    scores = np.sort(np.array([*(20 + at % 10 for at in range(44)), *outliers], dtype=float))
    drawn = charts.histogram("perplexity", grid_of(scores, np.arange(len(scores))), "records")
    assert sum(bar > 10 for bar in bars(drawn)) >= 4
    assert ("≥" in drawn[-1]) if outliers[0] > 0 else ("<" in drawn[1])


def test_a_histogram_without_outliers_has_no_open_row():
    drawn = charts.histogram("el2n", [step / 64 for step in range(65)], "records")
    assert not any(sign in "".join(drawn) for sign in "<≥")
