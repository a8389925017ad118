"""Faults 1 to 10: cut, damaged, padded, disguised and hostile compressed streams. tests/test_streams.py has
the reader's own tests.
"""

import gzip
import random
import struct
import subprocess
from functools import cache
from pathlib import Path

import pytest
import zstandard

from prune_cli import reference
from prune_cli.stream import container, zstd_blocks

from ..conftest import damaged, lines, prune, records, scored, zstd
from .machine import peak

CORPUS = scored(300)
TEXT = lines(CORPUS)
RANKED = prune("rank", "--plain", stdin=TEXT).stdout
VERBS = {
    "rank": ["--overwrite"],
    "slice": ["--by", "records", "--keep", "top", "--frac", "0.5"],
    "stat": ["--verify"],
    "pack": ["--tokenizer", str(reference.DIRECTORY)],
    "eval": [str(reference.DIRECTORY), "--data"],
}
WITHOUT_MODELS = [verb for verb in VERBS if verb != "eval"]
BEFORE_TORCH = [
    verb for verb in VERBS if verb != "pack"
]  # they read everything before they load it, which takes more than the cap
SWEEP = pytest.param(400, marks=pytest.mark.sweep)
CAP = 300 << 20  # bytes of resident memory that no input may make us pass


@pytest.fixture
def file(tmp_path) -> Path:
    return tmp_path / "records"


@pytest.fixture
def refused(here, file):
    """The message of a run over some bytes: status 65, one line that names the file, no output and nothing
    else left.
    """

    def run(data: bytes, *words: str, verb: str = "rank") -> str:
        file.write_bytes(data)
        said = here(verb, *VERBS[verb], file, "-o", file.parent / "out.zst", status=65).stderr.decode()
        assert said.startswith(f"prune-cli {verb}: {file}")
        assert said.count("\n") == 1
        assert all(word in said for word in words), said
        assert file.read_bytes() == data
        assert {path.name for path in file.parent.iterdir()} == {file.name}
        return said

    return run


def skippable(payload: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A53, len(payload)) + payload


@pytest.mark.parametrize("places", [7, SWEEP])
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("kind", ["one frame", "no size in its header", "gzip"])
def test_01_cut_in_the_middle_of_a_frame(kind, verb, places, refused):
    piped = subprocess.run(["zstd", "-c"], input=RANKED, capture_output=True, check=True).stdout
    data = {"one frame": zstd(RANKED), "no size in its header": piped, "gzip": gzip.compress(RANKED)}[kind]
    dice = random.Random(places)
    for at in {1, 2, 3, 5, len(data) // 2, *(dice.randrange(1, len(data)) for _ in range(places - 5))}:
        refused(data[:at], "truncated", f"at byte {at}", verb=verb)


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_02_cut_inside_the_final_checksum_when_all_data_is_decoded(missing, refused):
    data = zstd(TEXT)
    refused(data[:-missing], "truncated zstd frame", f"at byte {len(data) - missing}")


def test_03_cut_exactly_between_two_frames(file, refused):
    """Nothing shows it in a foreign file; ours say when they are whole."""
    foreign = zstd(TEXT, TEXT)
    assert len(records(prune("rank", stdin=foreign[: len(zstd(TEXT))]).stdout)) == 300
    whole = prune("rank", stdin=TEXT).stdout
    [count] = struct.unpack("<I", whole[-9:-5])
    sizes = [size for size, _ in struct.iter_unpack("<II", whole[-9 - 8 * count : -9])]
    for frame in range(1, count + 1):
        refused(whole[: sum(sizes[:frame])], "truncated")


@pytest.mark.parametrize("places", [40, SWEEP])
@pytest.mark.parametrize("verb", VERBS)
def test_04_cut_or_flipped_anywhere_a_stream_of_ours_is_refused(verb, places, refused):
    for _, data in damaged(prune("rank", stdin=TEXT).stdout, places // 2, seed=places):
        refused(data, verb=verb)


def test_04_a_frame_without_a_checksum_is_warned_of_once(file):
    file.write_bytes(zstd(TEXT, TEXT, write_checksum=False))
    done = prune("rank", file)
    assert (
        done.stderr.decode()
        == f"prune-cli rank: warning: {file}: no checksum in a zstd frame: damage to its contents "
        f"cannot be seen\n"
    )
    assert len(records(done.stdout)) == 600


@pytest.mark.parametrize("verb", WITHOUT_MODELS)
def test_05_frames_empty_and_skippable_frames_read_as_one_text(verb, here):
    parts = [TEXT[:5000], TEXT[5000:]]
    odd = (
        skippable(b"first"),
        zstd(parts[0]),
        zstd(b""),
        skippable(b""),
        zstd(parts[1]),
        skippable(bytes(70_000)),
    )
    for text, data in (
        (TEXT, b"".join(odd)),
        (RANKED, skippable(b"x") + zstd(RANKED[:9999], b"", RANKED[9999:])),
    ):
        assert subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout == text
        if verb != "slice" or text is RANKED:
            assert here(verb, *VERBS[verb], stdin=data).stdout == here(verb, *VERBS[verb], stdin=text).stdout


@pytest.mark.parametrize("rubbish", [b"\0", bytes(512), b"garbage", TEXT[:100]])
def test_06_bytes_after_the_last_frame(rubbish, file, refused, here):
    for data in (zstd(TEXT), gzip.compress(TEXT), here("rank", stdin=TEXT).stdout):
        # Records that were not compressed are no rubbish: dropping them is not advised.
        remedy = "compress both parts or neither" if rubbish[:1] == b"{" else "--ignore-trailing"
        refused(data + rubbish, "unrecognized data after the last frame", remedy)
        assert (
            here("rank", "--overwrite", "--ignore-trailing", file).stdout
            == here("rank", "--overwrite", stdin=data).stdout
        )


@pytest.mark.parametrize("verb", VERBS)
def test_07_no_bytes_at_all(verb, file, refused, here):
    refused(b"", "no bytes at all", "--allow-empty accepts this as no records", verb=verb)
    here(verb, "--allow-empty", *VERBS[verb], file)


@pytest.mark.parametrize("verb", WITHOUT_MODELS)
def test_07_an_empty_stream_is_no_records_and_no_error(verb, here):
    for empty in (zstd(b""), gzip.compress(b""), prune("rank", stdin=zstd(b"")).stdout):
        out = here(verb, *VERBS[verb], stdin=empty).stdout
        assert records(out) == [] if verb != "stat" else records(out)[0]["records"] == 0


@pytest.mark.parametrize(
    ("name", "data", "content"),
    [
        ("a.zst", TEXT, "plain"),
        ("b.jsonl", zstd(TEXT), "zstd"),
        ("c.gz", zstd(TEXT), "zstd"),
        ("d.zst", gzip.compress(TEXT), "gzip"),
    ],
)
def test_08_the_content_decides_when_the_name_says_another_format(name, data, content, tmp_path):
    (tmp_path / name).write_bytes(data)
    done = prune("rank", tmp_path / name)
    assert f"the content is {content}: read as {content}" in done.stderr.decode()
    assert len(records(done.stdout)) == 300


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"BZh91AY", "bzip2"),
        (b"\xfd7zXZ\0", "xz"),
        (b"PK\3\4", "zip"),
        (b"\1\2\3", "01 02 03"),
    ],
)
def test_08_other_formats_are_named(start, name, refused):
    refused(start + bytes(60), name)


