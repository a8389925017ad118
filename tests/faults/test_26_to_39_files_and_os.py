"""Faults 26 to 39: full disks, broken devices, limits, signals, killed runs, and files that are not what they
should be.
"""

import os
import random
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import cache
from itertools import product
from pathlib import Path

import pytest

from prune_cli import reference

from ..conftest import ROOT, command, lines, prune, records, scored, status_of
from .injection import OUTPUT, TEMPORARY, every_fault, traced, with_fault

# Rank stands for the other verbs where a run is long or there are many.
OTHERS = ["score", "slice", "stat", "pack", "eval"]
# A process of pack takes seconds to load its libraries: where it does as the others do, only sweeps start
# one.
PACK_IN_SWEEPS = ["score", "slice", "stat", "eval", pytest.param("pack", marks=pytest.mark.sweep)]
VERBS = ["rank", *OTHERS]
ALL_IN_SWEEPS = ["rank", *(pytest.param(verb, marks=pytest.mark.sweep) for verb in OTHERS)]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("in") / "corpus.jsonl"
    path.write_bytes(lines(scored(800)))
    return path


@pytest.fixture(scope="module")
def whole(corpus) -> bytes:
    """What an unbroken run makes of the corpus."""
    return prune("rank", corpus).stdout


@pytest.fixture(scope="module")
def run_of(corpus, tmp_path_factory) -> Callable[[str], tuple[list[object], bytes]]:
    """The arguments of a verb over a file, which is named last, and what an unbroken run of it writes."""
    folder = tmp_path_factory.mktemp("whole")

    @cache
    def made(verb: str) -> tuple[list[object], bytes]:
        if verb in ("pack", "eval"):
            pytest.importorskip("torch")
        if verb == "eval":
            (folder / "some.jsonl").write_bytes(lines(scored(60)))
            options = [
                "--data",
                folder / "some.jsonl",
                "--per-document",
                folder / "documents.zst",
                "-o",
                os.devnull,
            ]
            assert status_of("eval", reference.DIRECTORY, *options) == 0
        arguments = {
            "rank": [corpus],
            "score": ["-m", "random", corpus],
            "slice": ["--keep", "random", "--frac", "0.5", "-k", "perplexity", corpus],
            "stat": [corpus],
            "pack": ["--tokenizer", reference.DIRECTORY, "--context", 64, corpus],
            "eval": [folder / "documents.zst"],
        }[verb]
        assert status_of(verb, *arguments, "-o", folder / verb) == 0
        return [verb, *arguments], (folder / verb).read_bytes()

    return made


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


def remains(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@contextmanager
def small_disk(folder: Path, size: str):
    """A file system of this size in memory; skips where mounting is not permitted."""
    folder.mkdir(exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting is not permitted")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


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
def test_26_27_whichever_call_on_the_output_fails_the_target_is_old_or_new(call, error, verb, run_of, target):
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
        "link,linkat", "error=EPERM", 1, watched(tmp_path / OUTPUT), "rank", corpus, "-o", tmp_path / OUTPUT
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
def test_27_36_whichever_read_fails_the_run_fails(verb, error, whole, run_of, tmp_path):
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
        )
        statuses.append(ended.status)
        assert ended.status in (0, 74), (number, ended)
        assert remains(tmp_path) == {"spill"} | ({OUTPUT} if ended.status == 0 else set())
        assert remains(tmp_path / "spill") == set()
        (tmp_path / OUTPUT).unlink(missing_ok=True)
    assert 74 in statuses


@pytest.mark.parametrize("verb", ["rank", "score", "slice", "pack"])
def test_26_a_disk_that_fills_up_is_named_with_the_bytes_that_did_not_fit(verb, run_of, tmp_path, here):
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / OUTPUT).write_bytes(b"old")
        said = here(*run_of(verb)[0], "--plain", "-f", "-o", disk / OUTPUT, status=74).stderr.decode()
        assert f"{disk / OUTPUT}: writing " in said
        assert "No space left on device; free some space" in said
        assert (disk / OUTPUT).read_bytes() == b"old"
        assert remains(disk) == {OUTPUT}


