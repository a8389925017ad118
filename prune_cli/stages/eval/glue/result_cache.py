"""Which results of fine-tuning exist already, from a run that was stopped or from one that finished?

Results that took long are appended to FILE.partial as they come, each with a checksum. FILE itself is written
whole at the end, as every output; then FILE.partial is removed. In FILE the means over seeds tell whether the
results of single seeds are still what they were.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from statistics import fmean
from typing import Any

import orjson

from .... import storage
from ....errors import DataError, PruneError, UsageError
from ....storage import checksums
from ....storage.base import ResumableOutput
from ....storage.os_errors import display

Result = dict[str, Any]
UNCHECKED = "%s: its results have no checksums, so that damage would not be noticed"

log = logging.getLogger(__name__)


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
            text = orjson.dumps(result)
            line = {"checksum": checksums.of_bytes(text), "result": orjson.Fragment(text)}
            self.file.write(orjson.dumps(line) + b"\n")
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
    return _checked(results, display(file.path))


def _checked(lines: list[Result], place: str) -> list[Result]:
    """The results in the lines of FILE.partial, without those that are damaged."""
    results = []
    for line in lines:
        result = line.get("result")
        # In version 0.1.0 the result itself was the line, and `result` its kind.
        if not isinstance(result, dict):
            results.append(line)
        elif line.get("checksum") == checksums.of_bytes(orjson.dumps(result)):
            results.append(result)
        else:
            about = f"{result.get('task')}, seed {result.get('seed')}"
            log.warning("%s: the result of %s, is damaged: it is computed again", place, about)
    if any("checksum" not in line for line in lines):
        log.warning(UNCHECKED, place)
    return results


def _of_finished_run(path: str) -> list[Result]:
    """The results in FILE, to which this run may add seeds or tasks.

    A file that cannot be read or holds something else has none: whether it is replaced is up to -f.
    """
    try:
        with storage.input_at(path).open() as file:
            results = _parsed(file.read_all())
        return [result for each in _by_task(results) for result in _compared(each, display(path))]
    except (PruneError, ValueError, LookupError, TypeError):
        return []


def _by_task(results: list[Result]) -> list[list[Result]]:
    """The results of the seeds of a task, then that of all of them, task by task."""
    numbered = groupby(results, lambda result: (result.get("model"), result.get("task")))
    return [list(each) for _, each in numbered]


def _compared(results: list[Result], place: str) -> list[Result]:
    """The results of a task, or none if their mean is not the one that stands behind them."""
    seeds = [result for result in results if result.get("result") == "glue"]
    totals = [result for result in results if result.get("result") == "glue task"]
    if not seeds:
        return []
    # `jq` may have selected single seeds.
    if len(totals) != 1 or totals[0]["seeds"] != len(seeds):
        log.warning(UNCHECKED, place)
        return seeds
    for name, spread in totals[0]["metrics"].items():
        # The very sum that made it, so that every digit is the same.
        if fmean(seed["metrics"][name] for seed in seeds) != spread["mean"]:
            log.warning("%s: results of %s are damaged: they are computed again", place, seeds[0]["task"])
            return []
    return seeds


def _parsed(lines: bytes) -> list[Result]:
    """JSON objects, one a line. Raises ValueError for anything else."""
    results = [orjson.loads(line) for line in lines.splitlines()]
    if not all(isinstance(result, dict) for result in results):
        raise ValueError
    return results
