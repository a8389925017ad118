"""Which inputs do operands and a list of files name together?"""

import os
from collections.abc import Sequence

from ..errors import DataError, NoInputError, UsageError
from . import expand, input_at
from . import unsigned as unsigned


def named(operands: Sequence[str], list_path: str | None, *, null: bool) -> list[str]:
    """The paths of the operands, expanded, and then those in the list, as they stand; `-` is standard input.

    With `null` names end in NUL, as `find -print0` writes them, else in a line end. Raises UsageError if
    standard input is both the list and an input, and NoInputError if there is no list, or no name at all:
    it would be a surprise to wait for standard input then.
    """
    if list_path is None:
        if null:
            raise UsageError("--null is about the names in a list", remedy="name the list with --files-from")
        return expand(operands)
    if list_path == "-" and "-" in operands:
        raise _contradiction()
    names = expand(operands) + _read(list_path, b"\0" if null else b"\n")
    if list_path == "-" and "-" in names:
        raise _contradiction()
    if not names:
        raise NoInputError("names no file", place=input_at(list_path).name)
    return names


def _read(list_path: str, end: bytes) -> list[str]:
    """The names in the list. Bytes that are no UTF-8 are kept, as in names on the command line."""
    file = input_at(list_path)
    file.check()
    with file.open():
        names = file.read_all().split(end)
    if not names[-1]:
        names.pop()  # behind the last end
    if end == b"\n":
        # As for tar(1): a blank line is an oversight.
        return [os.fsdecode(name) for name in names if name]
    if b"" in names:
        fault = f"name {names.index(b'') + 1} of the list is empty"
        raise DataError(fault, place=file.name, remedy="find -print0 writes such lists")
    return [os.fsdecode(name) for name in names]


def _contradiction() -> UsageError:
    return UsageError(
        "standard input (-) is named as an input and as the list of inputs",
        remedy="write the list to a file, and name that",
    )
