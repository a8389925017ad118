"""How do workers share the reading of a verb? Each gets portions of the input, and counts what it reads."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from .. import storage
from ..engines.plan import inspect, plan
from ..records.reader import Source
from ..settings.streams import Reading
from ..storage.base import Input, Output
from ..storage.temporary import SharedFile
from ..stream import dataset, writer
from ..stream.schema import Head, PartSection
from ..stream.section import Shard
from ..stream.writer import Sink, Writing
from ..terminal import Progress
from . import streams

# Inputs are dealt in so many portions a worker, so that none waits long for the last to finish.
PORTIONS = 4
# Bytes of text in a piece of a large file.
SMALLEST_PIECE = 16 << 20
LARGEST_PIECE = 256 << 20


@dataclass(frozen=True)
class InputPortion:
    """Consecutive pieces of the input, by value."""

    shards: tuple[Shard, ...]
    size: int  # bytes of the files

    @classmethod
    def of(cls, shards: Sequence[Shard]) -> "InputPortion":
        """Those pieces."""
        ends = (storage.input_at(each.input).size if each.end is None else each.end for each in shards)
        return cls(
            tuple(shards), sum((end or 0) - each.start for end, each in zip(ends, shards, strict=True))
        )

    @property
    def name(self) -> str:
        """The file in which it begins, for messages."""
        return self.shards[0].input

    def open(self, reading: Reading, watched: Sequence[str], progress: Progress) -> Source:
        """Its records. `watched` are fields that options name. Raises DataError if a file has changed."""
        source = streams.source_of([shard.open_input() for shard in self.shards], reading, progress)
        for name in watched:
            source.watch(name)
        return source


def portions(inputs: Sequence[Input], workers: int) -> list[InputPortion]:
    """The inputs in portions of about the same bytes: consecutive files, and pieces of large ones."""
    most = (storage.total_size(inputs) or 0) / (PORTIONS * workers)
    # Pieces are measured in bytes of text: those of a compressed file are some four to a portion.
    target = int(min(max(most, SMALLEST_PIECE), LARGEST_PIECE))
    shards = plan([inspect(file, target) for file in inputs], target)
    sizes = {file.path: file.size or 0 for file in inputs}
    result: list[InputPortion] = []
    held: list[Shard] = []
    size = 0
    for shard in shards:
        held.append(shard)
        size += sizes[shard.input] if shard.end is None else shard.end - shard.start
        if size >= most:
            result.append(InputPortion(tuple(held), size))
            held, size = [], 0
    return [*result, InputPortion(tuple(held), size)] if held else result


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
def sink_of_part(path: str, head: Head, writing: Writing, section: PartSection | None) -> Iterator[Sink]:
    """The sink of a part of a dataset, which that section of its head names; or of a piece of one output."""
    if section is None:
        with part_of_output(path) as output, writer.open_sink(output, head, writing) as sink:
            yield sink
    else:
        with (
            storage.create(path, force=True) as output,
            writer.open_sink(output, head.of_part(section), writing) as sink,
        ):
            yield sink


@contextmanager
def part_of_output(path: str) -> Iterator[Output]:
    """A piece of an output, read once and removed: it need not survive a crash, so nothing is synced."""
    with SharedFile(path, write=True) as file:
        yield file.output
