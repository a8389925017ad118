"""Faults 26 to 33: full disks, broken devices, signals, killed runs, and two runs on one output."""

import random
import signal
import subprocess
import time
from itertools import product
from pathlib import Path

import pytest

from ..conftest import ROOT, command, prune, status_of
from .injection import OUTPUT, TEMPORARY, every_fault, traced, with_fault
from .machine import OTHERS, remains, small_disk

ALL_IN_SWEEPS = ["rank", *(pytest.param(verb, marks=pytest.mark.sweep) for verb in OTHERS)]


@pytest.fixture
def target(request, tmp_path) -> Path:
    """An output that is `absent`, or `old` and to be replaced; beside it is nothing else."""
    folder = tmp_path / "out"
    folder.mkdir()
    if request.param == "old":
        (folder / OUTPUT).write_bytes(b"old")
    return folder / OUTPUT


def forced(target: Path) -> list[object]:
    return [*(["-f"] if target.exists() else []), "-o", target]


def begin_again(target: Path, old: bool) -> None:
    for path in target.parent.iterdir():
        path.unlink()
    if old:
        target.write_bytes(b"old")


def watched(target: Path) -> list[Path]:
    return [target, target.parent / TEMPORARY, target.parent]


# 26, 27: what cannot be written, synced or named is an error, the target is as it was, and nothing is left
# beside it


CALLS = ["openat", "flock", "ftruncate", "write", "fsync", "close"]
COMMIT = [*product(CALLS, ["absent", "old"]), ("link", "absent"), ("unlink", "absent"), ("rename", "old")]
ERRORS = {"openat": "ENOSPC", "write": "ENOSPC", "flock": "ENOLCK"}
FAILING = [(call, ERRORS.get(call, "EIO"), target) for call, target in COMMIT]


@traced
@pytest.mark.parametrize("verb", ALL_IN_SWEEPS)
@pytest.mark.parametrize(
    ("call", "error", "target"), [*FAILING, ("write", "EIO", "old")], indirect=["target"]
)
def test_26_27_when_any_call_on_the_output_fails_the_target_is_old_or_new(call, error, verb, run_of, target):
    old, (arguments, whole) = target.exists(), run_of(verb)
    for number, ended in every_fault(call, f"error={error}", watched(target), *arguments, *forced(target)):
        assert (ended.status != 0) == ended.met, (number, ended)
        assert ended.status in (0, 73, 74), (number, ended)
        assert ended.stderr.count("\n") == ended.met, (number, ended)
        if ended.met:
            assert f"prune-cli {verb}: {target.parent}/" in ended.stderr, "the message says where"
        content = target.read_bytes() if target.exists() else None
        assert content in (whole, b"old" if old else None), (number, ended)
        assert remains(target.parent) <= {OUTPUT}, (number, ended)
        begin_again(target, old)


@traced
def test_26_27_a_file_system_without_hard_links_still_gets_its_output(corpus, whole, tmp_path):
    ended = with_fault(
        "link,linkat",
        "error=EPERM",
        1,
        watched(tmp_path / OUTPUT),
        "rank",
        corpus,
        "-o",
        tmp_path / OUTPUT,
        program=command,
    )
    assert (ended.status, ended.met) == (0, True)
    assert (tmp_path / OUTPUT).read_bytes() == whole
    assert remains(tmp_path) == {OUTPUT}


@traced
@pytest.mark.parametrize(
    ("verb", "error"),
    [
        ("rank", "ESTALE"),
        ("slice", "EIO"),
        ("stat", "EIO"),
        ("eval", "EIO"),
        pytest.param("pack", "EIO", marks=pytest.mark.sweep),
    ],
)
def test_27_36_when_any_read_fails_the_run_fails(verb, error, whole, run_of, tmp_path):
    source, fault = tmp_path / "ranked.zst", f"error={error}"
    (_, *options, operand), _ = run_of(verb)
    source.write_bytes(operand.read_bytes() if verb == "eval" else whole)
    options = {"rank": ["--overwrite"], "slice": ["--keep", "top", "--frac", "0.5"]}.get(verb, options)
    (tmp_path / "out").mkdir()
    for call in ("read,pread64,preadv", "openat", "fstat,stat,newfstatat"):
        for number, ended in every_fault(
            call, fault, [source], verb, *options, source, "-o", tmp_path / "out" / OUTPUT
        ):
            assert ended.status == (74 if ended.met else 0), (call, number, ended)
            assert not ended.met or f"prune-cli {verb}: {source}: " in ended.stderr
            assert remains(tmp_path / "out") == (set() if ended.met else {OUTPUT})
        (tmp_path / "out" / OUTPUT).unlink()


