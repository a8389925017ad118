"""How are fields read from lines of JSON? A block of lines at a time, by msgspec, which skips other fields.

Lines are read one by one, slowly and with a clear message, only in a block that is irregular: an error, a
blank line, a byte-order mark, a repeated field.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import orjson
from msgspec import UNSET, Raw, UnsetType

from ..errors import DataError, UsageError
from ..stream.batch import Text
from .fields import COUNTED, error_of, listed_names, member_names, nested_remedy, not_unicode
from .lines import CLOSE, OPEN, Block, line_ends, line_starts, too_long
from .splice import lone_surrogate, values, without, without_lone_surrogates

BOM = b"\xef\xbb\xbf"
# Characters that JSON may or must escape. The fast path searches for the bytes of a name, so it needs names
# with one spelling.
UNSUITABLE = re.compile(r'["\\\0-\x1f\ud800-\udfff]')


@dataclass(frozen=True)
class Wanted:
    """The fields that a verb reads from each record.

    `fields` maps names to types. Fields in `single` must not occur twice in a record. `fresh` are the fields
    that the verb will add: a record must not have them, or loses them with `overwrite`.
    """

    fields: dict[str, Any]
    optional: tuple[str, ...] = ()
    single: tuple[str, ...] = ()
    fresh: tuple[str, ...] = ()
    overwrite: bool = False


@dataclass
class Batch:
    """Consecutive records of one file, with a list of values for each wanted field.

    `numbers` are the line numbers in the file, and `ends` the offsets of the line ends in `text`.
    """

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

    def listed_names(self, index: int) -> str:
        """The field names of a record, for a message."""
        return listed_names(self.lines[index])

    def place(self, index: int) -> str:
        """File and line of a record, for a message."""
        return f"{self.file}:{self.numbers[index]}"


class Decoder:
    """Reads the wanted fields of a line, or of a block of lines at once.

    Raises UsageError for a field name that it cannot search for.
    """

    def __init__(self, wanted: Wanted, *, max_line: int, strip_bom: bool = False) -> None:
        self.wanted = wanted
        self.max_line = max_line
        self.strip_bom = strip_bom
        self.names = list(dict.fromkeys((*wanted.fields, *wanted.fresh)))
        _check_names(self.names)
        self.required = [name for name in wanted.fields if name not in wanted.optional]
        # msgspec takes the last of repeated fields without a word. Searching the text for a second one takes
        # as long as decoding it; of numbers and texts, a hook counts how many are decoded, at much less cost.
        self.counted = [name for name in wanted.single if wanted.fields[name] in COUNTED]
        self.searched = [name for name in wanted.single if name not in self.counted]
        self.literals = {name: orjson.dumps(name) for name in wanted.single}
        self.last_fields = _last_fields(wanted.fresh)
        # A field name need not be a valid attribute name.
        self.attributes = [f"field_{index}" for index in range(len(self.names))]
        self.decoder = msgspec.json.Decoder(self._struct(()))
        self.counter = msgspec.json.Decoder(self._struct(self.counted), dec_hook=self._count)
        self.decoded = 0

    def _struct(self, counted: Iterable[str]) -> type[msgspec.Struct]:
        """A Struct with the wanted fields; the types of the `counted` ones call the hook."""
        members: list[tuple[str, Any, Any]] = []
        for attribute, name in zip(self.attributes, self.names, strict=True):
            kind = self.wanted.fields.get(name, Raw)
            members.append((attribute, (COUNTED[kind] if name in counted else kind) | UnsetType, UNSET))
        rename = dict(zip(self.attributes, self.names, strict=True))
        # Rows hold no cycles: without garbage collection a block decodes in two thirds of the time.
        return msgspec.defstruct("Fields", members, rename=rename, gc=False)

    def _count(self, kind: Any, value: Any) -> Any:
        self.decoded += 1
        return kind.checked(value)

    # --- A block at once ---

    def fast(self, block: Block) -> Batch | None:
        """Decode the whole block at once; None if its lines have to be read one by one."""
        # msgspec decodes values, not lines. If every line begins with { and ends with }, and there are as
        # many values as lines, then each line is one value: within a value, only a comma or a closing bracket
        # can follow a line that ends with }.
        if not self._looks_regular(block):
            return None
        columns = self._decode(block)
        if columns is None:
            return None
        text = block.text
        ends = block.ends
        count = len(ends)
        if any(columns[name].count(UNSET) < count for name in self.wanted.fresh):
            text = self._without_last_fields(block)
            if not text:
                return None
            ends = line_ends(text)
        return Batch(block.file, range(block.number, block.number + count), text, ends, columns)

    def _decode(self, block: Block) -> dict[str, list[Any]] | None:
        """The values of each field; None if a record is not as it should be."""
        count = len(block.ends)
        self.decoded = 0
        try:
            rows = self.counter.decode_lines(block.text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        columns = self.columns(rows)
        if len(rows) != count or any(UNSET in columns[name] for name in self.required):
            return None
        # A repeated field was decoded more often than there are records with that field.
        present = sum(count - columns[name].count(UNSET) for name in self.counted)
        return columns if self.decoded == present and self._looks_single(block, columns) else None

    def _looks_regular(self, block: Block) -> bool:
        """Whether each line is in braces and short enough."""
        starts = line_starts(block.ends)
        characters = np.frombuffer(block.text, np.uint8)
        if (characters[starts] != OPEN).any() or (characters[block.ends - 1] != CLOSE).any():
            return False
        return not (block.ends - starts > self.max_line).any()

    def _looks_single(self, block: Block, columns: dict[str, list[Any]]) -> bool:
        """Whether none of the `searched` fields seems to occur twice in a record."""
        count = len(block.ends)
        present = [name for name in self.searched if columns[name].count(UNSET) < count]
        # A field name inside a text counts, too. Such a block is then read slowly without need.
        searchable = bytes(block.text) if present else b""  # a memoryview has no count()
        return all(searchable.count(self.literals[name]) <= count for name in present)

    def _without_last_fields(self, block: Block) -> bytes:
        """The text without the fresh fields; empty unless they come last in every record, as rank writes."""
        text = bytes(block.text)
        count = len(block.ends)
        if not self.wanted.overwrite:
            return b""
        if any(text.count(orjson.dumps(name)) != count for name in self.wanted.fresh):
            return b""
        text, removed = self.last_fields.subn(b"}\n", text)
        return text if removed == count else b""

    def columns(self, rows: list[Any]) -> dict[str, list[Any]]:
        """A list of values for each field."""
        return {
            name: list(map(attrgetter(attribute), rows))
            for name, attribute in zip(self.names, self.attributes, strict=True)
        }

    # --- A line ---

    def slow(self, line: bytes) -> tuple[bytes, Any]:
        """Decode a line. Returns it without byte-order mark and fresh fields, and its row.

        Raises DataError, whose place is for the caller to add.
        """
        line = self._without_bom(line)
        if len(line) > self.max_line:
            raise too_long(self.max_line)
        row = self._row(line)
        members = {
            name: getattr(row, attribute) for name, attribute in zip(self.names, self.attributes, strict=True)
        }
        self._check(line, members)
        return self._without_fresh(line, members), row

    def _row(self, line: bytes) -> Any:
        """The row of a line. Raises DataError if it is no record, or if a field is not as wanted."""
        try:
            return self.decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            # msgspec refuses a lone surrogate in every field, also in those that it skips.
            readable = without_lone_surrogates(line)
            if readable == line:
                raise error_of(line, error, self.wanted.fields) from None
        try:
            row = self.decoder.decode(readable)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise error_of(readable, error, self.wanted.fields) from None
        self._restore(line, row)
        return row

    def _restore(self, line: bytes, row: Any) -> None:
        """Give a row of a line without lone surrogates the values that are passed on as they came.

        Raises DataError if a field whose text is used has one.
        """
        attributes = dict(zip(self.names, self.attributes, strict=True))
        for name, value in values(line):
            half = lone_surrogate(value)
            if name not in attributes or not half:
                continue
            if self.wanted.fields.get(name, Raw) is not Raw:
                raise not_unicode(f"`{name}` has a lone surrogate ({half.decode()}), half of a character")
            setattr(row, attributes[name], Raw(value))

    def _without_bom(self, line: bytes) -> bytes:
        if not line.startswith(BOM):
            return line
        if not self.strip_bom:
            fault = "a byte-order mark at the start of the line"
            raise DataError(fault, remedy="--strip-bom takes it out")
        return line.removeprefix(BOM)

    def _check(self, line: bytes, values: dict[str, Any]) -> None:
        """Raise DataError for a missing field, and for a repeated one."""
        for name in self.required:
            if values[name] is UNSET:
                fault = f"no field `{name}`; the record has {listed_names(line)}"
                raise DataError(fault, remedy=nested_remedy(name))
        for name, literal in self.literals.items():
            # A name may be written with escapes, so a line with a \\u escape needs the full check.
            if (line.count(literal) > 1 or b"\\u" in line) and member_names(line).count(name) > 1:
                raise DataError(f"the field `{name}` occurs twice", remedy="keep one of them")

    def _without_fresh(self, line: bytes, values: dict[str, Any]) -> bytes:
        present = [name for name in self.wanted.fresh if values[name] is not UNSET]
        if not present:
            return line
        if not self.wanted.overwrite:
            remedy = "--overwrite replaces it, --prefix STR gives the new field a different name"
            raise DataError(f"the field `{present[0]}` already exists", remedy=remedy)
        return without(line, present)


def _check_names(names: Iterable[str]) -> None:
    unsuitable = next((name for name in names if UNSUITABLE.search(name)), None)
    if unsuitable is not None:
        raise UsageError(
            f"a field named {unsuitable!r} cannot be read",
            remedy="rename it: UTF-8 without quotes, backslashes, control characters",
        )


def _last_fields(names: tuple[str, ...]) -> re.Pattern[bytes]:
    """Matches these fields, in this order, at the end of a record; the values have no quotes or brackets."""
    # Strings are left to the slow way: a brace or comma inside one would end the match too early.
    fields = b"".join(b"," + re.escape(orjson.dumps(name)) + rb':[^,"{}\[\]]*+' for name in names)
    return re.compile(fields + rb"\}\n")
