"""What a run does to the machine: names that it leaves, a small disk that it fills, its peak memory."""

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from ..conftest import ROOT, command

# Rank stands for the other verbs where a run is long or there are many.
OTHERS = ["score", "slice", "stat", "pack", "eval"]
# A process of pack takes seconds to load its libraries: where it does as the others do, only sweeps start
# one.
PACK_IN_SWEEPS = ["score", "slice", "stat", "eval", pytest.param("pack", marks=pytest.mark.sweep)]


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


def peak(*arguments: object, stdin: bytes = b"") -> tuple[int, str, int]:
    """Exit status, message and peak resident bytes of a run; a small process in between, since a child's peak
    begins with its parent's.
    """
    measuring = (
        "import resource, subprocess, sys; status = subprocess.run(sys.argv[1:], "
        "stdout=subprocess.DEVNULL).returncode;"
        "print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss << 10)"
    )
    done = subprocess.run(
        [sys.executable, "-c", measuring, *command(*arguments)],
        input=stdin,
        capture_output=True,
        cwd=ROOT,
        check=True,
    )
    status, size = map(int, done.stdout.split())
    return status, done.stderr.decode(), size
