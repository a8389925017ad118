"""score --resume, -O, --shard and --only: a run that was stopped anywhere is resumed, to the same bytes."""

import fcntl
import gzip
import json
import random
import re
import resource
import signal
import struct
import subprocess
import time
from itertools import accumulate
from pathlib import Path

import pytest

from prune_cli.records import reader as reading
from prune_cli.stages.score import windows as stage

from .conftest import ROOT, command, lines, on_a_terminal, records, status_of, zstd

torch = pytest.importorskip("torch")

from .small_models import tiny_gpt2  # noqa: E402

WORDS = ["the quick brown fox ", "jumps over ", "a lazy dog ", "", "and on "]
CORPUS = [
    {"id": f"doc-{at}", "text": WORDS[at % 5] * (at % 7), "source": "abc"[at % 3], "pad": "x" * (at % 50)}
    for at in range(120)
]


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


def borders(data: bytes) -> list[int]:
    """Where the frames of a stream end: start, head, data ..., trailer and seek table, as that table says."""
    [count] = struct.unpack("<I", data[-9:-5])
    sizes = [size for size, _ in struct.iter_unpack("<II", data[-9 - 8 * count : -9])]
    return [*accumulate(sizes), len(data)]


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"corpus.jsonl.zst", "whole.zst"}


@pytest.fixture
def whole(corpus, model, small_windows, tmp_path) -> bytes:
    """The output of a run without --resume that nothing stopped."""
    assert status_of("score", "--model", model, corpus, "-o", tmp_path / "whole.zst") == 0
    return (tmp_path / "whole.zst").read_bytes()


def resume(model: Path, corpus: Path, tmp_path: Path, *more: object) -> int:
    return status_of("score", "--resume", "--model", model, corpus, "-o", tmp_path / "out.zst", *more)


# --- resuming ---


def test_every_frame_is_a_window_and_the_whole_is_right(whole, model, corpus, tmp_path):
    assert len(borders(whole)) > 10
    assert [record["id"] for record in records(whole)] == [record["id"] for record in CORPUS]
    assert resume(model, corpus, tmp_path) == 0
    assert (tmp_path / "out.zst").read_bytes() == whole
    assert left(tmp_path) == {"out.zst"}


