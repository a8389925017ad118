"""score --resume: a run that was stopped anywhere is resumed, to the same bytes."""

import json
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

import pytest

from prune_cli.stages.score import windows as stage

from . import warm
from .conftest import PATIENCE, lines, records, status_of, zstd

torch = pytest.importorskip("torch")

from .score_runs import CORPUS, borders, left  # noqa: E402
from .small_models import tiny_gpt2  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def small_windows(monkeypatch) -> None:
    """Windows, and with them frames, of about ten records."""
    monkeypatch.setattr(stage, "WINDOW_BYTES", 3000)


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl.zst"
    path.write_bytes(zstd(lines(CORPUS)))
    return path


@pytest.fixture
def whole(corpus, model, small_windows, tmp_path) -> bytes:
    """The output of a run without --resume that nothing stopped."""
    assert status_of("score", "--model", model, corpus, "-o", tmp_path / "whole.zst") == 0
    return (tmp_path / "whole.zst").read_bytes()


def resume(model: Path, corpus: Path, tmp_path: Path, *more: object) -> int:
    return status_of("score", "--resume", "--model", model, corpus, "-o", tmp_path / "out.zst", *more)


# --- resuming ---


def test_every_window_is_a_frame_and_the_output_is_complete(whole, model, corpus, tmp_path):
    assert len(borders(whole)) > 10
    assert [record["id"] for record in records(whole)] == [record["id"] for record in CORPUS]
    assert resume(model, corpus, tmp_path) == 0
    assert (tmp_path / "out.zst").read_bytes() == whole
    assert left(tmp_path) == {"out.zst"}


@pytest.mark.parametrize("inner", [1, pytest.param(100, marks=pytest.mark.sweep)])
def test_a_file_cut_anywhere_is_resumed_to_the_same_bytes(inner, whole, model, corpus, tmp_path):
    """Cut in START, head, data frames, trailer and seek table; and whole, but not yet renamed.

    Of the frames in the middle, which are alike, the first `inner`.
    """
    ends, dice = borders(whole), random.Random(0)
    ends = [*ends[:3], *ends[3:-4][:inner], *ends[-4:]]
    cuts = {
        0,
        5,
        *(at + step for at in ends for step in (-1, 0, 1)),
        *(dice.randrange(len(whole)) for _ in range(8 * inner)),
    }
    for cut in sorted(cuts - {len(whole) + 1}):
        (tmp_path / "out.zst.partial").write_bytes(whole[:cut])
        assert resume(model, corpus, tmp_path) == 0, cut
        assert (tmp_path / "out.zst").read_bytes() == whole, cut
        assert left(tmp_path) == {"out.zst"}, cut
        (tmp_path / "out.zst").unlink()


@pytest.mark.parametrize("tail", [bytes(5000), b"\x28\xb5\x2f\xfd", b"rubbish"])
def test_bytes_after_the_last_whole_frame_are_cut_off(tail, whole, model, corpus, tmp_path):
    (tmp_path / "out.zst.partial").write_bytes(whole[: borders(whole)[5]] + tail)
    assert resume(model, corpus, tmp_path) == 0
    assert (tmp_path / "out.zst").read_bytes() == whole


def test_a_damaged_frame_and_all_later_frames_are_scored_again(whole, model, corpus, tmp_path, here):
    at = borders(whole)[4] - 7
    (tmp_path / "out.zst.partial").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 : -300])
    said = here("score", "--resume", "--model", model, corpus, "-o", tmp_path / "out.zst").stderr
    assert b"out.zst.partial: " in said
    assert b"resuming from there" in said
    assert (tmp_path / "out.zst").read_bytes() == whole


def test_records_in_the_partial_file_are_not_scored_again(whole, model, corpus, tmp_path):
    (tmp_path / "out.zst.partial").write_bytes(whole[: borders(whole)[-4]])
    assert resume(model, corpus, tmp_path, "--summary", tmp_path / "summary.json") == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["records"] + summary["resumed"] == len(CORPUS)
    assert 0 < summary["records"] < 25


def test_a_run_with_other_settings_is_not_resumed(whole, model, corpus, tmp_path, here):
    partial = tmp_path / "out.zst.partial"
    partial.write_bytes(whole[: borders(whole)[5]])
    arguments = ("score", "--resume", corpus, "-o", tmp_path / "out.zst")
    said = here(*arguments, "--model", model, "--min-tokens", 3, status=78).stderr
    assert b"out.zst.partial: was begun with min_tokens 1, not 3; resume with the same" in said
    said = here(
        *arguments, "--model", model, "-m", "bits_per_byte", "--dtype", "bfloat16", "--context", 7, status=78
    ).stderr
    assert b"begun with fields ['perplexity'], not ['bits_per_byte']" in said
    assert b"context" in said
    partial.write_bytes(b"something else")
    assert b"not the beginning of a prune-cli stream" in here(*arguments, "--model", model, status=65).stderr
    assert partial.read_bytes() == b"something else"


