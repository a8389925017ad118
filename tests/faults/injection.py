"""Failures of the system, produced by strace(1): the N-th call of a kind that touches some paths fails, or
kills the process.
"""

import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

import pytest

from .. import warm
from ..conftest import PATIENCE, ROOT

OUTPUT, TEMPORARY = "out.zst", ".out.zst.prune-cli"


@cache
def can_trace() -> bool:
    """Whether strace is there, and this machine lets it trace and inject."""
    if not shutil.which("strace"):
        return False
    return (
        subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=sync:error=EIO", "true"],
            capture_output=True,
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
    number: int | str,
    paths: list[Path],
    *arguments: object,
    stdout: Path | str = "/dev/null",
    program: Callable[..., list[str]] | None = None,
) -> Ended:
    """Run a command with the `number`-th of the system calls `call` on one of `paths` failing: `error=EIO`,
    or `signal=KILL`; `3+` is the third and all after it. A `program` begins as a fresh process, whose every
    call counts; without one the command has imported its modules.
    """
    with TemporaryDirectory() as folder, open(stdout, "wb") as out:
        trace, said = Path(folder) / "trace", Path(folder) / "stderr"
        watched = [option for path in paths for option in ("-P", str(path))]
        injected = ["-e", f"trace={call}", "-e", f"inject={call}:{fault}:when={number}"]
        tracing = ["strace", "-f", "-o", str(trace), *watched, *injected]
        with said.open("wb") as stderr:
            if program:
                status = _fresh(tracing, program(*arguments), out, stderr)
            else:
                status = _attached(tracing, arguments, out, stderr)
        met = "INJECTED" in trace.read_text() or status < 0
        return Ended(status, said.read_text(), met)


def _fresh(tracing: list[str], program: list[str], out: IO[bytes], stderr: IO[bytes]) -> int:
    # Stopped at the calls that are asked for alone a run takes half as long; signals do not reach it there.
    alone = [] if any(":signal=" in word for word in tracing) else ["--seccomp-bpf"]
    done = subprocess.run(
        [*tracing, "-qq", *alone, *program],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=stderr,
        cwd=ROOT,
        timeout=PATIENCE,
    )
    return done.returncode


def _attached(tracing: list[str], arguments: Sequence[object], out: IO[bytes], stderr: IO[bytes]) -> int:
    started = warm.Started(arguments, stdout=out, stderr=stderr)
    with subprocess.Popen([*tracing, "-p", str(started.pid)], stderr=subprocess.PIPE) as tracer:
        attached = tracer.stderr.readline()  # from here on no call escapes
        status = started.go().wait()
        rest = tracer.stderr.read()
    assert b" attached" in attached, attached + rest
    return status


def every_fault(
    call: str,
    fault: str,
    paths: list[Path],
    *arguments: object,
    program: Callable[..., list[str]] | None = None,
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
