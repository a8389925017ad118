"""How are many records handled at once? As a few blocks of text, and a table of numbers, a row for each."""

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
import orjson

from ..stream.batch import Text
from .decoder import Batch
from .fields import MISSING
from .lines import CLOSE, line_starts

# A line starts at offset `start` of the text with the number `block`. Its closing brace is at `close` and its
# line end at `end`. `tokens`, `group` and `within` are for whoever ranks or cuts.
ROW = np.dtype(
    [(name, "<f8" if name == "key" else "<i8") for name in ("key", "tokens", "start", "close", "end")]
    + [(name, "<i4") for name in ("group", "within", "block")]
)

Part = tuple[np.ndarray, Sequence[Text]]  # rows and the blocks that their lines are in


def table(batch: Batch) -> np.ndarray:
    """A row for each record of a batch: the offsets of its line, and zeros for all else."""
    rows = np.zeros(len(batch), ROW)
    rows["start"] = batch.starts
    rows["end"] = batch.ends
    rows["close"] = batch.ends - 1
    last_bytes = np.frombuffer(batch.text, np.uint8)[batch.ends - 1]
    # Few writers leave white space between the brace and the line end: only these lines are searched.
    for row in np.flatnonzero(last_bytes != CLOSE).tolist():
        start = rows["start"][row]
        line = bytes(batch.text[start : rows["end"][row]])
        rows["close"][row] = start + line.rindex(b"}")
    return rows


def cuts(sizes: np.ndarray, most: int) -> Iterator[slice]:
    """Slices of consecutive rows of at most `most` bytes, or of one row that is larger."""
    ends = np.cumsum(sizes)
    start = 0
    bytes_before = 0
    while start < len(ends):
        stop = int(np.searchsorted(ends, bytes_before + most, side="right"))
        stop = max(start + 1, stop)  # at least one row, or the loop would not end
        yield slice(start, stop)
        start = stop
        bytes_before = int(ends[stop - 1])


def selected(text: Text, ends: np.ndarray, mask: np.ndarray) -> tuple[Text, np.ndarray]:
    """The lines of a text whose mask is set, joined, and their sizes in bytes."""
    starts = line_starts(ends)
    sizes = (ends + 1 - starts)[mask]
    if len(sizes) == len(mask):
        return text, sizes
    # The mask changes at each edge: even ones begin a stretch of lines, odd ones end it. A stretch is copied
    # at once, which is much faster than line by line.
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False))
    first = starts[edges[::2]].tolist()
    last = (ends[edges[1::2] - 1] + 1).tolist()
    view = memoryview(text)
    return b"".join([view[start:end] for start, end in zip(first, last, strict=True)]), sizes


def joined(rows: np.ndarray, blocks: Sequence[Text]) -> bytes:
    """The lines of `rows` one after another."""
    places = zip(rows["block"].tolist(), rows["start"].tolist(), (rows["end"] + 1).tolist(), strict=True)
    return b"".join([blocks[block][start:end] for block, start, end in places])


def spliced(
    rows: np.ndarray, blocks: Sequence[Text], fields: dict[str, list[bytes]]
) -> tuple[bytes, np.ndarray]:
    """The lines of `rows` with new `fields` before their closing braces, and the size of each line in bytes.

    `fields` has a JSON value for each row. Each line must have a field already: the new ones begin with a
    comma.
    """
    count = len(rows)
    sizes = rows["end"] + 1 - rows["start"]
    texts, starts, closes, ends = (rows[name].tolist() for name in ("block", "start", "close", "end"))
    # One flat list, joined at once, in which a record has a fixed number of items: its line up to the brace,
    # a label and a value for each field, the brace and the line end. A record costs no function call.
    width = 2 * len(fields) + 2
    pieces: list[Text] = [b"}\n"] * (count * width)
    pieces[::width] = [
        blocks[block][start:close] for block, start, close in zip(texts, starts, closes, strict=True)
    ]
    for column, (name, values) in enumerate(fields.items()):
        label = b"," + orjson.dumps(name) + b":"
        pieces[2 * column + 1 :: width] = [label] * count
        pieces[2 * column + 2 :: width] = values
        sizes += len(label) + np.fromiter(map(len, values), np.int64, count)
    # White space between brace and line end is rare, but stays as it is.
    if (rows["end"] - rows["close"] != 1).any():
        pieces[width - 1 :: width] = [
            blocks[block][close : end + 1] for block, close, end in zip(texts, closes, ends, strict=True)
        ]
    return b"".join(pieces), sizes


def numbers(values: np.ndarray) -> list[bytes]:
    """Each number as JSON. Floats are written so that they read back equal."""
    if not len(values):
        return []
    # One call for all: numbers have no commas of their own, so the list can be split again.
    array = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)
    return array[1:-1].split(b",")


def counts(values: list[Any]) -> np.ndarray:
    """Whole numbers (such as tokens) as int64; a missing or null one counts as 0."""
    # Two fast searches: in most streams every record has its count.
    if None in values or MISSING in values:
        values = [0 if value is MISSING else value or 0 for value in values]
    return np.array(values, dtype=np.int64)


class Labels:
    """Numbers the values of a field from 0, in the order in which they first occur.

    A value gets -1 if it is not of `kinds`, or if `most` other values came before it.
    """

    def __init__(self, *kinds: type, most: int = 1 << 31) -> None:
        self.names: list[Any] = []
        self.kinds = kinds
        self.most = most
        self.code_of: dict[Any, int] = {None: -1, MISSING: -1}

    def codes(self, values: list[Any]) -> np.ndarray:
        """The number of each value, int32 (records)."""
        try:
            codes = list(map(self.code_of.get, values))
        except TypeError:  # a list or an object has no hash
            codes = [self.code_of.get(value) if isinstance(value, Hashable) else -1 for value in values]
        # Only values that are new, or not of `kinds`, need a call of our own.
        if None in codes:
            codes = [
                self._code(value) if code is None else code for code, value in zip(codes, values, strict=True)
            ]
        return np.array(codes, dtype=np.int32)

    def _code(self, value: Any) -> int:
        if not isinstance(value, self.kinds):
            return -1
        if value not in self.code_of:
            if len(self.names) == self.most:
                return -1
            self.code_of[value] = len(self.names)
            self.names.append(value)
        return self.code_of[value]