def test_26_37_a_temporary_directory_that_is_too_small_is_told_of_before_anything_is_read(corpus, tmp_path):
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
def test_26_standard_output_on_a_network_that_tells_of_a_full_disk_only_at_the_end(corpus, tmp_path):
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
@pytest.mark.parametrize("verb", PACK_IN_SWEEPS)
@pytest.mark.parametrize("target", ["old"], indirect=True)
def test_26_27_29_31_whatever_stops_another_verb_the_target_is_old_or_new(verb, run_of, target):
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
def test_30_killed_at_any_moment_rank_leaves_a_target_that_is_old_or_whole(moments, corpus, whole, tmp_path):
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
def test_33_of_two_runs_that_start_together_one_writes_and_no_lock_stays(times, corpus, whole, tmp_path):
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
def test_33_a_run_that_replaces_what_another_one_is_writing_waits_its_turn(times, corpus, whole, tmp_path):
    for _ in range(times):
        arguments = command("rank", "-f", corpus, "-o", tmp_path / OUTPUT)
        runs = [subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE) for _ in range(3)]
        said = [run.communicate()[1] for run in runs]
        assert {run.returncode for run in runs} <= {0, 75}, said
        assert (tmp_path / OUTPUT).read_bytes() == whole
        assert remains(tmp_path) == {OUTPUT}


# 35, 36: places that may not be read or written


def held(*arguments: object, status: int, stdin: bytes = b"") -> str:
    """Run as a user whom permissions hold: root passes over them by two capabilities."""
    powers = "-dac_override,-dac_read_search"
    held = ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"] if os.geteuid() == 0 else []
    if held and not shutil.which("setpriv"):
        pytest.skip("root cannot give up its powers without setpriv")
    done = subprocess.run([*held, *command(*arguments)], input=stdin, capture_output=True, cwd=ROOT)
    assert done.returncode == status, done.stderr.decode()
    return done.stderr.decode()


@pytest.mark.parametrize("verb", ["rank", *PACK_IN_SWEEPS])
def test_35_36_what_may_not_be_read_or_written_is_refused_before_any_work(verb, run_of, tmp_path):
    (*options, operand), _ = run_of(verb)
    (tmp_path / "secret").write_bytes(b"{}\n")
    (tmp_path / "secret").chmod(0)
    (tmp_path / "locked").mkdir(mode=0o555)
    assert "secret: reading is not permitted" in held(*options, tmp_path / "secret", status=77)
    assert "its directory cannot be written to" in held(
        *options, operand, "-o", tmp_path / "locked" / OUTPUT, status=77
    )
    if verb == "rank":
        assert "temporary files cannot be written to it" in held(
            *options, operand, "-T", tmp_path / "locked", status=77
        )
    assert remains(tmp_path / "locked") == set()


@pytest.mark.parametrize("verb", OTHERS)
def test_28_34_35_36_what_no_verb_reads_or_writes(verb, run_of, tmp_path, here):
    """tests/test_files.py has the same for rank, and more of it."""
    (*options, operand), _ = run_of(verb)
    source, link, target = tmp_path / "in", tmp_path / "link", tmp_path / OUTPUT
    source.write_bytes(operand.read_bytes())
    link.hardlink_to(source)
    target.write_bytes(b"old")
    for arguments, status, words in (
        ([source, "-o", target], 73, b"exists; -f replaces it"),
        ([source, "-f", "-o", source], 73, b"the output is also an input"),
        ([source, "-f", "-o", link], 73, b"the output is also an input"),
        ([source, "-f", "-o", tmp_path / "no" / OUTPUT], 73, b"its directory does not exist"),
        ([source, "-o", "/dev/full"], 74, b"No space left on device"),
        *(
            []
            if verb == "eval"
            else [([tmp_path / "missing"], 66, b"no such file"), ([tmp_path], 66, b"is a directory")]
        ),  # models
    ):
        said = here(*options, *arguments, status=status).stderr
        assert words in said
        assert said.count(b"\n") == 1
    assert source.read_bytes() == operand.read_bytes()
    assert target.read_bytes() == b"old"
    assert remains(tmp_path) == {"in", "link", OUTPUT}


def test_35_a_folder_that_takes_files_but_shows_none_is_written_to(corpus, tmp_path):
    drop = tmp_path / "drop"
    drop.mkdir()
    drop.chmod(0o333)
    held("rank", "-o", drop / OUTPUT, corpus, status=0)
    drop.chmod(0o777)
    assert remains(drop) == {OUTPUT}


