"""One run of a kind at a time: by a lock where files have locks, by signs of life elsewhere."""

import os
import subprocess
import sys
import time

import pytest

from prune_cli import storage
from prune_cli.errors import TryAgainError
from prune_cli.stream import lease as module
from prune_cli.stream.lease import Sign, lease

from ..conftest import ROOT
from ..test_storage import Memory

HOLD = """
import sys, time
from prune_cli.stream.lease import lease
with lease(sys.argv[1], "run"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["files", "objects"])
def folder(request, tmp_path, monkeypatch) -> str:
    monkeypatch.setattr(module, "SETTLING", 0.0)
    monkeypatch.setattr(module, "BEAT", 0.01)
    if request.param == "files":
        return str(tmp_path)
    memory = Memory()
    storage.register("lease", lambda: memory)
    return "lease://bucket/folder/"


def test_a_folder_is_held_for_one_run_of_a_kind(folder):
    with lease(folder, "run"):
        with pytest.raises(TryAgainError, match="another run is writing it"), lease(folder, "run"):
            raise AssertionError
        with lease(folder, "another"):
            pass
    with lease(folder, "run"):
        pass


def test_a_run_that_fails_gives_the_folder_free(folder):
    with pytest.raises(ZeroDivisionError), lease(folder, "run"):
        raise ZeroDivisionError
    with lease(folder, "run"):
        pass


def test_nothing_is_left_where_files_have_locks(tmp_path):
    with lease(str(tmp_path), "run"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_run_that_was_killed_does_not_block_the_next(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(TryAgainError), lease(str(tmp_path), "run"):
            raise AssertionError
        process.kill()
    with lease(str(tmp_path), "run"):
        pass


# --- Signs of life ---


@pytest.fixture
def sign(monkeypatch):
    """Writes a sign of life into the folder of objects."""
    memory = Memory()
    storage.register("lease", lambda: memory)
    monkeypatch.setattr(module, "SETTLING", 0.0)

    def write(age: float) -> None:
        module._write("lease://b/run.json", Sign("another", time.time() - age), force=True)

    return write


def test_a_sign_that_is_old_is_that_of_a_dead_run(sign):
    sign(age=module.EXPIRY + 1)
    with lease("lease://b/", "run"):
        living = module._read("lease://b/run.json")
        assert living is not None
        assert living.run != "another"
    ended = module._read("lease://b/run.json")
    assert ended is not None
    assert ended.time == 0


@pytest.mark.parametrize("age", [0, module.EXPIRY - 30, -5])
def test_a_sign_that_is_young_is_that_of_a_living_run(age, sign):
    """Also one from the future, of a machine whose clock is a little ahead."""
    sign(age)
    with pytest.raises(TryAgainError, match="this one may begin in"), lease("lease://b/", "run"):
        raise AssertionError


def test_signs_are_renewed_while_the_run_lives(sign, monkeypatch):
    monkeypatch.setattr(module, "BEAT", 0.01)
    with lease("lease://b/", "run"):
        first = module._read("lease://b/run.json")
        end = time.monotonic() + 10
        while module._read("lease://b/run.json") == first:
            assert time.monotonic() < end
            time.sleep(0.01)


def test_of_two_runs_that_find_a_dead_one_the_last_holds_the_folder(sign, monkeypatch):
    sign(age=module.EXPIRY + 1)
    # Another run writes while this one waits to see.
    monkeypatch.setattr("prune_cli.stream.lease.time.sleep", lambda seconds: sign(age=0))
    with pytest.raises(TryAgainError), lease("lease://b/", "run"):
        raise AssertionError
