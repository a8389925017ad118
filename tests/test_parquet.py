"""Parquet: rows become the lines of JSON that DuckDB writes, in order, and what has no line is refused."""

import datetime
import io
import json
import threading
from collections.abc import Generator
from decimal import Decimal
from itertools import combinations

import duckdb
import hypothesis.strategies as st
import pyarrow as pa
import pytest
from hypothesis import example, given, settings

from prune_cli import formats, storage
from prune_cli.errors import InputOutputError
from prune_cli.formats import parquet_json, parquet_texts

from .conftest import ROOT, prune, records, status_of, zstd
from .parquet_files import RECORDS, WEB, joined, text, written


def duckdbs(path):
    """The lines of DuckDB, with numbers as they are written."""
    target = path.with_suffix(".json")
    duckdb.sql(f"SET TimeZone = 'UTC'; COPY (FROM '{path}') TO '{target}' (FORMAT json)")
    return target.read_bytes()


def parsed(lines):
    # Text that JSON decodes to the same number may differ: 1e20 and 1e+20.
    return [json.loads(line, parse_float=Decimal) for line in lines.splitlines()]


def ours_and_duckdbs(table, tmp_path, **options):
    path = tmp_path / "x.parquet"
    path.write_bytes(written(table, **options))
    return text(path.read_bytes()), duckdbs(path)


# --- The spelling of values ---


def test_texts_are_escaped_byte_for_byte_as_duckdb_does(tmp_path):
    every = "".join(map(chr, range(1, 0x300))) + "\u2028😀\ufeff\U0010ffff"
    ours, theirs = ours_and_duckdbs({"a": ["", every, None, "plain", "\x00", every * 9]}, tmp_path)
    assert ours == theirs


def test_long_texts_are_searched_in_parts(monkeypatch):
    texts = ['"' * 20, "a" * 6 + "\n" + "\\" * 15, None, "é\t" * 9]
    for size in (1, 7, 10):
        monkeypatch.setattr(parquet_texts, "CACHED", size)
        assert [json.loads(line)["a"] for line in text(written({"a": texts})).splitlines()] == texts


ODD_TEXTS = ['"\\\n', "\t\r", "\x00\x1f\b\f\x7f", "é😀\n", None, "", "plain", "", "\x00", "\n"]


def test_names_are_escaped_like_texts(tmp_path):
    ours, theirs = ours_and_duckdbs({"a": ODD_TEXTS[:6], 'b"\n': [0.5, None, 1.0, 1e20, -0.0, 2.5]}, tmp_path)
    assert parsed(ours) == parsed(theirs)
    assert all(line.split(b',"b')[0] in theirs for line in ours.splitlines())


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view()])
@pytest.mark.parametrize("texts", [ODD_TEXTS, ODD_TEXTS[:4], [None, None, ""]], ids=["all", "texts", "none"])
def test_any_rows_of_a_batch_become_their_lines(texts, kind):
    batch = pa.record_batch({"a": pa.array(texts, kind)})
    whole, ends = parquet_json.lines(batch)
    lines = bytes(whole).splitlines(keepends=True)
    assert [json.loads(line)["a"] for line in lines] == texts
    assert ends.tolist() == [len(b"".join(lines[: at + 1])) - 1 for at in range(len(lines))]
    for start, end in combinations(range(len(texts) + 1), 2):
        assert bytes(parquet_json.lines(batch.slice(start, end - start))[0]) == b"".join(lines[start:end])


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), min_size=1, max_size=20))
@settings(max_examples=50)
def test_texts_are_what_json_decodes(texts):
    assert [json.loads(line)["a"] for line in text(written({"a": texts})).splitlines()] == texts


