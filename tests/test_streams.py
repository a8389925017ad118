"""Compressed streams: every truncation and every flipped bit is seen, every reader reads what we write."""

import gzip
import json
import random
import struct
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_cli import formats
from prune_cli.errors import DataError
from prune_cli.stream import container
from prune_cli.stream.container import START
from prune_cli.stream.lookahead import Limits
from prune_cli.stream.schema import FrameCountsBuilder, Head, Trailer

from .conftest import PATIENCE, command, damaged, lines, prune, records, scored, status_of, zstd

LOREM = b"".join(
    b'{"id": %d, "text": "%s"}\n' % (index, b"lorem ipsum " * (index % 50)) for index in range(3000)
)


class Bytes:
    """A file of these bytes, read as a pipe gives them: a little at a time."""

    def __init__(self, data: bytes, step: int = 65536) -> None:
        self.data, self.step, self.at = data, step, 0

    def read(self, size: int, /) -> bytes:
        taken = self.data[self.at : self.at + min(size, self.step)]
        self.at += len(taken)
        return taken


def text(data: bytes, limits: Limits = Limits(), step: int = 65536) -> bytes:
    return b"".join(event for event in formats.read(Bytes(data, step), limits) if isinstance(event, bytes))


def skippable(payload: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(payload)) + payload


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
def test_many_frames_skippable_frames_and_empty_frames_are_all_read(step):
    parts = [LOREM[:5000], b"", LOREM[5000:]]
    data = (
        skippable(b"first")
        + zstd(parts[0])
        + skippable(b"")
        + zstd(parts[1])
        + skippable(b"x" * 999)
        + zstd(parts[2])
        + skippable(b"last")
    )
    assert text(data, step=step) == LOREM
    assert subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout == LOREM


@given(st.lists(st.binary(max_size=300_000), max_size=4), st.sampled_from([1, 3, 19]), st.booleans())
def test_streams_written_by_zstandard_are_read(texts, level, checksum):
    assert text(zstd(*texts, b"x", level=level, write_checksum=checksum)) == b"".join(texts) + b"x"


def test_streamed_frames_without_a_content_size_are_read(tmp_path):
    piped = subprocess.run(
        ["zstd", "-c", "-19", "--long=24"], input=LOREM * 20, capture_output=True, check=True
    ).stdout
    assert text(piped) == LOREM * 20


@pytest.mark.parametrize(
    "compressed",
    [zstd(LOREM), zstd(LOREM, write_checksum=False), zstd(LOREM[:9000], LOREM[9000:]), gzip.compress(LOREM)],
)
def test_every_cut_inside_a_frame_is_an_error(compressed):
    borders = {0, len(zstd(LOREM[:9000]))}
    for at in {
        *range(1, 60),
        *range(len(compressed) - 60, len(compressed)),
        *range(60, len(compressed), 997),
    } - borders:
        with pytest.raises(DataError, match="truncated"):
            text(compressed[:at])


def test_flipped_bits_in_a_foreign_frame_with_a_checksum_are_errors():
    data, dice = zstd(LOREM), random.Random(3)
    for _ in range(300):
        at, bit = dice.randrange(len(data)), dice.randrange(8)
        if (at, bit) == (4, 4):
            continue  # the format's one unused bit: zstd itself does not see it
        with pytest.raises(DataError):
            text(data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :])


def test_a_frame_without_a_checksum_is_warned_of_once():
    said: list[str] = []
    data = zstd(LOREM, LOREM, write_checksum=False)
    assert sum(map(len, formats.read(Bytes(data), Limits(), said.append))) == 2 * len(LOREM)
    assert said == ["no checksum in a zstd frame: damage to its contents cannot be seen"]


@pytest.mark.parametrize("rubbish", [b"\0", b"\0" * 512, b"garbage", LOREM])
@pytest.mark.parametrize("compress", [zstd, gzip.compress])
def test_trailing_garbage_is_an_error_unless_allowed(compress, rubbish):
    with pytest.raises(DataError, match="after the last frame"):
        text(compress(LOREM) + rubbish)
    assert text(compress(LOREM) + rubbish, Limits(ignore_trailing=True)) == LOREM


def test_gzip_members_follow_each_other():
    assert text(gzip.compress(LOREM) + gzip.compress(b"") + gzip.compress(LOREM)) == LOREM * 2


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"BZh9", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"PK\x03\x04", "zip"),
        (b"\x01\x02", "01 02"),
    ],
)
def test_other_formats_are_named(start, name):
    with pytest.raises(DataError, match=name):
        text(start + b"....")


def test_no_bytes_at_all_is_an_error_unless_allowed():
    with pytest.raises(DataError, match="no bytes at all"):
        text(b"")
    assert text(b"", Limits(allow_empty=True)) == b""


def test_a_window_over_the_limit_names_the_option():
    data = subprocess.run(
        ["zstd", "-c", "--long=28", "-1"], input=b"ab" * 1_000_000, capture_output=True, check=True
    ).stdout
    with pytest.raises(DataError, match="--long 28"):
        text(data)
    assert text(data, Limits(window_log=28)) == b"ab" * 1_000_000


