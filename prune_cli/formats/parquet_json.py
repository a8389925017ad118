"""How does a batch of Parquet rows become lines of JSON? Column by column, with no Python for each value.

The spellings are those of DuckDB's `COPY ... (FORMAT json)`, except that times follow ISO 8601 and that
values without a spelling in JSON are refused. `SPELLINGS` has the function of each type.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .parquet_texts import NULL, TEXT, buffers, constant, escaped, escaped_name

# Date, time, fraction and zone, as pyarrow writes a timestamp. Zeros at the end of the fraction are dropped.
TIMESTAMP = r"^(\d{4}-\d\d-\d\d) ([0-9:]{8})(?:\.0+|(\.\d*[1-9])0*)?(Z?)$"
TIME = r"^([0-9:]{8})(?:\.0+|(\.\d*[1-9])0*)?$"


class Unspeakable(ValueError):
    """A value, or a type, that has no spelling in JSON; the message says which, without a place."""


def lines(batch: pa.RecordBatch) -> tuple[memoryview, np.ndarray]:
    """The rows as lines of JSON, and the offset of each line end.

    Raises Unspeakable, which names the column, but not the row.
    """
    names = batch.schema.names
    columns = []
    for name, column in zip(names, batch.columns, strict=True):
        try:
            columns.append(_column(column))
        except Unspeakable as error:
            raise Unspeakable(f"column `{name}` {error}") from None
    offsets, text = buffers(_object(names, columns, b"}\n"))
    # Readers of lines need the line ends, and would search the whole text for them.
    return text, offsets[1:] - 1


def faults(batch: pa.RecordBatch) -> dict[int, str]:
    """The rows that cannot be written, in order, and why."""
    reasons: dict[int, str] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        for row, fault in _faults(column, 0):
            reasons.setdefault(row, f"column `{name}` {fault}")
    return dict(sorted(reasons.items()))


def _faults(column: pa.Array, first: int) -> Iterator[tuple[int, str]]:
    """The rows of a column that cannot be written, counted from `first`, found by halves."""
    try:
        _column(column)
    except Unspeakable as error:
        if len(column) == 1:
            yield first, str(error)
            return
        half = len(column) // 2
        yield from _faults(column.slice(0, half), first)
        yield from _faults(column.slice(half), first + half)


def check(schema: pa.Schema) -> None:
    """Raise Unspeakable, which names the column, for a type that no value of which can be written."""
    for field in schema:
        try:
            _spelling(field.type)
            for kind in _children(field.type):
                _spelling(kind)
        except Unspeakable as error:
            raise Unspeakable(f"column `{field.name}` {error}") from None


@dataclass(frozen=True)
class _Column:
    """A spelled column: the same bytes stand before and after each value. A null value is JSON's null."""

    values: pa.Array
    around: bytes = b""


def _column(array: pa.Array) -> _Column:
    # The quotes of a text without nulls are written with the names of the columns, which saves a copy of it.
    if _is_text(array.type) and not array.null_count:
        return _Column(escaped(_checked_text(array)), b'"')
    return _Column(spelled(array))


def _object(names: Sequence[str], columns: Iterable[_Column], end: bytes) -> pa.Array:
    """Objects of JSON, one for each row, of the spelled columns; `end` closes each of them."""
    parts: list[pa.Array | pa.Scalar] = []
    before = b"{"
    for name, column in zip(names, columns, strict=True):
        parts += [constant(before + _key(name) + column.around), column.values]
        before = column.around + b","
    parts.append(constant(before.removesuffix(b",") + end))
    return _joined(parts)


@lru_cache(maxsize=100_000)
def _key(name: str) -> bytes:
    return b'"' + escaped_name(name) + b'":'


def _joined(parts: Sequence[pa.Array | pa.Scalar]) -> pa.Array:
    """The parts of each row, one after another; a null part is JSON's null."""
    return pc.binary_join_element_wise(
        *parts, constant(b""), null_handling="replace", null_replacement=b"null"
    )


