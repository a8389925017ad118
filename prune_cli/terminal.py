"""Standard error: messages, warnings, progress. No other file uses rich or asks about terminals."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from .errors import PruneError, UsageError

# Seconds that the speed is taken over: scoring may advance once a minute, and rich's 30 would see no speed.
SPEED_PERIOD = 600
DELAY = 0.5  # seconds before a progress bar appears: shorter runs show none


def is_interactive() -> bool:
    """Whether standard error is a terminal that can redraw a line."""
    try:
        return os.isatty(2) and os.environ.get("TERM") != "dumb"
    except OSError:
        return False


def shows_output() -> bool:
    """Whether standard output is a terminal."""
    return os.isatty(1)


class _OneLine(logging.Formatter):
    """`prune-cli VERB: warning: message`; information has no level."""

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.name = f"prune-cli {verb}".strip()

    def format(self, record: logging.LogRecord) -> str:
        level = "warning: " if record.levelno >= logging.WARNING else ""
        return f"{self.name}: {level}{' '.join(record.getMessage().split())}"


class _Elsewhere(logging.Handler):
    """Hands each line to a function."""

    def __init__(self, write: Callable[[str], object]) -> None:
        super().__init__()
        self.write = write

    def emit(self, record: logging.LogRecord) -> None:
        self.write(self.format(record))


def configure(
    verb: str,
    *,
    quiet: bool = False,
    verbose: bool = False,
    write: Callable[[str], object] | None = None,
) -> None:
    """Send the log of the package to standard error: warnings; with `verbose` all, with `quiet` errors.

    With `write`, its lines go there instead.
    """
    handler = _Elsewhere(write) if write else logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(verb))
    log = logging.getLogger("prune_cli")
    log.handlers = [handler]
    log.propagate = False
    level = logging.INFO if verbose else logging.WARNING
    log.setLevel(logging.ERROR if quiet else level)


def fail(verb: str, error: PruneError) -> None:
    """Report a failure in one line: place, fault, remedy."""
    name = f"prune-cli {verb}".strip()
    hint = f" ({name} --help)" if isinstance(error, UsageError) else ""
    say(f"{name}: {error}{hint}")


def say(message: str) -> None:
    """Write a line to standard error, unless it is closed."""
    try:
        os.write(2, (message + "\n").encode("utf-8", "backslashreplace"))
    except OSError:
        return


class Progress(Protocol):
    """Receives the amount of work done, in the unit of its total."""

    done: float
    total: float | None  # None where it is unknown

    def advance(self, amount: float) -> None: ...
    def describe(self, text: str) -> None: ...
    def expect(self, total: float) -> None: ...


class _Silent:
    """Progress that is not drawn. It is counted all the same, for --status-file."""

    def __init__(self, total: float | None = None) -> None:
        self.done = 0.0
        self.total = total

    def advance(self, amount: float) -> None:
        """Add to the amount that is done."""
        self.done += amount

    def describe(self, text: str) -> None:
        """Do nothing."""

    def expect(self, total: float) -> None:
        """Set the total."""
        self.total = total


class _Bar:
    """A bar with time left, and for bytes with their rate if `rate`; drawn after DELAY or at once."""

    def __init__(self, verb: str, total: float | None, unit: str, *, at_once: bool, rate: bool) -> None:
        # rich takes 50 ms to import, so it is imported only for a bar that may be drawn.
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            ProgressColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bar

        counted: list[ProgressColumn] = [MofNCompleteColumn(), TextColumn(unit)]
        if unit == "bytes":
            counted = [DownloadColumn(), *([TransferSpeedColumn()] if rate else [])]
        columns = [
            TextColumn(verb),
            BarColumn(),
            *counted,
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        self.bar = Bar(
            *columns,
            console=Console(stderr=True),
            transient=True,
            speed_estimate_period=SPEED_PERIOD,
        )
        self.task = self.bar.add_task(verb, total=total, note="")
        self.done = 0.0
        self.total = total
        self.due = time.monotonic() + (0 if at_once else DELAY)

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, amount: float) -> None:
        self.done += amount
        self._begin()
        self.bar.advance(self.task, amount)

    def describe(self, text: str) -> None:
        self._begin()
        self.bar.update(self.task, note=text)

    def _begin(self) -> None:
        if not self.bar.live.is_started and time.monotonic() >= self.due:
            self.bar.start()

    def expect(self, total: float) -> None:
        self.total = total
        self.bar.update(self.task, total=total)


def silent() -> Progress:
    """Progress that nobody watches."""
    return _Silent()


@contextmanager
def progress(
    verb: str,
    total: float | None,
    unit: str = "bytes",
    *,
    wanted: bool = True,
    at_once: bool = False,
    rate: bool = True,
) -> Iterator[Progress]:
    """A progress bar; without `at_once` it appears after DELAY, without `wanted` never.

    Bytes per second are left out without `rate`: for work whose speed is in the description, in tokens.
    """
    if not wanted:
        yield _Silent(total)
        return
    with _Bar(verb, total, unit, at_once=at_once, rate=rate) as bar:
        yield bar


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """A table on standard output. Text may wrap, numbers may not."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    grid = Table(box=SIMPLE, pad_edge=False, caption=caption or None, caption_justify="left")
    for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
        is_number = all(not cell or cell[0] in "+-0123456789" for cell in cells)
        width = None if is_number else min(8, max(map(len, cells), default=0))
        grid.add_column(
            column,
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
            min_width=width,
        )
    for row in rows:
        grid.add_row(*row)
    Console().print(grid)
