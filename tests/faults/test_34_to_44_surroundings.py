"""Faults 34 to 44: forbidden places, limits, odd names, and the surroundings of a cron job."""

import os
import resource
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from ..conftest import ROOT, command, lines, prune, records, scored
from .injection import OUTPUT
from .machine import OTHERS, remains, small_disk

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


@pytest.mark.parametrize("verb", ["rank", *OTHERS])
def test_35_36_forbidden_inputs_and_outputs_are_refused_before_any_work(verb, run_of, tmp_path):
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
def test_28_34_35_36_inputs_and_outputs_that_no_verb_accepts(verb, run_of, tmp_path, here):
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


# A verb begins anew at every clock, and pack takes seconds for it: the rest is for sweeps.
@pytest.mark.parametrize(
    ("verb", "clocks"),
    [
        ("rank", ("", "-40y", "+40y", "-1d x5000")),
        *((verb, ("", "-1d x5000")) for verb in ("score", "slice", "stat", "eval")),
        *(pytest.param(verb, ("-40y", "+40y"), marks=pytest.mark.sweep) for verb in OTHERS),
        pytest.param("pack", ("", "-1d x5000"), marks=pytest.mark.sweep),
    ],
)
def test_44_no_home_no_locale_no_terminal_no_input_and_a_clock_that_jumps(verb, clocks, run_of):
    arguments, expected = run_of(verb)
    bare = {"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C", "TZ": "nowhere", "PYTHONPATH": str(ROOT)}
    library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)
    for clock in clocks:
        jump = {"LD_PRELOAD": str(library), "FAKETIME": clock} if clock and library else {}
        done = subprocess.run(
            command(*arguments),
            cwd=ROOT,
            env=bare | jump,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            start_new_session=True,
        )
        assert (done.returncode, done.stderr, done.stdout) == (0, b"", expected), clock


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
