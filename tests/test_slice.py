"""slice: counts exact to the record and the token budget, nested, order and bytes kept."""

import json
import random
import subprocess
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_cli.statistics.cuts import Cut, choose, fraction, gumbel
from prune_cli.stream import container, writer, zstd_blocks
from prune_cli.stream.schema import FrameCountsBuilder

from .conftest import command, lines, records, status_of, zstd

N = 191  # scored records of the `ranked` fixture


def ids(data: bytes) -> list[str]:
    return [record["id"] for record in records(data)]


def cut(here, path, *options: object, **more):
    return here("slice", *options, path, **more).stdout


def test_the_fixture_is_what_the_counts_below_take_it_for(ranked):
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


def test_by_tokens_the_kept_records_are_those_whose_quantile_lies_inside(corpus, tmp_path, here):
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


def test_a_stream_without_its_head_is_sliced_by_its_fields_when_told_the_unit(ranked, here):
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


def test_a_reversed_ranking_is_sliced_alike(corpus, ranked, tmp_path, here):
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


def test_a_random_share_is_exact_nested_and_does_not_depend_on_the_order(ranked, corpus, here):
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


def test_half_of_nothing_is_nothing_and_no_error(here):
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
def test_cuts_that_make_no_sense_are_usage_errors(options, ranked, here):
    here("slice", *options, ranked, status=2)


# Whole frames


SMALL = 1 << 17  # bytes of text in a frame


@pytest.fixture
def small_frames(monkeypatch):
    monkeypatch.setattr(writer, "FRAME", SMALL)


@pytest.fixture(scope="module")
def frames_file(tmp_path_factory):
    """A ranking of 240 records in ten frames, the last two of them without scores alone; scores tie in
    threes.
    """
    folder, dice = tmp_path_factory.mktemp("frames"), random.Random(5)
    corpus = [
        {
            "id": f"doc-{index}",
            "text": dice.choice("abcdef") * 5000,
            "source": dice.choice("ab"),
            "perplexity": None if index % 4 == 3 else index // 3,
            "n_scored": dice.randint(1, 300),
        }
        for index in range(240)
    ]
    dice.shuffle(corpus)
    (folder / "in.jsonl").write_bytes(lines(corpus))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "FRAME", SMALL)
        for name, options in (("records", []), ("tokens", ["--by", "tokens"]), ("reversed", ["-r"])):
            assert status_of("rank", *options, folder / "in.jsonl", "-o", folder / name) == 0
    return folder


CUTS = [
    ["--keep", "middle", "--frac", "0.5"],
    ["--keep", "bottom", "--frac", "0.31"],
    ["--keep", "top", "--frac", "0"],
    ["--range", "0:1"],
    ["--range", "0.5:0.5001"],
    ["--keep", "middle", "--frac", "0.6", "--invert"],
    ["--keep", "top", "--frac", "0.2", "--keep-unscored"],
    ["--min", "30", "--max", "52"],
    ["--max", "-1"],
    ["--min", "12.5", "--invert", "--keep-unscored"],
]


@pytest.mark.parametrize("file", ["records", "tokens", "reversed"])
@pytest.mark.parametrize("options", CUTS, ids=" ".join)
def test_copying_frames_gives_what_reading_everything_gives(
    file, options, here, frames_file, tmp_path, small_frames
):
    """Another level has every frame decoded; as text, in the counts and in the rejects both ways are one."""
    found = []
    for name, more in (("copied", []), ("decoded", ["--level", "4"])):
        extra = ["--rejects", tmp_path / f"{name}.cut", "--summary", tmp_path / f"{name}.json"]
        kept = here("slice", *options, *more, *extra, frames_file / file).stdout
        told = json.loads(here("stat", stdin=kept).stdout)
        found.append(
            (
                text_of(kept),
                text_of((tmp_path / f"{name}.cut").read_bytes()),
                json.loads((tmp_path / f"{name}.json").read_text()),
                told,
            )
        )
    assert found[0] == found[1]
    kept, cut, summary, told = found[0]
    assert sorted(kept.splitlines() + cut.splitlines()) == sorted(
        text_of((frames_file / file).read_bytes()).splitlines()
    )
    assert (summary["kept"]["records"], summary["in"]) == (told["records"], 240)


def test_frames_inside_the_cut_are_the_very_bytes_of_the_input(here, frames_file, small_frames):
    def frames(data: bytes) -> list[int]:
        return json.loads(data[data.index(b"prune-cli trailer\n") + 18 :].splitlines()[0])["frames"]["crc"]

    whole, kept = (
        frames((frames_file / "records").read_bytes()),
        here("slice", *CUTS[0], frames_file / "records").stdout,
    )
    copied = set(whole) & set(frames(kept))
    assert len(copied) >= 2
    assert (
        frames(here("slice", "--range", "0:1", "--keep-unscored", frames_file / "records").stdout)[:-4]
        == whole[:-4]
    )
    subprocess.run(["zstd", "-tq"], input=kept, check=True)


def test_what_is_copied_is_checked_and_what_is_skipped_is_not_read(here, frames_file, tmp_path, small_frames):
    data = (frames_file / "records").read_bytes()
    sizes = json.loads(data[data.index(b"prune-cli trailer\n") + 18 :].splitlines()[0])["frames"]["size"]
    first = data.index(b"\n", data.index(b"prune-cli head\n") + 15) + 5

    def slice_with_damage_in(frame: int, status: int):
        at = first + sum(sizes[:frame]) + sizes[frame] // 2
        (tmp_path / "damaged").write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        options = ["--keep", "top", "--frac", "0.5", "-f", "-o", tmp_path / "out"]
        return here("slice", *options, tmp_path / "damaged", status=status).stderr

    assert b"damaged zstd frame at byte" in slice_with_damage_in(5, 65)
    assert not (tmp_path / "out").exists()
    slice_with_damage_in(0, 0)


