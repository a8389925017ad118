"""How do processes of this machine become workers? They are spawned; one that dies is replaced.

Each worker has a connection of its own: a queue that all share could be locked for ever by a worker that is
killed.
"""

import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait
from typing import Any

from ..settings.streams import Messages, Reading, processors
from .crew import Crew, CrewMember, first_free
from .watch import Watch
from .worker import GRACE, Kind, Message, Order, Setup, main

# Spawned, never forked: a fork copies locks that threads of the parent hold, and cannot use a GPU.
_context = get_context("spawn")


class WorkerProcesses(Crew):
    """Worker processes on this machine.

    `devices` are names of GPUs as CUDA_VISIBLE_DEVICES takes them: worker i sees only the i-th, in turn.
    """

    remedy = "the same command continues; fewer --jobs leave more memory to each"

    def __init__(
        self, workers: int, messages: Messages, devices: Sequence[str] = (), watch: Watch | None = None
    ) -> None:
        super().__init__(workers, watch)
        self.messages = messages
        self.devices = devices

    def recruit(self, taken: AbstractSet[int], wanted: int) -> "WorkerProcess":
        number = first_free(taken)
        setup = setup_of(number, self.workers, self.messages)
        return WorkerProcess(setup, environment(number, self.workers, self.devices))

    def wait(self, busy: Sequence[CrewMember]) -> Sequence[CrewMember]:
        by_connection = {member.connection: member for member in busy if isinstance(member, WorkerProcess)}
        # mypy takes the result of `wait` for any of the things that can be waited for.
        ready: list[Any] = wait(by_connection)
        return [by_connection[connection] for connection in ready]


def setup_of(number: int, workers: int, messages: Messages) -> Setup:
    """The setup of one of so many workers that share a machine, with the limits of this process."""
    return Setup(
        number=number,
        of=workers,
        quiet=messages.quiet,
        verbose=messages.verbose,
        recursion_limit=sys.getrecursionlimit(),
        switch_interval=sys.getswitchinterval(),
        unsigned=isinstance(messages, Reading) and messages.no_sign_request,
    )


def environment(number: int, workers: int, devices: Sequence[str]) -> dict[str, str]:
    """The variables of a worker's environment that differ from ours. Libraries read them when they load."""
    changed = {}
    if devices:
        changed["CUDA_VISIBLE_DEVICES"] = devices[(number - 1) % len(devices)]
    if "OMP_NUM_THREADS" not in os.environ:
        changed["OMP_NUM_THREADS"] = str(max(1, processors() // workers))
    return changed


class WorkerProcess(CrewMember):
    """A worker process, as its parent sees it."""

    def __init__(self, setup: Setup, variables: Mapping[str, str]) -> None:
        super().__init__(setup.number)
        self.connection, theirs = _context.Pipe()
        # Daemonic: multiprocessing ends it if this process ends without closing the engine.
        self.process = _context.Process(
            target=main, args=(theirs, setup), name=f"worker {setup.number}", daemon=True
        )
        with _variables(variables), _signals_blocked():
            self.process.start()
        # The end of the connection shows that the worker is dead only if nobody else holds that end.
        theirs.close()

    def send(self, orders: Sequence[Order]) -> None:
        with suppress(OSError):
            for order in orders:
                self.connection.send(order)

    def receive(self) -> list[Message]:
        return [self._next()]

    def _next(self) -> Message:
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError):
            return self.death()
        return message

    def death(self) -> Message:
        """The message of a process that is dead and cannot send one."""
        self.process.join(GRACE)
        status = self.process.exitcode
        if status is None or status >= 0:
            return Message(Kind.lost, f"exit status {status}")
        hint = ": out of memory?" if status == -signal.SIGKILL else ""
        return Message(Kind.lost, f"killed by {signal.Signals(-status).name}{hint}")

    def dismiss(self) -> None:
        self.connection.close()
        self._join()

    def terminate(self) -> None:
        self.process.terminate()

    def last_words(self) -> Any:
        content = None
        # A signal may have come while a message was read: then the rest of it is no message at all.
        with suppress(Exception):
            message = Message(Kind.progress, 0)
            while message.kind in (Kind.progress, Kind.line) and self.connection.poll(GRACE):
                message = self._next()
                content = message.content if message.kind is Kind.stopped else None
        self.dismiss()
        return content

    def _join(self) -> None:
        self.process.join(GRACE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()


@contextmanager
def _variables(changed: Mapping[str, str]) -> Iterator[None]:
    """Change the environment that a new process inherits: multiprocessing has no argument for it."""
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block the signals that workers ignore: a new process would die of them until it says so itself."""
    # multiprocessing unblocks SIGINT when it starts its resource tracker, so that comes first.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGHUP))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