@pytest.mark.parametrize(
    ("values", "spelled"),
    [
        (pa.array([True, False, None]), ["true", "false", "null"]),
        (pa.array([-(2**63), 2**63 - 1]), ["-9223372036854775808", "9223372036854775807"]),
        (pa.array([2**64 - 1], pa.uint64()), ["18446744073709551615"]),
        (pa.array([-128, 127], pa.int8()), ["-128", "127"]),
        (pa.array([1.0, -0.0, 0.1, 5e-324, 1e15]), ["1.0", "-0.0", "0.1", "5e-324", "1e+15"]),
        (pa.array([0.1], pa.float32()), ["0.10000000149011612"]),
        (pa.array([0.5], pa.float16()), ["0.5"]),
        (
            pa.array([Decimal("-1.50"), Decimal("12345678901234567890.12")]),
            ["-1.50", "12345678901234567890.12"],
        ),
        (pa.array([datetime.date(2020, 2, 29)]), ['"2020-02-29"']),
        (pa.array([0], pa.date64()), ['"1970-01-01"']),
        (pa.array([datetime.datetime(2020, 1, 2, 3, 4, 5, 120000)]), ['"2020-01-02T03:04:05.12"']),
        (pa.array([datetime.datetime(2020, 1, 2, 3, 4, 5)]), ['"2020-01-02T03:04:05"']),
        (pa.array([10**18 + 1], pa.timestamp("ns")), ['"2001-09-09T01:46:40.000000001"']),
        (pa.array([0], pa.timestamp("ms", "Asia/Tokyo")), ['"1970-01-01T00:00:00Z"']),
        (pa.array([datetime.time(1, 2, 3, 40)]), ['"01:02:03.00004"']),
        (pa.array([3_661_000], pa.time32("ms")), ['"01:01:01"']),
        (pa.array([90], pa.duration("us")), ["90"]),
        (pa.nulls(2), ["null", "null"]),
        (pa.array(["x", None, 'y"'] * 2).dictionary_encode(), ['"x"', "null", '"y\\""'] * 2),
        (pa.array(["x"], pa.large_string()), ['"x"']),
        (pa.array([[1, None], [], None]), ["[1,null]", "[]", "null"]),
        (pa.array([["a,b"], ["]"]]), ['["a,b"]', '["]"]']),
        (pa.array([[1, 2]], pa.list_(pa.int16(), 2)), ["[1,2]"]),
        (pa.array([[[1], None], [[]]]), ["[[1],null]", "[[]]"]),
        (pa.array([{"a": {"b": None}}, None]), ['{"a":{"b":null}}', "null"]),
        (
            pa.array([[("k", 1), ("l", None)], []], pa.map_(pa.string(), pa.int8())),
            ['{"k":1,"l":null}', "{}"],
        ),
        (pa.array([[(1, "x")], None], pa.map_(pa.int8(), pa.string())), ['{"1":"x"}', "null"]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_each_type_has_its_spelling(values, spelled):
    lines = text(written({"a": values})).decode().splitlines()
    assert lines == [f'{{"a":{value}}}' for value in spelled]
    for line in lines:
        json.loads(line)


NUMBERS = st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False))
WORDS = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=9))
NESTED = st.one_of(
    st.none(), st.lists(st.one_of(st.none(), st.fixed_dictionaries({"k": WORDS, "n": NUMBERS})))
)
MAPS = st.one_of(st.none(), st.dictionaries(st.text("abc", max_size=3), NUMBERS, max_size=3))
KINDS = {
    "text": (WORDS, pa.string()),
    "number": (NUMBERS, pa.float64()),
    "small": (st.one_of(st.none(), st.floats(width=32, allow_nan=False, allow_infinity=False)), pa.float32()),
    "whole": (st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), pa.int64()),
    "decimal": (st.one_of(st.none(), st.decimals(-(10**9), 10**9, places=4)), pa.decimal128(18, 4)),
    "date": (st.one_of(st.none(), st.dates()), pa.date32()),
    "list": (NESTED, pa.list_(pa.struct([("k", pa.string()), ("n", pa.float64())]))),
    "map": (MAPS.map(lambda each: each and list(each.items())), pa.map_(pa.string(), pa.float64())),
}


@given(st.data())
@settings(max_examples=25)
def test_records_are_those_that_duckdb_writes(tmp_path_factory, data):
    count = data.draw(st.integers(1, 12))
    table = {
        name: pa.array(data.draw(st.lists(values, min_size=count, max_size=count)), kind)
        for name, (values, kind) in KINDS.items()
    }
    path = tmp_path_factory.mktemp("parquet")
    ours, theirs = ours_and_duckdbs(table, path, row_group_size=5)
    assert parsed(ours) == parsed(theirs)


@given(st.lists(NUMBERS, min_size=1, max_size=30))
@example([1e16, 123456789012345680.0, 1e22, -1.0])
def test_a_float_keeps_its_value_and_stays_a_float(values):
    lines = text(written({"a": pa.array(values, pa.float64())})).splitlines()
    assert [repr(json.loads(line)["a"]) for line in lines] == list(map(repr, values))


def test_a_key_of_a_map_that_is_no_text_becomes_one():
    keys = pa.map_(pa.list_(pa.string()), pa.int8())
    [line] = text(written({"a": pa.array([[(['p"q'], 1), ([], 2)]], keys)})).splitlines()
    assert json.loads(line) == {"a": {'["p\\"q"]': 1, "[]": 2}}


def test_columns_are_chosen_in_the_order_of_the_option():
    assert text(written(WEB), ("id", "text")).splitlines() == [
        b'{"id":1,"text":"a"}',
        b'{"id":2,"text":null}',
        b'{"id":null,"text":"b\\"\\\\\\n"}',
    ]


