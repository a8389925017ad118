"""Does a file still hold the bytes that were written to it? Checksums tell, of a file or of its pieces.

They are CRC-32, as in gzip and zip: what they are to find is damage, and not deceit.
"""

from array import array
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

# Bytes of a piece. Its checksum takes 4 bytes, a 4,096th; the first read of one token costs a whole piece.
PIECE = 1 << 14
CHUNK = 1 << 18  # bytes of a read where a whole file is read

Sums = NDArray[np.uint32]


def of_bytes(data: bytes) -> str:
    """The checksum of these bytes, in hexadecimal digits."""
    return f"{crc32(data):08x}"


def of_file(path: Path) -> str:
    """The checksum of a file, which is read in pieces. Raises OSError."""
    value = 0
    with path.open("rb") as file:
        while data := file.read(CHUNK):
            value = crc32(data, value)
    return f"{value:08x}"


class PieceSums:
    """The checksums of the pieces of a file, made while it is written."""

    def __init__(self) -> None:
        self._finished = array("I")
        self._last = 0  # the checksum of a piece that has begun, ...
        self._size = 0  # ... and its bytes

    def add(self, data: bytes) -> None:
        """Take the next bytes that are written."""
        # A memoryview, so that cutting the bytes into pieces copies none of them.
        rest = memoryview(data)
        while len(rest):
            part = rest[: PIECE - self._size]
            self._last = crc32(part, self._last)
            self._size += len(part)
            rest = rest[len(part) :]
            if self._size == PIECE:
                self._end_piece()

    def sums(self) -> Sums:
        """The checksum of each piece; the last piece may be short."""
        if self._size:
            self._end_piece()
        return np.array(self._finished, np.uint32)

    def _end_piece(self) -> None:
        self._finished.append(self._last)
        self._last = 0
        self._size = 0


class CheckedPieces:
    """The pieces of a mapped file, each checked before the first use of its bytes."""

    def __init__(self, data: NDArray[Any], sums: Sums) -> None:
        self._bytes = data.view(np.uint8)
        self._sums = sums
        # A file that is longer or shorter than its checksums is damaged in its last piece.
        self._checked = np.zeros(-(-len(self._bytes) // PIECE), bool)

    def first_damaged(self, offsets: NDArray[np.int64]) -> int | None:
        """The number of the first damaged piece among those with the bytes at `offsets`; None if all are
        whole.
        """
        pieces = offsets // PIECE
        # Nearly always empty after the first epoch: a check is made once in a process.
        for piece in np.unique(pieces[~self._checked[pieces]]).tolist():
            if crc32(self._bytes[piece * PIECE : (piece + 1) * PIECE].data) != self._sums[piece]:
                return int(piece)
            self._checked[piece] = True
        return None