def test_a_frame_that_needs_a_dictionary_says_so():
    dictionary = zstandard.ZstdCompressionDict(
        b"lorem ipsum dolor sit amet " * 20, dict_type=zstandard.DICT_TYPE_RAWCONTENT
    )
    data = bytearray(zstd(LOREM, dict_data=dictionary))
    data[4] |= 1
    data[5:5] = b"\x07"
    with pytest.raises(DataError, match="dictionary"):
        text(bytes(data))


def test_reading_takes_bounded_steps():
    """32 KB of zstd that decompress to a gigabyte come out a few megabytes at a time."""
    bomb = zstd(bytes(1 << 30))
    assert (
        max(len(event) for event in formats.read(Bytes(bomb), Limits()) if isinstance(event, bytes))
        <= 4 << 20
    )


# Streams of our own


def ours(count: int = 60, level: int = 3) -> bytes:
    return prune("rank", "--level", level, stdin=lines(scored(count))).stdout


STREAM = ours()


def test_a_stream_begins_with_the_head_and_ends_with_the_seek_table(ranked):
    events = list(formats.read(Bytes(ranked.read_bytes())))
    assert isinstance(events[0], Head)
    assert isinstance(events[-1], Trailer)
    assert ranked.read_bytes().startswith(START)
    trailer = events[-1]
    assert sum(trailer.frames.records) == trailer.totals.records == 200
    assert trailer.totals.nulls == events[0].rank.nulls
    assert sum(count for count, _ in trailer.totals.groups.values()) == 200


def test_old_zstd_readers_read_the_streams(ranked):
    plain = prune("rank", "--plain", ranked.with_name("corpus.jsonl.zst")).stdout
    assert subprocess.run(["zstd", "-dc", str(ranked)], capture_output=True, check=True).stdout == plain
    subprocess.run(["zstd", "-tq", str(ranked)], check=True)
    ids = subprocess.run(
        f"zstd -dc '{ranked}' | jq -c .id | wc -l", shell=True, capture_output=True, check=True
    ).stdout
    assert int(ids) == 200


