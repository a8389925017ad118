"""Bytes after the last frame: read where `zstd -dc` reads them, and never dropped in silence."""

import gzip
import subprocess

import pytest

from ..conftest import lines, records, zstd

A = lines([{"id": 1, "text": "one", "perplexity": 3.0}])
B = lines([{"id": 2, "text": "two", "perplexity": 2.0}])
ZA, ZB = zstd(A), zstd(B)
GA, GB = gzip.compress(A), gzip.compress(B)
MIXED = {
    "a.zst b.gz": ZA + GB,
    "a.gz b.zst": GA + ZB,
    "three": ZA + GB + ZA,
    "an empty member": GA + gzip.compress(b"") + zstd(b"") + GB,
}


@pytest.mark.parametrize("data", MIXED.values(), ids=MIXED)
@pytest.mark.parametrize("verb", ["rank", "stat", "slice"])
def test_zstd_frames_and_gzip_members_mix(here, verb, data):
    slicing = ["-k", "perplexity", "--keep", "top", "--frac", "1"]
    options: dict[str, list[str]] = {"rank": ["--plain"], "stat": [], "slice": slicing}
    text = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    mixed = here(verb, *options[verb], stdin=data)
    assert mixed.stderr == b""
    assert mixed.stdout == here(verb, *options[verb], stdin=text).stdout


def test_a_gzip_member_behind_a_stream_of_ours(here):
    ranked = here("rank", stdin=A).stdout
    mixed = here("rank", "--overwrite", "--plain", stdin=ranked + GB)
    assert [record["id"] for record in records(mixed.stdout)] == [2, 1]


def test_a_cut_member_behind_a_frame_is_an_error(here):
    assert b"truncated gzip member" in here("rank", stdin=ZA + GB[:-3], status=65).stderr
    assert b"the beginning of another frame" in here("rank", stdin=GA + ZB[:3], status=65).stderr


@pytest.mark.parametrize(
    ("rest", "content", "remedy"),
    [
        (bytes(512), b"padding of zero bytes", b"; --ignore-trailing drops it"),
        (B, b"uncompressed text", b"; compress both parts or neither"),
        (b"\xfd7zXZ\0" + bytes(9), b"xz data", b"; decompress or convert it"),
        (b"#!?", b"23 21 3f", b"; inspect them, or drop them with --ignore-trailing"),
    ],
)
@pytest.mark.parametrize("frame", [ZA, GA], ids=["zstd", "gzip"])
def test_the_remedy_depends_on_the_bytes(here, frame, rest, content, remedy):
    said = here("rank", stdin=frame + rest, status=65).stderr
    assert content in said
    assert remedy in said


def test_what_is_dropped_is_counted(here):
    ignored = here("rank", "--ignore-trailing", "--plain", stdin=ZA + B)
    assert [record["id"] for record in records(ignored.stdout)] == [1]
    assert f"{len(B)} bytes are dropped (--ignore-trailing)".encode() in ignored.stderr
    assert here("rank", "--ignore-trailing", stdin=ZA + GB).stderr == b""


def test_frames_far_behind_padding_are_not_called_padding(here):
    """The remedy --ignore-trailing would drop them."""
    data = ZA + bytes(100_000) + ZB
    said = here("stat", stdin=data, status=65).stderr.decode()
    assert "padding" not in said
