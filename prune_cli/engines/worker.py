"""What does a worker process do? It takes jobs from a connection, does them, and sends reports back.

The parent may be killed at any moment. A worker notices that through the pipe that multiprocessing keeps
open for it, and stops in order, so that no half output is left behind.
"""

import logging
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import partial
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, NamedTuple, NoReturn

from .. import storage, terminal
from ..errors import (
    InputOutputError,
    Interrupted,
    OutOfMemoryError,
    PruneError,
    TryAgainError,
    lost_device,
    ran_out_of_memory,
)
from ..settings import streams
from .work import Stage

PERIOD = 0.2  # seconds between two messages about progress: a bar is not drawn more often
GRACE = 30.0  # seconds that a worker gets to end in order

log = logging.getLogger(__name__)


class Kind(Enum):
    """What a message of a worker says."""

    progress = "progress"  # the amount that was done since the last one
    line = "line"  # a line for standard error, if this process has none that anybody sees
    done = "done"  # the report of the job
    failed = "failed"  # the PruneError that ends the run
    lost = "lost"  # the reason why this process cannot go on; another one may do the job
    stopped = "stopped"  # a signal ended the job; how it failed, if it did
    bug = "bug"  # a traceback


class Message(NamedTuple):
    """A message of a worker, with what `Kind` says it holds."""

    kind: Kind
    content: Any


class Begin(NamedTuple):
    """A message to a worker: the jobs that follow are of this stage."""

    stage: Stage[Any, Any]


class Do(NamedTuple):
    """A message to a worker: do this job."""

    job: Any


Order = Begin | Do


@dataclass(frozen=True)
class Setup:
    """How a worker process is set up: with the limits of its parent, and its share of the CPUs."""

    number: int  # from 1
    of: int
    quiet: bool
    verbose: bool
    recursion_limit: int
    switch_interval: float
    unsigned: bool = False  # as --no-sign-request asks
    period: float = PERIOD  # seconds between two messages about progress
    sends_lines: bool = False  # its standard error is not that of the parent

    def apply(self) -> None:
        """Set up this process."""
        sys.setrecursionlimit(self.recursion_limit)
        sys.setswitchinterval(self.switch_interval)
        streams.share_processors(self.of)


class Channel:
    """The way to the parent. Two threads may send; a signal never leaves half a message behind."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self.is_sending = False  # in the main thread, which is the one that signals interrupt
        self.stop_signal = 0

    def send(self, kind: Kind, content: Any) -> None:
        """Send a message. Raises OSError if the parent is gone."""
        is_main = threading.current_thread() is threading.main_thread()
        with self.lock:
            self.is_sending = is_main
            try:
                self.connection.send(Message(kind, content))
            finally:
                self.is_sending = False
        # The signal may have come while the message was on its way. A report is as good as a job undone.
        if is_main and self.stop_signal and kind in (Kind.progress, Kind.line):
            raise Interrupted(self.stop_signal)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Stop the job, once: the handler of SIGTERM."""
        if self.stop_signal:
            return  # the whole group may get a signal that the parent sends, too
        self.stop_signal = number
        if not self.is_sending:
            raise Interrupted(number)


class _Reported:
    """Progress that is sent to the parent, now and then."""

    def __init__(self, channel: Channel, period: float) -> None:
        self.channel = channel
        self.period = period
        self.lock = threading.Lock()
        self.amount = 0.0
        self.sent = time.monotonic()
        self.done = 0.0
        self.total: float | None = None

    def advance(self, amount: float) -> None:
        """Add to the amount that is done."""
        with self.lock:
            self.amount += amount
            self.done += amount
            if time.monotonic() - self.sent < self.period:
                return
        self.flush()

    def flush(self) -> None:
        """Send what was not sent yet."""
        with self.lock:
            amount = self.amount
            self.amount = 0.0
            self.sent = time.monotonic()
        if amount:
            self.channel.send(Kind.progress, amount)

    def describe(self, text: str) -> None:
        """Do nothing: the note beside the bar is about all workers."""

    def expect(self, total: float) -> None:
        """Do nothing: the parent knows the total of all jobs."""


def main(connection: Connection, setup: Setup) -> None:
    """Do the jobs that arrive, until the parent closes the connection, is gone, or says SIGTERM."""
    channel = Channel(connection)
    # Ctrl-C and a closed terminal reach the whole group; the parent decides what they mean.
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.unraisablehook = _report_unraisable
    try:
        signal.signal(signal.SIGTERM, channel.interrupt)
        setup.apply()
        threading.Thread(target=_watch_parent, name="parent", daemon=True).start()
        with storage.unsigned(setup.unsigned):
            _serve(channel, setup)
    except (Interrupted, EOFError, OSError):
        # Stopped between two jobs; no more jobs; or the parent is gone, and SIGTERM has not come yet.
        _end(0)


def _serve(channel: Channel, setup: Setup) -> None:
    stage: Stage[Any, Any] | None = None
    worker: Any = None
    while not channel.stop_signal:
        order: Order = channel.connection.recv()
        if isinstance(order, Begin):
            stage = order.stage
            worker = None  # its models may have to go before those of the next stage fit
            terminal.configure(
                f"{stage.verb}[{setup.number}]",
                quiet=setup.quiet,
                verbose=setup.verbose,
                write=partial(channel.send, Kind.line) if setup.sends_lines else None,
            )
            continue
        assert stage is not None
        worker = worker or _attempt(channel, stage.open)
        progress = _Reported(channel, setup.period)
        report = _attempt(channel, partial(worker.do, order.job, progress))
        progress.flush()
        channel.send(Kind.done, report)


def _attempt(channel: Channel, step: Callable[[], Any]) -> Any:
    """The result of a step of a job. If it fails, the parent hears why, and this process ends."""
    try:
        return step()
    except BaseException as error:
        if channel.stop_signal:
            content = error if isinstance(error, TryAgainError) else None
            channel.send(Kind.stopped, content)
        else:
            channel.send(*_failure(error))
        # Whatever the job left in this process, a new one does not have it.
        _end()


def _failure(error: BaseException) -> Message:
    """The message for an exception that ended a job."""
    if isinstance(error, OutOfMemoryError):
        return Message(Kind.lost, f"{error.fault}; {error.remedy}" if error.remedy else error.fault)
    if isinstance(error, PruneError):
        return Message(Kind.failed, error)
    if ran_out_of_memory(error):
        return Message(Kind.lost, "out of memory")
    if lost_device(error):
        return Message(Kind.lost, str(error).partition("\n")[0])
    if isinstance(error, OSError):
        fault = os.strerror(error.errno or 0)
        return Message(Kind.failed, InputOutputError(fault, place=str(error.filename or "")))
    return Message(Kind.bug, "".join(traceback.format_exception(error)))


def _report_unraisable(unraisable: "sys.UnraisableHookArgs") -> None:
    """Report an exception in a finalizer, unless it is the one of SIGTERM."""
    # The channel raises it again with the next message, so nothing is lost but a traceback.
    if not isinstance(unraisable.exc_value, Interrupted):
        sys.__unraisablehook__(unraisable)


def _watch_parent() -> None:
    """Wait until the parent is gone, then end in order, or else at once."""
    parent = parent_process()
    if parent is None:
        return
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    _end()


def _end(status: int = 1) -> NoReturn:
    # Not sys.exit: threads of libraries may wait for a device that is gone.
    os._exit(status)
