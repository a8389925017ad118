"""What a run does to the machine: names that it leaves, a small disk that it fills, its peak memory."""

import subprocess
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile

import pytest

from .. import warm

# Rank stands for the other verbs where a run is long or there are many.
OTHERS = ["score", "slice", "stat", "pack", "eval"]


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


def peak(*arguments: object) -> tuple[int, str, int]:
    """Exit status, message and peak resident bytes of a run, with the modules that it has imported."""
    with TemporaryFile() as said:
        started = warm.Started(arguments, stderr=said).go()
        status = started.wait()
        said.seek(0)
        return status, said.read().decode(), started.peak
