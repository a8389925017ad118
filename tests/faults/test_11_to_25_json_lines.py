"""Faults 11 to 25: odd and broken lines, in every verb that reads a score. tests/test_records.py has more of
each kind.

What only a model's reader meets (texts, ids, 20 and 24) is in tests/test_score.py and
tests/test_score_stage.py.
"""

import json

import pytest

from ..conftest import lines, prune, records, scored

GOOD = b'{"id": 1, "perplexity": 2.5}\n'
READERS = {
    "rank": ["rank", "--plain"],
    "slice": ["slice", "--plain", "-k", "perplexity", "--keep", "bottom", "--frac", "1"],
    "stat": ["stat", "-k", "perplexity"],
}


@pytest.fixture(params=READERS)
def verb(request) -> str:
    return request.param


@pytest.fixture
def run(verb, here):
    """A verb over a good line, a line and a good line."""

    def over(line: bytes, *options: object, status: int = 0):
        return here(*READERS[verb], *options, stdin=GOOD + line + GOOD, status=status)

    return over


def refused(run, line: bytes, *words: str) -> None:
    said = run(line, status=65).stderr.decode()
    assert said.startswith("prune-cli ")
    assert ": (standard input):2: " in said
    assert said.count("\n") == 1
    assert all(word in said for word in words), said


def test_11_a_last_line_without_a_newline_is_a_record(here):
    for verb, options in READERS.items():
        out = here(*options, stdin=GOOD + GOOD[:-1]).stdout
        assert out.endswith(b"}\n"), verb
        assert len(out.splitlines()) == (1 if verb == "stat" else 2)


def test_12_blank_lines_are_skipped_and_counted(run):
    assert "3 blank lines were skipped" in run(b"\n  \n\t\r\n", "-v").stderr.decode()


def test_13_carriage_returns_stay_where_they_are(here):
    assert (
        here("rank", "--plain", stdin=b'{"perplexity":1}\r\n').stdout
        == b'{"perplexity":1,"rank":0,"quantile":0.5}\r\n'
    )
    out = here(*READERS["slice"], stdin=b'{"perplexity":1}\r\n').stdout
    assert out == b'{"perplexity":1}\r\n'


def test_14_a_byte_order_mark_is_refused_and_removed_on_request(run):
    refused(run, b"\xef\xbb\xbf" + GOOD, "byte-order mark", "--strip-bom")
    assert b"\xef\xbb\xbf" not in run(b"\xef\xbb\xbf" + GOOD, "--strip-bom").stdout


def test_15_invalid_utf8_passes_in_a_field_that_is_not_read(here):
    odd = b'{"perplexity":1,"t":"\xff\xfe","u":"\\u00e9","\xff":2}'
    for beside in (b"", b"\n"):  # with a blank line in the block each record is looked at by itself
        assert (
            here("rank", "--plain", stdin=beside + odd + b"\n").stdout
            == odd[:-1] + b',"rank":0,"quantile":0.5}\n'
        )
        again = here("rank", "--plain", "--overwrite", stdin=beside + odd[:-1] + b',"rank":7}\n').stdout
        assert again == odd[:-1] + b',"rank":0,"quantile":0.5}\n'
        assert here(*READERS["slice"], stdin=beside + odd + b"\n").stdout == odd + b"\n"


def test_15_invalid_utf8_in_a_field_that_is_read(here):
    said = here("stat", "--duplicates", stdin=b'{"perplexity":1,"text":"a\xff"}\n', status=65).stderr.decode()
    assert "(standard input):1: invalid UTF-8 at byte 25 of the line" in said


def test_16_half_a_surrogate_pair_is_named(here):
    data = GOOD + b'{"perplexity":1,"text":"\\ud800"}\n'
    said = here("stat", "--duplicates", stdin=data, status=65).stderr.decode()
    assert "(standard input):2: `text` has a lone surrogate" in said
    # A verb that does not read the text passes it on.
    assert b'{"perplexity":1,"text":"\\ud800"' in here(*READERS["rank"], stdin=data).stdout


@pytest.mark.parametrize("byte", [b"\0", b"\x01", b"\x1f"])
def test_17_a_raw_control_character_is_not_json(byte, run):
    refused(run, b'{"perplexity":1,"t":"' + byte + b'"}\n', "not JSON")
    run(b'{"perplexity":1,"t":"\\u0000"}\n')


