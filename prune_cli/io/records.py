"""Lines in, fields out, new fields spliced in; every other byte of a record stays what it was.

Fields are read a block of lines at a time by msgspec, which skips what was not asked for; only where something is odd (an
error, a blank line, a byte-order mark, a doubled key) is a line looked at by itself, slowly and with a clear message.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import Annotated, Any

import msgspec
import orjson
from msgspec import UNSET, Raw, UnsetType

from ..errors import DataError, PruneError
from . import frames
from .files import Input
from .splicing import BLANK, without
from .splicing import members as members
from .splicing import splice as splice
from .splicing import uniform as uniform

BOM = b"\xef\xbb\xbf"
RUN = 4096  # records that fall to one shard before the next one's turn

Number = float | None
Count = Annotated[int, msgspec.Meta(ge=0)] | None
Content = str | list[int]
Anything = Any
MISSING = UNSET  # the value of an optional field that a record does not have

WORDS = {Number: "a finite number or null", Count: "a whole number", str: "a string", Content: "a string or a list of token ids"}


@dataclass(frozen=True)
class Reading:
    """How much an input is trusted, as the user says it."""

    strip_bom: bool = False
    skip_bad: bool = False
    max_line: int = 64 << 20
    expect_records: int | None = None
    limits: frames.Limits = frames.Limits()


@dataclass(frozen=True)
class Wanted:
    """What a verb wants of each record: `fields` maps names to types; `single` must not be doubled in a record; `fresh` are
    the fields it will add, which must not be there yet (`overwrite` takes them out)."""

    fields: dict[str, Any]
    optional: tuple[str, ...] = ()
    single: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    overwrite: bool = False


class Batch:
    """Consecutive records of one file: their lines without the line end, and by name a list of values for each wanted field."""

    __slots__ = ("columns", "file", "lines", "numbers")

    def __init__(self, file: str, numbers: Sequence[int], lines: list[bytes], columns: dict[str, list[Any]]) -> None:
        self.file, self.numbers, self.lines, self.columns = file, numbers, lines, columns

    def __getitem__(self, name: str) -> list[Any]:
        return self.columns[name]

    def place(self, index: int) -> str:
        return f"{self.file}:{self.numbers[index]}"


class Record(msgspec.Struct, gc=False):  # a NamedTuple takes twice as long to make
    """A record on its way out, and what the trailer counts of it. `null`: it has no score."""

    line: bytes
    tokens: int = 0
    null: bool = False
    rank: int | None = None
    group: str | None = None


@dataclass
class Source:
    """The records of all inputs in turn; `heads`, `trailers` and the counts grow as they are read.

    `heads` has None for every file that is not a stream of ours.
    """

    inputs: list[Input]
    reading: Reading = Reading()
    warn: Callable[[str], None] = lambda message: None

    def __post_init__(self) -> None:
        self.heads: list[dict[str, Any] | None] = []
        self.trailers: list[dict[str, Any]] = []
        self.records = self.blank = self.skipped = self.elsewhere = 0
        self._blocks = _blocks(self)

    def peek(self) -> tuple[dict[str, Any] | None, list[str]]:
        """The head of the first stream, None if it has none, and the names of the first record's fields; no record is lost by it."""
        first = next(self._blocks, None)
        if first is None:
            return (self.heads[0] if self.heads else None), []
        self._blocks = chain([first], self._blocks)
        names = next((_names(line) for line in first.text.split(b"\n") if line.strip(BLANK)), [])
        if not names:  # what is wrong with it is to be said before anything else is
            self._slowly(first, _Decoder(Wanted({}), self.reading))
        return self.heads[0], names

    def deal(self, number: int, of: int, first: int = 0) -> None:
        """Keep one shard of the records, `number` from 1: they are dealt in runs of RUN, the first of them to shard `first` + 1.

        A line belongs to one shard, which is the one to find fault with it; the others only count it in `elsewhere`.
        """
        self._blocks = _dealt(self, self._blocks, lambda seen: (seen // RUN + first) % of == number - 1)

    def again(self) -> "Source":
        """The same records from the start; a pipe only if its inputs were told to keep what they read."""
        return Source(self.inputs, self.reading, self.warn)

    def batches(self, wanted: Wanted) -> Iterator[Batch]:
        """Read everything, once. Raises DataError, with file and line, at the first record that is not as `wanted`."""
        decoder = _Decoder(wanted, self.reading)
        for block in self._blocks:
            batch = decoder.fast(block) or self._slowly(block, decoder)
            if batch.lines:
                self.records += len(batch.lines)
                yield batch
        expected = self.reading.expect_records
        came = self.records + self.skipped + self.elsewhere
        if expected is not None and came != expected:
            raise DataError(f"{came} records came, {expected} were expected", remedy="a whole file may be missing")

    def _slowly(self, block: "_Block", decoder: "_Decoder") -> Batch:
        """Line by line, for a block in which something is not as it should be."""
        numbers, lines, rows = [], [], []
        for number, line in enumerate(block.text.split(b"\n"), block.number):
            if not line.strip(BLANK):
                self.blank += bool(line) or number < block.number + block.lines
                continue
            try:
                line, row = decoder.slow(line)
            except PruneError as error:
                if not self.reading.skip_bad:
                    raise DataError(error.fault, place=f"{block.file}:{number}", remedy=error.remedy) from None
                self.skipped += 1
                if self.skipped <= 5:
                    self.warn(f"{block.file}:{number}: {error.fault}; record skipped")
                continue
            numbers.append(number)
            lines.append(line)
            rows.append(row)
        return Batch(block.file, numbers, lines, decoder.columns(rows))


@dataclass(frozen=True, slots=True)
class _Block:
    """Whole lines, each with its line end; `number` is that of the first."""

    file: str
    number: int
    lines: int
    text: bytes


def _blocks(source: Source) -> Iterator[_Block]:
    for file in source.inputs:
        yield from _blocks_of(file, source)


def _blocks_of(file: Input, source: Source) -> Iterator[_Block]:
    """One input's text cut at line ends. The end of a stream of ours, and of a file, ends a line too."""
    parts: list[bytes] = []
    number, size, told = 1, 0, False

    def block(text: bytes) -> _Block:
        nonlocal number
        whole = _Block(file.name, number, text.count(b"\n"), text)
        number += whole.lines
        return whole

    with file.open() as raw:
        try:
            for event in frames.read(raw, source.reading.limits, lambda message: source.warn(f"{file.name}: {message}"), file.path):
                if isinstance(event, bytes):
                    if not told:
                        told = True
                        source.heads.append(None)
                    cut = event.rfind(b"\n") + 1
                    if cut:
                        yield block(b"".join([*parts, event[:cut]]))
                        parts, size = [], 0
                    parts.append(event[cut:])
                    size += len(event) - cut
                    if size > source.reading.max_line:
                        raise _too_long(source.reading)
                    continue
                if size:
                    yield block(b"".join([*parts, b"\n"]))
                    parts, size = [], 0
                told = isinstance(event, frames.Head)
                (source.heads if told else source.trailers).append(event.content)
        except DataError as error:
            if error.place:
                raise
            raise DataError(error.fault, place=f"{file.name}:{number}", remedy=error.remedy) from None
        if size:
            yield block(b"".join([*parts, b"\n"]))


def _dealt(source: Source, blocks: Iterator[_Block], is_ours: Callable[[int], bool]) -> Iterator[_Block]:
    """The lines that fall to one shard, which is told by the records before them; a blank one goes with the record after it."""
    seen = 0

    def belongs(line: bytes) -> bool:
        nonlocal seen
        ours, is_record = is_ours(seen), bool(line.strip(BLANK))
        seen += is_record
        source.elsewhere += is_record and not ours
        return ours

    for block in blocks:
        number = block.number
        for ours, run in groupby(block.text.split(b"\n")[:-1], belongs):
            lines = list(run)
            if ours:
                yield _Block(block.file, number, len(lines), b"\n".join([*lines, b""]))
            number += len(lines)


def _too_long(reading: Reading) -> DataError:
    return DataError(f"a line longer than --max-line ({reading.max_line >> 20} MiB)", remedy="--max-line SIZE allows longer ones")


class _Decoder:
    """The wanted fields of a line, or of a block of lines at once."""

    def __init__(self, wanted: Wanted, reading: Reading) -> None:
        self.wanted, self.reading = wanted, reading
        self.names = [*wanted.fields, *(name for name in wanted.fresh if name not in wanted.fields)]
        self.attributes = [f"field_{index}" for index in range(len(self.names))]
        types = [wanted.fields.get(name, Raw) for name in self.names]
        members = [(attribute, kind | UnsetType, UNSET) for attribute, kind in zip(self.attributes, types, strict=True)]
        struct = msgspec.defstruct("Fields", members, rename=dict(zip(self.attributes, self.names, strict=True)), gc=False)
        self.decoder = msgspec.json.Decoder(struct)
        self.required = [name for name in wanted.fields if name not in wanted.optional]
        self.literals = [(name, orjson.dumps(name)) for name in wanted.single]

    def fast(self, block: _Block) -> Batch | None:
        """The whole block at once; None where a closer look is needed.

        msgspec takes values, not lines. When every line begins with { and ends with } and there are as many values as lines,
        then each line is one value: inside a value nothing but a comma or a closing bracket can follow a line that ends with }.
        """
        lines = block.text.split(b"\n")
        lines.pop()
        if not all(map(_is_braced, lines)):
            return None
        if len(block.text) > self.reading.max_line and max(map(len, lines)) > self.reading.max_line:
            return None
        if any(block.text.count(literal) > len(lines) for _, literal in self.literals):
            return None
        try:
            rows = self.decoder.decode_lines(block.text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        columns = self.columns(rows)
        if len(rows) != len(lines) or any(UNSET in columns[name] for name in self.required):
            return None
        if any(columns[name].count(UNSET) < len(lines) for name in self.wanted.fresh):
            return None
        return Batch(block.file, range(block.number, block.number + len(lines)), lines, columns)

    def columns(self, rows: list[Any]) -> dict[str, list[Any]]:
        return {name: [getattr(row, attribute) for row in rows] for name, attribute in zip(self.names, self.attributes, strict=True)}

    def slow(self, line: bytes) -> tuple[bytes, Any]:
        """One line and its fields; raises DataError with the fault in clear words, without the place."""
        if line.startswith(BOM):
            if not self.reading.strip_bom:
                raise DataError("a byte-order mark at the start of the line", remedy="--strip-bom takes it out")
            line = line.removeprefix(BOM)
        if len(line) > self.reading.max_line:
            raise _too_long(self.reading)
        try:
            row = self.decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(*_words(line, error, self.wanted)) from None
        values = dict(zip(self.names, (getattr(row, attribute) for attribute in self.attributes), strict=True))
        for name in self.required:
            if values[name] is UNSET:
                raise DataError(f"no field `{name}`; the record has {_keys(line)}")
        for name, literal in self.literals:
            if line.count(literal) > 1 and [key for key, _ in json.loads(line, object_pairs_hook=list)].count(name) > 1:
                raise DataError(f"the field `{name}` stands twice", remedy="which one counts cannot be known: keep one")
        present = [name for name in self.wanted.fresh if values[name] is not UNSET]
        if present and not self.wanted.overwrite:
            raise DataError(
                f"the field `{present[0]}` is already there", remedy="--overwrite replaces it, --prefix STR names the new one otherwise"
            )
        return without(line, present) if present else line, row


def _is_braced(line: bytes) -> bool:
    return line[:1] == b"{" and line[-1:] == b"}"


def _words(line: bytes, error: Exception, wanted: Wanted) -> tuple[str]:
    """What is wrong with a line that did not decode: the syntax first, then the field."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as syntax:
        if match := re.search(rb'"((?:[^"\\]|\\.)*)"\s*:\s*(NaN|-?Infinity)\b', line):
            return (f"`{match[1].decode(errors='replace')}` is {match[2].decode()}, which is no JSON number",)
        if isinstance(error, UnicodeDecodeError) or "valid UTF-8" in str(syntax):
            return _not_utf8(line)
        if isinstance(error, RecursionError) or "recursion" in str(syntax).lower():
            return ("nested too deep",)
        if "infinity" in str(syntax):
            return ("a number that is not finite as a double",)
        return (f"not JSON: {syntax}",)
    except RecursionError:
        return ("nested too deep",)
    if not isinstance(record, dict):
        return (f"not an object but {_kind(record)}",)
    for name, kind in wanted.fields.items():
        if name in record and _is_wrong(record[name], kind):
            shown = orjson.dumps(record[name])[:40].decode(errors="replace")  # what stands there, not all of it
            return (f"`{name}` is {_kind(record[name])} ({shown}), not {WORDS.get(kind, kind)}; the record has {_keys(line)}",)
    return (str(error),)


def _not_utf8(line: bytes) -> tuple[str]:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return (f"invalid UTF-8 at byte {error.start} of the line",)
    return ("invalid UTF-8",)


def _is_wrong(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return True
    return False


def _kind(value: object) -> str:
    names = {
        str: "a string",
        bool: "true or false",
        int: "a number",
        float: "a number",
        list: "a list",
        dict: "an object",
        type(None): "null",
    }
    return names[type(value)]


def _names(line: bytes) -> list[str]:
    """The names of a record's fields; none if it is not a record."""
    try:
        found = orjson.loads(line)
    except (orjson.JSONDecodeError, RecursionError):
        return []
    return list(found) if isinstance(found, dict) else []


def _keys(line: bytes) -> str:
    """The keys of a record, for a message."""
    keys = _names(line)
    return ", ".join(keys[:20]) + (" ..." if len(keys) > 20 else "") if keys else "no fields at all"