@pytest.mark.parametrize(
    "change", ["another text", "one less", "another order", "another id", "a field more", "none at all"]
)
def test_a_run_on_another_input_is_not_resumed(change, whole, model, tmp_path, here):
    changed: list[dict] = [dict(record) for record in CORPUS]
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
    said = here(
        "score",
        "--resume",
        "--allow-empty",
        "--model",
        model,
        "-o",
        tmp_path / "out.zst",
        stdin=lines(changed),
        status=65,
    ).stderr
    assert b"is not made from (standard input):" in said or b"holds more than the 0 records" in said
    assert partial.read_bytes() == before


def test_a_failed_run_keeps_its_whole_frames(whole, model, tmp_path, here):
    bad = lines(CORPUS[:70]) + b"oops\n" + lines(CORPUS[70:])
    said = here(
        "score", "--resume", "--model", model, "-o", tmp_path / "out.zst", stdin=bad, status=65
    ).stderr
    assert b"(standard input):71: not JSON" in said
    kept = (tmp_path / "out.zst.partial").read_bytes()
    assert kept == whole[: len(kept)]
    assert len(kept) in borders(whole)[:-2]
    here("score", "--resume", "--model", model, "-o", tmp_path / "out.zst", stdin=lines(CORPUS))
    assert (tmp_path / "out.zst").read_bytes() == whole


def test_a_full_disk_costs_only_the_frame_that_did_not_fit(whole, model, corpus, tmp_path):
    room, limits = borders(whole)[5] + 10, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        assert resume(model, corpus, tmp_path) == 74
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "out.zst.partial").read_bytes() == whole[:room]
    assert resume(model, corpus, tmp_path) == 0
    assert (tmp_path / "out.zst").read_bytes() == whole


def test_a_run_without_resume_refuses_a_partial_file(whole, model, corpus, tmp_path, here):
    partial = tmp_path / "out.zst.partial"
    partial.write_bytes(whole[: borders(whole)[5]])
    arguments = ("score", "--model", model, corpus, "-o", tmp_path / "out.zst")
    assert (
        b"out.zst.partial: holds an unfinished run; --resume continues it, -f starts over"
        in here(*arguments, status=73).stderr
    )
    assert left(tmp_path) == {"out.zst.partial"}
    here(*arguments, "-f")
    assert left(tmp_path) == {"out.zst"}
    assert b"exists; -f replaces it" in here(*arguments, status=73).stderr


def test_the_same_command_on_a_finished_output_changes_nothing(whole, model, corpus, tmp_path):
    """As a cron job does. The run that finished it may have been killed before it removed .partial."""
    target = tmp_path / "out.zst"
    target.write_bytes(whole)
    target.chmod(0o444)
    before = target.stat()
    (tmp_path / "out.zst.partial").hardlink_to(target)
    assert resume(model, corpus, tmp_path, "--level", 9, "--summary", tmp_path / "s") == 0
    assert (json.loads((tmp_path / "s").read_text())["resumed"], target.read_bytes()) == (len(CORPUS), whole)
    assert (target.stat().st_ino, target.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert left(tmp_path) == {"out.zst", "s"}


def test_a_finished_output_of_another_command_is_refused(whole, model, corpus, tmp_path, here):
    # The last bytes of a frame are its checksum: what a damaged byte before it breaks depends on the scores.
    target, at = tmp_path / "out.zst", borders(whole)[4] - 2
    same = ("score", "--resume", "--model", model, "-o", target)
    damaged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    for options, given, content, words in (
        (["--min-tokens", 3], CORPUS, whole, b"was begun with min_tokens 1, not 3"),
        ([], [*CORPUS[:9], *CORPUS[10:]], whole, b"its record 10 is not made from (standard input):10"),
        ([], CORPUS[:50], whole, b"holds more than the 50 records of the input"),
        ([], [*CORPUS, *CORPUS[:1]], whole, b"differs from what this run would write"),
        ([], CORPUS, damaged, b"has a checksum mismatch in the zstd frame"),
        ([], CORPUS, whole[:-20], b"differs from what"),
        ([], CORPUS, whole + b"x", b"holds more than this run would write"),
        ([], CORPUS, b"", b"differs from what"),
        ([], CORPUS, b"another file", b"is not the beginning of a prune-cli stream"),
    ):
        target.write_bytes(content)
        said = here(*same, *options, stdin=lines(given), status=73).stderr
        assert b"out.zst: exists, and " + words in said
        assert said.endswith(b"; -f replaces it\n")
        assert target.read_bytes() == content
        assert left(tmp_path) == {"out.zst"}
    assert b"the output is also an input" in here(*same, target, status=73).stderr


def test_an_output_whose_run_was_killed_during_the_rename_is_not_written_to(whole, model, corpus, tmp_path):
    """For a moment the file has both names. -f keeps the old file until the new one is whole."""
    (tmp_path / "out.zst").write_bytes(whole)
    for hidden in ("out.zst.partial", ".out.zst.prune-cli"):
        (tmp_path / hidden).hardlink_to(tmp_path / "out.zst")
        assert (
            status_of(
                "score",
                "-f",
                "--resume",
                "--model",
                model,
                "-o",
                tmp_path / "out.zst",
                tmp_path / "whole.zst",
            )
            == 65
        )
        assert (tmp_path / "out.zst").read_bytes() == whole
        assert (
            status_of("score", "-f", "--model", model, "-o", tmp_path / "out.zst", tmp_path / "whole.zst")
            == 65
        )
        assert (tmp_path / "out.zst").read_bytes() == whole


def test_a_partial_file_with_hard_links_is_resumed(whole, model, corpus, tmp_path):
    (tmp_path / "out.zst.partial").write_bytes(whole[: borders(whole)[5]])
    (tmp_path / "copy").hardlink_to(tmp_path / "out.zst.partial")
    assert resume(model, corpus, tmp_path, "--summary", tmp_path / "s") == 0
    assert json.loads((tmp_path / "s").read_text())["resumed"] > 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), b"needs an output file"),
        (("-o", "-"), b"needs an output file"),
        (("-o", "/dev/null"), b"needs a regular output file"),
        (("-o", "out.jsonl"), b"plain and single-frame output have none"),
        (("-o", "out", "--plain"), b"plain and single-frame output have none"),
        (("-o", "out", "--single-frame"), b"plain and single-frame output have none"),
        (("-o", "out", "-O", "."), b"exclude each other"),
    ],
)
def test_outputs_that_cannot_be_resumed_are_refused(options, words, model, corpus, here):
    assert words in here("score", "--resume", "--model", model, corpus, *options, status=2).stderr


