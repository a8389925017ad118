"""Lines in, fields out, new fields spliced in; every other byte of a record stays what it was.

Fields are read a block of lines at a time by msgspec, which skips what was not asked for; only where something is odd (an
error, a blank line, a byte-order mark, a doubled key) is a line looked at by itself, slowly and with a clear message.
"""

import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, groupby
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Raw, UnsetType

from ..errors import DataError, PruneError, UsageError
from ..storage.base import Input
from ..stream.batch import Text
from ..stream.lookahead import Limits
from ..stream.schema import Event, Head, Trailer
from .fields import COUNTED, MISSING, WORDS, Anything, Content, Count, Label, Number, is_wrong, kind_of
from .lines import Block, blocks, line_ends, too_long
from .splice import BLANK, without

BOM = b"\xef\xbb\xbf"
OPEN, CLOSE = b"{}"
RUN = 4096  # records that fall to one shard before the next one's turn
__all__ = [
    "MISSING",
    "Anything",
    "Batch",
    "Content",
    "Count",
    "Label",
    "Number",
    "Reading",
    "Source",
    "Wanted",
]


@dataclass(frozen=True)
class Reading:
    """How much an input is trusted, as the user says it."""

    strip_bom: bool = False
    skip_bad: bool = False
    max_line: int = 64 << 20
    expect_records: int | None = None
    limits: Limits = Limits()


@dataclass(frozen=True)
class Wanted:
    """What a verb wants of each record: `fields` maps names to types; `single` must not be doubled in a record; `fresh` are
    the fields it will add, which must not be there yet (`overwrite` takes them out)."""

    fields: dict[str, Any]
    optional: tuple[str, ...] = ()
    single: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    overwrite: bool = False


@dataclass
class Batch:
    """Consecutive records of one file: their text, where each line ends in it, and by name a list of values for each wanted field."""

    file: str
    numbers: Sequence[int]
    text: Text
    ends: np.ndarray
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, name: str) -> list[Any]:
        return self.columns[name]

    @property
    def starts(self) -> np.ndarray:
        return line_starts(self.ends)

    @cached_property
    def lines(self) -> list[bytes]:
        """Each record without its line end."""
        return bytes(self.text).split(b"\n")[:-1]

    def place(self, index: int) -> str:
        return f"{self.file}:{self.numbers[index]}"


@dataclass
class Source:
    """The records of all inputs in turn; `heads`, `trailers` and the counts grow as they are read.

    `heads` has None for every file that is not a stream of ours.
    """

    inputs: list[Input]
    reading: Reading = Reading()
    warn: Callable[[str], None] = lambda message: None

    def __post_init__(self) -> None:
        self.heads: list[Head | None] = []
        self.trailers: list[Trailer] = []
        self.records = self.blank = self.skipped = self.elsewhere = 0
        self._stream = self._read()
        self._blocks: Iterator[Block] = self._stream
        self._others: list[Source] = []

    def close(self) -> None:
        """Stop reading ahead, in the other readings of these inputs, too."""
        for one in (self, *self._others):
            with suppress(ValueError):  # it is being read in a thread that is about to stop
                one._stream.close()

    def _read(self) -> Generator[Block, None, None]:
        for file in self.inputs:
            yield from blocks(file, self.reading.limits, self.reading.max_line, self.warn, self._told)

    def _told(self, event: Event) -> None:
        if isinstance(event, Trailer):
            self.trailers.append(event)
        else:
            self.heads.append(event if isinstance(event, Head) else None)

    def peek(self) -> tuple[Head | None, list[str]]:
        """The head of the first stream, None if it has none, and the names of the first record's fields; no record is lost by it."""
        first = next(self._blocks, None)
        if first is None:
            return (self.heads[0] if self.heads else None), []
        self._blocks = chain([first], self._blocks)
        names = next((_names(line) for line in bytes(first.text).split(b"\n") if line.strip(BLANK)), [])
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
        return self._other(self.inputs)

    def only(self, file: Input) -> "Source":
        """The records of one of the inputs."""
        return self._other([file])

    def _other(self, inputs: list[Input]) -> "Source":
        self._others.append(Source(inputs, self.reading, self.warn))
        return self._others[-1]

    def batches(self, wanted: Wanted) -> Iterator[Batch]:
        """Read everything, once. Raises DataError, with file and line, at the first record that is not as `wanted`."""
        yield from self.decoded(self._blocks, wanted)
        expected = self.reading.expect_records
        came = self.records + self.skipped + self.elsewhere
        if expected is not None and came != expected:
            raise DataError(
                f"{came} records came, {expected} were expected", remedy="a whole file may be missing"
            )

    def decoded(self, blocks: Iterable[Block], wanted: Wanted) -> Iterator[Batch]:
        """The same for blocks that are at hand."""
        decoder = _Decoder(wanted, self.reading)
        for block in blocks:
            batch = decoder.fast(block) or self._slowly(block, decoder)
            if len(batch):
                self.records += len(batch)
                yield batch

    def _slowly(self, block: Block, decoder: "_Decoder") -> Batch:
        """Line by line, for a block in which something is not as it should be."""
        numbers, lines, rows = [], [], []
        for number, line in enumerate(bytes(block.text).split(b"\n"), block.number):
            if not line.strip(BLANK):
                self.blank += bool(line) or number < block.number + len(block.ends)
                continue
            try:
                line, row = decoder.slow(line)
            except PruneError as error:
                if not self.reading.skip_bad:
                    raise DataError(
                        error.fault, place=f"{block.file}:{number}", remedy=error.remedy
                    ) from None
                self.skipped += 1
                if self.skipped <= 5:
                    self.warn(f"{block.file}:{number}: {error.fault}; record skipped")
                continue
            numbers.append(number)
            lines.append(line)
            rows.append(row)
        text = b"".join(line + b"\n" for line in lines)
        return Batch(block.file, numbers, text, line_ends(text), decoder.columns(rows))


