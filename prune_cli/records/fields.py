"""Which types may a field have, and how is the fault of an unreadable line described to its owner?"""

import json
import re
from math import isfinite, isinf
from typing import Annotated, Any

import msgspec
import orjson
from msgspec import UNSET

from ..errors import DataError

Number = float | None
# Whole numbers stay below 2^53, up to which JSON readers that compute in doubles agree. pandas and polars
# write a column of counts with nulls as floats (7.0), which are as good as long as they are whole.
MOST = 1 << 53
_WholeFloat = Annotated[float, msgspec.Meta(ge=0, lt=float(MOST), multiple_of=1.0)]
Count = Annotated[int, msgspec.Meta(ge=0, lt=MOST)] | _WholeFloat | None
# Like Count, but never summed. (For counts, the reader checks that their sum fits into 64 bits.)
Rank = Annotated[int, msgspec.Meta(ge=0, lt=MOST, title="rank")] | _WholeFloat | None
# Token ids fit into 64 bits; whether they are in a vocabulary is for models to say.
TokenId = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
TokenIds = list[TokenId]
Content = str | TokenIds
Messages = list[dict[str, Any]]  # of a conversation
Label = str | int
Anything = Any
LARGEST = 1 << 1023  # integers below it fit into a double; larger ones are read one by one
MISSING = UNSET  # the value of an optional field that a record does not have

TOO_DEEP = "nested too deeply"
INVALID = "invalid UTF-8"
# What compressed data starts with, where a plain file and a compressed one were joined.
ZSTD, GZIP = b"\x28\xb5\x2f\xfd", b"\x1f\x8b"

WORDS = {
    Number: "a finite number or null",
    Count: "a whole number below 2^53",
    Rank: "a whole number below 2^53",
    str: "a string",
    str | None: "a string",
    TokenIds: "a list of token ids",
    Content: "a string or a list of token ids",
    Content | None: "a string or a list of token ids",
    Messages: "a list of messages",
    Label: "a string or a whole number",
}


def convert_all(values: list[Any], kind: Any) -> list[Any]:
    """The values converted to one of the types above, as a JSON decoder would. Raises ValueError."""
    converted: list[Any] = msgspec.convert(values, list[kind])
    return converted


def is_wrong(value: object, kind: Any) -> bool:
    """Whether a value is not of this type, one of those above."""
    # Raw is any value, kept as bytes; msgspec cannot convert to it.
    if kind is msgspec.Raw:
        return False
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return True
    return False


def kind_of(value: object) -> str:
    """The type of a JSON value, in words."""
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


class _Everything(type):
    """The metaclass of types of which everything is an instance.

    msgspec checks that a hook returns an instance of the type that it was called for. Ours return plain
    numbers.
    """

    def __instancecheck__(cls, value: object) -> bool:
        return True


class _CountedNumber(metaclass=_Everything):
    """A Number that calls the hook of the decoder, which counts it."""

    @staticmethod
    def checked(value: Any) -> float | None:
        if value is None or (type(value) is float and isfinite(value)):
            return value
        if type(value) is int and abs(value) < LARGEST:
            return float(value)
        raise ValueError


class _CountedCount(metaclass=_Everything):
    """A Count that calls the hook of the decoder, which counts it."""

    @staticmethod
    def checked(value: Any) -> int | float | None:
        if value is None or (type(value) is int and 0 <= value < MOST):
            return value
        if type(value) is float and 0 <= value < MOST and value.is_integer():
            return value
        raise ValueError


class _CountedText(metaclass=_Everything):
    """A text that calls the hook of the decoder, which counts it."""

    @staticmethod
    def checked(value: Any) -> str:
        if type(value) is str:
            return value
        raise ValueError


COUNTED: dict[Any, Any] = {
    str: _CountedText,
    Number: _CountedNumber,
    Count: _CountedCount,
    Rank: _CountedCount,
}


# --- Faults of lines. Slow, but only for lines that could not be read ---


def error_of(line: bytes, error: Exception, fields: dict[str, Any]) -> DataError:
    """The error for a line that did not decode to these fields, without a place."""
    fault = _fault_of(line, error, fields)
    remedy = _remedy_of(line)
    if fault.startswith(INVALID) and not remedy:
        return not_unicode(fault)
    return DataError(fault, remedy=remedy)


def not_unicode(fault: str) -> DataError:
    """The error for a text that is used and cannot be decoded."""
    return DataError(fault, remedy="mend the text, or skip such records with --skip-bad")


def _remedy_of(line: bytes) -> str:
    """The command that makes lines of JSON that is laid out otherwise."""
    text = line.strip()
    if text[:1] == b"[":
        return "`jq -c '.[]'` makes lines of an array"
    # Where a record is spread over lines, a brace or a comma ends the first of them.
    if text == b"{" or (text[:1] == b"{" and text[-1:] in b",{["):
        return "`jq -c .` makes lines of records that are spread over several"
    if text[:4] == ZSTD or text[:2] == GZIP:
        return "compressed data follows text: compress both parts or neither, or name them as two files"
    if _is_two_records(text):
        # DCLM's files end without a line end, so `cat` joins the last line of each with the next one.
        return "two records on one line: were files without a last line end joined? name them one by one"
    return ""


