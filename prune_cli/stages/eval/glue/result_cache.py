"""Which results of fine-tuning exist already, from a run that was stopped or from one that finished?

Results that took long are appended to FILE.partial as they come. FILE itself is written whole at the end,
as every output; then FILE.partial is removed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from .... import storage
from ....errors import DataError, PruneError, UsageError
from ....storage.base import ResumableOutput
from ....storage.os_errors import display

Result = dict[str, Any]


class ResultCache:
    """Results of earlier runs, and a file for new ones; without a file it stores nothing."""

    def __init__(self, file: ResumableOutput | None = None, results: list[Result] | None = None) -> None:
        self.file = file
        self.results = results or []

    def find(self, wanted: Result) -> Result | None:
        """The first result that has every member of `wanted`; None if there is none."""
        return next((result for result in self.results if wanted.items() <= result.items()), None)

    def add(self, result: Result) -> None:
        """Store a result unless an earlier run did. It is on disk when this returns."""
        if self.file and result not in self.results:
            self.file.write(orjson.dumps(result) + b"\n")
            # A result may be hours of work: it has to survive a power cut as well.
            self.file.sync()


@contextmanager
def beside(path: str | None) -> Iterator[ResultCache]:
    """The results of earlier runs for the output at `path`, in FILE.partial and in FILE itself.

    FILE.partial is removed if the block ends without an exception. Raises UsageError for an output that is
    not a regular file, DataError for a FILE.partial that holds something else, and TryAgainError if a
    signal stops the block or another run has the file locked.
    """
    # Standard output, too, is refused: `scratch` does that for `-` and for pipes.
    if path is None:
        raise UsageError("--resume needs a regular output file", remedy="name one with -o FILE")
    with storage.scratch(path) as file:
        yield ResultCache(file, [*_of_stopped_run(file), *_of_finished_run(path)])


def _of_stopped_run(file: ResumableOutput) -> list[Result]:
    """The results in FILE.partial. A last line that the stopped run left incomplete is cut off."""
    content = file.read_at(0, file.size)
    end = content.rfind(b"\n") + 1
    try:
        results = _parsed(content[:end])
        # An incomplete result begins like a result; anything else is somebody's file.
        if content[end:] and not content[end:].startswith(b"{"):
            raise ValueError
    except ValueError:
        raise DataError(
            "does not hold results of an earlier run",
            place=display(file.path),
            remedy="move it away, or write elsewhere",
        ) from None
    # New results are appended after the last whole one.
    file.cut(end)
    return results


def _of_finished_run(path: str) -> list[Result]:
    """The results in FILE, to which this run may add seeds or tasks.

    A file that cannot be read or holds something else has none: whether it is replaced is up to -f.
    """
    try:
        with storage.input_at(path).open() as file:
            return _parsed(file.read_all())
    except (PruneError, ValueError):
        return []


def _parsed(lines: bytes) -> list[Result]:
    """JSON objects, one a line. Raises ValueError for anything else."""
    results = [orjson.loads(line) for line in lines.splitlines()]
    if not all(isinstance(result, dict) for result in results):
        raise ValueError
    return results
