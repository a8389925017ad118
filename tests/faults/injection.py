"""Failures of the system, produced by strace(1): the N-th call of a kind that touches some paths fails, or
kills the process.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from ..conftest import PATIENCE, ROOT, command

STRACE = ("strace", "-f", "-qq")
OUTPUT, TEMPORARY = "out.zst", ".out.zst.prune-cli"


@cache
def can_trace() -> bool:
    """Whether strace is there, and this machine lets it trace and inject."""
    if not shutil.which("strace"):
        return False
    return (
        subprocess.run(
            [*STRACE, "-o", "/dev/null", "-e", "inject=sync:error=EIO", "true"], capture_output=True
        ).returncode
        == 0
    )


traced = pytest.mark.skipif(not can_trace(), reason="strace is not there, or may not trace")


@dataclass(frozen=True)
class Ended:
    """How a run ended, and whether the fault was met."""

    status: int
    stderr: str
    met: bool


def with_fault(
    call: str,
    fault: str,
    number: int,
    paths: list[Path],
    *arguments: object,
    stdout: Path | str = "/dev/null",
    program: Callable[..., list[str]] = command,
) -> Ended:
    """Run a command with the `number`-th of the system calls `call` on one of `paths` failing: `error=EIO`,
    or `signal=KILL`.
    """
    with TemporaryDirectory() as folder, open(stdout, "wb") as out:
        trace = Path(folder) / "trace"
        watched = [option for path in paths for option in ("-P", str(path))]
        injected = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}"]
        # Stopped at the calls that are asked for alone a run takes half as long; signals do not reach it
        # there.
        alone = ["--seccomp-bpf"] if fault.startswith("error") else []
        tracing = [*STRACE, *alone, "-o", str(trace), *watched, *injected, *program(*arguments)]
        done = subprocess.run(
            tracing, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.PIPE, cwd=ROOT, timeout=PATIENCE
        )
        met = "INJECTED" in trace.read_text() or done.returncode < 0
    return Ended(done.returncode, done.stderr.decode(), met)


def every_fault(
    call: str, fault: str, paths: list[Path], *arguments: object, program: Callable[..., list[str]] = command
) -> Iterator[tuple[int, Ended]]:
    """The same with the 1st, 2nd, 3rd … call, until the run meets no fault; each time it is to be looked at
    what is left.

    Fails where there is not even a first one: then nothing would have been tried.
    """
    number, met = 1, True
    while met:
        ended = with_fault(call, fault, number, paths, *arguments, program=program)
        met = ended.met
        assert met or number > 1, f"{call} is never called"
        yield number, ended
        number += 1
