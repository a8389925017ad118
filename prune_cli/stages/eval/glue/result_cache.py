"""Results that took long, kept in FILE.partial as they come, so that the next run finds them however this one ended.

FILE itself is written whole at the end, as any other output; then the cache is removed.
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


class Kept:
    """Results of earlier runs, and a place for more; without a file, neither."""

    def __init__(self, file: ResumableOutput | None = None, results: list[Result] | None = None) -> None:
        self.file = file
        self.results = results or []

    def find(self, wanted: Result) -> Result | None:
        """The first result that has every member of `wanted`; None if there is none."""
        return next((result for result in self.results if wanted.items() <= result.items()), None)

    def add(self, result: Result) -> None:
        """Keep a result, on disk when this returns, unless an earlier run did."""
        if self.file and result not in self.results:
            self.file.write(orjson.dumps(result) + b"\n")
            self.file.sync()


@contextmanager
def kept(path: str | None) -> Iterator[Kept]:
    """The results of earlier runs for the output at `path`, from its cache and from the output itself if it exists.

    Raises UsageError for an output that is no file, DataError if FILE.partial is not such a cache, and TryAgainError
    when a signal stops the block, or while another run holds it.
    """
    if path is None:
        raise UsageError("--resume needs an output that stays", remedy="name a file with -o FILE")
    with storage.scratch(path) as file:
        yield Kept(file, [*_unfinished(file), *_finished(path)])


def _unfinished(file: ResumableOutput) -> list[Result]:
    """The results of a run that was stopped. The last line is cut off if it is torn."""
    content = file.read_at(0, file.size)
    end = content.rfind(b"\n") + 1
    try:
        results = _results(content[:end])
        if content[end:] and not content[end:].startswith(b"{"):
            raise ValueError
    except ValueError:
        fault = "holds something other than results"
        raise DataError(fault, place=display(file.path), remedy="move it away, or write elsewhere") from None
    file.cut(end)
    return results


def _finished(path: str) -> list[Result]:
    """The results of a run that finished, if this one wants more; none if the file is anything else."""
    try:
        with storage.input_at(path).open() as file:
            return _results(file.read_all())
    except (PruneError, ValueError):
        return []


def _results(lines: bytes) -> list[Result]:
    results = [orjson.loads(line) for line in lines.splitlines()]
    if not all(isinstance(result, dict) for result in results):
        raise ValueError
    return results