@pytest.mark.filterwarnings("default")
def test_duckdb_polars_datasets_and_the_seekable_format_read_the_streams(ranked, tmp_path):
    duckdb, polars, datasets, pyzstd = (
        pytest.importorskip(name) for name in ("duckdb", "polars", "datasets", "pyzstd")
    )
    expected = [record["id"] for record in records(ranked.read_bytes())]
    assert [
        row[0]
        for row in duckdb.sql(f"select id from read_json('{ranked}', format='newline_delimited')").fetchall()
    ] == expected
    assert polars.read_ndjson(ranked)["id"].to_list() == expected
    loaded = datasets.load_dataset(
        "json", data_files=str(ranked), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert loaded["id"] == expected or list(loaded["id"]) == expected
    with pyzstd.SeekableZstdFile(str(ranked), "r") as file:
        whole = file.read()
        file.seek(len(whole) // 2)
        assert file.read() == whole[len(whole) // 2 :]


def test_single_frame_is_read_by_readers_that_stop_after_one(corpus):
    data = prune("rank", "--single-frame", corpus).stdout
    assert len(zstandard.ZstdDecompressor().decompressobj().decompress(data).splitlines()) == 200
    assert data == prune("rank", "--single-frame", "--threads", "1", corpus).stdout


def test_every_cut_or_flipped_bit_is_found_by_verbs_that_read_everything(tmp_path):
    data, victim = ours(), tmp_path / "damaged.jsonl.zst"
    for what, broken in damaged(data, 60):
        victim.write_bytes(broken)
        assert status_of("rank", "--overwrite", "--plain", victim, "-o", tmp_path / "ranked") == 65, what
        assert (
            status_of(
                "slice", "--keep", "bottom", "--frac", "1", "--plain", victim, "-o", tmp_path / "sliced"
            )
            == 65
        ), what
        assert not (tmp_path / "ranked").exists()
        assert not (tmp_path / "sliced").exists()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_garbled_stream_is_an_error_and_never_a_crash(data):
    """Pieces of a stream cut out, doubled, swapped and overwritten."""
    whole = STREAM
    for _ in range(data.draw(st.integers(1, 5))):
        at, end = sorted((data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, len(whole)))))
        middle = data.draw(
            st.sampled_from([b"", whole[at:end] * 2, whole[at:end][::-1], START, b"\0", zstd(b"{}\n")])
            | st.binary(max_size=9)
        )
        whole = whole[:at] + middle + whole[end:]
    with suppress(DataError):
        text(whole, Limits(allow_empty=True))


def test_false_heads_and_trailers_are_errors():
    def lying(head: object, trailer: object) -> bytes:
        parts = [container.skippable(kind, name, content, before) for kind, name, content, before in (
            (container.HEAD, "head", head, START), (container.TRAILER, "trailer", trailer, b""))]  # fmt: skip
        counts = FrameCountsBuilder()
        return (
            START
            + b"".join(parts)
            + container.seek_table(container.frame_sizes(len(parts[0]), counts, len(parts[1])))
        )

    whole: dict[str, Any] = {
        "frames": FrameCountsBuilder().columns(),
        "totals": {"text": 0, "records": 0, "nulls": 0, "tokens": 0, "groups": {}},
    }
    assert text(lying({"format": 1}, whole)) == b""
    for head, trailer in (
        ({"format": 2}, whole),
        ([], {}),
        ({"format": 1}, {}),
        ({"format": 1}, {"frames": whole["frames"]}),
        ({"format": 1}, {**whole, "frames": {**whole["frames"], "crc": [1]}}),
        ({"format": 1, "rank": {"key": 5}}, whole),
    ):
        with pytest.raises(DataError):
            text(lying(head, trailer))


def test_the_head_alone_the_trailer_alone_and_the_first_frame_alone_are_errors():
    data = ours(5)
    trailer = data.index(b"prune-cli trailer") - 8
    for part in (START, data[: data.index(b"\n", 30)], data[len(START) :], data[trailer:], data[:trailer]):
        with pytest.raises(DataError):
            text(part)


def test_streams_concatenate_and_each_part_is_checked(tmp_path):
    one, two = ours(5), ours(9, level=9)
    assert len(text(one + two).splitlines()) == 14
    assert len(text(zstd(LOREM) + one + two).splitlines()) == 3014
    with pytest.raises(DataError):
        text(one[:-1] + two)
    with pytest.raises(DataError):
        text(one + two[:-1])


def test_a_stream_without_records_is_not_an_error():
    empty = prune("rank", stdin=zstd(b"")).stdout
    assert records(empty) == []
    assert records(prune("rank", stdin=empty).stdout) == []


def test_the_bytes_do_not_depend_on_the_threads(corpus):
    assert len({prune("rank", "--threads", threads, corpus).stdout for threads in (1, 2, 8)}) == 1


def test_frames_end_at_newlines_and_match_the_trailer(tmp_path):
    path = tmp_path / "big.jsonl"
    path.write_bytes(
        b"".join(
            json.dumps({"text": "x" * 100_000, "perplexity": index}).encode() + b"\n" for index in range(120)
        )
    )
    data = prune("rank", path).stdout
    *_, trailer = formats.read(Bytes(data))
    assert isinstance(trailer, Trailer)
    assert len(trailer.frames) > 2
    at = data.index(b"\n", data.index(b"prune-cli head") + 20) + 5
    for size, held in zip(trailer.frames.size, trailer.frames.text, strict=True):
        frame = zstandard.ZstdDecompressor().decompress(data[at : at + size])
        assert len(frame) == held
        assert frame.endswith(b"\n")
        at += size


def test_a_stage_that_fails_leaves_a_stream_that_fails_downstream(tmp_path):
    """To our own verbs, and to jq and zstd, too: both a verb that fails before its first byte and one that
    fails after it.
    """
    ranked = prune("rank", "--plain", stdin=lines(scored(5))).stdout
    for verb, bad in (("rank", lines([*scored(5), {"perplexity": "high"}])), ("slice", ranked + b"oops\n")):
        options = ["--by", "records", "--keep", "bottom", "--frac", "1"] if verb == "slice" else []
        for option in ([], ["--plain"], ["--single-frame"]):
            left = prune(verb, *options, *option, stdin=bad, status=65).stdout
            prune("rank", "--overwrite", stdin=left, status=65)
            prune("rank", "--overwrite", "--allow-empty", stdin=left, status=65)
            reader = ["jq", "."] if option == ["--plain"] else ["zstd", "-dc"]
            assert subprocess.run(reader, input=left, capture_output=True).returncode != 0


@pytest.mark.parametrize("stage", [0, 1])
def test_killing_any_stage_of_a_pipe_fails_every_later_one(stage, tmp_path):
    feed = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    first = subprocess.Popen(command("rank"), stdin=feed.stdout, stdout=subprocess.PIPE)
    second = subprocess.Popen(
        command("slice", "--keep", "middle", "--frac", "0.5"),
        stdin=first.stdout,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    third = subprocess.Popen(
        command("rank", "--overwrite", "-o", tmp_path / "out"), stdin=second.stdout, stderr=subprocess.PIPE
    )
    stages = [first, second, third]
    with feed, first, second, third:
        for process in (feed, first, second):
            process.stdout.close()
        feed.stdin.write(lines(scored(3)))
        feed.stdin.flush()
        stages[stage].kill()
        feed.stdin.close()
        for later in stages[stage + 1 :]:
            said = later.stderr.read()
            assert later.wait(timeout=PATIENCE) == 65, said
    assert not (tmp_path / "out").exists()


def test_the_reader_of_the_output_may_leave_early(tmp_path):
    path = Path(tmp_path / "big.jsonl")
    path.write_bytes(lines(scored(5)) * 30_000)
    process = subprocess.Popen(
        command("rank", "--plain", path), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout
    assert process.stderr
    process.stdout.readline()
    process.stdout.close()
    assert (process.wait(timeout=PATIENCE), process.stderr.read()) == (-13, b"")
    process.stderr.close()