def test_a_file_cut_anywhere_is_resumed_to_the_same_bytes(whole, model, corpus, tmp_path):
    """Cut in START, head, data frames, trailer and seek table; and whole, but not yet renamed."""
    ends, dice = borders(whole), random.Random(0)
    cuts = {
        0,
        5,
        *(at + step for at in ends for step in (-1, 0, 1)),
        *(dice.randrange(len(whole)) for _ in range(20)),
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


def test_a_damaged_frame_and_what_follows_it_are_scored_again(whole, model, corpus, tmp_path, here):
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
    target, at = tmp_path / "out.zst", borders(whole)[4] - 7
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


def started(model: Path, corpus: Path, *options: object) -> subprocess.Popen:
    """A run that reads the first records of a pipe and waits for more."""
    return subprocess.Popen(
        command("score", "--model", model, corpus, "-o", *options),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )


def wait_for(path: Path, size: int) -> None:
    for _ in range(1200):
        if path.exists() and path.stat().st_size > size:
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not grow")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_a_signal_stopped_is_resumed(number, model, tmp_path, here):
    whole = here("score", "--model", model, stdin=lines(LONG)).stdout
    partial = tmp_path / "out.zst.partial"
    with started(model, Path("-"), tmp_path / "out.zst", "--resume") as process:
        process.stdin.write(lines(LONG[:20]))
        process.stdin.flush()
        wait_for(partial, borders(whole)[3])
        assert (
            b"another run is writing it"
            in here("score", "--model", model, "-o", tmp_path / "out.zst", "--resume", status=75).stderr
        )
        assert (
            b"another run is writing it"
            in here("score", "--model", model, "-o", tmp_path / "out.zst", status=75).stderr
        )
        process.send_signal(number)
        said = process.stderr.read()
        assert process.wait(timeout=60) == (75 if number == signal.SIGTERM else -number)
    assert said.count(b"\n") == (number == signal.SIGTERM)
    assert (b"out.zst.partial: stopped early; run the same command again to resume" in said) == (
        number == signal.SIGTERM
    )
    assert left(tmp_path) == {"out.zst.partial"}
    assert partial.read_bytes() == whole[: partial.stat().st_size]
    here("score", "--resume", "--model", model, "-o", tmp_path / "out.zst", stdin=lines(LONG))
    assert (tmp_path / "out.zst").read_bytes() == whole
    assert left(tmp_path) == {"out.zst"}


def test_without_resume_a_signal_leaves_nothing(model, tmp_path, here):
    with started(model, Path("-"), tmp_path / "out.zst") as process:
        process.stdin.write(lines(LONG[:20]))
        process.stdin.flush()
        wait_for(tmp_path / ".out.zst.prune-cli", 1000)
        assert (
            b"another run is writing it"
            in here("score", "--model", model, "-o", tmp_path / "out.zst", "--resume", status=75).stderr
        )
        process.terminate()
        assert process.wait(timeout=60) == -signal.SIGTERM
    assert left(tmp_path) == set()


# --- one output for each input ---


@pytest.fixture
def folder(tmp_path) -> list[Path]:
    """Three inputs of three kinds."""
    parts = [lines(CORPUS[at : at + 40]) for at in (0, 40, 80)]
    inputs = {"a.jsonl.zst": zstd(parts[0]), "b.jsonl.gz": gzip.compress(parts[1]), "c.jsonl": parts[2]}
    for name, data in inputs.items():
        (tmp_path / name).write_bytes(data)
    return [tmp_path / name for name in inputs]


def test_each_input_gets_an_output_of_its_name(folder, model, tmp_path, here):
    assert here("score", "--model", model, "-O", tmp_path / "new", *folder).stderr == b""
    assert left(tmp_path / "new") == {"a.jsonl.zst", "b.jsonl.zst", "c.jsonl.zst"}
    for path in folder:
        alone = here("score", "--model", model, path).stdout
        together = (tmp_path / "new" / f"{path.name.split('.')[0]}.jsonl.zst").read_bytes()
        # The same start, head and frames; the trailer alone has a digest of the input as well.
        end = borders(alone)[-3]
        assert together[:end] == alone[:end]
    here("score", "--model", model, "--plain", "-O", tmp_path / "plain", *folder)
    assert left(tmp_path / "plain") == {"a.jsonl", "b.jsonl", "c.jsonl"}


def test_finished_outputs_are_skipped_without_loading_a_model(folder, model, tmp_path, here, monkeypatch):
    here("score", "--model", model, "-O", tmp_path / "new", *folder)
    (tmp_path / "new" / "b.jsonl.zst").unlink()
    said = here(
        "score", "-v", "--model", model, "-O", tmp_path / "new", "--summary", tmp_path / "s", *folder
    ).stderr
    assert b"2 outputs were already finished" in said
    summary = json.loads((tmp_path / "s").read_text())
    assert (summary["records"], summary["outputs"], summary["finished"]) == (40, 1, 2)
    with monkeypatch.context() as without_weights:
        without_weights.setattr("prune_cli.models.load.load_network", None)
        here("score", "--model", model, "-O", tmp_path / "new", *folder)
    (tmp_path / "new" / "b.jsonl.zst").write_bytes(b"old")
    here("score", "--model", model, "-f", "-O", tmp_path / "new", *folder)
    assert len(records((tmp_path / "new" / "b.jsonl.zst").read_bytes())) == 40


def test_a_bad_file_fails_the_run_and_finished_outputs_stay(folder, model, tmp_path, here):
    folder[1].write_bytes(b"oops\n")
    assert (
        b"b.jsonl.gz:1: not JSON"
        in here("score", "--model", model, "-O", tmp_path / "new", *folder, status=65).stderr
    )
    assert left(tmp_path / "new") == {"a.jsonl.zst"}
    here("score", "--model", model, "--skip-bad", "-O", tmp_path / "new", *folder, status=3)
    assert left(tmp_path / "new") == {"a.jsonl.zst", "b.jsonl.zst", "c.jsonl.zst"}


def test_a_folder_is_resumed_in_the_file_where_it_stopped(folder, model, small_windows, tmp_path):
    assert status_of("score", "--model", model, "-O", tmp_path / "whole", *folder) == 0
    new, middle = tmp_path / "new", (tmp_path / "whole" / "b.jsonl.zst").read_bytes()
    new.mkdir()
    done = (tmp_path / "whole" / "a.jsonl.zst").read_bytes()
    (new / "a.jsonl.zst").write_bytes(done)
    before = (new / "a.jsonl.zst").stat()
    (new / "b.jsonl.zst.partial").write_bytes(middle[: borders(middle)[3] + 5])
    assert status_of("score", "--resume", "--model", model, "-O", new, *folder) == 0
    assert left(new) == left(tmp_path / "whole")
    assert (new / "a.jsonl.zst").stat().st_mtime_ns == before.st_mtime_ns
    assert (new / "b.jsonl.zst").read_bytes() == middle


def test_a_second_run_on_a_folder_fails_at_the_file_that_the_first_writes(folder, model, tmp_path, here):
    new = tmp_path / "new"
    here("score", "--model", model, "-O", new, folder[0])
    for name, more in ((".b.jsonl.zst.prune-cli", ()), ("b.jsonl.zst.partial", ("--resume",))):
        with (new / name).open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            said = here("score", "--model", model, "-O", new, *folder, *more, status=75).stderr
        assert b"b.jsonl.zst: another run is writing it" in said
        (new / name).unlink()
    assert left(new) == {"a.jsonl.zst"}


def test_two_outputs_of_one_name_are_refused_before_anything_is_written(folder, model, tmp_path, here):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.jsonl").write_bytes(b"")
    said = here(
        "score", "--model", model, "-O", tmp_path / "new", *folder, tmp_path / "more" / "a.jsonl", status=2
    ).stderr
    assert b"a.jsonl.zst and " in said
    assert b"would both become" in said
    assert (
        b"standard input has no name"
        in here("score", "--model", model, "-O", tmp_path / "new", "-", status=2).stderr
    )
    assert not (tmp_path / "new").exists()
    assert (
        b"the output is also an input"
        in here("score", "--model", model, "-O", tmp_path, *folder, status=73).stderr
    )
    assert (
        b"mkdir -p"
        in here("score", "--model", model, "-O", tmp_path / "no" / "no", *folder, status=73).stderr
    )


# --- shards ---


def some(count: int) -> list[dict]:
    return [{"id": at, "text": "ab" if at % 3 else ""} for at in range(count)]


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_shards_are_runs_dealt_in_turn_and_together_make_the_whole(of, model, tmp_path, here, monkeypatch):
    monkeypatch.setattr(reading, "RUN", 8)
    text = lines(some(50)) + b"\n  \n" + lines(some(30)) + b"\n" + lines(some(3))
    (tmp_path / "in.jsonl").write_bytes(text)
    streams = [
        here("score", "--model", model, "--shard", f"{number}/{of}", tmp_path / "in.jsonl").stdout
        for number in range(1, of + 1)
    ]
    whole = records(here("score", "--model", model, tmp_path / "in.jsonl").stdout)
    for number, stream in enumerate(streams):
        assert records(stream) == [record for at, record in enumerate(whole) if at // 8 % of == number]
    ranked = records(here("rank", stdin=b"".join(streams)).stdout)
    key = json.dumps
    assert sorted(map(key, records(b"".join(streams)))) == sorted(map(key, whole))
    assert sorted(record["rank"] is None for record in ranked) == sorted(
        record["perplexity"] is None for record in whole
    )


def test_a_run_of_a_shard_is_4096_records(model, here):
    found = records(
        here(
            "score",
            "--model",
            model,
            "--shard",
            "2/2",
            "--only",
            "id",
            "--expect-records",
            9000,
            stdin=lines(some(9000)),
        ).stdout
    )
    assert [record["id"] for record in found] == list(range(4096, 8192))


def test_a_bad_line_belongs_to_one_shard(model, here, monkeypatch):
    monkeypatch.setattr(reading, "RUN", 8)
    text = lines(some(10)) + b"oops\n" + lines(some(10))
    assert (
        b"(standard input):11: not JSON"
        in here("score", "--model", model, "--shard", "2/2", stdin=text, status=65).stderr
    )
    found = records(here("score", "--model", model, "--shard", "1/2", stdin=text).stdout)
    assert [record["id"] for record in found] == [*range(8), *range(5, 10)]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/", "/2", "a/b", "-1/2", "1/0", "1/2/3"])
def test_an_invalid_shard_is_refused(shard, model, here):
    assert (
        b"for example --shard 1/4"
        in here("score", "--model", model, f"--shard={shard}", stdin=b"{}", status=2).stderr
    )


def test_shards_of_a_folder_go_into_one_directory_and_are_resumed(
    folder, model, small_windows, tmp_path, monkeypatch
):
    monkeypatch.setattr(reading, "RUN", 8)
    for shard in ("1/2", "2/2"):
        assert status_of("score", "--model", model, "--shard", shard, "-O", tmp_path / "whole", *folder) == 0
    names = {f"{name}.{part}-of-2.jsonl.zst" for name in "abc" for part in "12"}
    assert left(tmp_path / "whole") == names
    found = [record for name in names for record in records((tmp_path / "whole" / name).read_bytes())]
    assert sorted(record["id"] for record in found) == sorted(record["id"] for record in CORPUS)
    name = "a.2-of-2.jsonl.zst"
    whole = (tmp_path / "whole" / name).read_bytes()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / f"{name}.partial").write_bytes(whole[: borders(whole)[2]])
    assert (
        status_of("score", "--resume", "--model", model, "--shard", "1/2", "-O", tmp_path / "new", folder[0])
        == 0
    )
    assert (
        status_of("score", "--resume", "--model", model, "--shard", "2/2", "-O", tmp_path / "new", folder[0])
        == 0
    )
    assert (tmp_path / "new" / name).read_bytes() == whole


def test_a_run_of_another_shard_is_not_resumed(whole, model, corpus, tmp_path, here):
    (tmp_path / "out.zst.partial").write_bytes(whole[: borders(whole)[3]])
    said = here(
        "score", "--resume", "--shard", "1/2", "--model", model, corpus, "-o", tmp_path / "out.zst", status=78
    ).stderr
    assert b"was begun with shard None, not '1/2'" in said


# --- some fields alone ---


def test_only_these_fields_are_written_as_they_were(model, here):
    line = b'{"text": "the fox", "x" : [1, {"id": 2}], "id": 1.10 }\n'
    out = here("score", "--plain", "--only", "perplexity,id,x", "--model", model, stdin=line).stdout
    assert out.startswith(b'{"x" : [1, {"id": 2}],"id": 1.10,"perplexity":')
    assert list(json.loads(out)) == ["x", "id", "perplexity"]
    assert here("score", "--plain", "--only", "id", "--model", model, stdin=line).stdout == b'{"id": 1.10}\n'
    said = here("score", "--only", "name,perplexity", "--model", model, stdin=line, status=65).stderr
    assert b"(standard input):1: no field `name`" in said


def test_scores_without_text_are_ranked(model, corpus, here):
    alone = here("score", "--only", "id,perplexity", "--model", model, corpus).stdout
    ranked = records(here("rank", stdin=alone).stdout)
    assert list(ranked[0]) == ["id", "perplexity", "rank", "quantile"]
    whole = records(here("rank", stdin=here("score", "--model", model, corpus).stdout).stdout)
    assert [record["id"] for record in ranked] == [record["id"] for record in whole]


@pytest.mark.parametrize("only", ["id,perplexity", "perplexity", "id,n_scored,perplexity", "id"])
def test_some_fields_alone_are_resumed_too(only, model, corpus, small_windows, tmp_path):
    arguments = ("score", "--model", model, "--only", only, corpus, "-o")
    assert status_of(*arguments, tmp_path / "whole.zst") == 0
    whole = (tmp_path / "whole.zst").read_bytes()
    for cut in borders(whole)[1::4]:
        (tmp_path / "out.zst.partial").write_bytes(whole[:cut])
        assert status_of(*arguments, tmp_path / "out.zst", "--resume") == 0
        assert (tmp_path / "out.zst").read_bytes() == whole
        (tmp_path / "out.zst").unlink()


# --- what the run did ---


def test_the_summary_counts_what_was_written(model, corpus, tmp_path, here):
    out = records(here("score", "--summary", tmp_path / "summary.json", "--model", model, corpus).stdout)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["records"] == len(out)
    assert summary["nulls"] == sum(record["perplexity"] is None for record in out)
    assert summary["tokens"] == sum(record["n_scored"] for record in out)
    assert summary["bytes"] == sum(len(record["text"].encode()) for record in CORPUS)
    assert summary["seconds"] > 0
    assert (summary["blank"], summary["skipped"]) == (0, 0)
    assert summary["score"]["names"] == [model.name]
    assert (
        b"exists"
        in here("score", "--summary", tmp_path / "summary.json", "--model", model, corpus, status=73).stderr
    )


def test_the_trailer_says_what_it_took(whole):
    trailer = whole[borders(whole)[-3] : borders(whole)[-2]]
    content = json.loads(trailer[trailer.index(b"\n") : -4])
    assert (
        content["work"]["tokens"]
        == content["totals"]["tokens"]
        == sum(record["n_scored"] for record in records(whole))
    )


def test_on_a_terminal_there_is_progress_and_one_closing_line(model, corpus, tmp_path):
    said = on_a_terminal("stderr", "score", "--model", model, corpus, "-o", tmp_path / "out")
    assert re.search(r"120 records +[\d,]+ tokens/s", said)
    assert re.search(r"scored 120 records, 1,090 tokens \([\d,]+ a second\)\s*$", said)