def test_a_name_with_a_dot_is_no_path():
    table = written({"a": [1], "a.b": [2], 'q"\n': [3]})
    assert text(table, ("a",)) == b'{"a":1}\n'
    assert text(table, ("a.b",)) == b'{"a.b":2}\n'
    assert json.loads(text(table)) == {"a": 1, "a.b": 2, 'q"\n': 3}


def test_a_table_without_rows_is_no_records_and_no_error():
    assert text(written(WEB.slice(0, 0))) == b""


# --- The order of rows, and how they are read ---


@pytest.mark.parametrize("row_group_size", [7, 1000, 10_000])
@pytest.mark.parametrize(
    "options", [{}, {"compression": "zstd", "data_page_version": "2.0"}], ids=["v1", "v2"]
)
def test_rows_come_in_file_order_whatever_the_row_groups(row_group_size, options):
    data = written(pa.Table.from_pylist(RECORDS), row_group_size=row_group_size, **options)
    assert [json.loads(line) for line in text(data).splitlines()] == RECORDS


def test_large_row_groups_are_read_in_batches(monkeypatch):
    from prune_cli.formats import parquet_rows

    monkeypatch.setattr(parquet_rows, "SMALL", 0)
    data = written(pa.Table.from_pylist(RECORDS), row_group_size=1500)
    pieces = list(formats.read(io.BytesIO(data)))
    assert [json.loads(line) for line in joined(pieces).splitlines()] == RECORDS
    monkeypatch.setattr(parquet_rows, "BATCH", 1000)
    more = list(formats.read(io.BytesIO(data)))
    assert len(more) > len(pieces)
    assert joined(more) == joined(pieces)


def test_rows_that_look_small_in_a_dictionary_come_in_batches(monkeypatch):
    from prune_cli.formats import parquet_rows

    monkeypatch.setattr(parquet_rows, "MOST_ROWS", 100)
    monkeypatch.setattr(parquet_rows, "MOST_ROWS_TOGETHER", 500)
    texts = ["long " * 200] * 1600
    for row_group_size in (200, 800):
        pieces = list(formats.read(io.BytesIO(written({"a": texts}, row_group_size=row_group_size))))
        assert max(len(piece.ends) for piece in pieces) <= 100
        assert [json.loads(line)["a"] for line in joined(pieces).splitlines()] == texts


def test_a_reader_that_is_closed_leaves_no_thread_behind():
    data = written(pa.Table.from_pylist(RECORDS), row_group_size=1)
    rows = formats.read(io.BytesIO(data))
    next(rows)
    assert isinstance(rows, Generator)
    rows.close()
    assert not [each.name for each in threading.enumerate() if each.name.startswith("parquet")]


def test_a_file_is_read_at_offsets_and_its_progress_adds_up(tmp_path):
    path = tmp_path / "x.parquet"
    path.write_bytes(written(pa.Table.from_pylist(RECORDS), row_group_size=100))
    steps: list[int] = []
    file = storage.input_at(str(path), steps.append)
    with file.open() as raw:
        assert len(joined(formats.read(raw)).splitlines()) == len(RECORDS)
    assert sum(steps) == file.size
    assert min(steps) >= 0


@pytest.mark.parametrize("columns", [(), ("id",), ("id", "score")])
def test_a_small_row_group_is_one_read_of_the_columns_that_are_read(columns):
    from prune_cli.formats import parquet_rows

    data = written(pa.Table.from_pylist(RECORDS), row_group_size=1000)
    file = Broken(data, 1000)
    lines = joined(parquet_rows.lines(file, len(data), columns, lambda size: None))
    assert len(lines.splitlines()) == len(RECORDS)
    assert 1000 - file.reads <= 3 + 2, "three row groups, and the footer"


def test_a_large_row_group_is_read_page_by_page(monkeypatch):
    from prune_cli.formats import parquet_rows

    monkeypatch.setattr(parquet_rows, "SMALL", 0)
    monkeypatch.setattr(parquet_rows, "BUFFER", 4096)
    rows = {"a": [f"{number:0999}" for number in range(1000)]}
    data = written(rows, data_page_size=10_000, write_batch_size=10, use_dictionary=False, compression="none")
    file = Broken(data, 1000)
    assert len(joined(parquet_rows.lines(file, len(data), (), lambda size: None)).splitlines()) == 1000
    assert file.largest < len(data) / 10


class Broken(io.BytesIO):
    """A storage that fails after so many reads."""

    def __init__(self, data, reads):
        super().__init__(data)
        self.reads = reads
        self.largest = 0

    def read_at(self, offset, size):
        self.largest = max(self.largest, size)
        self.reads -= 1
        if self.reads < 0:
            raise InputOutputError("the disk is gone", place="x")
        return self.getbuffer()[offset : offset + size].tobytes()


