"""score --resume, -O, --shard and --only: a run that was stopped anywhere is gone on with, and its file becomes what it would have been."""

import json
import random
import signal
import struct
import subprocess
import time
from itertools import accumulate
from pathlib import Path

import pytest

from prune_cli.stages import score as stage

from .conftest import ROOT, command, lines, prune, records, status_of, zstd

torch = pytest.importorskip("torch")

from .test_model import tiny_gpt2  # noqa: E402

WORDS = ["the quick brown fox ", "jumps over ", "a lazy dog ", "", "and on "]
CORPUS = [{"id": f"doc-{at}", "text": WORDS[at % 5] * (at % 7), "source": "abc"[at % 3], "pad": "x" * (at % 50)} for at in range(120)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def small_windows(monkeypatch) -> None:
    """Windows, and so frames, of some ten of our records."""
    monkeypatch.setattr(stage, "WINDOW_BYTES", 3000)


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl.zst"
    path.write_bytes(zstd(lines(CORPUS)))
    return path


def borders(data: bytes) -> list[int]:
    """Where the frames of a stream end, by its official seek table: start, head, data ..., trailer, and the table itself."""
    [count] = struct.unpack("<I", data[-9:-5])
    sizes = [size for size, _ in struct.iter_unpack("<II", data[-9 - 8 * count : -9])]
    return [*accumulate(sizes), len(data)]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"corpus.jsonl.zst", "whole.zst"}


@pytest.fixture
def whole(corpus, model, small_windows, tmp_path) -> bytes:
    """What a run writes that nothing stopped, and that did not know that it could be."""
    assert status_of("score", "--model", model, corpus, "-o", tmp_path / "whole.zst") == 0
    return (tmp_path / "whole.zst").read_bytes()


def resume(model: Path, corpus: Path, tmp_path: Path, *more: object) -> int:
    return status_of("score", "--resume", "--model", model, corpus, "-o", tmp_path / "out.zst", *more)


# --- resuming -----------------------------------------------------------------------------------------------------------------


def test_every_frame_is_a_window_and_the_whole_is_right(whole, model, corpus, tmp_path):
    assert len(borders(whole)) > 10
    assert [record["id"] for record in records(whole)] == [record["id"] for record in CORPUS]
    assert resume(model, corpus, tmp_path) == 0
    assert (tmp_path / "out.zst").read_bytes() == whole
    assert left(tmp_path) == {"out.zst"}


def test_cut_anywhere_and_resumed_the_file_is_the_same_byte_for_byte(whole, model, corpus, tmp_path):
    """In START, the head, at and inside data frames, in the trailer and the seek table; and whole, but for its name."""
    ends, dice = borders(whole), random.Random(0)
    cuts = {0, 5, ends[0], ends[0] + 9, len(whole), *(at + step for at in ends for step in (-1, 0, 1) if at + step <= len(whole))}
    for cut in sorted({*dice.sample(sorted(cuts), 20), 0, 5, ends[1], ends[-2], len(whole) - 1, len(whole)}):
        (tmp_path / "out.zst.partial").write_bytes(whole[:cut])
        assert resume(model, corpus, tmp_path) == 0, cut
        assert (tmp_path / "out.zst").read_bytes() == whole, cut
        assert left(tmp_path) == {"out.zst"}, cut
        (tmp_path / "out.zst").unlink()


@pytest.mark.parametrize("tail", [bytes(5000), b"\x28\xb5\x2f\xfd", b"rubbish"])
def test_what_no_run_wrote_is_cut_off(tail, whole, model, corpus, tmp_path):
    (tmp_path / "out.zst.partial").write_bytes(whole[: borders(whole)[5]] + tail)
    assert resume(model, corpus, tmp_path) == 0
    assert (tmp_path / "out.zst").read_bytes() == whole


