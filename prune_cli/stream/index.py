"""Our own files by their tables: what the head and trailer say, and single frames, without reading what lies
between.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from zlib import crc32

import numpy as np
import zstandard

from ..errors import DataError
from ..storage.base import Input
from ..storage.os_errors import check_memory
from . import container
from .container import HEAD, START, TABLE, TABLE_END, TRAILER
from .schema import FrameCounts, Head, Totals, Trailer

MOST_FRAMES = (
    1 << 22
)  # of a table that is looked at: 16 TiB of text; a file that claims more is read as if it had none


@dataclass(frozen=True)
class Table:
    """A file that is one whole stream of ours; `frames` and `totals` are its trailer's, `offsets` say where
    data frames begin.
    """

    file: Input
    head: Head
    frames: FrameCounts
    totals: Totals
    offsets: Sequence[int]
    inputs: Sequence[str] = ()  # digests of the files it was made from, as its trailer has them

    def frame(self, index: int, buffer: bytearray) -> memoryview:
        """A data frame as it stands, read into a buffer that is used again.

        Raises DataError where its CRC-32 is not the trailer's.
        """
        size, offset = self.frames.size[index], self.offsets[index]
        if len(buffer) < size:
            buffer.extend(bytes(size - len(buffer)))
        frame = memoryview(buffer)[:size]
        if self.file.read_into(frame, offset) != size or crc32(frame) != self.frames.crc[index]:
            raise DataError(
                f"damaged zstd frame at byte {offset}", place=self.file.name, remedy="fetch or make it again"
            )
        self.file.progress(size)
        return frame

    def text(self, index: int) -> bytes:
        """What a data frame holds, decompressed. Raises DataError where it is damaged."""
        frame = self.frame(index, bytearray())
        try:
            if zstandard.frame_content_size(frame) == self.frames.text[index]:
                return zstandard.ZstdDecompressor().decompress(frame)
        except zstandard.ZstdError as error:
            check_memory(error)
            raise DataError(
                f"damaged zstd frame at byte {self.offsets[index]} ({error})", place=self.file.name
            ) from None
        raise DataError(
            f"the trailer and the frame at byte {self.offsets[index]} disagree", place=self.file.name
        )

    def line(self, index: int) -> int:
        """The number of a frame's first line."""
        return 1 + int(np.sum(self.frames.records[:index]))


def of(file: Input) -> Table | None:
    """The table of a file, or None if it is not one whole stream of ours whose head and tail are undamaged.

    The table has an input of its own, so that frames can be read while another reader has `file` open. A
    reader of the whole file is the one to say what is wrong with it. Raises what `Input.open` raises.
    """
    if file.identity is None:  # a pipe or standard input: nothing in it can be read ahead of its turn
        return None
    with file.duplicate().open() as opened:
        try:
            return _find(opened, opened.size or 0)
        except DataError:
            return None


def _find(file: Input, size: int) -> Table | None:
    end = file.read_at(max(0, size - 9), 9)
    count = int.from_bytes(end[:4], "little")
    length = 8 * count + 17
    if end[4:] != TABLE_END or not 3 <= count <= MOST_FRAMES or length > size:
        return None
    table = file.read_at(size - length, length)
    entries = np.frombuffer(table, "<u4", 2 * count, 8).reshape(count, 2)
    if (
        not table.startswith(struct.pack("<II", TABLE, length - 8))
        or int(entries[:, 0].sum(dtype=np.int64)) + length != size
    ):
        return None
    sizes, texts = entries.T.tolist()
    if (
        sizes[0] != len(START)
        or any(texts[:2] + texts[-1:])
        or sizes[1] > container.HEAD_LIMIT
        or sizes[-1] > container.trailer_limit(count)
    ):
        return None
    offsets = list(accumulate(sizes, initial=0))
    start, head_frame, trailer_frame = (
        file.read_at(offsets[index], sizes[index]) for index in (0, 1, count - 1)
    )
    head = Head.parse(container.unpacked(head_frame, HEAD, "head", start))
    trailer = Trailer.parse(container.unpacked(trailer_frame, TRAILER, "trailer"), count - 3)
    if start != START or trailer.head != crc32(start + head_frame):
        return None
    if (trailer.frames.size, trailer.frames.text) != (sizes[2:-1], texts[2:-1]):
        return None
    return Table(file, head, trailer.frames, trailer.totals, offsets[2:-2], trailer.inputs)