@pytest.mark.parametrize("reads", [0, 2, 5])
def test_a_failure_of_the_storage_stays_what_it_is(reads, monkeypatch):
    from prune_cli.formats import parquet_rows

    monkeypatch.setattr(parquet_rows, "TOGETHER", 1000)
    data = written(pa.Table.from_pylist(RECORDS), row_group_size=100)
    with pytest.raises(InputOutputError, match="the disk is gone"):
        list(parquet_rows.lines(Broken(data, reads), len(data), (), lambda size: None))


# --- The verbs ---


@pytest.fixture
def web(tmp_path):
    path = tmp_path / "web.parquet"
    rows = [{"raw_content": record["text"], **record} for record in RECORDS[:40]]
    path.write_bytes(written(pa.Table.from_pylist(rows), row_group_size=10))
    return path


@pytest.mark.parametrize("operand", ["file", "-", "pipe"])
def test_a_pipe_is_read_like_a_file(operand, web, here):
    if operand == "file":
        done = here("rank", "-k", "score", web)
    elif operand == "-":
        done = here("rank", "-k", "score", stdin=web.read_bytes())
    else:
        done = prune("rank", "-k", "score", stdin=web.read_bytes())
    assert [record["rank"] for record in records(done.stdout)] == list(range(40))


def test_the_text_field_may_have_any_name(web, tmp_path, here):
    done = here("score", "-m", "random", "--text-field", "raw_content", "--columns", "raw_content,id", web)
    [first, *_] = records(done.stdout)
    assert list(first)[:3] == ["raw_content", "id", "random"]


def test_every_verb_without_a_model_reads_the_same_records_as_from_json_lines(web, tmp_path, here):
    other = tmp_path / "web.jsonl"
    other.write_bytes(text(web.read_bytes()))
    packing = ("pack", "--tokenizer", ROOT / "prune_cli" / "reference", "--context", "16", "--carry", "score")
    for verb in (
        ("slice", "-k", "score", "--keep", "middle", "--frac", "0.5"),
        ("score", "-m", "random", "--shard", "1/2"),
        ("rank", "-k", "score", "-r"),
        packing,
    ):
        assert records(here(*verb, web).stdout) == records(here(*verb, other).stdout)
    # This one reads its input twice.
    middle = ("slice", "-k", "score", "--keep", "middle", "--frac", "0.5")
    assert here(*middle, web).stdout == here(*middle, stdin=web.read_bytes()).stdout
    [stat, expected] = (json.loads(here("stat", "--verify", each).stdout) for each in (web, other))
    assert (stat["records"], stat["scores"]) == (expected["records"], expected["scores"])


def test_eval_and_train_read_parquet(web, tmp_path, here):
    other = tmp_path / "web.jsonl"
    other.write_bytes(text(web.read_bytes()))
    reference = ROOT / "prune_cli" / "reference"
    ours, theirs = (records(here("eval", reference, "--data", each).stdout)[0] for each in (web, other))
    assert ours["perplexity"] == theirs["perplexity"]
    run = ("train", "--preset", "tiny", "--tokenizer", reference, "--steps", "1", "--batch-tokens", "512")
    here(*run, "-o", tmp_path / "run", web)
    here(*run, "-o", tmp_path / "same", other)
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == (
        tmp_path / "same" / "model.safetensors"
    ).read_bytes()


def test_an_output_directory_names_its_outputs_json_lines(web, tmp_path):
    assert status_of("score", "-m", "random", web, "-O", tmp_path / "out") == 0
    assert [path.name for path in (tmp_path / "out").glob("*.zst")] == ["web.jsonl.zst"]


def test_columns_of_a_file_that_is_no_parquet_are_ignored_with_a_warning(tmp_path, here):
    path = tmp_path / "x.jsonl.zst"
    path.write_bytes(zstd(b'{"text":"a","n":1}\n'))
    done = here("rank", "-k", "n", "--columns", "n", path)
    assert b"--columns is for Parquet: all fields of this zstd file are read" in done.stderr
    assert list(records(done.stdout)[0])[:2] == ["text", "n"]


@pytest.mark.parametrize("columns", ["", "a,,b", "a,a"])
def test_columns_must_be_names_each_once(columns, web, here):
    here("rank", "-k", "score", "--columns", columns, web, status=2)


def test_the_name_of_a_parquet_file_is_compared_with_its_content():
    warnings: list[str] = []
    text(written(WEB), warn=warnings.append, name="web.jsonl")
    assert warnings == ["the name says plain, the content is Parquet: read as Parquet"]