def test_a_damaged_frame_and_what_follows_it_are_scored_again(whole, model, corpus, tmp_path, here):
    at = borders(whole)[4] - 7
    (tmp_path / "out.zst.partial").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 : -300])
    said = here("score", "--resume", "--model", model, corpus, "-o", tmp_path / "out.zst").stderr
    assert b"out.zst.partial: " in said
    assert b"going on from there" in said
    assert (tmp_path / "out.zst").read_bytes() == whole


def test_what_is_there_is_not_scored_again(whole, model, corpus, tmp_path):
    (tmp_path / "out.zst.partial").write_bytes(whole[: borders(whole)[-4]])
    assert resume(model, corpus, tmp_path, "--summary", tmp_path / "summary.json") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["records"] + summary["resumed"] == len(CORPUS)
    assert 0 < summary["records"] < 25


def test_another_run_is_not_gone_on_with(whole, model, corpus, tmp_path, here):
    partial = tmp_path / "out.zst.partial"
    partial.write_bytes(whole[: borders(whole)[5]])
    arguments = ("score", "--resume", corpus, "-o", tmp_path / "out.zst")
    said = here(*arguments, "--model", model, "--min-tokens", 3, status=78).stderr
    assert b"out.zst.partial: was begun with min_tokens 1, not 3; go on with the same" in said
    said = here(*arguments, "--model", model, "-m", "bits_per_byte", "--dtype", "bfloat16", "--context", 7, status=78).stderr
    assert b"begun with fields ['perplexity'], not ['bits_per_byte']" in said
    assert b"context" in said
    partial.write_bytes(b"something else")
    assert b"not the beginning of a prune-cli stream" in here(*arguments, "--model", model, status=65).stderr
    assert partial.read_bytes() == b"something else"


@pytest.mark.parametrize("change", ["another text", "one less", "another order", "another id", "a field more", "none at all"])
def test_another_input_is_not_gone_on_with(change, whole, model, tmp_path, here):
    changed = [dict(record) for record in CORPUS]
    if change == "another text":
        changed[1]["text"] += "!"
    elif change == "one less":
        del changed[0]
    elif change == "another order":
        changed[3], changed[4] = changed[4], changed[3]
    elif change == "another id":
        changed[2]["id"] = "doc-22"
    elif change == "a field more":
        changed[1]["more"] = 1
    else:
        changed = []
    partial = tmp_path / "out.zst.partial"
    partial.write_bytes(whole[: borders(whole)[5]])
    before = partial.read_bytes()
    said = here("score", "--resume", "--allow-empty", "--model", model, "-o", tmp_path / "out.zst", stdin=lines(changed), status=65).stderr
    assert b"is not made from (standard input):" in said or b"holds more than the 0 records" in said
    assert partial.read_bytes() == before


def test_a_failed_run_keeps_its_whole_frames(whole, model, tmp_path, here):
    bad = lines(CORPUS[:70]) + b"oops\n" + lines(CORPUS[70:])
    said = here("score", "--resume", "--model", model, "-o", tmp_path / "out.zst", stdin=bad, status=65).stderr
    assert b"(standard input):71: not JSON" in said
    kept = (tmp_path / "out.zst.partial").read_bytes()
    assert kept == whole[: len(kept)]
    assert len(kept) in borders(whole)[:-2]
    here("score", "--resume", "--model", model, "-o", tmp_path / "out.zst", stdin=lines(CORPUS))
    assert (tmp_path / "out.zst").read_bytes() == whole


def test_a_run_without_resume_asks_what_to_do_with_what_is_there(whole, model, corpus, tmp_path, here):
    partial = tmp_path / "out.zst.partial"
    partial.write_bytes(whole[: borders(whole)[5]])
    arguments = ("score", "--model", model, corpus, "-o", tmp_path / "out.zst")
    assert (
        b"out.zst.partial: holds a run that was not finished; --resume goes on with it, -f starts over"
        in here(*arguments, status=73).stderr
    )
    assert left(tmp_path) == {"out.zst.partial"}
    here(*arguments, "-f")
    assert left(tmp_path) == {"out.zst"}
    assert b"exists; -f replaces it" in here(*arguments, "--resume", status=73).stderr