def _is_two_records(text: bytes) -> bool:
    try:
        _, end = json.JSONDecoder().raw_decode(text.decode())
    except (ValueError, RecursionError):
        return False
    return text.decode()[end:].lstrip().startswith("{")


def _fault_of(line: bytes, error: Exception, fields: dict[str, Any]) -> str:
    """The fault of a line that did not decode to these fields (types by name): of syntax, or of a field."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError as syntax:
        return _syntax_fault(line, error, syntax)
    except RecursionError:
        return TOO_DEEP
    if not isinstance(record, dict):
        return f"not an object but {kind_of(record)}"
    for name, kind in fields.items():
        if name in record and is_wrong(record[name], kind):
            return _field_fault(line, name, record[name], kind)
    return str(error)


def _syntax_fault(line: bytes, error: Exception, syntax: orjson.JSONDecodeError) -> str:
    message = str(syntax)
    # Python's json module writes NaN, Infinity and -Infinity, but they are not JSON.
    if match := re.search(rb'"((?:[^"\\]|\\.)*)"\s*:\s*(NaN|-?Infinity)\b', line):
        return f"`{match[1].decode(errors='replace')}` is {match[2].decode()}, which is no JSON number"
    if isinstance(error, UnicodeDecodeError) or "valid UTF-8" in message:
        return _utf8_fault(line)
    if isinstance(error, RecursionError) or "recursion" in message.lower():
        return TOO_DEEP
    if "infinity" in message:
        return _infinity_fault(line)
    fault = re.sub(r": line 1 column (\d+) \(char \d+\)$", r" (column \1)", message)
    return f"not JSON: {fault}"


def _infinity_fault(line: bytes) -> str:
    """The fault of a number such as 1e400, which no double holds, with the field that it stands in."""
    fault = "a number that is not finite as a double"
    try:
        record = json.loads(line.decode("utf-8", "surrogateescape"), parse_int=float)
    except (ValueError, RecursionError):
        return fault
    fields = record.items() if isinstance(record, dict) else ()
    name = next((name for name, value in fields if _holds_infinity(value)), None)
    return fault if name is None else f"`{name}` is {fault}"


def _holds_infinity(value: object) -> bool:
    """Whether a value of JSON is an infinite number, or holds one at any depth."""
    if isinstance(value, dict):
        return any(map(_holds_infinity, value.values()))
    if isinstance(value, list):
        return any(map(_holds_infinity, value))
    return isinstance(value, float) and isinf(value)


def _utf8_fault(line: bytes) -> str:
    try:
        line.decode()
    except UnicodeDecodeError as error:
        return f"{INVALID} at byte {error.start} of the line"
    return INVALID


def nested_remedy(name: str) -> str:
    """The way out for a name like `meta.source`; empty for any other."""
    if "." not in name:
        return ""
    last = name.rpartition(".")[2]
    return f"nested fields are not supported: jq -c '.{last} = .{name}' copies it to a field `{last}`"


def _field_fault(line: bytes, name: str, value: object, kind: Any) -> str:
    described = kind_of(value)
    if value is not None:
        described += f" ({orjson.dumps(value)[:40].decode(errors='replace')})"
    return f"`{name}` is {described}, not {WORDS.get(kind, kind)}; the record has {listed_names(line)}"


def member_names(line: bytes) -> list[str]:
    """The field names of a valid record, repeated ones as often as they occur."""
    # The wanted fields are valid UTF-8, but others need not be: surrogates let them pass.
    text = line.decode("utf-8", "surrogateescape")
    try:
        # Numbers stay text, because Python's int() refuses more than 4,300 digits.
        return [name for name, _ in json.loads(text, object_pairs_hook=list, parse_int=str)]
    except RecursionError:
        # Python's limit of nesting is a few levels lower than that of the decoder.
        raise DataError(TOO_DEEP) from None


def field_names(line: bytes) -> list[str]:
    """The field names of a record; empty if the line is not a record."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return _names_beside(line)
    except RecursionError:
        return []
    return list(record) if isinstance(record, dict) else []


def _names_beside(line: bytes) -> list[str]:
    """The names of a record that has invalid UTF-8 or lone surrogates somewhere; none if it is no record."""
    try:
        names = member_names(line)
    except (ValueError, AttributeError, TypeError, DataError):
        return []
    return [name for name in names if isinstance(name, str) and name.isprintable()]


def listed_names(line: bytes) -> str:
    """The field names of a record for a message, at most twenty."""
    names = field_names(line)
    if not names:
        return "no fields at all"
    return ", ".join(names[:20]) + (" ..." if len(names) > 20 else "")
