"""Slices by two scores: fractions of what is left, and with --of-all of all that there was."""

import random
from pathlib import Path

import pytest

from .conftest import Corpus, lines, prune, records, status_of, zstd


def two_scores(count: int = 101) -> Corpus:
    """Two scores of which the second is null at times."""
    dice = random.Random(3)
    return [
        {
            "id": index,
            "a": dice.random(),
            "b": None if index % 17 == 0 else dice.random(),
            "n_scored": dice.randint(1, 99),
        }
        for index in range(count)
    ]


def middle(corpus: Corpus, key: str, k: int) -> Corpus:
    """The middle k by a score, worked out from the contract; input order."""
    in_order = sorted(
        (record for record in corpus if record[key] is not None), key=lambda record: record[key]
    )
    first = (len(in_order) - k) // 2
    kept = {record["id"] for record in in_order[first : first + k]}
    return [record for record in corpus if record["id"] in kept]


@pytest.fixture
def half(here, tmp_path: Path) -> bytes:
    """The middle half by `a`: 51 records of 101."""
    done = here("slice", "-k", "a", "--keep", "middle", "--frac", 0.5, stdin=lines(two_scores()))
    assert records(done.stdout) == middle(two_scores(), "a", 51)
    return done.stdout


@pytest.mark.parametrize("by_file", [True, False])
def test_a_fraction_is_one_of_what_is_left_or_of_all(by_file, here, half, tmp_path):
    (tmp_path / "half.zst").write_bytes(half)
    source = {"stdin": half} if not by_file else {}
    operands = [tmp_path / "half.zst"] if by_file else []
    options = ("slice", "-k", "b", "--keep", "middle", "--frac", 0.2)
    left = middle(two_scores(), "a", 51)
    scored = sum(record["b"] is not None for record in left)
    assert records(here(*options, *operands, **source).stdout) == middle(left, "b", round(0.2 * scored))
    # ⌊0.2 · 101 + ½⌋ of all, and the whole is still known by a third slice.
    kept = here(*options, "--of-all", *operands, **source).stdout
    assert records(kept) == middle(left, "b", 20)
    third = here("slice", "-k", "a", "--keep", "middle", "--frac", 0.1, "--of-all", stdin=kept).stdout
    assert records(third) == middle(middle(left, "b", 20), "a", 10)


def test_a_fraction_of_all_may_be_all_that_is_left(here, half):
    done = here("slice", "-k", "a", "--keep", "top", "--frac", 0.9, "--of-all", stdin=half)
    assert records(done.stdout) == records(half)


def test_by_tokens_it_is_the_fraction_of_all_tokens(here, half):
    done = here(
        "slice", "-k", "a", "--by", "tokens", "--keep", "bottom", "--frac", 0.3, "--of-all", stdin=half
    )
    left = sorted(records(half), key=lambda record: record["a"])
    target = 0.3 * sum(record["n_scored"] for record in two_scores())
    before, kept = 0, set()
    for record in left:
        if before + record["n_scored"] / 2 < target:
            kept.add(record["id"])
        before += record["n_scored"]
    assert {record["id"] for record in records(done.stdout)} == kept


def test_a_slice_of_a_ranking_knows_the_whole_ranking(here, tmp_path):
    ranked = here("rank", "-k", "a", stdin=lines(two_scores())).stdout
    half = here("slice", "--keep", "bottom", "--frac", 0.5, stdin=ranked).stdout
    options = ("-k", "b", "--keep", "top", "--frac", 0.2, "--of-all")
    assert len(records(here("slice", *options, stdin=half).stdout)) == 20
    # And so does what was kept at thresholds, or drawn.
    for cut in (("-k", "a", "--max", 0.5), ("--keep", "random", "--frac", 0.6)):
        part = here("slice", *cut, stdin=ranked).stdout
        assert len(records(here("slice", *options, stdin=part).stdout)) == 20


def test_what_was_kept_at_measured_thresholds_says_how_much_there_was(here, tmp_path):
    measured = here("stat", "-k", "a", "--thresholds", "0.2,1", stdin=lines(two_scores()))
    (tmp_path / "cut.json").write_bytes(measured.stdout)
    part = here("slice", "--cut", tmp_path / "cut.json", stdin=lines(two_scores())).stdout
    done = here("slice", "-k", "b", "--keep", "top", "--frac", 0.2, "--of-all", stdin=part)
    assert len(records(done.stdout)) == 20


def test_workers_keep_the_same_and_write_the_same(here, half, tmp_path):
    (tmp_path / "half.zst").write_bytes(half)
    options = ("-k", "b", "--keep", "middle", "--frac", "0.2", "--of-all", tmp_path / "half.zst")
    alone = prune("slice", *options).stdout
    assert prune("slice", "-j", 2, *options).stdout == alone


@pytest.mark.parametrize(
    "spoil",
    [
        lambda half: lines(two_scores()),
        lambda half: lines(records(half)),
        lambda half: zstd(lines(records(half))),
        lambda half: half + zstd(lines(records(half))),
    ],
    ids=["never sliced", "plain", "compressed again", "with more behind it"],
)
def test_a_stream_that_does_not_say_of_what_it_is_a_part_is_refused(spoil, here, half):
    options = ("-k", "b", "--keep", "top", "--frac", 0.2, "--of-all")
    done = here("slice", *options, stdin=spoil(half), status=65)
    assert b"(standard input): does not say of how much it is a part; give the stream as" in done.stderr


def test_joined_slices_add_up(here, half):
    done = here("slice", "-k", "b", "--keep", "top", "--frac", 0.1, "--of-all", stdin=half + half)
    assert len(records(done.stdout)) == 20


@pytest.mark.parametrize(
    "options",
    [
        ["--keep", "top", "--frac", "0.5"],
        ["-k", "a", "--keep", "top", "--tokens", "5"],
        ["-k", "a", "--range", "0:1"],
        ["-k", "a", "--keep", "top", "--frac", "0.5", "--within", "b"],
    ],
)
def test_it_needs_a_fraction_of_a_score(options):
    assert status_of("slice", "--of-all", *options, "absent") == 2


def test_a_dataset_that_slice_wrote_says_what_there_was(here, tmp_path):
    corpus = tmp_path / "corpus.jsonl.zst"
    corpus.write_bytes(zstd(lines(two_scores())))
    here("slice", "-k", "a", "--keep", "middle", "--frac", 0.5, "-O", tmp_path / "half", corpus)
    # A fifth of the 101 records that have an `a`, not of the 51 that are left.
    of_all = ("slice", "-k", "b", "--keep", "middle", "--frac", 0.2, "--of-all")
    kept = records(here(*of_all, tmp_path / "half").stdout)
    assert kept == middle(middle(two_scores(), "a", 51), "b", 20)
