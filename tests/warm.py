"""A command in a process of its own without seconds of imports: forked from one that has them.

A fresh process takes 0.3 s of processor time to start Python and import a verb, and 4 s with torch; the suite
starts hundreds. A fork shares with a fresh process all that comes after: arguments, environment, descriptors,
signals, exit status, memory and the interpreter's end. Tests of the start itself (closed streams, limits, odd
environments) run a fresh process.

`python -m tests.warm DESCRIPTOR MODULE...` is the process that is forked.
"""

import array
import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).resolve().parent.parent
LIGHT = tuple(f"prune_cli.stages.{verb}.run" for verb in ("rank", "slice", "stat", "score", "eval"))
HEAVY = (*LIGHT, "prune_cli.stages.pack.run", "prune_cli.stages.train", "torch", "transformers")
NUMBER = struct.Struct("<q")  # a process, then its exit status and its peak of resident bytes


# In the process that is forked


def serve(control: socket.socket) -> dict[str, Any]:
    """Fork a process for each order; returns in the forked process, with what it is to run."""
    running: dict[int, int] = {}
    woken, wake = os.pipe()
    for end in (woken, wake):
        os.set_blocking(end, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(wake)
    while True:
        ready, _, _ = select.select([control.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, 1 << 10)
            report_the_ended(running)
        if control.fileno() in ready:
            asked, descriptors, _, _ = socket.recv_fds(control, 1, 6)
            if not asked:
                os._exit(0)  # the tests are over
            pid = os.fork()
            if pid == 0:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                for end in (control.detach(), woken, wake, *running.values()):
                    os.close(end)
                return taken_over(descriptors)
            report, *rest = descriptors
            running[pid] = report
            for end in rest:
                os.close(end)


def report_the_ended(running: dict[int, int]) -> None:
    while running:
        pid, status, used = os.wait4(-1, os.WNOHANG)
        if not pid:
            return
        report = running.pop(pid)
        ended = NUMBER.pack(os.waitstatus_to_exitcode(status)) + NUMBER.pack(used.ru_maxrss << 10)
        with suppress(BrokenPipeError):  # who asked for it may have been killed
            os.write(report, ended)
        os.close(report)


def taken_over(descriptors: Sequence[int]) -> dict[str, Any]:
    """Make the descriptors of an order the process's own; waits until its gate is closed."""
    report, order, gate, *streams = descriptors
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    # Not before: who watches the system calls of this process would take these for the command's.
    os.write(report, NUMBER.pack(os.getpid()))
    os.close(report)
    with open(order) as file:
        file.seek(0)
        given: dict[str, Any] = json.load(file)
    os.read(gate, 1)
    os.close(gate)
    return given


def become(given: dict[str, Any]) -> None:
    """Run the command as a process does that was started with these arguments and this environment."""
    os.chdir(given["cwd"])
    os.environ.clear()
    os.environ.update(given["environment"])
    sys.argv = ["prune-cli", *given["arguments"]]
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=stream.isatty() or stream is sys.stderr)


# In the tests


@cache
def server(modules: tuple[str, ...]) -> socket.socket:
    """The way to a process that has imported `modules`; it ends with this one."""
    control, far = socket.socketpair()
    arguments = [sys.executable, "-m", "tests.warm", str(far.fileno()), *modules]
    process = subprocess.Popen(
        arguments, pass_fds=[far.fileno()], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    far.close()

    def end() -> None:
        control.close()
        process.wait()

    atexit.register(end)
    return control


def modules_for(arguments: Sequence[str]) -> tuple[str, ...]:
    """What a command would import first: torch, if it has a model, or an output that takes one."""
    verb = arguments[0] if arguments else ""
    heavy = verb in ("pack", "train") or (verb == "score" and "random" not in arguments)
    return HEAVY if heavy and ("-o" in arguments or "--model" in arguments) else LIGHT


class Started:
    """A command that runs, or that waits for `go`; as of `subprocess.Popen`."""

    def __init__(
        self,
        arguments: Sequence[object],
        *,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        stderr: IO[bytes] | None = None,
        cwd: Path = ROOT,
        environment: dict[str, str] | None = None,
    ) -> None:
        words = [os.fspath(word) if isinstance(word, os.PathLike) else str(word) for word in arguments]
        given = {"arguments": words, "cwd": str(cwd), "environment": {**os.environ, **(environment or {})}}
        self.report, report = os.pipe()
        gate, self.gate = os.pipe()
        with tempfile.TemporaryFile("w+") as order, open(os.devnull, "r+b", buffering=0) as nowhere:
            json.dump(given, order)
            order.flush()
            streams = [(stream or nowhere).fileno() for stream in (stdin, stdout, stderr)]
            ends = array.array("i", [report, order.fileno(), gate, *streams])
            right = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, ends)]
            server(modules_for(words)).sendmsg([b"!"], right)
        os.close(report)
        os.close(gate)
        self.pid = self._number()
        self.returncode: int | None = None
        self.peak = 0  # resident bytes, known when the process has ended

    def _number(self) -> int:
        [number] = NUMBER.unpack(os.read(self.report, NUMBER.size))
        return int(number)

    def go(self) -> "Started":
        os.close(self.gate)
        return self

    def wait(self) -> int:
        if self.returncode is None:
            self.returncode = self._number()
            self.peak = self._number()
            os.close(self.report)
        return self.returncode


def run(
    arguments: Sequence[object], stdin: bytes = b"", cwd: Path = ROOT
) -> subprocess.CompletedProcess[bytes]:
    """A command whose three streams are pipes, fed with some bytes; as of `subprocess.run`."""
    (given, feed), (out, to_out), (said, to_said) = (os.pipe() for _ in range(3))
    with open(given, "rb") as source, open(to_out, "wb") as sink, open(to_said, "wb") as log:
        started = Started(arguments, stdin=source, stdout=sink, stderr=log, cwd=cwd)
    # A thread for each pipe: none may fill up while another is waited for.
    with ThreadPoolExecutor(3) as threads:
        feeding = threads.submit(_feed, feed, stdin)
        contents = [threads.submit(_content, end) for end in (out, said)]
        status = started.go().wait()
        feeding.result()
        return subprocess.CompletedProcess(
            [*map(str, arguments)], status, *(content.result() for content in contents)
        )


def _feed(descriptor: int, content: bytes) -> None:
    with suppress(BrokenPipeError), open(descriptor, "wb", buffering=0) as pipe:
        rest = memoryview(content)
        while rest:
            rest = rest[pipe.write(rest) :]


def _content(descriptor: int) -> bytes:
    with open(descriptor, "rb") as pipe:
        return pipe.read()


if __name__ == "__main__":
    way = socket.socket(fileno=int(sys.argv[1]))
    for module in sys.argv[2:]:
        # Where the libraries of models are not installed, commands without models are still run.
        with suppress(ModuleNotFoundError):
            importlib.import_module(module)
    # A fork that looks for garbage among these objects would copy the pages that they are on.
    gc.freeze()
    become(serve(way))
    importlib.import_module("prune_cli.cli").main()
