"""Which processes do the work? N of them on this machine, spawned; one that dies is replaced.

A job whose worker dies is done again by another, three times at most. Each worker has a connection of its
own: a queue that all share could be locked for ever by a worker that is killed.
"""

import logging
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait
from typing import Any, Generic

from ..errors import Interrupted, PruneError, TryAgainError
from ..settings.streams import Messages, Reading, processors
from ..terminal import Progress
from .watch import Watch
from .work import AnyReport, Engine, SomeJob, Stage
from .worker import GRACE, Begin, Do, Kind, Message, Setup, main

TRIES = 3
AHEAD = 2  # jobs a worker that `each` has finished or begun, and whose reports the caller has not taken
# Spawned, never forked: a fork copies locks that threads of the parent hold, and cannot use a GPU.
_context = get_context("spawn")

log = logging.getLogger(__name__)


class WorkerBug(Exception):
    """An exception in a worker that is nobody's fault but ours, with the traceback of that process."""


class WorkerProcesses(Engine):
    """Worker processes on this machine. They start with the first jobs, and stay until the engine is closed.

    `devices` are names of GPUs as CUDA_VISIBLE_DEVICES takes them: worker i sees only the i-th, in turn.
    """

    def __init__(
        self, workers: int, messages: Messages, devices: Sequence[str] = (), watch: Watch | None = None
    ) -> None:
        self.workers = workers
        self.messages = messages
        self.devices = devices
        self.watch = watch or Watch()
        self.idle: list[_Process] = []

    def each(
        self, stage: Stage[SomeJob, AnyReport], jobs: Sequence[SomeJob], progress: Progress
    ) -> Iterator[AnyReport]:
        return _Run(self, stage, jobs, progress, ahead=AHEAD * self.workers).reports()

    def map(
        self, stage: Stage[SomeJob, AnyReport], jobs: Sequence[SomeJob], progress: Progress
    ) -> list[AnyReport]:
        return list(_Run(self, stage, jobs, progress, ahead=len(jobs)).reports())

    def close(self) -> None:
        for process in self.idle:
            process.dismiss()
        self.idle.clear()
        self.watch.alive(0)

    def start(self, number: int) -> "_Process":
        """A new worker process, the `number`-th from 1."""
        setup = Setup(
            number=number,
            of=self.workers,
            quiet=self.messages.quiet,
            verbose=self.messages.verbose,
            recursion_limit=sys.getrecursionlimit(),
            switch_interval=sys.getswitchinterval(),
            unsigned=isinstance(self.messages, Reading) and self.messages.no_sign_request,
        )
        return _Process(setup, environment(number, self.workers, self.devices))


