"""slice: counts exact to the record and the token budget, nested, order and bytes kept."""

import subprocess
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_cli.cuts import Cut, fraction

from .conftest import command, lines, prune, records, zstd

N = 191  # scored records of the `ranked` fixture


def ids(data: bytes) -> list[str]:
    return [record["id"] for record in records(data)]


def cut(path, *options: object, **more):
    return prune("slice", *options, path, **more).stdout


def test_the_fixture_is_what_the_counts_below_take_it_for(ranked):
    assert sum(record["rank"] is not None for record in records(ranked.read_bytes())) == N


@pytest.mark.parametrize(("keep", "expected"), [("bottom", range(96)), ("middle", range(47, 143)), ("top", range(95, 191))])
def test_half_of_the_scored_records_exactly(keep, expected, ranked):
    kept = records(cut(ranked, "--keep", keep, "--frac", "0.5"))
    assert [record["rank"] for record in kept] == list(expected)


@given(st.integers(0, 10**12), st.decimals(0, 1, places=4))
def test_the_bounds_follow_the_contract(n, share):
    k = int(Fraction(share) * n + Fraction(1, 2))
    low, high = fraction("middle", share).ranks(n)
    assert (low, high) == ((n - k) // 2, (n - k) // 2 + k)
    assert fraction("bottom", share).ranks(n) == (0, k)
    assert fraction("top", share).ranks(n) == (n - k, n)
    assert Cut("range", Decimal(0), share).ranks(n) == (0, k)


def test_jq_keeps_the_same_records(ranked):
    kept = cut(ranked, "--range", "0.25:0.75")
    low, high = int(0.25 * N + 0.5), int(0.75 * N + 0.5)
    program = f"zstd -dc '{ranked}' | jq -r 'select(.rank != null and .rank >= {low} and .rank < {high}) | .id'"
    assert subprocess.run(program, shell=True, capture_output=True, check=True).stdout.decode().split() == ids(kept)


def test_by_tokens_the_kept_records_are_those_whose_quantile_lies_inside(corpus, tmp_path):
    prune("rank", "--by", "tokens", corpus, "-o", tmp_path / "r")
    everything = [record for record in records((tmp_path / "r").read_bytes()) if record["rank"] is not None]
    for keep, low, high in (("bottom", 0, 0.3), ("middle", 0.35, 0.65), ("top", 0.7, 1)):
        expected = [record["id"] for record in everything if low <= record["quantile"] < high]
        assert ids(cut(tmp_path / "r", "--keep", keep, "--frac", "0.3")) == expected
        tokens = sum(record["n_scored"] for record in everything if record["id"] in expected)
        assert abs(tokens / sum(record["n_scored"] for record in everything) - 0.3) < 0.02


def test_slices_of_one_ranking_nest_and_slicing_twice_changes_nothing(ranked, tmp_path):
    prune("slice", "--keep", "middle", "--frac", "0.5", ranked, "-o", tmp_path / "half")
    assert cut(tmp_path / "half", "--plain", "--keep", "middle", "--frac", "0.5") == cut(
        ranked, "--plain", "--keep", "middle", "--frac", "0.5"
    )
    assert cut(tmp_path / "half", "--plain", "--keep", "middle", "--frac", "0.3") == cut(
        ranked, "--plain", "--keep", "middle", "--frac", "0.3"
    )


def test_unscored_records_are_kept_only_when_asked_for(ranked):
    assert len(ids(cut(ranked, "--keep", "bottom", "--frac", "1"))) == N
    assert len(ids(cut(ranked, "--keep", "bottom", "--frac", "1", "--keep-unscored"))) == 200


def test_a_stream_without_its_head_is_sliced_by_its_fields_when_told_the_unit(ranked):
    plain = subprocess.run(["zstd", "-dc", str(ranked)], capture_output=True, check=True).stdout
    assert b"--by records|tokens" in prune("slice", "--keep", "top", "--frac", "0.1", stdin=plain, status=2).stderr
    assert prune("slice", "--plain", "--by", "records", "--keep", "top", "--frac", "0.1", stdin=plain).stdout == cut(
        ranked, "--plain", "--keep", "top", "--frac", "0.1"
    )


def test_a_stream_that_is_not_one_ranking_is_an_error(ranked):
    both = ranked.read_bytes() * 2
    assert b"rank the whole again" in prune("slice", "--keep", "top", "--frac", "0.1", stdin=both, status=65).stderr
    plain = subprocess.run(["zstd", "-dc"], input=both, capture_output=True, check=True).stdout
    assert b"out of order" in prune("slice", "--by", "records", "--keep", "top", "--frac", "0.1", stdin=plain, status=65).stderr
    other = b'{"rank":0,"quantile":0.25}\n{"rank":1,"quantile":0.5}\n'
    assert b"another N" in prune("slice", "--by", "records", "--keep", "top", "--frac", "0.1", stdin=other, status=65).stderr
    assert b"was ranked by records" in prune("slice", "--by", "tokens", "--keep", "top", "--frac", "0.1", ranked, status=2).stderr


def test_a_reversed_ranking_is_sliced_alike(corpus, ranked, tmp_path):
    prune("rank", "-r", corpus, "-o", tmp_path / "r")
    assert ids(cut(tmp_path / "r", "--keep", "bottom", "--frac", "0.25")) == ids(cut(ranked, "--keep", "bottom", "--frac", "0.25"))[::-1]


@pytest.mark.parametrize("keep", ["bottom", "middle", "top"])
@pytest.mark.parametrize("by", ["records", "tokens"])
def test_an_unranked_stream_is_sliced_by_its_score_in_input_order(keep, by, corpus, tmp_path):
    prune("rank", "--by", by, corpus, "-o", tmp_path / "r")
    expected = set(ids(cut(tmp_path / "r", "--keep", keep, "--frac", "0.3")))
    kept = ids(cut(corpus, "-k", "perplexity", "--by", by, "--keep", keep, "--frac", "0.3"))
    assert set(kept) == expected
    assert kept == [one for one in ids(corpus.read_bytes()) if one in expected]


def test_a_random_share_is_exact_nested_and_does_not_depend_on_the_order(ranked, corpus):
    third, half = (cut(ranked, "--keep", "random", "--frac", share) for share in ("0.3", "0.5"))
    assert (len(ids(third)), len(ids(half))) == (57, 96)
    assert set(ids(third)) < set(ids(half))
    scored_only = lines([{**record} for record in records(corpus.read_bytes()) if record["perplexity"] is not None])
    assert set(ids(prune("slice", "--keep", "random", "--frac", "0.3", stdin=scored_only).stdout)) == set(ids(third))
    assert set(ids(cut(ranked, "--keep", "random", "--frac", "0.3", "--seed", "1"))) != set(ids(third))


def test_the_input_of_two_passes_may_be_a_pipe_or_a_redirected_file(corpus):
    expected = cut(corpus, "-k", "perplexity", "--keep", "middle", "--frac", "0.5")
    assert prune("slice", "-k", "perplexity", "--keep", "middle", "--frac", "0.5", stdin=corpus.read_bytes()).stdout == expected
    with corpus.open("rb") as file:
        redirected = subprocess.run(
            command("slice", "-k", "perplexity", "--keep", "middle", "--frac", "0.5"), stdin=file, capture_output=True
        )
    assert redirected.stdout == expected


def test_half_of_nothing_is_nothing_and_no_error():
    assert records(prune("slice", "--keep", "middle", "--frac", "0.5", stdin=zstd(b"")).stdout) == []
    empty = prune("rank", stdin=zstd(b"")).stdout
    assert records(prune("slice", "--keep", "middle", "--frac", "0.5", stdin=empty).stdout) == []


@pytest.mark.parametrize("tied", [1, 7])
def test_ties_break_by_input_order(tied):
    corpus = lines({"id": str(index), "perplexity": index // tied} for index in range(21))
    assert ids(prune("slice", "-k", "perplexity", "--keep", "bottom", "--frac", "0.5", stdin=corpus).stdout) == [
        str(index) for index in range(11)
    ]


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--keep", "middle"],
        ["--frac", "0.5"],
        ["--keep", "middle", "--frac", "1.5"],
        ["--keep", "middle", "--frac", "half"],
        ["--keep", "middle", "--frac", "nan"],
        ["--keep", "centre", "--frac", "0.5"],
        ["--range", "0.7:0.3"],
        ["--range", "0.7"],
        ["--range", "0:1", "--keep", "top", "--frac", "1"],
        ["--range", "0:1", "--frac", "1"],
    ],
)
def test_cuts_that_make_no_sense_are_usage_errors(options, ranked):
    prune("slice", *options, ranked, status=2)
