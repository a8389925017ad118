"""Results that took long, kept in FILE.partial as they come: the next run finds them there, however this one was stopped.

FILE itself is written whole at the end, as any other output; then what was kept is removed.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from ....errors import DataError, Interrupted, TryAgainError, UsageError
from ....storage import local
from ....storage.locks import locked
from ....storage.os_errors import display

Result = dict[str, Any]


class Kept:
    """Results that were found, and a place for more; without a file, neither."""

    def __init__(self, file: local.Output | None = None, found: list[Result] | None = None) -> None:
        self.file, self.found = file, found or []

    def find(self, wanted: Result) -> Result | None:
        """The result that says all that is `wanted`, if there is one."""
        return next(
            (
                one
                for one in self.found
                if all(name in one and one[name] == value for name, value in wanted.items())
            ),
            None,
        )

    def add(self, result: Result) -> None:
        """Keep a result, on disk when this returns, unless it was found."""
        if self.file and result not in self.found:
            self.file.write(orjson.dumps(result) + b"\n")
            os.fsync(self.file.descriptor)


@contextmanager
def kept(path: str | None) -> Iterator[Kept]:
    """What another run kept for the output at `path`, and what that holds already, if it is there; kept on until the block ends well.

    Raises UsageError for an output that is no file, DataError where FILE.partial is not such a run's, and TryAgainError when a signal
    stops the block, and at once while another run holds it.
    """
    if path in (None, "-") or local.is_special(path):
        raise UsageError("--resume needs an output that stays", remedy="name a file with -o FILE")
    target = os.path.realpath(path)
    name = f"{target}.partial"
    with locked(name, path) as descriptor:
        try:
            yield Kept(local.Output(descriptor, name), [*_taken_up(descriptor, name), *_finished(target)])
            local.remove(name)
        except Interrupted:
            raise TryAgainError(
                "stopped early", place=display(name), remedy="the same command goes on from there"
            ) from None
        finally:
            if not os.fstat(descriptor).st_size:
                local.remove(name)


def _taken_up(descriptor: int, name: str) -> list[Result]:
    """The results of a run that was stopped; the last line, if it is torn, is cut off."""
    content = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
    end = content.rfind(b"\n") + 1
    try:
        found = _results(content[:end])
        if content[end:] and not content[end:].startswith(b"{"):
            raise ValueError
    except ValueError:
        fault = "holds something else than results that were kept"
        raise DataError(fault, place=display(name), remedy="move it away, or write elsewhere") from None
    os.ftruncate(descriptor, end)
    os.lseek(descriptor, end, os.SEEK_SET)
    return found


def _finished(path: str) -> list[Result]:
    """The results of a run that had finished, of which this one may want more; what is no such file is only in the way."""
    try:
        with open(path, "rb") as file:
            return _results(file.read())
    except (OSError, ValueError):
        return []


def _results(lines: bytes) -> list[Result]:
    found = [orjson.loads(line) for line in lines.splitlines()]
    if not all(isinstance(one, dict) for one in found):
        raise ValueError
    return found
