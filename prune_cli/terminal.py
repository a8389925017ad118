"""What people see on standard error: messages, warnings, progress. The only home of rich and of questions about terminals."""

import logging
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol

from .errors import PruneError, UsageError

MOMENT = 0.5  # seconds: of what takes no longer no progress is shown


def is_interactive() -> bool:
    """Whether somebody is watching: standard error is a terminal that can redraw a line."""
    try:
        return os.isatty(2) and os.environ.get("TERM") != "dumb"
    except OSError:
        return False


def shows_output() -> bool:
    """Whether somebody reads standard output as it comes."""
    return os.isatty(1)


class _OneLine(logging.Formatter):
    """`prune-cli VERB: warning: message`; notes go without a level."""

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.name = f"prune-cli {verb}".strip()

    def format(self, record: logging.LogRecord) -> str:
        level = "warning: " if record.levelno >= logging.WARNING else ""
        return f"{self.name}: {level}{' '.join(record.getMessage().split())}"


def configure(verb: str, *, quiet: bool = False, verbose: bool = False) -> None:
    """Send the package's log to standard error: warnings, notes too with `verbose`, nothing but errors with `quiet`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(verb))
    log = logging.getLogger("prune_cli")
    log.handlers, log.propagate = [handler], False
    log.setLevel(logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING)


def fail(verb: str, error: PruneError) -> None:
    """One line on standard error: place, fault, way out."""
    way = f" (prune-cli {verb} --help)".replace("  ", " ") if isinstance(error, UsageError) else ""
    say(f"prune-cli {verb}".strip() + f": {error}{way}")


def say(message: str) -> None:
    """A line on standard error; nothing if that is closed."""
    try:
        os.write(2, (message + "\n").encode("utf-8", "backslashreplace"))
    except OSError:
        return


class Progress(Protocol):
    """Told of work done, in the unit of its total."""

    def advance(self, amount: float) -> None: ...
    def describe(self, text: str) -> None: ...
    def expect(self, total: float) -> None: ...


class _Silent:
    def advance(self, amount: float) -> None:
        """Nobody is watching."""

    def describe(self, text: str) -> None:
        """Nobody is watching."""

    def expect(self, total: float) -> None:
        """Nobody is watching."""


class _Bar:
    """A bar with rate and time left, from a MOMENT on or at once; rich is loaded only here."""

    def __init__(self, verb: str, total: float | None, unit: str, at_once: bool) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.progress import Progress as Bar

        counted = (
            [DownloadColumn(), TransferSpeedColumn()]
            if unit == "bytes"
            else [MofNCompleteColumn(), TextColumn(unit)]
        )
        columns = [
            TextColumn(verb),
            BarColumn(),
            *counted,
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        ]
        self.bar = Bar(*columns, console=Console(stderr=True), transient=True)
        self.task, self.due = (
            self.bar.add_task(verb, total=total, note=""),
            time.monotonic() + (0 if at_once else MOMENT),
        )

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, amount: float) -> None:
        self._begin()
        self.bar.advance(self.task, amount)

    def describe(self, text: str) -> None:
        self._begin()
        self.bar.update(self.task, note=text)

    def _begin(self) -> None:
        if not self.bar.live.is_started and time.monotonic() >= self.due:
            self.bar.start()

    def expect(self, total: float) -> None:
        self.bar.update(self.task, total=total)


@contextmanager
def progress(
    verb: str, total: float | None, unit: str = "bytes", *, wanted: bool = True, at_once: bool = False
) -> Iterator[Progress]:
    """A progress bar, of what takes no longer than a moment only if `at_once` it is to be there; silence where none is wanted."""
    if not wanted:
        yield _Silent()
        return
    with _Bar(verb, total, unit, at_once) as bar:
        yield bar


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """A table on standard output, for a person; a model's name is broken over lines before a number is."""
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    shown = Table(box=SIMPLE, pad_edge=False, caption=caption or None, caption_justify="left")
    for column, cells in zip(columns, zip(*rows, strict=True), strict=True):
        is_number = all(not cell or cell[0] in "+-0123456789" for cell in cells)
        width = None if is_number else min(8, max(map(len, cells), default=0))
        shown.add_column(
            column,
            justify="right" if is_number else "left",
            no_wrap=is_number,
            overflow="fold",
            min_width=width,
        )
    for row in rows:
        shown.add_row(*row)
    Console().print(shown)


def closing(message: str, *, quiet: bool = False) -> None:
    """The line, or the picture, that ends a run on a terminal."""
    if message and is_interactive() and not quiet:
        say(message)
