"""slice copies whole frames: the same result as decoding everything, and no table of frames is believed."""

import json
import random
import subprocess

import pytest

from prune_cli.stream import container, writer, zstd_blocks
from prune_cli.stream.schema import FrameCountsBuilder

from .conftest import lines, status_of
from .slices import CUTS, cut, text_of

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


@pytest.mark.parametrize("file", ["records", "tokens", "reversed"])
@pytest.mark.parametrize("options", CUTS, ids=" ".join)
def test_copying_frames_equals_decoding_everything(file, options, here, frames_file, tmp_path, small_frames):
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


def test_frames_inside_the_cut_are_copied_byte_for_byte(here, frames_file, small_frames):
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


def test_copied_frames_are_checked_and_skipped_frames_not_read(here, frames_file, tmp_path, small_frames):
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


def test_a_false_table_of_frames_is_detected(here, ranked, tmp_path):
    data = ranked.read_bytes()
    expected = cut(here, ranked, "--plain", *CUTS[0])
    start = data.rindex(b"\x5e\x2a\x4d\x18")
    for at in range(start, len(data)):
        (tmp_path / "damaged").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        here("slice", *CUTS[0], tmp_path / "damaged", status=65)
    assert here("slice", "--plain", *CUTS[0], ranked).stdout == expected


def test_a_false_trailer_with_a_valid_checksum_is_an_error(here, ranked, tmp_path):
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
            b"invalid trailer: not written by prune-cli" in said
            or b"the trailer and the frames before it disagree" in said
        ), (
            name,
            value,
        )
