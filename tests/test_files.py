"""Operands and outputs: inputs untouched, outputs whole or absent, refusals before any work."""

import fcntl
import os
import resource
import signal
import subprocess
import threading
import time

import pytest

from prune_cli.errors import InputOutputError
from prune_cli.storage.local.reading import LocalInput

from .conftest import PATIENCE, command, lines, prune, records, scored

RECORDS = lines(scored(20))


def remains(folder) -> set[str]:
    return {entry.name for entry in folder.iterdir()}


def wait_for_a_file_in(folder) -> None:
    for _ in range(400):
        if remains(folder):
            return
        time.sleep(0.05)
    raise AssertionError(f"nothing appeared in {folder}")


def test_an_output_appears_whole_and_leaves_no_temporary_file(tmp_path):
    prune("rank", "-o", tmp_path / "out.jsonl.zst", stdin=RECORDS)
    assert len(records((tmp_path / "out.jsonl.zst").read_bytes())) == 20
    assert remains(tmp_path) == {"out.jsonl.zst"}


def test_an_output_named_jsonl_is_plain(tmp_path):
    prune("rank", "-o", tmp_path / "out.jsonl", stdin=RECORDS)
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 20


def test_an_existing_output_is_refused_without_force_and_replaced_with_it(tmp_path):
    target = tmp_path / "out"
    target.write_text("old")
    assert b"exists; -f replaces it" in prune("rank", "-o", target, stdin=RECORDS, status=73).stderr
    assert target.read_text() == "old"
    prune("rank", "-f", "-o", target, stdin=RECORDS)
    assert len(records(target.read_bytes())) == 20


def test_a_failed_run_leaves_the_old_output_and_no_other_file(tmp_path):
    target = tmp_path / "out"
    target.write_text("old")
    prune("rank", "-f", "-o", target, stdin=RECORDS + b"oops\n", status=65)
    assert target.read_text() == "old"
    assert remains(tmp_path) == {"out"}


@pytest.mark.parametrize("link", ["same", "hard", "symbolic"])
def test_the_output_may_not_be_an_input(link, tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "in.jsonl"
    source.write_bytes(RECORDS)
    if link != "same":
        target = tmp_path / "link"
        (target.hardlink_to if link == "hard" else target.symlink_to)(source)
    assert b"the output is also an input" in prune("rank", "-f", "-o", target, source, status=73).stderr
    assert source.read_bytes() == RECORDS
    with source.open("ab") as appended:
        done = subprocess.run(command("rank", source), stdout=appended, stderr=subprocess.PIPE)
    assert done.returncode == 73
    assert source.read_bytes() == RECORDS


def test_an_impossible_output_is_reported_before_reading(tmp_path):
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert (
        b"directory does not exist; mkdir -p"
        in prune("rank", "-o", tmp_path / "no" / "out", status=73).stderr
    )
    assert b"is a directory" in prune("rank", "-o", tmp_path, status=73).stderr
    assert b"symbolic link to nothing" in prune("rank", "-o", tmp_path / "dangling", status=73).stderr


def test_pipes_and_devices_are_written_directly(tmp_path):
    prune("rank", "-o", "/dev/null", stdin=RECORDS)
    os.mkfifo(tmp_path / "fifo")
    heard: list[bytes] = []
    reader = threading.Thread(target=lambda: heard.append((tmp_path / "fifo").read_bytes()))
    reader.start()
    prune("rank", "-o", tmp_path / "fifo", stdin=RECORDS)
    reader.join()
    assert len(records(heard[0])) == 20


def test_inputs_that_cannot_be_read_are_named_before_any_work(tmp_path):
    assert b"no such file" in prune("rank", tmp_path / "missing", status=66).stderr
    assert b"is a directory; name its files" in prune("rank", tmp_path, status=66).stderr
    assert b"named twice" in prune("rank", "-", "-", status=2).stderr


def test_an_input_name_with_the_wrong_suffix_gives_a_warning(tmp_path):
    (tmp_path / "in.jsonl.zst").write_bytes(RECORDS)
    done = prune("rank", tmp_path / "in.jsonl.zst")
    assert b"in.jsonl.zst: the name says zstd, the content is plain: read as plain" in done.stderr
    assert len(records(done.stdout)) == 20


def test_an_output_name_with_the_wrong_suffix_gives_a_warning(tmp_path, here):
    assert b"out.gz despite its name" in here("rank", "-o", tmp_path / "out.gz", stdin=RECORDS).stderr
    assert here("rank", "-o", tmp_path / "out.zst", stdin=RECORDS).stderr == b""


def test_a_terminal_is_not_read_from_and_gets_plain_lines(tmp_path):
    ours, theirs = os.openpty()
    done = subprocess.run(command("rank"), stdin=theirs, capture_output=True)
    assert (done.returncode, done.stdout) == (2, b"")
    assert b"standard input is a terminal and no FILE was given" in done.stderr
    subprocess.run(command("rank"), input=lines(scored(1)), stdout=theirs, check=True)
    assert os.read(ours, 10_000).startswith(b'{"id": "doc-0"')
    os.close(ours)
    os.close(theirs)


def test_odd_file_names_are_shown_on_one_line(tmp_path):
    name = os.fsencode(tmp_path) + b"/a\nb \xff.jsonl"
    with open(name, "wb") as file:
        file.write(b"oops\n")
    said = prune("rank", os.fsdecode(name), status=65).stderr
    assert said.count(b"\n") == 1
    assert b"a\\nb \\xff.jsonl:1: not JSON" in said
    with open(tmp_path / "-dash", "wb") as file:
        file.write(RECORDS)
    prune("rank", "--", "-dash", cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.getcwd()})