def _dealt(source: Source, found: Iterator[Block], is_ours: Callable[[int], bool]) -> Iterator[Block]:
    """The lines that fall to one shard, which is told by the records before them; a blank one goes with the record after it."""
    seen = 0

    def belongs(line: bytes) -> bool:
        nonlocal seen
        ours, is_record = is_ours(seen), bool(line.strip(BLANK))
        seen += is_record
        source.elsewhere += is_record and not ours
        return ours

    for block in found:
        number = block.number
        for ours, run in groupby(bytes(block.text).split(b"\n")[:-1], belongs):
            lines = list(run)
            if ours:
                text = b"\n".join([*lines, b""])
                yield Block(block.file, number, text, line_ends(text))
            number += len(lines)


class _Decoder:
    """The wanted fields of a line, or of a block of lines at once."""

    def __init__(self, wanted: Wanted, reading: Reading) -> None:
        self.wanted, self.reading = wanted, reading
        self.names = [*wanted.fields, *(name for name in wanted.fresh if name not in wanted.fields)]
        if odd := next((name for name in self.names if re.search(r'["\\\0-\x1f\ud800-\udfff]', name)), None):
            raise UsageError(
                f"a field named {odd!r} cannot be asked for",
                remedy="rename it: UTF-8 without quotes, backslashes, control characters",
            )
        self.attributes = [f"field_{index}" for index in range(len(self.names))]
        types = [wanted.fields.get(name, Raw) for name in self.names]
        members = [
            (attribute, kind | UnsetType, UNSET)
            for attribute, kind in zip(self.attributes, types, strict=True)
        ]
        struct = msgspec.defstruct(
            "Fields", members, rename=dict(zip(self.attributes, self.names, strict=True)), gc=False
        )
        self.decoder = msgspec.json.Decoder(struct)
        self.required = [name for name in wanted.fields if name not in wanted.optional]
        fresh = b"".join(b"," + re.escape(orjson.dumps(name)) + rb':[^,"{}\[\]]*+' for name in wanted.fresh)
        self.last_fields = re.compile(fresh + rb"\}\n")
        self.literals = [(name, orjson.dumps(name)) for name in wanted.single]
        # A decoder that counts how often single numbers come sees one that stands twice: searching the text takes as long as decoding it.
        self.counted = [name for name in wanted.single if wanted.fields[name] in COUNTED]
        self.searched = [literal for name, literal in self.literals if name not in self.counted]
        counting = [
            (attribute, COUNTED[kind] | UnsetType if name in self.counted else kind | UnsetType, UNSET)
            for attribute, name, kind in zip(self.attributes, self.names, types, strict=True)
        ]
        struct = msgspec.defstruct(
            "Fields", counting, rename=dict(zip(self.attributes, self.names, strict=True)), gc=False
        )
        self.counter = msgspec.json.Decoder(struct, dec_hook=self._count)
        self.came = 0

    def _count(self, kind: Any, value: Any) -> Any:
        self.came += 1
        return kind.checked(value)

    def fast(self, block: Block) -> Batch | None:
        """The whole block at once; None where a closer look is needed.

        msgspec takes values, not lines. When every line begins with { and ends with } and there are as many values as lines,
        then each line is one value: inside a value nothing but a comma or a closing bracket can follow a line that ends with }.
        """
        count, starts = len(block.ends), line_starts(block.ends)
        characters = np.frombuffer(block.text, np.uint8)
        if (characters[starts] != OPEN).any() or (characters[block.ends - 1] != CLOSE).any():
            return None
        if (block.ends - starts > self.reading.max_line).any():
            return None
        searchable = bytes(block.text) if self.searched else b""  # a view is not
        if any(searchable.count(literal) > count for literal in self.searched):
            return None
        self.came = 0
        try:
            rows = self.counter.decode_lines(block.text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        columns = self.columns(rows)
        if len(rows) != count or any(UNSET in columns[name] for name in self.required):
            return None
        if self.came != sum(count - columns[name].count(UNSET) for name in self.counted):
            return None
        text, ends = block.text, block.ends
        if any(columns[name].count(UNSET) < count for name in self.wanted.fresh):
            text = self._freed(block)
            if not text:
                return None
            ends = line_ends(text)
        return Batch(block.file, range(block.number, block.number + count), text, ends, columns)

    def _freed(self, block: Block) -> bytes:
        """The text without the fresh fields, where each record has them as its last ones, as we write them; else nothing."""
        text = bytes(block.text)
        if not self.wanted.overwrite or any(
            text.count(orjson.dumps(name)) != len(block.ends) for name in self.wanted.fresh
        ):
            return b""
        text, found = self.last_fields.subn(b"}\n", text)
        return text if found == len(block.ends) else b""

    def columns(self, rows: list[Any]) -> dict[str, list[Any]]:
        return {
            name: list(map(attrgetter(attribute), rows))
            for name, attribute in zip(self.names, self.attributes, strict=True)
        }

    def slow(self, line: bytes) -> tuple[bytes, Any]:
        """One line and its fields; raises DataError with the fault in clear words, without the place."""
        if line.startswith(BOM):
            if not self.reading.strip_bom:
                raise DataError(
                    "a byte-order mark at the start of the line", remedy="--strip-bom takes it out"
                )
            line = line.removeprefix(BOM)
        if len(line) > self.reading.max_line:
            raise too_long(self.reading.max_line)
        try:
            row = self.decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DataError(*_words(line, error, self.wanted)) from None
        values = dict(
            zip(self.names, (getattr(row, attribute) for attribute in self.attributes), strict=True)
        )
        for name in self.required:
            if values[name] is UNSET:
                raise DataError(f"no field `{name}`; the record has {_keys(line)}")
        for name, literal in self.literals:
            if (line.count(literal) > 1 or b"\\u" in line) and _members(line).count(name) > 1:
                raise DataError(
                    f"the field `{name}` stands twice", remedy="which one counts cannot be known: keep one"
                )
        present = [name for name in self.wanted.fresh if values[name] is not UNSET]
        if present and not self.wanted.overwrite:
            raise DataError(
                f"the field `{present[0]}` is already there",
                remedy="--overwrite replaces it, --prefix STR names the new one otherwise",
            )
        return without(line, present) if present else line, row


def line_starts(ends: np.ndarray) -> np.ndarray:
    """Where each line starts that ends there."""
    return np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends


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
        fault = re.sub(r": line 1 column (\d+) \(char \d+\)$", r" (column \1)", str(syntax))
        return (
            f"not JSON: {fault}"
            + ("; of an array `jq -c '.[]'` makes lines" if line.lstrip()[:1] == b"[" else ""),
        )
    except RecursionError:
        return ("nested too deep",)
    if not isinstance(record, dict):
        return (f"not an object but {kind_of(record)}",)
    for name, kind in wanted.fields.items():
        if name in record and is_wrong(record[name], kind):
            shown = f" ({orjson.dumps(record[name])[:40].decode(errors='replace')})"  # what stands there, not all of it
            found = kind_of(record[name]) + (shown if record[name] is not None else "")
            return (f"`{name}` is {found}, not {WORDS.get(kind, kind)}; the record has {_keys(line)}",)
    return (str(error),)


def _not_utf8(line: bytes) -> tuple[str]:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return (f"invalid UTF-8 at byte {error.start} of the line",)
    return ("invalid UTF-8",)


def _members(line: bytes) -> list[str]:
    """The names of a valid record's members, each as often as it stands there; what is no UTF-8 may stand beside them."""
    text = line.decode("utf-8", "surrogateescape")
    try:
        return [
            name for name, _ in json.loads(text, object_pairs_hook=list, parse_int=str)
        ]  # Python's int() refuses 4,300 digits
    except RecursionError:  # a few levels before the decoder says so
        raise DataError("nested too deep") from None


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
