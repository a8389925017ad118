"""slice: counts exact to the record and the token budget, nested, order and bytes kept."""

import io
import json
import subprocess
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_cli import formats
from prune_cli.statistics.cuts import Cut, fraction

from .conftest import command, lines, records, zstd
from .slices import CUTS, N, cut, ids


def test_the_fixture_has_the_expected_number_of_scored_records(ranked):
    assert sum(record["rank"] is not None for record in records(ranked.read_bytes())) == N


@pytest.mark.parametrize(
    ("keep", "expected"), [("bottom", range(96)), ("middle", range(47, 143)), ("top", range(95, 191))]
)
def test_half_of_the_scored_records_exactly(keep, expected, ranked, here):
    kept = records(cut(here, ranked, "--keep", keep, "--frac", "0.5"))
    assert [record["rank"] for record in kept] == list(expected)


@given(st.integers(0, 10**12), st.decimals(0, 1, places=4))
def test_the_bounds_follow_the_contract(n, share):
    k = int(Fraction(share) * n + Fraction(1, 2))
    low, high = fraction("middle", share).ranks(n)
    assert (low, high) == ((n - k) // 2, (n - k) // 2 + k)
    assert fraction("bottom", share).ranks(n) == (0, k)
    assert fraction("top", share).ranks(n) == (n - k, n)
    assert Cut("range", Decimal(0), share).ranks(n) == (0, k)


def test_jq_keeps_the_same_records(ranked, here):
    kept = cut(here, ranked, "--range", "0.25:0.75")
    low, high = int(0.25 * N + 0.5), int(0.75 * N + 0.5)
    program = (
        f"zstd -dc '{ranked}' | jq -r 'select(.rank != null and .rank >= {low} and .rank < {high}) | .id'"
    )
    assert subprocess.run(
        program, shell=True, capture_output=True, check=True
    ).stdout.decode().split() == ids(kept)


def test_by_tokens_a_record_is_kept_if_its_quantile_is_in_range(corpus, tmp_path, here):
    here("rank", "--by", "tokens", corpus, "-o", tmp_path / "r")
    everything = [record for record in records((tmp_path / "r").read_bytes()) if record["rank"] is not None]
    for keep, low, high in (("bottom", 0, 0.3), ("middle", 0.35, 0.65), ("top", 0.7, 1)):
        expected = [record["id"] for record in everything if low <= record["quantile"] < high]
        assert ids(cut(here, tmp_path / "r", "--keep", keep, "--frac", "0.3")) == expected
        tokens = sum(record["n_scored"] for record in everything if record["id"] in expected)
        assert abs(tokens / sum(record["n_scored"] for record in everything) - 0.3) < 0.02


def test_slices_of_one_ranking_nest_and_slicing_twice_changes_nothing(ranked, tmp_path, here):
    here("slice", "--keep", "middle", "--frac", "0.5", ranked, "-o", tmp_path / "half")
    assert cut(here, tmp_path / "half", "--plain", "--keep", "middle", "--frac", "0.5") == cut(
        here, ranked, "--plain", "--keep", "middle", "--frac", "0.5"
    )
    assert cut(here, tmp_path / "half", "--plain", "--keep", "middle", "--frac", "0.3") == cut(
        here, ranked, "--plain", "--keep", "middle", "--frac", "0.3"
    )


def test_unscored_records_are_kept_only_when_asked_for(ranked, here):
    assert len(ids(cut(here, ranked, "--keep", "bottom", "--frac", "1"))) == N
    assert len(ids(cut(here, ranked, "--keep", "bottom", "--frac", "1", "--keep-unscored"))) == 200


def test_a_stream_without_a_head_is_sliced_if_the_unit_is_given(ranked, here):
    plain = subprocess.run(["zstd", "-dc", str(ranked)], capture_output=True, check=True).stdout
    assert (
        b"--by records|tokens"
        in here("slice", "--keep", "top", "--frac", "0.1", stdin=plain, status=2).stderr
    )
    assert here(
        "slice", "--plain", "--by", "records", "--keep", "top", "--frac", "0.1", stdin=plain
    ).stdout == cut(here, ranked, "--plain", "--keep", "top", "--frac", "0.1")


def test_a_stream_that_is_not_one_ranking_is_an_error(ranked, here):
    both = ranked.read_bytes() * 2
    assert (
        b"rank all of it again"
        in here("slice", "--keep", "top", "--frac", "0.1", stdin=both, status=65).stderr
    )
    plain = subprocess.run(["zstd", "-dc"], input=both, capture_output=True, check=True).stdout
    assert (
        b"out of order"
        in here("slice", "--by", "records", "--keep", "top", "--frac", "0.1", stdin=plain, status=65).stderr
    )
    other = b'{"rank":0,"quantile":0.25}\n{"rank":1,"quantile":0.5}\n'
    assert (
        b"another N"
        in here("slice", "--by", "records", "--keep", "top", "--frac", "0.1", stdin=other, status=65).stderr
    )
    assert (
        b"was ranked by records"
        in here("slice", "--by", "tokens", "--keep", "top", "--frac", "0.1", ranked, status=2).stderr
    )


def test_a_reversed_ranking_gives_the_same_slice(corpus, ranked, tmp_path, here):
    here("rank", "-r", corpus, "-o", tmp_path / "r")
    assert (
        ids(cut(here, tmp_path / "r", "--keep", "bottom", "--frac", "0.25"))
        == ids(cut(here, ranked, "--keep", "bottom", "--frac", "0.25"))[::-1]
    )


@pytest.mark.parametrize("keep", ["bottom", "middle", "top"])
@pytest.mark.parametrize("by", ["records", "tokens"])
def test_an_unranked_stream_is_sliced_by_its_score_in_input_order(keep, by, corpus, tmp_path, here):
    here("rank", "--by", by, corpus, "-o", tmp_path / "r")
    expected = set(ids(cut(here, tmp_path / "r", "--keep", keep, "--frac", "0.3")))
    kept = ids(cut(here, corpus, "-k", "perplexity", "--by", by, "--keep", keep, "--frac", "0.3"))
    assert set(kept) == expected
    assert kept == [one for one in ids(corpus.read_bytes()) if one in expected]


def test_a_random_fraction_is_exact_nested_and_independent_of_order(ranked, corpus, here):
    third, half = (cut(here, ranked, "--keep", "random", "--frac", share) for share in ("0.3", "0.5"))
    assert (len(ids(third)), len(ids(half))) == (57, 96)
    assert set(ids(third)) < set(ids(half))
    scored_only = lines(
        [{**record} for record in records(corpus.read_bytes()) if record["perplexity"] is not None]
    )
    assert set(ids(here("slice", "--keep", "random", "--frac", "0.3", stdin=scored_only).stdout)) == set(
        ids(third)
    )
    assert set(ids(cut(here, ranked, "--keep", "random", "--frac", "0.3", "--seed", "1"))) != set(ids(third))


def test_the_input_of_two_passes_may_be_a_pipe_or_a_redirected_file(corpus, here):
    expected = cut(here, corpus, "-k", "perplexity", "--keep", "middle", "--frac", "0.5")
    assert (
        here(
            "slice", "-k", "perplexity", "--keep", "middle", "--frac", "0.5", stdin=corpus.read_bytes()
        ).stdout
        == expected
    )
    with corpus.open("rb") as file:
        redirected = subprocess.run(
            command("slice", "-k", "perplexity", "--keep", "middle", "--frac", "0.5"),
            stdin=file,
            capture_output=True,
        )
    assert redirected.stdout == expected


def test_half_of_an_empty_stream_is_empty(here):
    assert records(here("slice", "--keep", "middle", "--frac", "0.5", stdin=zstd(b"")).stdout) == []
    empty = here("rank", stdin=zstd(b"")).stdout
    assert records(here("slice", "--keep", "middle", "--frac", "0.5", stdin=empty).stdout) == []


@pytest.mark.parametrize("tied", [1, 7])
def test_ties_break_by_input_order(tied, here):
    corpus = lines({"id": str(index), "perplexity": index // tied} for index in range(21))
    assert ids(
        here("slice", "-k", "perplexity", "--keep", "bottom", "--frac", "0.5", stdin=corpus).stdout
    ) == [str(index) for index in range(11)]


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
def test_impossible_cuts_are_usage_errors(options, ranked, here):
    here("slice", *options, ranked, status=2)


def test_invert_keeps_the_rest(here, ranked):
    for options in (CUTS[0], ["--keep", "random", "--frac", "0.4"], ["--keep", "top", "--tokens", "4000"]):
        kept, inverted = (ids(here("slice", *options, *more, ranked).stdout) for more in ([], ["--invert"]))
        placed = [record["id"] for record in records(ranked.read_bytes()) if record["rank"] is not None]
        assert sorted(kept + inverted) == sorted(placed)
        assert inverted == [one for one in placed if one not in set(kept)]


def test_rejects_hold_all_other_records_also_unscored_ones(here, ranked, tmp_path):
    kept = ids(here("slice", *CUTS[0], "--rejects", tmp_path / "rejects", ranked).stdout)
    assert ids((tmp_path / "rejects").read_bytes()) == [
        one for one in ids(ranked.read_bytes()) if one not in set(kept)
    ]
    assert b"exists" in here("slice", *CUTS[0], "--rejects", tmp_path / "rejects", ranked, status=73).stderr
    assert (
        b"the same file"
        in here("slice", *CUTS[0], "--rejects", tmp_path / "a", "-o", tmp_path / "a", ranked, status=2).stderr
    )


def test_the_summary_counts_every_record_and_token_by_source(here, ranked, corpus, tmp_path):
    kept = here("slice", *CUTS[0], "--summary", tmp_path / "s", ranked).stdout
    found = json.loads((tmp_path / "s").read_text())
    everything, chosen = records(corpus.read_bytes()), set(ids(kept))
    fate = {
        record["id"]: "unscored" if record["perplexity"] is None else "cut" for record in everything
    } | dict.fromkeys(chosen, "kept")
    for name in ("kept", "cut", "unscored"):
        for source, counted in [(None, found), *found["groups"].items()]:
            mine = [
                one["n_scored"]
                for one in everything
                if fate[one["id"]] == name and source in (None, one["source"])
            ]
            assert counted[name] == {"records": len(mine), "tokens": sum(mine)}
    assert found["in"] == 200
    assert found["keep"] == "middle"
    stats = pytest.importorskip("scipy.stats")
    pairs = [(one["perplexity"], one["n_scored"]) for one in everything if one["perplexity"] is not None]
    assert found["length_correlation"] == pytest.approx(
        stats.spearmanr(*zip(*pairs, strict=True)).statistic, abs=2e-6
    )
    for more in (["--level", "5"], ["-k", "perplexity"]):
        here("slice", *CUTS[0], *more, "-f", "--summary", tmp_path / "s", ranked)
        again = json.loads((tmp_path / "s").read_text())
        assert {name: again[name] for name in found} == found


def test_a_cut_between_equal_scores_gives_a_warning(here, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines({"id": str(at), "perplexity": at // 7} for at in range(21)))
    here("rank", tmp_path / "in.jsonl", "-o", tmp_path / "ranked")
    for options in (
        [tmp_path / "ranked"],
        ["--level", "5", tmp_path / "ranked"],
        ["-k", "perplexity", tmp_path / "in.jsonl"],
    ):
        said = here("slice", "--keep", "bottom", "--frac", "0.5", *options).stderr
        assert b"7 records tie at 1.0, and 4 of them are inside the cut" in said
        assert here("slice", "--range", "0:0.33334", *options).stderr == b""


def test_a_field_with_too_many_values_is_not_grouped(here, tmp_path):
    corpus = lines({"perplexity": at, "source": f"s{at % 300}", "text": "x" * 40_000} for at in range(400))
    here("rank", "-o", tmp_path / "ranked", stdin=corpus)
    for options in ([], ["--level", "5"], ["-k", "perplexity"]):
        here(
            "slice",
            "--keep",
            "top",
            "--frac",
            "0.9",
            *options,
            "-f",
            "--summary",
            tmp_path / "s",
            tmp_path / "ranked",
        )
        assert json.loads((tmp_path / "s").read_text())["groups"] == {}


def test_a_field_called_rank_in_the_corpus_is_not_a_ranking(here):
    corpus = lines(
        {"id": str(at), "perplexity": at, "rank": ("gold", None, 1.5, [3])[at % 4]} for at in range(8)
    )
    assert ids(here("slice", "-k", "perplexity", "--keep", "top", "--frac", "0.5", stdin=corpus).stdout) == [
        "4",
        "5",
        "6",
        "7",
    ]


def test_a_ranking_with_a_prefix_is_sliced_by_its_own_fields(here, corpus, tmp_path):
    here("rank", "--prefix", "ppl_", corpus, "-o", tmp_path / "r")
    for options in (
        ["--keep", "random", "--frac", "1"],
        ["--keep", "top", "--tokens", 10**9],
        ["--range", "0:1"],
    ):
        assert len(ids(here("slice", *options, tmp_path / "r").stdout)) == N


def test_random_numbers_need_the_texts(here, corpus):
    assert (
        b"use -k"
        in here("slice", "--keep", "random", "--frac", "0.5", "--scores", corpus, corpus, status=2).stderr
    )


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--min", "52", "--max", "30"], b"no score is at least 52 and at most 30"),
        (["--keep", "top", "--frac", "0.5", "--min", "30"], b"exclude each other"),
        (["--keep", "top", "--frac", "0.5", "--range", "0:1"], b"exclude each other"),
        (["--keep", "top", "--frac", "0.5", "--tokens", "10"], b"--frac and --tokens exclude each other"),
    ],
)
def test_contradictory_options_are_usage_errors(options, fault, here, ranked):
    assert fault in here("slice", *options, ranked, status=2).stderr


def test_standard_input_is_not_both_the_scores_and_the_corpus(here):
    assert (
        b"named twice"
        in here("slice", "--scores", "-", "--keep", "top", "--frac", "0.5", stdin=b"{}\n", status=2).stderr
    )


def test_a_bound_and_a_seed_of_zero_are_in_the_summary_and_the_head(here, tmp_path):
    stream = lines([{"id": number, "text": "a", "perplexity": number} for number in range(4)])
    summary, out = tmp_path / "summary.json", tmp_path / "out.zst"
    here("slice", "-k", "perplexity", "--min", "0", "--summary", summary, "-o", out, stdin=stream)
    assert json.loads(summary.read_bytes())["min"] == 0
    head = next(iter(formats.read(io.BytesIO(out.read_bytes()))))
    assert head.settings("slice")["min"] == 0
    drawn = ("--keep", "random", "--frac", "0.5", "--seed", "0")
    here("slice", *drawn, "--summary", summary, "-f", stdin=stream)
    assert json.loads(summary.read_bytes())["seed"] == 0


def test_a_bad_record_of_the_scores_is_skipped_in_both_passes_and_said_once(here, tmp_path):
    texts = [{"id": number, "text": "a"} for number in range(6)]
    scores = [{"id": number, "perplexity": "much" if number == 2 else number} for number in range(6)]
    (tmp_path / "scores.jsonl").write_bytes(lines(scores))
    scored_by = ("--scores", tmp_path / "scores.jsonl", "--skip-bad", "--plain")
    cut = ("slice", *scored_by, "--keep", "top", "--frac", "0.4")
    done = here(*cut, stdin=lines(texts[:2] + texts[3:]), status=3)
    assert [record["id"] for record in records(done.stdout)] == [4, 5]
    assert done.stderr.count(b"scores.jsonl:3") == 1
    # A record without a score shifts none of those behind it: the ids no longer agree.
    said = here(*cut, stdin=lines(texts), status=65).stderr
    assert b"its id is not that of record 3 of the scores" in said