def test_a_file_that_changes_while_it_is_read_is_an_error(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(RECORDS)

    def grow_while_reading() -> None:
        with LocalInput(str(path)).open() as raw:
            raw.read(10)
            path.write_bytes(RECORDS + RECORDS)

    with pytest.raises(InputOutputError, match="changed while reading"):
        grow_while_reading()


def test_a_full_device_is_an_error_without_a_traceback():
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command("rank"), input=RECORDS, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 74
    assert b"No space left" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_a_limit_on_file_sizes_is_an_error_and_nothing_is_left(tmp_path):
    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))

    said = prune("rank", "-o", tmp_path / "out", stdin=RECORDS * 20, status=74, preexec_fn=limited).stderr
    assert b"ulimit -f" in said
    assert remains(tmp_path) == set()


def test_the_second_of_two_runs_on_one_output_fails_at_once(tmp_path):
    target = tmp_path / "out"
    with subprocess.Popen(
        command("rank", "-o", target), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as first:
        wait_for_a_file_in(tmp_path)
        assert b"another run is writing it" in prune("rank", "-o", target, stdin=RECORDS, status=75).stderr
        first.communicate(RECORDS)
        assert first.returncode == 0
    assert remains(tmp_path) == {"out"}


def test_leftovers_of_a_killed_run_do_not_stop_the_next(tmp_path):
    target = tmp_path / "out"
    with subprocess.Popen(command("rank", "-o", target), stdin=subprocess.PIPE) as first:
        wait_for_a_file_in(tmp_path)
        first.kill()
    assert remains(tmp_path) == {".out.prune-cli"}
    prune("rank", "-o", target, stdin=RECORDS)
    assert remains(tmp_path) == {"out"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_run_by_that_signal_and_leaves_nothing(number, tmp_path):
    with subprocess.Popen(
        command("rank", "-o", tmp_path / "out"), stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        wait_for_a_file_in(tmp_path)
        process.send_signal(number)
        assert process.stderr.read() == b""
        assert process.wait(timeout=PATIENCE) == -number
    assert remains(tmp_path) == set()


def test_closed_standard_streams_do_not_become_files(tmp_path):
    def closed(script: str, status: int) -> None:
        assert (
            subprocess.run(
                ["sh", "-c", script, "sh", *command("rank")], input=RECORDS, cwd=os.getcwd()
            ).returncode
            == status
        )

    closed('"$@" >&-', 74)
    closed('"$@" <&-', 66)
    closed(f'"$@" -o {tmp_path}/out 2>&-', 0)
    closed(f'"$@" -o {tmp_path}/out 2>&-', 73)


def test_runs_without_home_terminal_or_locale(tmp_path):
    done = prune("rank", "--plain", stdin=RECORDS, env={"PATH": "/usr/bin:/bin", "LANG": "C", "LC_ALL": "C"})
    assert len(done.stdout.splitlines()) == 20
    assert done.stderr == b""


def test_an_interrupted_lock_is_not_held(tmp_path):
    """A stale lock is impossible: the system drops it with the process, and a file nobody locks is taken
    over.
    """
    stale = tmp_path / ".out.prune-cli"
    stale.write_bytes(b"half")
    prune("rank", "-o", tmp_path / "out", stdin=RECORDS)
    stale.write_bytes(b"half")
    with stale.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        prune("rank", "-f", "-o", tmp_path / "out", stdin=RECORDS, status=75)