@traced
@pytest.mark.parametrize(("call", "fault"), [("write", "error=ENOSPC"), ("pread64", "error=EIO")])
def test_26_27_a_temporary_directory_that_fails_while_sorting(call, fault, corpus, whole, tmp_path):
    """Temporary files have no name that strace could be told: every call of the process counts."""
    (tmp_path / "spill").mkdir()
    statuses = []
    for number in (5, 8, 12, 40):
        ended = with_fault(
            call,
            fault,
            number,
            [],
            "rank",
            "-S",
            "64K",
            "-T",
            tmp_path / "spill",
            corpus,
            "-o",
            tmp_path / OUTPUT,
            program=command,
        )
        statuses.append(ended.status)
        assert ended.status in (0, 74), (number, ended)
        assert remains(tmp_path) == {"spill"} | ({OUTPUT} if ended.status == 0 else set())
        assert remains(tmp_path / "spill") == set()
        (tmp_path / OUTPUT).unlink(missing_ok=True)
    assert 74 in statuses


@pytest.mark.parametrize("verb", ["rank", "score", "slice", "pack"])
def test_26_a_full_disk_is_named_with_the_bytes_that_did_not_fit(verb, run_of, tmp_path, here):
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / OUTPUT).write_bytes(b"old")
        said = here(*run_of(verb)[0], "--plain", "-f", "-o", disk / OUTPUT, status=74).stderr.decode()
        assert f"{disk / OUTPUT}: writing " in said
        assert "No space left on device; free some space" in said
        assert (disk / OUTPUT).read_bytes() == b"old"
        assert remains(disk) == {OUTPUT}


def test_26_37_a_small_temporary_directory_is_reported_before_reading(corpus, tmp_path):
    with small_disk(tmp_path / "disk", "64k") as disk:
        said = prune(
            "rank", "-S", "64K", "-T", disk, corpus, "-o", tmp_path / OUTPUT, status=74
        ).stderr.decode()
        assert "are free where sorted runs will take about" in said
        said = prune(
            "rank", "-S", "64K", "-T", disk, stdin=corpus.read_bytes() * 4, status=74
        ).stderr.decode()
        assert "temporary file in" in said
        assert "No space left" in said
        assert remains(disk) == set()


@traced
def test_26_a_network_disk_that_reports_being_full_only_at_the_end(corpus, tmp_path):
    """NFS tells at close(2); what nobody asks is never told."""
    ended = with_fault(
        "close", "error=EDQUOT", 1, [tmp_path / "out"], "rank", corpus, stdout=tmp_path / "out"
    )
    assert (ended.status, ended.met) == (74, True)
    assert "(standard output): closing failed" in ended.stderr


# 29, 30, 31: runs that are killed or stopped


LAST = [("flock", "absent"), ("link", "absent"), ("rename", "old")]
STOPPED = [
    (name, *step) for name, steps in (("TERM", COMMIT), ("INT", LAST), ("HUP", LAST)) for step in steps
]


@traced
@pytest.mark.parametrize("verb", ALL_IN_SWEEPS)
@pytest.mark.parametrize(("call", "target"), COMMIT, indirect=["target"])
def test_29_killed_at_any_call_of_the_commit_the_target_is_old_or_new_and_the_next_run_succeeds(
    call, verb, run_of, target
):
    old, (arguments, whole) = target.exists(), run_of(verb)
    for number, ended in every_fault(call, "signal=KILL", watched(target), *arguments, *forced(target)):
        assert ended.status == (-signal.SIGKILL if ended.met else 0)
        content = target.read_bytes() if target.exists() else None
        assert content in (whole, b"old" if old else None), number
        assert status_of(*arguments, "-f", "-o", target) == 0
        assert target.read_bytes() == whole
        assert remains(target.parent) == {OUTPUT}, number
        begin_again(target, old)


