"""slice by score, by budget, within groups, from a file of scores, and as a random sample."""

import subprocess

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_cli.statistics.cuts import Cut, choose, gumbel

from .conftest import lines, records
from .slices import N, cut, ids, text_of


def test_scores_are_kept_from_the_lowest_to_the_highest_both_inclusive(here, ranked, corpus):
    program = "select(.perplexity != null and .perplexity >= 20 and .perplexity <= 40) | .id"
    for path, options in ((ranked, []), (corpus, ["-k", "perplexity"]), (ranked, ["--level", "5"])):
        expected = subprocess.run(
            ["jq", "-r", program], input=text_of(path.read_bytes()), capture_output=True, check=True
        ).stdout
        assert (
            ids(here("slice", "--min", "20", "--max", "40", *options, path).stdout)
            == expected.decode().split()
        )


@pytest.mark.parametrize("keep", ["bottom", "middle", "top", "random"])
def test_a_token_budget_is_never_exceeded_and_nests(keep, here, ranked, corpus):
    placed = [record for record in records(ranked.read_bytes()) if record["rank"] is not None]
    middle = sorted(placed, key=lambda one: (abs(2 * one["rank"] + 1 - N), one["rank"]))
    orders = {"bottom": placed, "top": placed[::-1], "middle": middle}
    before: set[str] = set()
    for budget in (0, 700, 5000, 10**9):
        kept = ids(here("slice", "--keep", keep, "--tokens", budget, ranked).stdout)
        tokens = sum(record["n_scored"] for record in placed if record["id"] in kept)
        assert before <= set(kept)
        before = set(kept)
        assert tokens <= budget
        if keep != "random":
            taken = orders[keep][: len(kept)]
            assert {record["id"] for record in taken} == set(kept)
            assert len(kept) == len(placed) or tokens + orders[keep][len(kept)]["n_scored"] > budget
            assert set(
                ids(here("slice", "-k", "perplexity", "--keep", keep, "--tokens", budget, corpus).stdout)
            ) == set(kept)


@given(st.integers(1, 60))
def test_the_middle_grows_alike_by_budget_and_by_fraction(n):
    tokens = np.ones(n, np.int64)
    for k in range(n + 1):
        mask, _ = choose(np.arange(n) / 1.0, tokens, tokens > 0, Cut("middle", tokens=k), "tokens")
        assert np.flatnonzero(mask).tolist() == list(range((n - k) // 2, (n - k) // 2 + k))


def test_easy_and_hard_are_the_ends_that_the_metric_declares(here, ranked, corpus):
    for keep, end in (("easy", "bottom"), ("hard", "top")):
        expected = cut(here, ranked, "--plain", "--keep", end, "--frac", "0.3")
        assert here("slice", "--plain", "--keep", keep, "--frac", "0.3", ranked).stdout == expected
    assert (
        b"declares no easy end"
        in here("slice", "-k", "n_scored", "--keep", "easy", "--frac", "0.3", corpus, status=2).stderr
    )


def test_within_cuts_each_group_separately(here, corpus, ranked, tmp_path):
    here("rank", "--within", "source", corpus, "-o", tmp_path / "within")
    everything, options = records(corpus.read_bytes()), ["--keep", "middle", "--frac", "0.4"]
    expected = set()
    for source in "abc":
        alone = lines(one for one in everything if one["source"] == source)
        expected |= set(ids(here("slice", "-k", "perplexity", *options, stdin=alone).stdout))
    for more, path in (
        (["-k", "perplexity", "--within", "source"], corpus),
        (["--within", "source"], ranked),
        ([], tmp_path / "within"),
    ):
        assert set(ids(here("slice", *options, *more, path).stdout)) == expected
    assert (
        b"budget for the whole"
        in here("slice", "--keep", "top", "--tokens", 9, "--within", "source", ranked, status=2).stderr
    )


def test_scores_in_a_separate_file_are_joined_in_order(here, corpus, tmp_path):
    text, scores = tmp_path / "text.jsonl", tmp_path / "scores.jsonl"
    everything = records(corpus.read_bytes())
    text.write_bytes(
        lines({"id": one["id"], "text": one["text"], "source": one["source"]} for one in everything)
    )
    scores.write_bytes(
        lines(
            {"id": one["id"], "perplexity": one["perplexity"], "n_scored": one["n_scored"]}
            for one in everything
        )
    )
    options = ["--keep", "middle", "--frac", "0.5", "--by", "tokens"]
    kept = here("slice", *options, "--scores", scores, text).stdout
    assert ids(kept) == ids(here("slice", *options, "-k", "perplexity", corpus).stdout)
    assert set(records(kept)[0]) == {"id", "text", "source"}
    with scores.open("rb") as piped:
        assert text_of(
            here("slice", *options, "--scores", "/dev/stdin", text, stdin=piped.read()).stdout
        ) == text_of(kept)
    found = scores.read_bytes().splitlines(keepends=True)
    for broken, fault in (
        (found[:-1], b"no score for it"),
        ([*found, found[0]], b"more scores than"),
        (found[::-1], b"its id is not"),
    ):
        scores.write_bytes(b"".join(broken))
        assert fault in here("slice", *options, "--scores", scores, text, status=65).stderr


def test_a_sample_follows_the_softmax_of_the_score():
    """Of three records with weights 1, 2 and 5, one is drawn: 4,000 times as often as its weight says, within
    four standard errors.
    """
    draws = gumbel(np.random.default_rng(3).integers(0, 2**64, (4000, 3), np.uint64)) + np.log([1, 2, 5])
    shares = np.bincount(draws.argmax(1), minlength=3) / 4000
    expected = np.array([1, 2, 5]) / 8
    assert (np.abs(shares - expected) < 4 * np.sqrt(expected * (1 - expected) / 4000)).all()
    assert np.isfinite(gumbel(np.array([0, 2**64 - 1], np.uint64))).all()


def test_a_sample_is_exact_nested_and_independent_of_order(here, ranked, corpus):
    third, half = (
        ids(here("slice", "--sample", "30", "--frac", share, ranked).stdout) for share in ("0.3", "0.5")
    )
    assert (len(third), len(half)) == (57, 96)
    assert set(third) < set(half)
    assert set(
        ids(here("slice", "--sample", "30", "--frac", "0.3", "-k", "perplexity", corpus).stdout)
    ) == set(third)
    cold = ids(here("slice", "--sample", "1e-9", "--frac", "0.3", "-k", "perplexity", corpus).stdout)
    highest = sorted(
        (one["perplexity"] for one in records(corpus.read_bytes()) if one["perplexity"] is not None),
        reverse=True,
    )[56]
    assert all(one["perplexity"] >= highest for one in records(corpus.read_bytes()) if one["id"] in cold)
    assert set(ids(here("slice", "--sample", "30", "--frac", "0.3", "--seed", "1", ranked).stdout)) != set(
        third
    )


def test_a_sample_of_a_random_part_is_unbiased(here):
    """Half of the records weigh e, half 1: a tenth, drawn out of a random half, has some 0.72 of the heavy
    ones, whatever the half.
    """
    part = here(
        "slice",
        "--keep",
        "random",
        "--frac",
        "0.5",
        "-k",
        "s",
        stdin=lines({"id": at, "s": at % 2} for at in range(8000)),
    ).stdout
    drawn = [
        one["s"]
        for one in records(here("slice", "--sample", "1", "-k", "s", "--frac", "0.1", stdin=part).stdout)
    ]
    assert len(drawn) == 400
    assert abs(sum(drawn) / 400 - 0.72) < 4 * np.sqrt(0.72 * 0.28 / 400)
