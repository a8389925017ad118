"""Parquet that has no lines of JSON: 65 with row and column, and never a traceback."""

import io
import json
import math
import re
from contextlib import suppress

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings

from prune_cli import formats
from prune_cli.errors import ConfigurationError, DataError

from .conftest import records
from .parquet_files import RECORDS, WEB, text, written


def refused(data, columns=()):
    with pytest.raises(DataError) as caught:
        text(data, columns)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        (pa.array([b"x"]), "column `a` is binary, which JSON does not have"),
        (pa.array([b"xy"], pa.binary(2)), "column `a` is binary"),
        (pa.array([[{"b": b"x"}]]), "column `a` is binary"),
        (pa.array([1.0, float("nan")]), "column `a` is NaN"),
        (pa.array([float("-inf")]), "column `a` is infinite"),
        (pa.array([[0.0], [float("nan")]]), "column `a` is NaN"),
        (pa.array([10**7], pa.date32()), "column `a` has a year outside of 0 to 9999"),
        (pa.array([2**62], pa.timestamp("us")), "column `a` has a year"),
    ],
)
def test_a_value_that_json_does_not_have_is_refused_by_name(values, fault):
    data = written({"b": list(range(len(values))), "a": values})
    assert refused(data).startswith(fault)
    assert "--columns" in refused(data)
    assert len(text(data, ("b",)).splitlines()) == len(values)


@pytest.mark.parametrize("rows", [0, 1, 999, 2999])
def test_the_row_at_fault_is_named_and_those_before_it_are_read(rows, tmp_path, here):
    numbers = [float("nan") if at >= rows else float(at) for at in range(3000)]
    path = tmp_path / "x.parquet"
    path.write_bytes(written({"id": list(range(3000)), "perplexity": numbers}, row_group_size=1000))
    said = here("rank", path, status=65).stderr.decode()
    assert said.startswith(f"prune-cli rank: {path}:{rows + 1}: column `perplexity` is NaN")
    assert here("stat", "--columns", "id", path, "--verify").stderr == b""


@pytest.mark.parametrize("row_group_size", [3, 100])
def test_skip_bad_skips_rows_that_have_no_line_and_counts_them(row_group_size, tmp_path, here):
    path = tmp_path / "x.parquet"
    scores = [math.nan, 1.0, 2.0, math.inf, 4.0, 5.0, math.nan, math.nan, 8.0]
    texts = pa.array([b"a", b"b", b"\xff", *(b"d",) * 6]).view(pa.string())
    path.write_bytes(written({"perplexity": scores, "text": texts}, row_group_size=row_group_size))
    done = here("rank", "--skip-bad", path, status=3)
    assert [record["perplexity"] for record in records(done.stdout)] == [1.0, 4.0, 5.0, 8.0]
    said = done.stderr.decode().splitlines()
    assert f"{path}:1: column `perplexity` is NaN, which JSON does not have; record skipped" in said[0]
    assert f"{path}:3: column `text` is no valid UTF-8; record skipped" in said[1]
    places = re.findall(r"x.parquet:(\d+):", done.stderr.decode())
    assert places == ["1", "3", "4", "7", "8"], "a skipped row counts as a line"
    assert "5" in said[-1], "the number of records that were skipped"


def test_skip_bad_skips_no_column(tmp_path, here):
    path = tmp_path / "x.parquet"
    path.write_bytes(written({"perplexity": [1.0], "image": [b"x"]}))
    assert b"`image` is binary" in here("rank", "--skip-bad", path, status=65).stderr
    here("rank", "--skip-bad", "--columns", "perplexity", path)


@pytest.mark.parametrize(
    ("columns", "way_out"),
    [((), "cast it to string, or --columns NAME,... reads"), (("id", "content"), "cast it to string")],
)
def test_a_binary_text_is_to_be_cast_and_not_left_out(columns, way_out, tmp_path, here):
    path = tmp_path / "x.parquet"
    path.write_bytes(written({"content": [b"x"], "id": [1]}))
    chosen = ("--columns", ",".join(columns)) if columns else ()
    said = here(
        "score", "-m", "compression", "--text-field", "content", *chosen, path, status=65
    ).stderr.decode()
    assert f"column `content` is binary, which JSON does not have; {way_out}" in said
    assert ("--columns" in said) == (not columns)
    # The way out.
    path.write_bytes(written({"content": pa.array([b"x"]).cast(pa.string()), "id": [1]}))
    assert (
        len(records(here("score", "-m", "compression", "--text-field", "content", *chosen, path).stdout)) == 1
    )


