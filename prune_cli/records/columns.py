"""Many records at a time: their text in a few blocks, and a table with a row of numbers for each."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from ..stream.batch import Text
from .decoder import Batch
from .fields import MISSING
from .lines import CLOSE, line_starts

# `block` says in which block of text the line starts at `start`, has its closing brace at `close` and its
# line end at `end`.
ROW = np.dtype(
    [(name, "<f8" if name == "key" else "<i8") for name in ("key", "tokens", "start", "close", "end")]
    + [(name, "<i4") for name in ("group", "within", "block")]
)

Part = tuple[np.ndarray, Sequence[Text]]  # rows and the blocks that their lines are in


def table(batch: Batch) -> np.ndarray:
    """A row for each record of a batch: where its line is, and no numbers yet."""
    rows = np.zeros(len(batch), ROW)
    rows["start"], rows["end"], rows["close"] = batch.starts, batch.ends, batch.ends - 1
    odd = np.flatnonzero(
        np.frombuffer(batch.text, np.uint8)[batch.ends - 1] != CLOSE
    )  # white space follows the brace
    for row in odd.tolist():
        rows["close"][row] = rows["start"][row] + bytes(
            batch.text[rows["start"][row] : rows["end"][row]]
        ).rindex(b"}")
    return rows


def cuts(sizes: np.ndarray, most: int) -> Iterator[slice]:
    """Stretches of rows of at most `most` bytes, or of one row that is larger."""
    ends, at, before = np.cumsum(sizes), 0, 0
    while at < len(ends):
        stop = max(at + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(at, stop)
        at, before = stop, int(ends[stop - 1])


def selected(text: Text, ends: np.ndarray, mask: np.ndarray) -> tuple[Text, np.ndarray]:
    """The lines of a text that are in the mask, joined, and their sizes. Neighbours are copied together."""
    starts = line_starts(ends)
    sizes = (ends + 1 - starts)[mask]
    if len(sizes) == len(mask):
        return text, sizes
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    view, stretches = (
        memoryview(text),
        zip(starts[edges[::2]].tolist(), (ends[edges[1::2] - 1] + 1).tolist(), strict=True),
    )
    return b"".join([view[start:end] for start, end in stretches]), sizes


def joined(rows: np.ndarray, blocks: Sequence[Text]) -> bytes:
    """The lines of `rows` one after another."""
    places = zip(rows["block"].tolist(), rows["start"].tolist(), (rows["end"] + 1).tolist(), strict=True)
    return b"".join([blocks[block][start:end] for block, start, end in places])


def spliced(
    rows: np.ndarray, blocks: Sequence[Text], fields: dict[str, list[bytes]]
) -> tuple[bytes, np.ndarray]:
    """The lines of `rows` with a value of each of the `fields` put before their closing braces, and the size
    of each line.

    A line must have a field already. Everything is joined at once: a record costs a few list items and no
    calls.
    """
    count, columns, sizes = len(rows), 2 * len(fields) + 2, rows["end"] + 1 - rows["start"]
    blocks_of, starts, closes, ends = (rows[name].tolist() for name in ("block", "start", "close", "end"))
    pieces: list[Text] = [b"}\n"] * (count * columns)
    pieces[::columns] = [
        blocks[block][start:close] for block, start, close in zip(blocks_of, starts, closes, strict=True)
    ]
    for column, (name, values) in enumerate(fields.items()):
        label = b"," + orjson.dumps(name) + b":"
        pieces[2 * column + 1 :: columns] = [label] * count
        pieces[2 * column + 2 :: columns] = values
        sizes += len(label) + np.fromiter(map(len, values), np.int64, count)
    if (rows["end"] - rows["close"] != 1).any():
        pieces[columns - 1 :: columns] = [
            blocks[block][close : end + 1] for block, close, end in zip(blocks_of, closes, ends, strict=True)
        ]
    return b"".join(pieces), sizes


def numbers(values: np.ndarray) -> list[bytes]:
    """Each number as JSON, floats so that they read back equal."""
    return (
        orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
        if len(values)
        else []
    )


def counts(values: list[Any]) -> np.ndarray:
    """Whole numbers; one that is missing or null counts nothing."""
    if None in values or MISSING in values:
        values = [0 if value is MISSING else value or 0 for value in values]
    return np.array(values, dtype=np.int64)


class Labels:
    """A number for each value of a field, from 0 in the order in which they come; -1 for what is not of
    `kinds`, and after `most`.
    """

    def __init__(self, *kinds: type, most: int = 1 << 31) -> None:
        self.names: list[Any] = []
        self.kinds, self.most = kinds, most
        self.known: dict[Any, int] = {None: -1, MISSING: -1}

    def codes(self, values: list[Any]) -> np.ndarray:
        try:
            found = list(map(self.known.get, values))
        except TypeError:  # a list or an object
            found = [self.known.get(value) if isinstance(value, Hashable) else -1 for value in values]
        if None in found:
            found = [
                self._code(value) if code is None else code for code, value in zip(found, values, strict=True)
            ]
        return np.array(found, dtype=np.int32)

    def _code(self, value: Any) -> int:
        if not isinstance(value, self.kinds) or (value not in self.known and len(self.names) == self.most):
            return -1
        if value not in self.known:
            self.known[value] = len(self.names)
            self.names.append(value)
        return self.known[value]