def test_a_table_that_lies_is_never_believed(here, ranked, tmp_path):
    data = ranked.read_bytes()
    expected = cut(here, ranked, "--plain", *CUTS[0])
    start = data.rindex(b"\x5e\x2a\x4d\x18")
    for at in range(start, len(data)):
        (tmp_path / "damaged").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        here("slice", *CUTS[0], tmp_path / "damaged", status=65)
    assert here("slice", "--plain", *CUTS[0], ranked).stdout == expected


# Other cuts


def text_of(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout


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
def test_a_budget_of_tokens_stops_before_the_record_that_would_pass_it_and_nests(keep, here, ranked, corpus):
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
def test_the_middle_grows_by_a_budget_as_it_does_by_a_share(n):
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


def test_within_cuts_the_records_of_each_value_on_their_own(here, corpus, ranked, tmp_path):
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


def test_scores_that_lie_in_a_file_of_their_own_are_joined_in_order(here, corpus, tmp_path):
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


def test_a_sample_is_exact_nested_and_does_not_depend_on_the_order(here, ranked, corpus):
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


def test_a_sample_of_a_random_part_is_as_fair_as_one_of_the_whole(here):
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


def test_what_is_cut_is_the_rest(here, ranked):
    for options in (CUTS[0], ["--keep", "random", "--frac", "0.4"], ["--keep", "top", "--tokens", "4000"]):
        kept, inverted = (ids(here("slice", *options, *more, ranked).stdout) for more in ([], ["--invert"]))
        placed = [record["id"] for record in records(ranked.read_bytes()) if record["rank"] is not None]
        assert sorted(kept + inverted) == sorted(placed)
        assert inverted == [one for one in placed if one not in set(kept)]


def test_rejects_are_what_is_not_kept_unscored_records_too(here, ranked, tmp_path):
    kept = ids(here("slice", *CUTS[0], "--rejects", tmp_path / "rejects", ranked).stdout)
    assert ids((tmp_path / "rejects").read_bytes()) == [
        one for one in ids(ranked.read_bytes()) if one not in set(kept)
    ]
    assert b"exists" in here("slice", *CUTS[0], "--rejects", tmp_path / "rejects", ranked, status=73).stderr
    assert (
        b"one name"
        in here("slice", *CUTS[0], "--rejects", tmp_path / "a", "-o", tmp_path / "a", ranked, status=2).stderr
    )


def test_the_summary_counts_every_record_and_token_by_source(here, ranked, corpus, tmp_path):
    kept = here("slice", *CUTS[0], "--summary", tmp_path / "s", ranked).stdout
    found = json.loads((tmp_path / "s").read_text())
    everything, chosen = records(corpus.read_bytes()), set(ids(kept))
    fate = {
        one["id"]: "kept" if one["id"] in chosen else "unscored" if one["perplexity"] is None else "cut"
        for one in everything
    }
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


def test_equal_scores_that_a_cut_tells_apart_are_told_of(here, tmp_path):
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


def test_a_field_with_too_many_values_is_no_grouping_whichever_way_it_is_read(here, tmp_path):
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


def test_a_trailer_with_checksums_that_lies_is_an_error(here, ranked, tmp_path):
    """Nobody but us could have written it, and we do not: what is asked of a trailer is held to its form
    first.
    """
    data = ranked.read_bytes()
    start, at = data.index(b"prune-cli head\n") - 8, data.index(b"prune-cli trailer\n") - 8
    trailer = json.loads(data[at + 26 :].split(b"\n", 1)[0])
    changes = [
        ("first", ["a"]),
        ("records", [-1]),
        ("nulls", 5),
        ("groups", [[]]),
        ("groups", [{"a": 1}]),
        ("last", [1.5]),
        ("tokens", []),
    ]
    for name, value in changes:
        broken = {**trailer, "frames": {**trailer["frames"], name: value}}
        packed = container.skippable(container.TRAILER, "trailer", broken)
        counts = FrameCountsBuilder(size=trailer["frames"]["size"], text=trailer["frames"]["text"])
        head_size = data.index(zstd_blocks.ZSTD, start) - start
        table = container.seek_table(container.frame_sizes(head_size, counts, len(packed)))
        (tmp_path / "lying").write_bytes(data[:at] + packed + table)
        said = here("slice", "--plain", *CUTS[0], tmp_path / "lying", status=65).stderr
        assert (
            b"its trailer is none that prune-cli writes" in said
            or b"the trailer and the frames before it disagree" in said
        ), (
            name,
            value,
        )


def test_a_field_of_the_corpus_that_is_called_rank_is_none_of_ours(here):
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
def test_options_that_contradict_each_other_are_told_of(options, fault, here, ranked):
    assert fault in here("slice", *options, ranked, status=2).stderr


def test_standard_input_is_not_both_the_scores_and_the_corpus(here):
    assert (
        b"named twice"
        in here("slice", "--scores", "-", "--keep", "top", "--frac", "0.5", stdin=b"{}\n", status=2).stderr
    )