def test_a_value_in_a_dictionary_counts_only_where_it_is_used():
    values = pa.array([1.0, float("nan"), 2.0])
    indices = pa.array([0, 2, 0, 2], pa.int8())
    table = pa.table({"a": pa.DictionaryArray.from_arrays(indices, values)})
    from prune_cli.formats import parquet_json

    lines, _ = parquet_json.lines(table.to_batches()[0])
    assert bytes(lines) == b'{"a":1.0}\n{"a":2.0}\n{"a":1.0}\n{"a":2.0}\n'


def test_text_that_is_no_utf8_is_refused():
    texts = pa.array([b"a", b"\xff\xfe"]).view(pa.string())
    assert refused(written({"a": texts})).startswith("column `a` is no valid UTF-8")


def test_columns_that_are_absent_or_repeated_are_refused():
    assert "no column `x` in the Parquet file; its columns are text, id, meta" in refused(
        written(WEB), ("x",)
    )
    table = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"])
    assert "two columns are called `a`" in refused(written(table))


def test_more_columns_than_can_be_read_are_refused_unless_some_are_chosen():
    data = written({f"c{at}": [at] for at in range(10_001)}, write_statistics=False)
    assert refused(data).startswith("10,001 columns, which is more than 10,000; --columns")
    assert text(data, ("c7", "c10000")) == b'{"c7":7,"c10000":10000}\n'


def test_encrypted_files_are_named():
    data = written(WEB)
    assert refused(b"PARE" + data[4:]).startswith("encrypted Parquet")
    assert refused(data[:-4] + b"PARE").startswith("encrypted Parquet")


@pytest.mark.parametrize("cut", [5, 9, 100, -1, -4, -8, -30])
def test_a_cut_file_is_an_error(cut):
    assert "truncated Parquet: no footer" in refused(written(WEB)[:cut])


def test_a_row_group_that_is_cut_out_is_an_error_with_row_and_column(tmp_path, here):
    data = written(pa.Table.from_pylist(RECORDS), row_group_size=1000, compression="zstd")
    chunk = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(1).column(1)
    assert chunk.path_in_schema == "text"
    start = chunk.dictionary_page_offset or chunk.data_page_offset
    path = tmp_path / "x.parquet"
    path.write_bytes(
        data[:start] + bytes(chunk.total_compressed_size) + data[start + chunk.total_compressed_size :]
    )
    said = here("rank", "-k", "score", path, status=65).stderr.decode()
    assert said.startswith(f"prune-cli rank: {path}:1001: column `text` cannot be read (")
    assert said.count("\n") == 1


def test_a_row_group_that_does_not_fit_into_memory_is_71(monkeypatch, tmp_path, here):
    def exhausted(self, *arguments, **more):
        raise pa.ArrowMemoryError("malloc of size 17179869184 failed")

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", exhausted)
    (tmp_path / "x.parquet").write_bytes(written(WEB))
    said = here("rank", "-k", "id", tmp_path / "x.parquet", status=71).stderr.decode()
    assert "a row group does not fit into memory; --columns" in said


def test_an_unknown_codec_is_named(monkeypatch):
    data = bytearray(written({"a": ["x"]}, compression="snappy"))
    # In the footer the codec is field 4 of a column's description, a zigzag number: 2 is snappy, 6 is LZO.
    at = data.rindex(b"\x15\x02\x16")
    data[at + 1] = 6
    assert "LZO" in refused(bytes(data)).upper()


@given(st.data())
@settings(max_examples=150)
def test_damage_anywhere_is_an_error_or_harmless_and_never_a_traceback(data):
    whole = DAMAGED
    at = data.draw(st.integers(4, len(whole) - 1))
    damaged = bytearray(whole)
    damaged[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        lines = text(bytes(damaged)).splitlines()
    except DataError:
        return
    # Parquet need not have checksums of its footer: what it says may then be taken for true.
    for line in lines:
        json.loads(line)


@pytest.mark.parametrize(("at", "bit"), [(1859, 0), (2597, 4), (2620, 7)])
def test_a_false_footer_does_not_end_the_process(at, bit):
    """pyarrow's description of a column has no way to fail, and ended it."""
    damaged = bytearray(DAMAGED)
    damaged[at] ^= 1 << bit
    with suppress(DataError):
        text(bytes(damaged))


DAMAGED = written(pa.Table.from_pylist(RECORDS[:50]), row_group_size=20, write_page_checksum=True)


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.delitem(sys.modules, "prune_cli.formats.parquet_rows", raising=False)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.delattr(formats, "parquet_rows", raising=False)
    with pytest.raises(ConfigurationError, match=r"needs pyarrow; pip install 'prune-cli\[parquet\]'"):
        text(written(WEB))
