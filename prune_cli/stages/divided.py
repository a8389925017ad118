"""How do workers share the reading of a verb? Each gets portions of the input, and counts what it reads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from .. import storage
from ..records.reader import Source
from ..storage.base import Input, Output
from ..storage.temporary import SharedFile
from ..stream import dataset

# Inputs are dealt in so many portions a worker, so that none waits long for the last to finish.
PORTIONS = 4


def portions(inputs: Sequence[Input], workers: int) -> Iterator[list[Input]]:
    """Consecutive inputs in portions of about the same bytes."""
    most = (storage.total_size(inputs) or 0) / (PORTIONS * workers)
    held: list[Input] = []
    size = 0
    for file in inputs:
        held.append(file)
        size += file.size or 0
        if size >= most:
            yield held
            held, size = [], 0
    if held:
        yield held


def can_be_divided(paths: Sequence[str]) -> bool:
    """Whether other processes can read the inputs: a pipe is read by the one that has it."""
    return all(file.identity is not None for file in dataset.expand(paths))


@dataclass(frozen=True)
class ReadCounts:
    """What a worker read of its part: `missing` and `present` are the fields that options name."""

    records: int
    blank: int
    skipped: int
    missing: frozenset[str]
    present: frozenset[str]

    @classmethod
    def of(cls, source: Source) -> "ReadCounts":
        """The counts of a source that is read."""
        checks = source.checks
        return cls(
            records=source.records,
            blank=source.blank,
            skipped=source.skipped,
            missing=frozenset(checks.missing),
            present=frozenset(checks.present),
        )


def report_as(source: Source, counts: Sequence[ReadCounts]) -> None:
    """Have a source report what workers counted, as if it had read all records itself.

    Raises DataError if the number of records is not that of --expect-records.
    """
    for each in counts:
        source.records += each.records
        source.blank += each.blank
        source.skipped += each.skipped
        source.checks.missing |= each.missing
        source.checks.present |= each.present
    source.checks.missing -= source.checks.present
    source.check_count()


@contextmanager
def part_of_output(path: str) -> Iterator[Output]:
    """A piece of an output, read once and removed: it need not survive a crash, so nothing is synced."""
    with SharedFile(path, write=True) as file:
        yield file.output