def test_a_run_that_was_killed_while_it_named_its_output_is_not_written_to_again(whole, model, corpus, tmp_path):
    """For a moment a file has both names; -f makes a new one, and until it is whole the old one stays as it is."""
    (tmp_path / "out.zst").write_bytes(whole)
    for hidden in ("out.zst.partial", ".out.zst.prune-cli"):
        (tmp_path / hidden).hardlink_to(tmp_path / "out.zst")
        assert status_of("score", "-f", "--resume", "--model", model, "-o", tmp_path / "out.zst", tmp_path / "whole.zst") == 65
        assert (tmp_path / "out.zst").read_bytes() == whole
        assert status_of("score", "-f", "--model", model, "-o", tmp_path / "out.zst", tmp_path / "whole.zst") == 65
        assert (tmp_path / "out.zst").read_bytes() == whole


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), b"needs an output that stays"),
        (("-o", "-"), b"needs an output that stays"),
        (("-o", "/dev/null"), b"could be gone on with"),
        (("-o", "out.jsonl"), b"neither plain output"),
        (("-o", "out", "--plain"), b"neither plain output"),
        (("-o", "out", "--single-frame"), b"neither plain output"),
        (("-o", "out", "-O", "."), b"exclude each other"),
    ],
)
def test_what_cannot_be_resumed_is_said_at_once(options, words, model, corpus, here):
    assert words in here("score", "--resume", "--model", model, corpus, *options, status=2).stderr


# --- signals and other runs ---------------------------------------------------------------------------------------------------

LONG = [{"id": at, "text": "a text ", "pad": "x" * 1_300_000} for at in range(30)]  # three to a frame


def started(model: Path, corpus: Path, *options: object) -> subprocess.Popen:
    """A run that reads the first records of a pipe and waits for more."""
    return subprocess.Popen(
        command("score", "--model", model, corpus, "-o", *options), stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT
    )


def wait_for(path: Path, size: int) -> None:
    for _ in range(1200):
        if path.exists() and path.stat().st_size > size:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not grow")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_is_stopped_by_a_signal_and_gone_on_with(number, model, tmp_path):
    whole = prune("score", "--model", model, stdin=lines(LONG)).stdout
    partial = tmp_path / "out.zst.partial"
    with started(model, Path("-"), tmp_path / "out.zst", "--resume") as process:
        process.stdin.write(lines(LONG[:20]))
        process.stdin.flush()
        wait_for(partial, borders(whole)[3])
        assert b"another run is writing it" in prune("score", "--model", model, "-o", tmp_path / "out.zst", "--resume", status=75).stderr
        assert b"another run is writing it" in prune("score", "--model", model, "-o", tmp_path / "out.zst", status=75).stderr
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(timeout=60) == (75 if number == signal.SIGTERM else -number)
    assert said.count(b"\n") == (number == signal.SIGTERM)
    assert (b"out.zst.partial: stopped early; the same command goes on from there" in said) == (number == signal.SIGTERM)
    assert left(tmp_path) == {"out.zst.partial"}
    assert partial.read_bytes() == whole[: partial.stat().st_size]
    prune("score", "--resume", "--model", model, "-o", tmp_path / "out.zst", stdin=lines(LONG))
    assert (tmp_path / "out.zst").read_bytes() == whole
    assert left(tmp_path) == {"out.zst"}


def test_without_resume_a_signal_leaves_nothing(model, tmp_path):
    with started(model, Path("-"), tmp_path / "out.zst") as process:
        process.stdin.write(lines(LONG[:20]))
        process.stdin.flush()
        wait_for(tmp_path / ".out.zst.prune-cli", 1000)
        assert b"another run is writing it" in prune("score", "--model", model, "-o", tmp_path / "out.zst", "--resume", status=75).stderr
        process.terminate()
        assert process.wait(timeout=60) == -signal.SIGTERM
    assert left(tmp_path) == set()