@traced
@pytest.mark.parametrize(("name", "call", "target"), STOPPED, indirect=["target"])
def test_31_stopped_at_any_call_of_the_commit_nothing_is_left_beside_the_target(call, name, run_of, target):
    old, (arguments, whole) = target.exists(), run_of("rank")
    ended = with_fault(call, f"signal={name}", 1, watched(target), *arguments, *forced(target))
    assert ended.met
    assert ended.status in (0, -getattr(signal, f"SIG{name}"))
    assert ended.stderr == ""
    content = target.read_bytes() if target.exists() else None
    assert content in (whole, b"old" if old else None)
    assert remains(target.parent) <= {OUTPUT}


@traced
@pytest.mark.parametrize("verb", OTHERS)
@pytest.mark.parametrize("target", ["old"], indirect=True)
def test_26_27_29_31_when_another_verb_is_stopped_the_target_is_old_or_new(verb, run_of, target):
    arguments, whole = run_of(verb)
    faults = [
        ("write", "error=ENOSPC"),
        ("fsync", "error=EIO"),
        ("rename", "error=EIO"),
        ("rename", "signal=KILL"),
        ("flock", "signal=TERM"),
    ]
    for call, fault in faults:
        ended = with_fault(call, fault, 1, watched(target), *arguments, "-f", "-o", target)
        status = 74 if fault.startswith("error") else -getattr(signal, fault.replace("signal=", "SIG"))
        assert (ended.status, ended.met, ended.stderr.count("\n")) == (status, True, status == 74), (
            fault,
            ended,
        )
        assert target.read_bytes() in (whole, b"old")
        assert remains(target.parent) <= {OUTPUT, TEMPORARY} if fault == "signal=KILL" else {OUTPUT}
    assert status_of(*arguments, "-f", "-o", target) == 0
    assert (target.read_bytes(), remains(target.parent)) == (whole, {OUTPUT})


@pytest.mark.parametrize("moments", [8, pytest.param(300, marks=pytest.mark.sweep)])
def test_30_rank_killed_at_any_moment_leaves_the_old_or_the_whole_target(moments, corpus, whole, tmp_path):
    dice, spill = random.Random(0), tmp_path / "spill"
    spill.mkdir()
    took = time.monotonic()
    prune("rank", "-S", "64K", "-T", spill, corpus, "-o", tmp_path / OUTPUT)
    took = time.monotonic() - took
    for _ in range(moments):
        (tmp_path / OUTPUT).write_bytes(b"old")
        arguments = command("rank", "-f", "-S", "64K", "-T", spill, corpus, "-o", tmp_path / OUTPUT)
        with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
            time.sleep(dice.uniform(0, took))
            process.kill()
        assert (tmp_path / OUTPUT).read_bytes() in (b"old", whole)
        assert remains(spill) == set()
        assert remains(tmp_path) <= {"spill", OUTPUT, TEMPORARY}
    prune("rank", "-f", corpus, "-o", tmp_path / OUTPUT)
    assert remains(tmp_path) == {"spill", OUTPUT}


# 33: one output, two runs


@pytest.mark.parametrize("times", [6, pytest.param(1000, marks=pytest.mark.sweep)])
def test_33_of_two_simultaneous_runs_one_writes_and_no_lock_stays(times, corpus, whole, tmp_path):
    """The other leaves at once with 75, or finds the first one's output (73) when it looks a moment later."""
    overlapped = 0
    for _ in range(times):
        arguments = command("rank", corpus, "-o", tmp_path / OUTPUT)
        runs = [subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(2)]
        said = [run.communicate()[1] for run in runs]
        ends = sorted(run.returncode for run in runs)
        assert ends in ([0, 73], [0, 75]), said
        overlapped += ends == [0, 75]
        assert (tmp_path / OUTPUT).read_bytes() == whole
        assert remains(tmp_path) == {OUTPUT}
        (tmp_path / OUTPUT).unlink()
    assert overlapped or times < 100  # a few may never meet


@pytest.mark.parametrize("times", [3, pytest.param(200, marks=pytest.mark.sweep)])
def test_33_runs_that_replace_one_output_never_mix(times, corpus, whole, tmp_path):
    for _ in range(times):
        arguments = command("rank", "-f", corpus, "-o", tmp_path / OUTPUT)
        runs = [subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
        said = [run.communicate()[1] for run in runs]
        assert {run.returncode for run in runs} <= {0, 75}, said
        assert (tmp_path / OUTPUT).read_bytes() == whole
        assert remains(tmp_path) == {OUTPUT}