# --- The spelling of each type: an array of TEXT, null where the value is null ---


def spelled(array: pa.Array) -> pa.Array:
    """Each value as JSON. Raises Unspeakable."""
    return _spelling(array.type)(array)


def _plainly(array: pa.Array) -> pa.Array:
    return array.cast(TEXT)


def _nulls(array: pa.Array) -> pa.Array:
    return pa.nulls(len(array), TEXT)


def _floats(array: pa.Array) -> pa.Array:
    # As DuckDB does: a float of 32 bits is written with the digits of the equal float of 64 bits.
    doubles = array.cast(pa.float64())
    if not pc.all(pc.is_finite(doubles), min_count=0).as_py():
        name = "NaN" if pc.any(pc.is_nan(doubles)).as_py() else "infinite"
        raise Unspeakable(f"is {name}, which JSON does not have")
    texts = doubles.cast(TEXT)
    # Most columns have no whole number: to see that takes a tenth of the time of the expression below.
    if not pc.any(pc.equal(pc.floor(doubles), doubles), min_count=0).as_py():
        return texts
    # pyarrow writes 1.0 as 1, which a reader of JSON would take for an integer.
    whole = pc.match_substring_regex(texts, pattern=r"^-?\d+$")
    return _joined_or_null([texts, pc.if_else(whole, constant(b".0"), constant(b""))], array)


def _dates(array: pa.Array) -> pa.Array:
    texts = array.cast(TEXT)
    _check_years(texts)
    return _quoted(texts, array)


def _timestamps(array: pa.Array) -> pa.Array:
    # A file says only whether times are UTC; any other zone is a note of pyarrow's for its own readers.
    zone = "UTC" if array.type.tz else None
    texts = array.cast(pa.timestamp(array.type.unit, zone)).cast(TEXT)
    _check_years(texts)
    return _quoted(_rewritten(texts, TIMESTAMP, r"\1T\2\3\4"), array)


def _check_years(texts: pa.Array) -> None:
    # ISO 8601 has four digits. Other years are mostly times that were written in a wrong unit.
    if not pc.all(pc.match_substring_regex(texts, pattern=r"^\d{4}-"), min_count=0).as_py():
        raise Unspeakable("has a year outside of 0 to 9999")


def _times(array: pa.Array) -> pa.Array:
    return _quoted(_rewritten(array.cast(TEXT), TIME, r"\1\2"), array)


def _rewritten(texts: pa.Array, pattern: str, replacement: str) -> pa.Array:
    return pc.replace_substring_regex(texts, pattern=pattern, replacement=replacement)


def _durations(array: pa.Array) -> pa.Array:
    # Parquet has no durations: pyarrow stores counts of their unit, and DuckDB reads counts.
    return _plainly(array.cast(pa.int64()))


def _checked_text(array: pa.Array) -> pa.Array:
    # pyarrow's reader does not check this.
    try:
        array.validate(full=True)
    except pa.ArrowInvalid:
        raise Unspeakable("is no valid UTF-8") from None
    return array.cast(TEXT)


def _texts(array: pa.Array) -> pa.Array:
    return _quoted(escaped(_checked_text(array)), array)


def _quoted(texts: pa.Array, array: pa.Array) -> pa.Array:
    return _joined_or_null([constant(b'"'), texts, constant(b'"')], array)


def _joined_or_null(parts: Sequence[pa.Array | pa.Scalar], array: pa.Array) -> pa.Array:
    """The parts of each row, one after another, and null where `array` is null."""
    joined = _joined(parts)
    return pc.if_else(array.is_valid(), joined, NULL) if array.null_count else joined


def _dictionaries(array: pa.Array) -> pa.Array:
    # Each different value is spelled once, unless the dictionary has many that this batch does not use.
    if len(array.dictionary) <= len(array):
        # Of a value that JSON does not have, only the rows that use it can tell which row is at fault.
        with suppress(Unspeakable):
            return spelled(array.dictionary).take(array.indices)
    return spelled(array.dictionary_decode())