def test_09_a_window_of_two_gibibytes_needs_an_option_and_takes_no_memory_before(file):
    """A frame that names the largest window there is, and holds five bytes."""
    huge = bytearray(zstandard.ZstdCompressor(write_checksum=True, write_content_size=False).compress(TEXT))
    assert not huge[4] & 0x20, "a frame with a window descriptor"
    huge[5] = (31 - 10) << 3
    file.write_bytes(huge)
    status, said, size = peak("rank", file)
    assert (status, "wants 2048 MiB of memory; --long 31 allows it" in said) == (65, True)
    assert size < CAP
    assert len(records(prune("rank", "--long", 31, file).stdout)) == 300


def bomb(size: int) -> bytes:
    """`size` bytes of one line, as a frame of blocks that each repeat one byte 128 Ki times (RFC 8878,
    3.1.1.2).
    """
    block = ((1 << 17) << 3 | 1 << 1).to_bytes(3, "little") + b"a"
    opening = b'{"perplexity":1,"text":"'
    raw = (len(opening) << 3).to_bytes(3, "little") + opening
    return zstd_blocks.ZSTD + b"\x00\x38" + raw + block * (size >> 17) + b"\x01\x00\x00"


@pytest.mark.parametrize("verb", VERBS)
def test_10_a_line_of_ten_gigabytes_compressed_to_a_megabyte_is_refused(verb, file):
    file.write_bytes(bomb(10 << 30))
    assert file.stat().st_size < 1 << 20
    status, said, size = peak(verb, *VERBS[verb], file)
    assert status == 65
    assert "a line longer than --max-line (64 MiB); --max-line SIZE allows longer lines" in said
    assert size < CAP


@pytest.mark.parametrize("frames", [100_000, pytest.param(1_000_000, marks=pytest.mark.sweep)])
def test_10_a_million_tiny_frames_are_read_in_bounded_memory(frames, file):
    file.write_bytes(zstd(b'{"perplexity":1}\n', b"") * (frames // 2))
    status, said, size = peak("stat", file)
    assert (status, said) == (0, "")
    assert size < CAP


# A table of a million frames takes a second to make.
@cache
def false_tables() -> list[bytes]:
    """A ranking whose seek table claims a million frames, a trailer of 4 GiB, or frames of terabytes."""
    whole = prune("rank", stdin=TEXT).stdout
    start = whole.rindex(b"\x5e\x2a\x4d\x18")
    [count] = struct.unpack("<I", whole[-9:-5])
    entries = list(struct.iter_unpack("<II", whole[start + 8 : -9]))
    assert count == len(entries)
    tables = [
        entries * 300_000,
        [*entries[:-1], ((1 << 32) - 1, 0)],
        [*entries[:2], (entries[2][0], (1 << 32) - 1), *entries[3:]],
        [*entries[:1], (1 << 31, 0), *entries[2:]],
    ]
    return [whole[:start] + container.seek_table(table) for table in tables]


@pytest.mark.parametrize("verb", BEFORE_TORCH)
def test_10_false_sizes_in_a_seek_table_cost_no_memory(verb, file):
    """The frames themselves are read, and disagree."""
    for stream in false_tables():
        file.write_bytes(stream)
        status, said, size = peak(verb, *VERBS[verb], file)
        assert (status, "the seek table and the frames before it disagree" in said or "trailing" in said) == (
            65,
            True,
        ), said
        assert size < CAP
