"""Descriptors are no files: what the caller opened is written to at its position."""

import json
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from prune_cli import storage

from ..conftest import command, lines

DATA = lines([{"id": n, "text": "t", "perplexity": float(n)} for n in (2, 1, 3)])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "a.jsonl").write_bytes(DATA)
    return tmp_path / "a.jsonl"


@contextmanager
def appending(path: Path) -> Iterator[int]:
    """A descriptor of a log that already holds a line."""
    path.write_bytes(b"earlier\n")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("force", [[], ["-f"]], ids=["without -f", "with -f"])
@pytest.mark.parametrize("folder", ["/dev/fd", "/proc/self/fd"])
def test_a_redirected_descriptor_is_appended_to(here, tmp_path, data, folder, force):
    with appending(tmp_path / "log") as log:
        here("rank", "--plain", "-o", f"{folder}/{log}", *force, data)
        os.write(log, b"later\n")
    first, *ranked, last = (tmp_path / "log").read_bytes().splitlines()
    assert (first, last) == (b"earlier", b"later")
    assert [json.loads(line)["id"] for line in ranked] == [1, 2, 3]


def test_a_descriptor_without_append_is_written_to_at_its_position(here, tmp_path, data):
    with open(tmp_path / "log", "wb", buffering=0) as file:
        file.write(b"earlier\n")
        here("rank", "--plain", "-o", f"/dev/fd/{file.fileno()}", data)
    assert (tmp_path / "log").read_bytes().startswith(b'earlier\n{"id": 1,')


@pytest.mark.parametrize("verb", ["slice", "stat", "score"])
def test_a_summary_in_standard_error_leaves_the_log(here, tmp_path, data, verb):
    with appending(tmp_path / "log") as log:
        name = f"/dev/fd/{log}"
        arguments: dict[str, list[str]] = {
            "slice": ["-k", "perplexity", "--keep", "bottom", "--frac", "1", "--summary", name],
            "stat": ["-o", name],
            "score": ["-m", "random", "--summary", name],
        }
        here(verb, *arguments[verb], data)
    assert (tmp_path / "log").read_bytes().startswith(b"earlier\n{")


@pytest.mark.parametrize("verb", ["slice", "score"])
@pytest.mark.parametrize("output", [["-o", "out"], ["-o", "/dev/stdout"], []], ids=["file", "device", "none"])
def test_a_summary_never_goes_where_the_records_go(here, monkeypatch, tmp_path, data, verb, output):
    monkeypatch.chdir(tmp_path)
    options = {"slice": ["-k", "perplexity", "--keep", "bottom", "--frac", "1"], "score": ["-m", "random"]}
    summary = "./out" if output[1:] == ["out"] else "/dev/fd/1"
    said = here(verb, *options[verb], *output, "--summary", summary, "-f", data, status=2).stderr
    assert b"two outputs are the same file" in said
    assert not (tmp_path / "out").exists()


def test_a_link_to_a_descriptor_is_that_descriptor(here, tmp_path, data):
    with appending(tmp_path / "log") as log:
        (tmp_path / "link").symlink_to(f"/dev/fd/{log}")
        here("rank", "--plain", "-o", tmp_path / "link", data)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "log").read_bytes().count(b"\n") == 4


def test_a_descriptor_that_cannot_be_written_to_is_refused(here, tmp_path, data):
    said = here("rank", "-o", "/dev/fd/987", data, status=73).stderr
    assert b"/dev/fd/987: is not open" in said
    with open(data, "rb") as file:
        said = here("rank", "-o", f"/dev/fd/{file.fileno()}", data, status=73).stderr
    assert b"is open for reading only" in said
    with open(data, "ab") as file:
        said = here("rank", "-o", f"/dev/fd/{file.fileno()}", data, status=73).stderr
    assert b"the output is also an input" in said
    assert data.read_bytes() == DATA


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666])
@pytest.mark.parametrize("resume", [[], ["--resume"]], ids=["", "resumable"])
def test_f_keeps_the_mode_of_the_file(here, tmp_path, data, mode, resume):
    output = tmp_path / "out.zst"
    output.write_bytes(b"old")
    output.chmod(mode)
    here("score", "-m", "random", "-f", *resume, "-o", output, data)
    assert stat.S_IMODE(output.stat().st_mode) == mode
    assert output.read_bytes() != b"old"


@pytest.mark.parametrize("verb", ["rank", "stat"])
def test_standard_output_may_be_closed(tmp_path, data, verb):
    line = " ".join(command(verb, "-o", tmp_path / "out", data)) + " >&-"
    done = subprocess.run(["sh", "-c", line], capture_output=True, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "out").stat().st_size


def test_a_folder_that_is_a_file_is_named(here, data):
    said = here("rank", "-o", data / "x", data, status=73).stderr.decode()
    assert f"{data}/x: {data} is not a directory; name another" in said
    said = here("rank", "-o", data / "x" / "y", data, status=73).stderr.decode()
    assert f"{data}/x/y: {data} is not a directory; name another" in said
    said = here("score", "-m", "random", "-O", data / "x", data, status=73).stderr.decode()
    assert f"{data}/x: {data} is not a directory; name another" in said


def test_a_file_that_replaces_a_read_only_one_can_be_opened_until_it_is_committed(here, tmp_path, data):
    """Else the next run could neither resume nor replace what a stopped run left."""
    target = tmp_path / "out.zst"
    target.write_bytes(b"old")
    target.chmod(0o444)
    with storage.create(str(target), force=True) as output:
        (unfinished,) = tmp_path.glob(".*prune-cli")
        assert stat.S_IMODE(unfinished.stat().st_mode) == 0o644
        output.write(b"new")
    assert stat.S_IMODE(target.stat().st_mode) == 0o444


def test_a_partial_file_beside_the_file_behind_a_descriptor_is_left_alone(here, tmp_path, data):
    partial = tmp_path / "log.partial"
    partial.write_bytes(b"another run's")
    with appending(tmp_path / "log") as log:
        here("score", "-m", "random", "--text-field", "text", "-f", "-o", f"/dev/fd/{log}", data)
    assert partial.read_bytes() == b"another run's"
