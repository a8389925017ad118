"""Numbers that do not fit: every field that becomes a number has bounds, checked where it is read."""

import json

import pytest

import prune_cli
from prune_cli.errors import DataError, UsageError

from ..conftest import lines, records

READERS = [
    ["rank"],
    ["rank", "--by", "tokens"],
    ["stat"],
    ["slice", "-k", "perplexity", "--keep", "top", "--frac", "1"],
    ["slice", "-k", "perplexity", "--keep", "top", "--tokens", "100"],
]


def corpus(*counts):
    """Records as other programs write them: counts spelt as they are."""
    return b"".join(
        b'{"id":%d,"text":"t","perplexity":%d,"n_scored":%s}\n' % (at, at, count)
        for at, count in enumerate(counts, 1)
    )


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("count", [b"99999999999999999999", b"9007199254740992", b"-1", b"7.5", b"1e20"])
def test_a_count_out_of_bounds_names_record_and_field(command, count, here):
    said = here(*command, stdin=corpus(b"1", count), status=65).stderr
    assert b"(standard input):2: `n_scored` is" in said
    assert b"whole number below 2^53" in said
    assert said.count(b"\n") == 1
    here(*command, "-q", "--skip-bad", stdin=corpus(b"1", count), status=3)


@pytest.mark.parametrize("command", READERS)
def test_a_sum_of_counts_that_overflows_names_the_record(command, here):
    said = here(*command, stdin=corpus(*[b"9007199254740991"] * 520), status=65).stderr
    assert b":513: the sum of `n_scored` is beyond 2^62" in said


def test_records_in_memory_have_the_same_bounds():
    for count in (2**63, 2**53, -1, 7.5):
        with pytest.raises(DataError):
            list(prune_cli.rank([{"perplexity": 1, "n_scored": count}]))
    with pytest.raises(DataError, match=r"beyond 2\^62"):
        list(prune_cli.rank([{"perplexity": 1, "n_scored": 2**53 - 1}] * 520))
    (ranked,) = prune_cli.rank([{"perplexity": 1, "n_scored": 7.0}], by="tokens")
    assert ranked["quantile"] == 0.5


def test_sums_of_merged_rankings_are_checked(here, tmp_path):
    parts = [tmp_path / "a", tmp_path / "b"]
    for part in parts:
        here("rank", "-o", part, stdin=corpus(*[b"9007199254740991"] * 300))
    assert b"beyond 2^62" in here("rank", "--merge", *parts, status=65).stderr


def test_whole_floats_are_counts(here):
    whole = corpus(b"7", b"3", b"null")
    floats = corpus(b"7.0", b"3.0", b"null")
    by_tokens = [
        [record["quantile"] for record in records(here("rank", "--by", "tokens", stdin=text).stdout)]
        for text in (whole, floats)
    ]
    assert by_tokens[0] == by_tokens[1]
    assert json.loads(here("stat", stdin=floats).stdout)["tokens"] == 10
    ranked = lines({"perplexity": at, "rank": float(at), "quantile": (at + 0.5) / 4} for at in range(4))
    assert len(records(here("slice", "--by", "records", "--range", "0:0.5", stdin=ranked).stdout)) == 2


@pytest.mark.parametrize("number", [b"1e400", b"-1e400", b"9" * 400])
def test_a_number_that_no_double_holds_names_its_field(number, here):
    for command in READERS[:3]:
        said = here(*command, stdin=b'{"text":"t","perplexity":%s}\n' % number, status=65).stderr
        assert b"`perplexity` is a number that is not finite" in said


@pytest.mark.parametrize("option", ["--min=1e400", "--max=-1e400", "--min=inf", "--min=nan"])
def test_bounds_of_scores_are_finite(option, here, ranked):
    said = here("slice", option, ranked, status=2).stderr
    assert b"finite" in said or b"NaN" in said
    with pytest.raises(UsageError):
        list(prune_cli.slice([], min=float("inf")))


def test_token_ids_beyond_64_bits_name_their_field(here):
    said = here("stat", "--duplicates", stdin=b'{"input_ids":[99999999999999999999]}\n', status=65).stderr
    assert b"`input_ids` is a list" in said


def test_a_text_about_infinity_is_not_blamed_for_a_number(here):
    said = here("rank", "-k", "score", stdin=b'{"text":"Infinity War","score":1e400}\n', status=65).stderr
    assert b"`score` is a number that is not finite as a double" in said
