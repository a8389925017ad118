"""Where do a verb's records come from? From its inputs in turn, and with them come heads and trailers."""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, groupby

from ..errors import DataError, PruneError
from ..storage.base import Input
from ..stream.lookahead import Limits, Warn
from ..stream.schema import Event, Head, Trailer
from .decoder import Batch, Decoder, Wanted
from .field_checks import FieldChecks
from .fields import MISSING, Anything, Content, Count, Label, Number, Rank, field_names
from .lines import Block, blocks, line_ends
from .splice import BLANK

RUN = 4096  # consecutive records of a shard: so many that a block is cut into few pieces
WARNINGS = 5  # bad records that get a warning; the rest are only counted
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
    """The limits that a user sets for inputs: `max_line` in bytes, and the records that are expected."""

    strip_bom: bool = False
    skip_bad: bool = False
    max_line: int = 64 << 20
    expect_records: int | None = None
    limits: Limits = Limits()


@dataclass
class Source:
    """The records of all inputs in turn. It is read once, and fills in `heads`, `trailers` and the counts.

    `heads` has None for a file, or part of a file, that is not a prune-cli stream. `elsewhere` counts the
    records of the other shards.
    """

    inputs: list[Input]
    reading: ReadingLimits = ReadingLimits()
    warn: Warn = lambda message: None

    def __post_init__(self) -> None:
        self.heads: list[Head | None] = []
        self.trailers: list[Trailer] = []
        self.records = 0
        self.blank = 0
        self.skipped = 0
        self.elsewhere = 0
        # Takes the size of each piece of text that is decompressed, in the thread that reads ahead.
        self.on_text: Callable[[int], None] = lambda size: None
        # The generator itself is kept because `peek` and `deal` wrap it, and only it can be closed.
        self._stream = self._read()
        self._blocks: Iterator[Block] = self._stream
        self._derived: list[Source] = []
        self.checks = FieldChecks(set())

    @property
    def name(self) -> str:
        """The name of the first input, for messages."""
        return self.inputs[0].name

    def close(self) -> None:
        """Stop reading ahead, here and in the sources derived from this one."""
        for source in (self, *self._derived):
            # ValueError: a prefetch thread runs the generator right now, and is about to stop.
            with suppress(ValueError):
                source._stream.close()

    def _read(self) -> Generator[Block, None, None]:
        for file in self.inputs:
            limits = self.reading.limits
            longest = self.reading.max_line
            yield from blocks(file, limits, longest, self.warn, self._take_event, self.on_text)

    def _take_event(self, event: Event | DataError) -> None:
        """Note a head, a trailer, the beginning of text without a head, or a row without a line."""
        if isinstance(event, DataError):
            self._skip(event.place, event)
        elif isinstance(event, Trailer):
            self.trailers.append(event)
        else:
            self.heads.append(event if isinstance(event, Head) else None)

    def peek(self) -> tuple[Head | None, list[str]]:
        """The head of the first stream (None without one), and the field names of the first record.

        The record is still read later. Raises DataError if it is bad, before anything else is reported.
        """
        first = next(self._blocks, None)
        if first is None:
            return (self.heads[0] if self.heads else None), []
        self._blocks = chain([first], self._blocks)
        lines = bytes(first.text).split(b"\n")
        names = next((field_names(line) for line in lines if line.strip(BLANK)), [])
        if not names:
            # For its error, which says precisely what is wrong with the record.
            # In a source of its own, since `batches` counts what is skipped when it comes there.
            Source([], self.reading)._decode_slowly(first, self._decoder(Wanted({})))
        return self.heads[0], names

    def watch(self, name: str) -> None:
        """An option names this field: `missing_fields` has it if no record does."""
        self.checks.watched.add(name)

    @property
    def missing_fields(self) -> list[str]:
        """The watched fields that were looked for and that no record of any source has."""
        checks = [source.checks for source in (self, *self._derived)]
        missing = set().union(*(check.missing for check in checks))
        return sorted(missing.difference(*(check.present for check in checks)))

    def deal(self, number: int, of: int, first: int = 0) -> None:
        """Keep only shard `number` (from 1) of `of`. Runs of RUN records go to the shards in turn.

        `first` + 1 is the shard of the first run. A line belongs to one shard, which alone reports what is
        wrong with it; the others count it in `elsewhere`.
        """
        shard = number - 1
        self._blocks = _dealt(self, self._blocks, lambda index: (index // RUN + first) % of == shard)

    def again(self) -> "Source":
        """The same records from the start, without a warning that the first reading gave.

        An input that is a pipe must `keep` what it reads.
        """
        return self._derive(self.inputs, warn=lambda message: None)

    def only(self, *files: Input) -> "Source":
        """The records of some of the inputs."""
        return self._derive(list(files), self.warn)

    def _derive(self, inputs: list[Input], warn: Warn) -> "Source":
        source = Source(inputs, self.reading, warn)
        source.checks = FieldChecks(self.checks.watched)
        self._derived.append(source)
        return source

    def batches(self, wanted: Wanted) -> Iterator[Batch]:
        """Read all records, once.

        Raises DataError, with file and line, at the first record that lacks what is `wanted`.
        """
        yield from self.decoded(self._blocks, wanted)
        self.check_count()

    def check_count(self) -> None:
        """Raise DataError if the number of records is not that of --expect-records."""
        # Every shard checks the whole: it has seen the records of the others, too.
        check_expected(self.records + self.skipped + self.elsewhere, self.reading.expect_records)

    def decoded(self, blocks: Iterable[Block], wanted: Wanted) -> Iterator[Batch]:
        """The records of these blocks, counted like records of the inputs."""
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
        """Decode line by line a block that `Decoder.fast` refuses."""
        numbers, lines, rows = [], [], []
        for number, line in enumerate(bytes(block.text).split(b"\n"), block.number):
            if not line.strip(BLANK):
                # The empty string that the split leaves behind the last line end is not a blank line.
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
        """Count a bad record. Raises DataError without --skip-bad."""
        if not self.reading.skip_bad:
            raise DataError(error.fault, place=place, remedy=error.remedy) from None
        self.skipped += 1
        if self.skipped <= WARNINGS:
            self.warn(f"{place}: {error.fault}; record skipped")


def _dealt(source: Source, whole: Iterator[Block], is_in_shard: Callable[[int], bool]) -> Iterator[Block]:
    """The lines of one shard. `is_in_shard` takes the index of a record among all records.

    A blank line goes with the record after it.
    """
    records = 0

    def belongs(line: bytes) -> bool:
        nonlocal records
        is_kept = is_in_shard(records)
        is_record = bool(line.strip(BLANK))
        records += is_record
        source.elsewhere += is_record and not is_kept
        return is_kept

    for block in whole:
        number = block.number
        # groupby calls `belongs` once for each line, in order: it counts the records.
        for is_kept, run in groupby(bytes(block.text).split(b"\n")[:-1], belongs):
            lines = list(run)
            if is_kept:
                text = b"\n".join([*lines, b""])
                yield Block(block.file, number, text, line_ends(text))
            number += len(lines)


def check_expected(records: int, expected: int | None, place: str = "") -> None:
    """Raise DataError if a number is expected and it is another one."""
    if expected not in (None, records):
        fault = f"{records} records arrived, {expected} were expected"
        raise DataError(fault, place=place, remedy="a whole file may be missing")
