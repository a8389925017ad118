"""What a field of a record may be, and in which words it is told of."""

from math import isfinite
from typing import Annotated, Any

import msgspec
from msgspec import UNSET

Number = float | None
Count = Annotated[int, msgspec.Meta(ge=0)] | None
Content = str | list[int]
Label = str | int
Anything = Any
LARGEST = 1 << 1023  # whole numbers beyond it are looked at one by one
MISSING = UNSET  # the value of an optional field that a record does not have

WORDS = {
    Number: "a finite number or null",
    Count: "a whole number",
    str: "a string",
    str | None: "a string",
    list[int]: "a list of token ids",
    Content: "a string or a list of token ids",
    Content | None: "a string or a list of token ids",
    Label: "a string or a whole number",
}


def is_wrong(value: object, kind: Any) -> bool:
    """Whether a value is not of a kind above. Every value is right as raw bytes (`msgspec.Raw`)."""
    if kind is msgspec.Raw:
        return False
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return True
    return False


def kind_of(value: object) -> str:
    """What a JSON value is, in words."""
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
    """What msgspec hands to a hook of ours must come back as an instance of the type that was asked for:
    everything is one.
    """

    def __instancecheck__(cls, value: object) -> bool:
        return True


class _CountedNumber(metaclass=_Everything):
    """A Number of which a decoder counts how often it comes."""

    @staticmethod
    def checked(value: Any) -> float | None:
        if value is None or (type(value) is float and isfinite(value)):
            return value
        if type(value) is int and abs(value) < LARGEST:
            return float(value)
        raise ValueError


class _CountedCount(metaclass=_Everything):
    """The same for a Count."""

    @staticmethod
    def checked(value: Any) -> int | None:
        if value is None or (type(value) is int and value >= 0):
            return value
        raise ValueError


COUNTED: dict[Any, Any] = {Number: _CountedNumber, Count: _CountedCount}