def environment(number: int, workers: int, devices: Sequence[str]) -> dict[str, str]:
    """The variables of a worker's environment that differ from ours. Libraries read them when they load."""
    changed = {}
    if devices:
        changed["CUDA_VISIBLE_DEVICES"] = devices[(number - 1) % len(devices)]
    if "OMP_NUM_THREADS" not in os.environ:
        changed["OMP_NUM_THREADS"] = str(max(1, processors() // workers))
    return changed


class _Process:
    """A worker process, as its parent sees it."""

    def __init__(self, setup: Setup, variables: Mapping[str, str]) -> None:
        self.number = setup.number
        self.connection, theirs = _context.Pipe()
        # Daemonic: multiprocessing ends it if this process ends without closing the engine.
        self.process = _context.Process(
            target=main, args=(theirs, setup), name=f"worker {setup.number}", daemon=True
        )
        with _variables(variables), _signals_blocked():
            self.process.start()
        # The end of the connection shows that the worker is dead only if nobody else holds that end.
        theirs.close()
        self.stage: Any = None
        self.job: int | None = None
        self.advanced = 0.0  # by the job that it does

    def begin(self, stage: Stage[Any, Any], index: int, job: Any) -> None:
        """Send a job. A worker that is dead shows when its answer is read."""
        self.job = index
        self.advanced = 0.0
        with suppress(OSError):
            if self.stage is not stage:
                self.stage = stage
                self.connection.send(Begin(stage))
            self.connection.send(Do(job))

    def receive(self) -> Message:
        """The next message, `lost` if the process is dead."""
        try:
            message: Message = self.connection.recv()
        except (EOFError, OSError):
            return Message(Kind.lost, self._death())
        return message

    def _death(self) -> str:
        self.process.join(GRACE)
        status = self.process.exitcode
        if status is None or status >= 0:
            return f"exit status {status}"
        hint = ": out of memory?" if status == -signal.SIGKILL else ""
        return f"killed by {signal.Signals(-status).name}{hint}"

    def dismiss(self) -> None:
        """End a process that has nothing to do."""
        self.connection.close()
        self._join()

    def terminate(self) -> None:
        """Ask the process to stop its job in order."""
        self.process.terminate()

    def last_words(self) -> Any:
        """How a job ended that was stopped; None if the process did not say."""
        content = None
        # A signal may have come while a message was read: then the rest of it is no message at all.
        with suppress(Exception):
            message = Message(Kind.progress, 0)
            while message.kind in (Kind.progress, Kind.note) and self.connection.poll(GRACE):
                message = self.receive()
                content = message.content if message.kind is Kind.stopped else None
        self.connection.close()
        self._join()
        return content

    def _join(self) -> None:
        self.process.join(GRACE)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()


@dataclass
class _Run(Generic[SomeJob, AnyReport]):
    """Jobs of a stage, from the first that is dealt to the last report that is taken."""

    engine: WorkerProcesses
    stage: Stage[SomeJob, AnyReport]
    jobs: Sequence[SomeJob]
    progress: Progress
    ahead: int  # jobs that may be finished or begun, and whose reports are not taken

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.jobs)))
        self.deaths: Counter[int] = Counter()
        self.busy: dict[Any, _Process] = {}  # by connection
        self.finished: dict[int, AnyReport] = {}
        self.taken = 0
        self.engine.watch.begin(self.stage.verb, len(self.jobs), self.progress)

    def reports(self) -> Iterator[AnyReport]:
        """See `Engine.each`."""
        try:
            while self.taken < len(self.jobs):
                self._deal()
                if self.taken in self.finished:
                    self.taken += 1
                    yield self.finished.pop(self.taken - 1)
                    continue
                for connection in wait(list(self.busy)):
                    self._take(self.busy[connection])
        except Interrupted:
            # A worker may know how the run is resumed, which is worth more than that it was stopped.
            if resumable := self._stop():
                raise resumable from None
            raise
        finally:
            self._stop()

    def _deal(self) -> None:
        """Give jobs to processes that have none, as far ahead as allowed."""
        engine = self.engine
        while self.waiting and len(self.busy) < engine.workers:
            if self.waiting[0] >= self.taken + self.ahead:
                return
            # A number is free again once its process is gone: CUDA_VISIBLE_DEVICES goes with it.
            taken = {process.number for process in self.busy.values()}
            process = engine.idle.pop() if engine.idle else engine.start(_first_free(taken))
            self.busy[process.connection] = process
            engine.watch.alive(len(self.busy) + len(engine.idle))
            index = self.waiting.popleft()
            process.begin(self.stage, index, self.jobs[index])

    def _take(self, process: _Process) -> None:
        """Take the next message of a process."""
        kind, content = process.receive()
        if kind is Kind.progress:
            process.advanced += content
            self.progress.advance(content)
        elif kind is Kind.note:
            return  # it is that of one worker; the engine has a note of its own
        elif kind is Kind.done:
            assert process.job is not None
            self.finished[process.job] = content
            self.engine.watch.finished(len(self.finished) + self.taken)
            del self.busy[process.connection]
            self.engine.idle.append(process)
        elif kind is Kind.failed:
            raise content
        elif kind is Kind.bug:
            raise WorkerBug(f"in a worker process:\n{content}")
        else:
            # A signal that only the worker got counts as its death.
            self._bury(process, content if kind is Kind.lost else "stopped by a signal")

    def _bury(self, process: _Process, reason: str) -> None:
        """Put the job of a dead process back. Raises TryAgainError if it was the last try."""
        del self.busy[process.connection]
        process.dismiss()
        assert process.job is not None
        self.progress.advance(-process.advanced)
        self.deaths[process.job] += 1
        name = self.jobs[process.job].name
        tries = self.deaths[process.job]
        if tries == TRIES:
            fault = f"its worker died {TRIES} times ({reason})"
            remedy = "the same command continues; fewer --jobs leave more memory to each"
            raise TryAgainError(fault, place=name, remedy=remedy)
        log.warning("worker %d died (%s): %s is tried again", process.number, reason, name)
        self.engine.watch.tried_again()
        # In front: the caller waits for the oldest job.
        self.waiting.appendleft(process.job)

    def _stop(self) -> PruneError | None:
        """Stop the jobs that are being done. Returns the failure by which one of them can be resumed."""
        processes = list(self.busy.values())
        self.busy.clear()
        for process in processes:
            process.terminate()
        failures = [failure for process in processes if (failure := process.last_words())]
        return next(iter(failures), None)


def _first_free(taken: set[int]) -> int:
    return next(number for number in range(1, len(taken) + 2) if number not in taken)


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
