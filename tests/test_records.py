"""Lines and fields: what is wrong is named with file and line, what is right passes byte for byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_cli.records import splice
from prune_cli.records.batching import Bound, batched

from .conftest import lines, scored, zstd

GOOD = b'{"text": "a", "perplexity": 1.5}\n'


def error(here, bad: bytes, *options: str, verb: str = "rank") -> str:
    """The message about one bad line among good ones; the status is 65."""
    said = here(verb, *options, stdin=GOOD + bad + GOOD, status=65).stderr.decode()
    assert said.startswith(f"prune-cli {verb}: (standard input):2: ")
    assert said.count("\n") == 1
    return said.split(":2: ", 1)[1]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (b'{"perplexity": NaN}\n', "`perplexity` is NaN, which is no JSON number"),
        (b'{"perplexity": -Infinity}\n', "`perplexity` is -Infinity"),
        (b'{"perplexity": 1e999}\n', "not finite"),
        (b'{"perplexity": "12"}\n', "`perplexity` is a string"),
        (b'{"perplexity": true}\n', "`perplexity` is true or false"),
        (b'{"perplexity": [1]}\n', "`perplexity` is a list"),
        (b'{"id": 3, "ppl": 1}\n', "no field `perplexity`; the record has id, ppl"),
        (b"{}\n", "no field `perplexity`; the record has no fields at all"),
        (b"[1]\n", "not an object but a list"),
        (b"12\n", "not an object but a number"),
        (b'{"perplexity": 1\n', "not JSON"),
        (b'{"perplexity": 1}}\n', "not JSON"),
        (b'{"perplexity": 1}{"perplexity": 2}\n', "not JSON"),
        (b'{"perplexity": 1,}\n', "not JSON"),
        (b'{"a": "\x00", "perplexity": 1}\n', "not JSON"),
        (b'{"a": "\x1f", "perplexity": 1}\n', "not JSON"),
        (b'{"source": "\\ud800", "perplexity": 1}\n', "`source` has a lone surrogate"),
        (b'\xef\xbb\xbf{"perplexity": 1}\n', "byte-order mark"),
        (b'{"perplexity": 1, "perplexity": 2}\n', "`perplexity` occurs twice"),
        (b'{"perplexity": 1, "rank": 2}\n', "`rank` already exists; --overwrite"),
        (b'{"perplexity": 1, "a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}\n", "nested too deep"),
    ],
)
def test_a_bad_record_is_named_with_its_line_and_its_fault(bad, words, here):
    assert words in error(here, bad)


def test_a_key_repeated_in_a_nested_object_is_allowed(here):
    here("rank", stdin=b'{"perplexity": 1, "meta": {"perplexity": 2}, "tag": "perplexity"}\n')


def test_two_records_on_one_line_are_an_error(here):
    """msgspec reads values, not lines: as many values as lines must not be enough."""
    assert (
        "not JSON"
        in here(
            "rank", stdin=b'{"perplexity": 1}{"perplexity": 2}\n{"perplexity":\n3}\n', status=65
        ).stderr.decode()
    )


@pytest.mark.parametrize(
    "record",
    [
        b'{"perplexity":1,"n":1.10,"big":123456789012345678901234567890,"zero":-0.0,"e":1E5}',
        b'  { "perplexity" : 1 , "text":"\\u00e9\\/ \\u0000 \xc3\xa9" }  ',
        b'{"perplexity":1}\r',
        b'{"perplexity":1,"not utf-8":"\xff\xfe"}',
        b'{"b":{},"perplexity":1,"a":{"}":"{"}}',
        b'{"perplexity":null}',
    ],
)
def test_all_other_bytes_of_a_record_stay_unchanged(record, here):
    out = here("rank", "--plain", stdin=record + b"\n").stdout
    end = record.rindex(b"}")
    assert out.startswith(record[:end] + b',"rank":')
    assert out.endswith(b"}" + record[end + 1 :] + b"\n")


def test_the_last_newline_is_optional_and_blank_lines_are_skipped(here):
    out = here("rank", "--plain", stdin=b'\n  \n{"perplexity":2}\r\n\r\n{"perplexity":1}').stdout
    assert out == b'{"perplexity":1,"rank":0,"quantile":0.25}\n{"perplexity":2,"rank":1,"quantile":0.75}\r\n'


def test_a_byte_order_mark_is_removed_on_request(here):
    out = here(
        "rank",
        "--plain",
        "--strip-bom",
        stdin=b'\xef\xbb\xbf{"perplexity":2}\n\xef\xbb\xbf{"perplexity":1}\n',
    ).stdout
    assert out.startswith(b'{"perplexity":1,')


def test_a_line_over_the_limit_is_an_error_and_memory_stays_bounded(tmp_path, here):
    path = tmp_path / "bomb.zst"
    path.write_bytes(zstd(b'{"perplexity":1,"text":"' + b"a" * (1 << 27) + b'"}\n'))
    said = here("rank", path, status=65).stderr.decode()
    assert "longer than --max-line (64 MiB)" in said
    assert (
        "longer than"
        in here(
            "rank", "--max-line", "1K", stdin=b'{"perplexity":1,"text":"' + b"a" * 2000 + b'"}\n', status=65
        ).stderr.decode()
    )


def test_skip_bad_skips_counts_and_says_so_with_status_3(here):
    done = here("rank", "--plain", "--skip-bad", stdin=GOOD + b"oops\n" + GOOD, status=3)
    assert len(done.stdout.splitlines()) == 2
    assert b"(standard input):2: not JSON" in done.stderr
    assert b"1 bad records were skipped" in done.stderr


def test_expect_records_notices_a_missing_file(here):
    here("rank", "--expect-records", 2, stdin=GOOD * 2)
    assert (
        b"1 records arrived, 2 were expected"
        in here("rank", "--expect-records", 2, stdin=GOOD, status=65).stderr
    )


def test_overwrite_replaces_only_the_field(here):
    record = b'{ "rank":7,"a":{"rank":1} ,"perplexity":1.0,"quantile" : "x" }\n'
    out = here("rank", "--plain", "--overwrite", stdin=record).stdout
    assert out == b'{"a":{"rank":1} ,"perplexity":1.0,"rank":0,"quantile":0.5}\n'


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), JSON, max_size=6), st.booleans(), st.sampled_from(["", " ", "\t"]))
def test_splicing_adds_members_and_changes_no_byte(record, ascii_only, space):
    line = (
        space + json.dumps(record, ensure_ascii=ascii_only, separators=("," + space, ":" + space)) + space
    ).encode("utf-8", "surrogatepass")
    spliced = splice.splice(line, splice.members({"rank": 3, "quantile": 0.1}))
    assert json.loads(spliced.decode("utf-8", "surrogatepass")) == {**record, "rank": 3, "quantile": 0.1}
    assert (
        spliced.replace(b',"rank":3,"quantile":0.1', b"", 1).replace(b'"rank":3,"quantile":0.1', b"", 1)
        == line
    )


@given(st.dictionaries(st.text(max_size=3), JSON, min_size=1, max_size=6), st.data())
def test_removing_members_keeps_the_others_byte_for_byte(record, data):
    gone = data.draw(st.sets(st.sampled_from(sorted(record))))
    line = json.dumps(record).encode()
    left = {name: value for name, value in record.items() if name not in gone}
    assert json.loads(splice.without(line, gone)) == left
    assert splice.without(line, []) == line


@given(st.dictionaries(st.text(max_size=3), JSON, min_size=1, max_size=6), st.data())
def test_chosen_members_stay_byte_for_byte(record, data):
    kept = data.draw(st.sets(st.sampled_from(sorted(record))))
    line, missing = splice.only(json.dumps(record).encode(), [*kept, "not there"])
    members = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in record.items() if name in kept]
    assert line == f"{{{','.join(members)}}}".encode()
    assert missing == ["not there"]


@given(
    st.dictionaries(st.text(max_size=3), JSON, max_size=3),
    st.dictionaries(st.text(max_size=3), st.none() | st.floats(0, 1)),
)
def test_spliced_members_are_found_again(record, fields):
    base = json.dumps(record).encode() + b"\r"
    line = splice.splice(base, splice.members(fields)) if fields else base
    assert splice.spliced(line, base) == fields


@pytest.mark.parametrize(
    "base", ['{"id":1}', '{"id":1,"x":1}', '{"id":1} ', '{"id":12,"p":3}', '{"id":12,"p":0.5,"q":1}', "{}"]
)
def test_a_record_matches_only_the_record_it_was_made_from(base):
    assert splice.spliced(b'{"id":12,"p":0.5}', base.encode()) in (None, {"id": 12, "p": 0.5})


@pytest.mark.parametrize("split", [1, 7, 50])
def test_any_split_into_files_and_frames_gives_the_same_output(split, tmp_path, here):
    corpus = scored(100)
    whole = here("rank", "--plain", stdin=lines(corpus)).stdout
    paths = []
    for at in range(0, 100, split):
        paths.append(tmp_path / f"{at:03}.zst")
        paths[-1].write_bytes(zstd(*(lines([record]) for record in corpus[at : at + split])))
    assert here("rank", "--plain", *paths).stdout == whole


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\udcff"])
def test_a_field_name_that_needs_escapes_is_refused(name, here):
    assert b"cannot be read" in here("rank", "-k", name, stdin=b'{"a":1}\n', status=2).stderr


@pytest.mark.parametrize(
    ("sizes", "lists"),
    [
        ([], []),
        ([1], [[1]]),
        ([2, 2, 2, 2], [[2, 2], [2, 2]]),
        ([9, 1, 1], [[9], [1, 1]]),
        ([1, 9, 1], [[1, 9], [1]]),
    ],
)
def test_a_batch_ends_with_the_item_that_fills_it(sizes, lists):
    assert list(batched(sizes, Bound(lambda size: size, 4))) == lists


def test_a_batch_ends_before_the_item_that_is_too_much_for_it():
    items = ["aa", "b", "cccc", "d", "eeeeee", "f"]
    count: Bound[str] = Bound(lambda item: 1, 3)
    length: Bound[str] = Bound(lambda item: len(item), 5)
    assert list(batched(items, count, most=length)) == [["aa", "b"], ["cccc", "d"], ["eeeeee"], ["f"]]
    assert list(batched("abcdefg", count, most=length)) == [list("abc"), list("def"), ["g"]]