def test_35_a_file_system_that_is_mounted_read_only(corpus, tmp_path):
    with small_disk(tmp_path / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        said = prune("rank", corpus, "-o", disk / OUTPUT, status=77).stderr.decode()
        assert "its directory cannot be written to" in said


def test_36_a_file_that_grows_while_rank_reads_it(tmp_path):
    path = tmp_path / "growing.jsonl"
    path.write_bytes(lines(scored(500)) * 40)
    with subprocess.Popen(
        command("rank", path, "-o", tmp_path / OUTPUT), cwd=ROOT, stderr=subprocess.PIPE
    ) as process:
        while process.poll() is None:
            with path.open("ab") as file:
                file.write(lines(scored(1)))
            time.sleep(0.001)
        said = process.stderr.read().decode()
    assert process.returncode == 74
    assert "changed while reading; run again when nothing writes to it" in said
    assert remains(tmp_path) == {"growing.jsonl"}


# 37, 38: limits


def test_37_few_open_files_and_many_inputs(tmp_path):
    """Inputs are opened one after the other."""
    paths = []
    for index, record in enumerate(scored(600)):
        paths.append(tmp_path / f"{index:03}.jsonl")
        paths[-1].write_bytes(lines([record]))
    few = prune(
        "rank", *paths, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
    ).stdout
    assert [record["id"] for record in records(few)] == [
        record["id"] for record in records(prune("rank", *paths).stdout)
    ]


@pytest.mark.parametrize("verb", ["rank", "slice", "stat"])
def test_38_without_memory_a_run_ends_with_71_and_no_traceback(verb, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines({"perplexity": index, "text": "x" * 100_000} for index in range(800)))
    options = {
        "rank": ["-S", "4G"],
        "slice": ["--keep", "top", "--frac", "1", "-k", "perplexity"],
        "stat": ["--duplicates"],
    }[verb]
    for megabytes in (290, 240, 180, 130):
        limited = [
            "prlimit",
            f"--as={megabytes << 20}",
            *command(verb, *options, path, "-o", tmp_path / OUTPUT),
        ]
        done = subprocess.run(limited, cwd=ROOT, capture_output=True)
        assert done.returncode in (0, 71), done.stderr.decode()
        assert b"Traceback" not in done.stderr, done.stderr.decode()
        assert remains(tmp_path) == {"in.jsonl"} | ({OUTPUT} if done.returncode == 0 else set())
        (tmp_path / OUTPUT).unlink(missing_ok=True)


def test_38_a_buffer_smaller_than_a_record_is_enough(corpus, whole):
    assert prune("rank", "-S", "1", corpus).stdout == whole


# 39: names


@pytest.mark.parametrize("name", [b"a b", b"a\nb", b"\xff\xfe", b"-f", b"..", b"%s", b"'\"$(x)"])
def test_39_odd_names_are_names(name, corpus, whole, tmp_path):
    folder = os.fsencode(tmp_path) + b"/" + name + b".d"
    os.mkdir(folder)
    source, target = folder + b"/" + name + b".jsonl", folder + b"/" + name + b".zst"
    with open(source, "wb") as file:
        file.write(corpus.read_bytes())
    prune("rank", os.fsdecode(source), "-o", os.fsdecode(target))
    with open(target, "rb") as file:
        assert file.read() == whole
    assert set(os.listdir(folder)) == {name + b".jsonl", name + b".zst"}


# 31, 44: a cron job's surroundings


@pytest.mark.parametrize("verb", ["rank", *PACK_IN_SWEEPS])
def test_44_no_home_no_locale_no_terminal_no_input_and_a_clock_that_jumps(verb, run_of):
    arguments, expected = run_of(verb)
    bare = {"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C", "TZ": "nowhere", "PYTHONPATH": str(ROOT)}
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    jumps = [
        {},
        *(
            {"LD_PRELOAD": str(library), "FAKETIME": time}
            for time in ("-40y", "+40y", "-1d x5000")
            if library
        ),
    ]
    for jump in jumps:
        done = subprocess.run(
            command(*arguments),
            cwd=ROOT,
            env=bare | jump,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, b"", expected), jump


@pytest.mark.parametrize("verb", OTHERS)
def test_44_closed_standard_streams(verb, run_of, tmp_path):
    arguments, whole = run_of(verb)
    scripts = [(f'"$@" -o {tmp_path}/{OUTPUT} <&- 2>&-', 0), ('"$@" >&-', 74)]
    for script, status in scripts[: 1 if verb == "pack" else 2]:
        assert (
            subprocess.run(
                ["sh", "-c", script, "sh", *command(*arguments)], cwd=ROOT, capture_output=True
            ).returncode
            == status
        )
    assert (tmp_path / OUTPUT).read_bytes() == whole