def _lists(array: pa.Array) -> pa.Array:
    return _bracketed(array, spelled(array.flatten()), b"[]")


def _maps(array: pa.Array) -> pa.Array:
    kind = array.type
    pairs = pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))
    lists = array.cast(pairs)
    keys, values = lists.flatten().flatten()
    # Names in JSON are strings: 1 becomes "1", and what is quoted already stays so.
    names = spelled(keys)
    if not _is_quoted(kind.key_type):
        names = _quoted(escaped(names), keys)
    return _bracketed(lists, _joined([names, constant(b":"), spelled(values)]), b"{}")


def _bracketed(lists: pa.Array, items: pa.Array, brackets: bytes) -> pa.Array:
    """The spelled items of each list, with commas between them and brackets around them."""
    lengths = pc.coalesce(pc.list_value_length(lists).cast(pa.int64()), _ZERO)
    # `flatten` skips what lies behind a null list, so the offsets are made anew.
    # Through the buffer: to_numpy would import pandas.
    counts = np.frombuffer(lengths.buffers()[1], np.int64)[lengths.offset : lengths.offset + len(lengths)]
    buffers = [None, pa.py_buffer(np.concatenate(([0], np.cumsum(counts))))]
    kind = pa.large_list(TEXT)
    # A list with a null item would be null as a whole.
    items = pc.coalesce(items, constant(b"null"))
    texts = pc.binary_join(pa.Array.from_buffers(kind, len(lists), buffers, children=[items]), constant(b","))
    return _joined_or_null([constant(brackets[:1]), texts, constant(brackets[1:])], lists)


_ZERO = pa.Array.from_buffers(pa.int64(), 1, [None, pa.py_buffer(bytes(8))])[0]


def _structs(array: pa.Array) -> pa.Array:
    names = [field.name for field in array.type]
    # `flatten` makes the fields of a null struct null.
    objects = _object(names, map(_column, array.flatten()), b"}")
    return pc.if_else(array.is_valid(), objects, NULL) if array.null_count else objects


def _storage(array: pa.Array) -> pa.Array:
    return spelled(array.storage)


def _is_text(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_quoted(kind: pa.DataType) -> bool:
    """Whether values of a type are strings in JSON."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    is_time = pa.types.is_date(kind) or pa.types.is_timestamp(kind) or pa.types.is_time(kind)
    return bool(is_time or _is_text(kind))


def _is_list(kind: pa.DataType) -> bool:
    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


Spelling = Callable[[pa.Array], pa.Array]
SPELLINGS: tuple[tuple[Callable[[pa.DataType], bool], Spelling], ...] = (
    (_is_text, _texts),
    (pa.types.is_integer, _plainly),
    (pa.types.is_floating, _floats),
    (pa.types.is_boolean, _plainly),
    (pa.types.is_null, _nulls),
    (pa.types.is_decimal, _plainly),
    (pa.types.is_date, _dates),
    (pa.types.is_timestamp, _timestamps),
    (pa.types.is_time, _times),
    (pa.types.is_duration, _durations),
    (pa.types.is_dictionary, _dictionaries),
    (pa.types.is_map, _maps),
    (_is_list, _lists),
    (pa.types.is_struct, _structs),
)


def _spelling(kind: pa.DataType) -> Spelling:
    if isinstance(kind, pa.BaseExtensionType):
        return _storage
    for is_of, spelling in SPELLINGS:
        if is_of(kind):
            return spelling
    raise Unspeakable(f"is {_called(kind)}, which JSON does not have")


def _called(kind: pa.DataType) -> str:
    names = str(kind)
    return "binary" if "binary" in names else f"of the type {names}"


def _children(kind: pa.DataType) -> Iterable[pa.DataType]:
    """The types within a nested type, at any depth."""
    if pa.types.is_dictionary(kind):
        yield kind.value_type
    elif isinstance(kind, pa.BaseExtensionType):
        yield kind.storage_type
    for at in range(kind.num_fields):
        child = kind.field(at).type
        yield child
        yield from _children(child)