# --- signals and other runs ---

LONG = [{"id": at, "text": "a text ", "pad": "x" * 1_300_000} for at in range(30)]  # three to a frame


RANDOM = ("score", "-m", "random")


@contextmanager
def started(scoring: tuple[object, ...], *options: object) -> Iterator[tuple[warm.Started, IO[bytes]]]:
    """A run that reads the first records of a pipe and waits for more, and the file of its messages."""
    given, feed = os.pipe()
    with open(given, "rb") as source, open(feed, "wb") as pipe, TemporaryFile() as said:
        process = warm.Started([*scoring, "-", "-o", *options], stdin=source, stderr=said).go()
        pipe.write(lines(LONG[:20]))
        pipe.flush()
        yield process, said


def wait_for(path: Path, size: int) -> None:
    for _ in range(20 * PATIENCE):
        if path.exists() and path.stat().st_size > size:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not grow")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_a_signal_stopped_is_resumed(number, model, tmp_path, here):
    scoring = ("score", "--model", model) if number == signal.SIGTERM else RANDOM
    whole = here(*scoring, stdin=lines(LONG)).stdout
    partial = tmp_path / "out.zst.partial"
    with started(scoring, tmp_path / "out.zst", "--resume") as (process, log):
        wait_for(partial, borders(whole)[3])
        assert (
            b"another run is writing it"
            in here(*scoring, "-o", tmp_path / "out.zst", "--resume", status=75).stderr
        )
        assert b"another run is writing it" in here(*scoring, "-o", tmp_path / "out.zst", status=75).stderr
        os.kill(process.pid, number)
        assert process.wait() == (75 if number == signal.SIGTERM else -number)
        log.seek(0)
        said = log.read()
    assert said.count(b"\n") == (number == signal.SIGTERM)
    assert (b"out.zst.partial: stopped early; run the same command again to resume" in said) == (
        number == signal.SIGTERM
    )
    assert left(tmp_path) == {"out.zst.partial"}
    assert partial.read_bytes() == whole[: partial.stat().st_size]
    here(*scoring, "--resume", "-o", tmp_path / "out.zst", stdin=lines(LONG))
    assert (tmp_path / "out.zst").read_bytes() == whole
    assert left(tmp_path) == {"out.zst"}


def test_without_resume_a_signal_leaves_nothing(tmp_path, here):
    with started(RANDOM, tmp_path / "out.zst") as (process, _):
        wait_for(tmp_path / ".out.zst.prune-cli", 1000)
        assert (
            b"another run is writing it"
            in here(*RANDOM, "-o", tmp_path / "out.zst", "--resume", status=75).stderr
        )
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
    assert left(tmp_path) == set()
