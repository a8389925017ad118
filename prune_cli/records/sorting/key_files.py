"""How do several processes share what the order of records depends on, without their text?

A file holds runs of consecutive records. A run is columns: the scored records by group, key and place in the
run, then those without a score. Stretches of it are found by bisection and read on their own, so that no
process needs memory for more than a few of them.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ...errors import DataError
from ...storage.os_errors import display
from ...storage.temporary import SharedFile

ITEM = 8  # bytes of a value of every column: 32 a record


@dataclass(frozen=True)
class KeyRun:
    """A run: its offset in the file, its records, and how many of them have a score."""

    offset: int
    records: int
    scored: int


@dataclass(frozen=True)
class KeyFile:
    """A file of runs, by value: another process can open it."""

    path: str
    runs: tuple[KeyRun, ...] = ()


@dataclass(frozen=True)
class KeyColumns:
    """Columns of records: group and key, uint64; tokens and place in the run, int64 (n)."""

    groups: np.ndarray
    keys: np.ndarray
    tokens: np.ndarray
    places: np.ndarray

    @classmethod
    def joined(cls, parts: list["KeyColumns"]) -> "KeyColumns":
        """The columns of all parts, one after another."""
        empty = np.zeros(0, np.int64)
        columns = ("groups", "keys", "tokens", "places")
        kinds = (np.uint64, np.uint64, np.int64, np.int64)
        return cls(
            *(
                np.concatenate([empty.astype(kind), *(getattr(part, name) for part in parts)])
                for name, kind in zip(columns, kinds, strict=True)
            )
        )

    def in_order(self) -> "KeyColumns":
        """The same by group and key; equal ones keep their order."""
        is_one_group = not len(self.groups) or (self.groups == self.groups[0]).all()
        # Half the time: most cuts have no groups.
        order = np.argsort(self.keys, kind="stable") if is_one_group else np.lexsort((self.keys, self.groups))
        return KeyColumns(self.groups[order], self.keys[order], self.tokens[order], self.places[order])


def append_run(
    file: SharedFile, groups: np.ndarray, keys: np.ndarray, tokens: np.ndarray, scored: np.ndarray
) -> KeyRun:
    """Write the columns of consecutive records as a run; `scored` says which of them have a score."""
    places = np.arange(len(keys))
    columns = KeyColumns(groups[scored], keys[scored], tokens[scored], places[scored]).in_order()
    rest = KeyColumns(groups[~scored], keys[~scored], tokens[~scored], places[~scored])
    whole = KeyColumns.joined([columns, rest])
    values = (whole.groups, whole.keys, whole.tokens, whole.places)
    offset = file.append(b"".join(column.astype("<i8", copy=False).tobytes() for column in values))
    return KeyRun(offset, len(keys), len(columns.keys))


class _Values:
    """A column as a sequence of which each value is read when it is asked for."""

    def __init__(self, reader: "KeyReader", offset: int, length: int) -> None:
        self.reader = reader
        self.offset = offset
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, place: int) -> int:
        return int.from_bytes(self.reader.read(self.offset + ITEM * place, ITEM), "little")


class KeyReader:
    """Reads stretches of the runs of a file."""

    def __init__(self, file: KeyFile) -> None:
        self.keys = file
        self.file = SharedFile(file.path)

    def __enter__(self) -> "KeyReader":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.__exit__(None, None, None)

    def group(self, run: KeyRun, first: int, last: int) -> tuple[int, int]:
        """The rows of the scored records whose group is from `first` to `last`."""
        groups = _Values(self, run.offset, run.records)
        start = bisect_left(groups, first, 0, run.scored)
        return start, bisect_right(groups, last, start, run.scored)

    def key(self, run: KeyRun, key: int, rows: tuple[int, int]) -> tuple[int, int]:
        """The rows that have this key, among those of one group."""
        keys = _Values(self, run.offset + ITEM * run.records, run.records)
        start = bisect_left(keys, key, *rows)
        return start, bisect_right(keys, key, start, rows[1])

    def columns(self, run: KeyRun, start: int, end: int) -> KeyColumns:
        """The columns of some rows."""
        kinds = ("<u8", "<u8", "<i8", "<i8")
        size = ITEM * (end - start)
        offsets = (run.offset + ITEM * (run.records * column + start) for column in range(len(kinds)))
        return KeyColumns(
            *(
                np.frombuffer(self.read(offset, size), kind)
                for offset, kind in zip(offsets, kinds, strict=True)
            )
        )

    def whole(self) -> Iterator[tuple[KeyRun, KeyColumns]]:
        """All runs, one after another."""
        for run in self.keys.runs:
            yield run, self.columns(run, 0, run.records)

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes. Raises DataError if they are not there."""
        data = self.file.read_at(offset, size)
        if len(data) != size:
            raise DataError("a temporary file is too short", place=display(self.keys.path))
        return data
