"""Where do a verb's records come from?

From its inputs in turn, with the heads and trailers that are met on the way.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby

from ..errors import DataError, PruneError
from ..storage.base import Input
from ..stream.lookahead import Limits
from ..stream.schema import Event, Head, Trailer
from .decoder import Batch, Decoder, Wanted
from .field_checks import FieldChecks
from .fields import MISSING, Anything, Content, Count, Label, Number, Rank, field_names
from .lines import Block, blocks, line_ends
from .splice import BLANK

RUN = 4096  # consecutive records of one shard: long enough for blocks to stay blocks
WARNINGS = 5  # bad records that are named; the others are only counted
__all__ = [
    "MISSING",
    "Anything",
    "Batch",
    "Content",
    "Count",
    "Label",
    "Number",
    "Rank",
    "ReadingLimits",
    "Source",
    "Wanted",
]


@dataclass(frozen=True)
class ReadingLimits:
    """How much an input is trusted, as the user says it."""

    strip_bom: bool = False
    skip_bad: bool = False
    max_line: int = 64 << 20
    expect_records: int | None = None
    limits: Limits = Limits()


@dataclass
class Source:
    """The records of all inputs in turn. It is read once; `heads`, `trailers` and the counts grow meanwhile.

    `heads` has None for a file, or a part of one, that is no prune-cli stream. `elsewhere` counts records of
    other shards.
    """

    inputs: list[Input]
    reading: ReadingLimits = ReadingLimits()
    warn: Callable[[str], None] = lambda message: None

    def __post_init__(self) -> None:
        self.heads: list[Head | None] = []
        self.trailers: list[Trailer] = []
        self.records = 0
        self.blank = 0
        self.skipped = 0
        self.elsewhere = 0
        # Takes the size of each piece of text that is decompressed, in the thread that reads ahead.
        self.on_text: Callable[[int], None] = lambda size: None
        self._stream = self._read()
        self._blocks: Iterator[Block] = self._stream
        self._derived: list[Source] = []
        self.checks = FieldChecks(set())

    @property
    def name(self) -> str:
        """The name of the first input, for messages."""
        return self.inputs[0].name

    def close(self) -> None:
        """Stop reading ahead, in the sources that were derived from this one, too."""
        for source in (self, *self._derived):
            # A ValueError says that a thread is in the generator: it is about to stop.
            with suppress(ValueError):
                source._stream.close()

    def _read(self) -> Generator[Block, None, None]:
        for file in self.inputs:
            limits = self.reading.limits
            longest = self.reading.max_line
            yield from blocks(file, limits, longest, self.warn, self._take_event, self.on_text)

    def _take_event(self, event: Event) -> None:
        if isinstance(event, Trailer):
            self.trailers.append(event)
        else:
            self.heads.append(event if isinstance(event, Head) else None)

    def peek(self) -> tuple[Head | None, list[str]]:
        """The head of the first stream, None if it has none, and the names of the first record's fields.

        No record is lost by it. Raises DataError if the first record is bad, so that this is reported before
        anything else.
        """
        first = next(self._blocks, None)
        if first is None:
            return (self.heads[0] if self.heads else None), []
        self._blocks = chain([first], self._blocks)
        lines = bytes(first.text).split(b"\n")
        names = next((field_names(line) for line in lines if line.strip(BLANK)), [])
        if not names:
            self._decode_slowly(first, self._decoder(Wanted({})))
        return self.heads[0], names

    def watch(self, name: str) -> None:
        """An option names this field: `missing_fields` has it if no record does."""
        self.checks.watched.add(name)

    @property
    def missing_fields(self) -> list[str]:
        """The watched fields that were looked for and that no record has."""
        sources = (self, *self._derived)
        return sorted(set().union(*(source.checks.missing for source in sources)))

    def deal(self, number: int, of: int, first: int = 0) -> None:
        """Keep one shard of the records, `number` from 1. They are dealt in runs of RUN, the first to shard
        `first` + 1.

        A line belongs to one shard, and only that shard finds fault with it; the others count it in
        `elsewhere`.
        """
        shard = number - 1
        self._blocks = _dealt(self, self._blocks, lambda index: (index // RUN + first) % of == shard)

    def again(self) -> "Source":
        """The same records from the start.

        The inputs have to `keep` what they read if one of them is a pipe.
        """
        return self._derive(self.inputs)

    def only(self, file: Input) -> "Source":
        """The records of one of the inputs."""
        return self._derive([file])

    def _derive(self, inputs: list[Input]) -> "Source":
        source = Source(inputs, self.reading, self.warn)
        source.checks = FieldChecks(self.checks.watched)
        self._derived.append(source)
        return source

    def batches(self, wanted: Wanted) -> Iterator[Batch]:
        """Read everything, once.

        Raises DataError, with file and line, at the first record that is not as `wanted`.
        """
        yield from self.decoded(self._blocks, wanted)
        self.check_count()

    def check_count(self) -> None:
        """Raise DataError if another number of records came than --expect-records says."""
        expected = self.reading.expect_records
        came = self.records + self.skipped + self.elsewhere
        if expected is not None and came != expected:
            fault = f"{came} records came, {expected} were expected"
            raise DataError(fault, remedy="a whole file may be missing")

    def decoded(self, blocks: Iterable[Block], wanted: Wanted) -> Iterator[Batch]:
        """The records of blocks that are at hand, counted as if they had been read."""
        decoder = self._decoder(wanted)
        for block in blocks:
            batch = decoder.fast(block) or self._decode_slowly(block, decoder)
            if len(batch):
                self.records += len(batch)
                self.checks.take(batch, wanted)
                yield batch

    def _decoder(self, wanted: Wanted) -> Decoder:
        return Decoder(wanted, max_line=self.reading.max_line, strip_bom=self.reading.strip_bom)

    def _decode_slowly(self, block: Block, decoder: Decoder) -> Batch:
        """Line by line, for a block in which something is not as it should be."""
        numbers, lines, rows = [], [], []
        for number, line in enumerate(bytes(block.text).split(b"\n"), block.number):
            if not line.strip(BLANK):
                # The split leaves an empty string behind the last line end, which is no blank line.
                self.blank += bool(line) or number < block.number + len(block.ends)
                continue
            try:
                line, row = decoder.slow(line)
            except PruneError as error:
                self._skip(f"{block.file}:{number}", error)
                continue
            numbers.append(number)
            lines.append(line)
            rows.append(row)
        text = b"".join(line + b"\n" for line in lines)
        return Batch(block.file, numbers, text, line_ends(text), decoder.columns(rows))

    def _skip(self, place: str, error: PruneError) -> None:
        """Count a bad record. Raises DataError if bad records are not to be skipped."""
        if not self.reading.skip_bad:
            raise DataError(error.fault, place=place, remedy=error.remedy) from None
        self.skipped += 1
        if self.skipped <= WARNINGS:
            self.warn(f"{place}: {error.fault}; record skipped")


def _dealt(source: Source, whole: Iterator[Block], is_ours: Callable[[int], bool]) -> Iterator[Block]:
    """The lines of one shard.

    `is_ours` decides by the number of records before; a blank line goes with the record after it.
    """
    records = 0

    def belongs(line: bytes) -> bool:
        nonlocal records
        ours = is_ours(records)
        is_record = bool(line.strip(BLANK))
        records += is_record
        source.elsewhere += is_record and not ours
        return ours

    for block in whole:
        number = block.number
        for ours, run in groupby(bytes(block.text).split(b"\n")[:-1], belongs):
            lines = list(run)
            if ours:
                text = b"\n".join([*lines, b""])
                yield Block(block.file, number, text, line_ends(text))
            number += len(lines)