def test_18_a_score_that_occurs_twice_in_a_record(run):
    refused(run, b'{"perplexity":1,"perplexity":1}\n', "the field `perplexity` occurs twice", "keep one")
    refused(run, b'{"perplexity":1,"p\\u0065rplexity":1}\n', "occurs twice")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"[1]", "not an object but a list"),
        (b"3", "not an object but a number"),
        (b"null", "not an object but null"),
        (b'"a"', "not an object but a string"),
    ],
)
def test_19_a_line_that_is_not_an_object(line, words, run):
    refused(run, line + b"\n", words)


def test_19_a_missing_field_names_the_existing_ones(here):
    for verb in ("rank", "slice"):
        said = here(*READERS[verb], stdin=GOOD + b'{"id":1,"ppl":3}\n', status=65).stderr.decode()
        assert "(standard input):2: no field `perplexity`; the record has id, ppl" in said


def test_20_records_without_a_score_come_last_and_are_kept_only_on_request(here):
    data = lines([{"perplexity": None, "id": 0}, {"perplexity": 2, "id": 1}, {"perplexity": 1, "id": 2}])
    assert [record["id"] for record in records(here("rank", stdin=data).stdout)] == [2, 1, 0]
    assert [record["id"] for record in records(here(*READERS["slice"], stdin=data).stdout)] == [1, 2]
    assert [
        record["id"] for record in records(here(*READERS["slice"], "--keep-unscored", stdin=data).stdout)
    ] == [0, 1, 2]


@pytest.mark.parametrize(
    "value", [b"NaN", b"Infinity", b"-Infinity", b"1e999", b'"1"', b"true", b"[]", b"{}"]
)
def test_21_scores_that_are_not_numbers_name_their_record(value, run):
    refused(run, b'{"perplexity":' + value + b"}\n", "")


def test_22_a_field_that_exists_already(here):
    said = here("rank", stdin=b'{"perplexity":1,"rank":0}\n', status=65).stderr.decode()
    assert (
        "the field `rank` already exists; "
        "--overwrite replaces it, --prefix STR gives the new field a different name" in said
    )
    here("rank", "--overwrite", stdin=b'{"perplexity":1,"rank":0}\n')
    assert (
        b'"rank":0,"my_rank":0'
        in here("rank", "--plain", "--prefix", "my_", stdin=b'{"perplexity":1,"rank":0}\n').stdout
    )


@pytest.mark.parametrize(
    "extra",
    [
        b'"big":' + b"9" * 6000,
        b'"n":-0.0,"m":1.10,"e":1E+5',
        b'"t":"\\/\\u00e9\\ud83d\\ude00"',
        b'"":0," ":0,"\\"}":{"}":"{"}',
    ],
)
def test_23_numbers_escapes_and_depth_stay_byte_for_byte(extra, here):
    for beside in (b"", b"\n"):
        line = b'{"perplexity":1,' + extra + b"}"
        assert (
            here("rank", "--plain", stdin=beside + line + b"\n").stdout
            == line[:-1] + b',"rank":0,"quantile":0.5}\n'
        )
        assert here(*READERS["slice"], stdin=beside + line + b"\n").stdout == line + b"\n"


def test_23_two_thousand_levels_pass(tmp_path):
    """In a process of its own, whose limit of recursion main() sets."""
    line = b'{"perplexity":1,"t":"\\u00e9","a":' + b"[" * 2000 + b"]" * 2000 + b"}"
    for beside in (b"", b"\n"):
        assert (
            prune("rank", "--plain", stdin=beside + line + b"\n").stdout
            == line[:-1] + b',"rank":0,"quantile":0.5}\n'
        )


def test_23_deeper_nesting_is_refused_with_a_message(run):
    refused(run, b'{"perplexity":1,"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}\n", "nested too deep")


def test_25_records_that_share_an_id_are_separate_records(here):
    """The place in the stream is what a record is known by."""
    twins = scored(50) * 2
    ranked = records(here("rank", stdin=lines(twins)).stdout)
    assert sorted(json.dumps({**record, "rank": 0, "quantile": 0}) for record in ranked) == sorted(
        json.dumps({**record, "rank": 0, "quantile": 0}) for record in twins
    )
