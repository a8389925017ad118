"""How are single frames of a prune-cli stream read? Through its seek table, with its head and its trailer."""

import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate, chain
from typing import Any
from zlib import crc32

import numpy as np
import zstandard

from ..errors import DataError
from ..storage import anticipated
from ..storage.base import Input
from ..storage.os_errors import check_memory
from . import container
from .container import HEAD, START, TABLE, TABLE_END, TRAILER
from .lookahead import REMEDY
from .schema import FrameCounts, Head, Totals, Trailer

# Frames of the largest table that is read: 16 TiB of text. A file that claims more is read from start to end.
MOST_FRAMES = 1 << 22
TABLE_FRAME_BYTES = 17  # of a seek table without its entries: 8 in front, 9 behind
FEWEST_FRAMES = 3  # START, head, trailer


@dataclass(frozen=True)
class Table:
    """A file that is one whole prune-cli stream, and what is in it.

    `frames` and `totals` are from the trailer; `offsets` are the byte offsets of the data frames.
    """

    file: Input
    head: Head
    frames: FrameCounts
    totals: Totals
    offsets: Sequence[int]
    inputs: Sequence[str]  # digests of the files it was made from, as its trailer has them

    def frame(self, index: int, buffer: bytearray) -> memoryview:
        """A compressed data frame, read into `buffer`, which grows as needed and can be used again.

        Raises DataError if its CRC-32 is not that of the trailer.
        """
        size = self.frames.size[index]
        offset = self.offsets[index]
        if len(buffer) < size:
            buffer.extend(bytes(size - len(buffer)))
        frame = memoryview(buffer)[:size]
        if self.file.read_into(frame, offset) != size or crc32(frame) != self.frames.crc[index]:
            fault = f"damaged zstd frame at byte {offset}"
            raise DataError(fault, place=self.file.name, remedy=REMEDY)
        self.file.progress(size)
        return frame

    def text(self, index: int) -> bytes:
        """The text of a data frame. Raises DataError if the frame is damaged."""
        frame = self.frame(index, bytearray())
        offset = self.offsets[index]
        try:
            # The size first: a frame that claims more than the trailer says could fill the memory.
            if zstandard.frame_content_size(frame) == self.frames.text[index]:
                return zstandard.ZstdDecompressor().decompress(frame)
        except zstandard.ZstdError as error:
            check_memory(error)
            fault = f"damaged zstd frame at byte {offset} ({error})"
            raise DataError(fault, place=self.file.name) from None
        fault = f"the trailer and the frame at byte {offset} disagree"
        raise DataError(fault, place=self.file.name)

    def locate(self, index: int) -> tuple["Table", int]:
        """The table of the file that has a frame, and the number of the frame in it."""
        return self, index

    def place(self, index: int) -> tuple[str, int]:
        """Where a frame begins: the name of its file, and the number, from 1, of its first line."""
        return self.file.name, 1 + int(np.sum(self.frames.records[:index]))

    def open(self) -> AbstractContextManager[object]:
        """Open the file until the end of the block, for reading frames."""
        return self.file.open()


@dataclass(frozen=True)
class JoinedTable(Table):
    """Files that are one stream in this order. Their frames are numbered through."""

    tables: Sequence[Table]

    @classmethod
    def of(cls, tables: Sequence[Table], facts: Mapping[str, Any], verb: str | None = None) -> "JoinedTable":
        """The table of at least one file. `facts` are totals of the whole that its parts do not have.

        `verb` wrote the whole: some parts of a slice are copies of parts of its input.
        """
        columns = {
            name: list(chain.from_iterable(getattr(table.frames, name) for table in tables))
            for name in FrameCounts.__struct_fields__
        }
        totals = Totals.sum([table.totals for table in tables], facts)
        head = replace(tables[0].head, verb=verb) if verb else tables[0].head
        return cls(tables[0].file, head, FrameCounts(**columns), totals, (), (), tables)

    @cached_property
    def ends(self) -> list[int]:
        """For each file the number of the frame after its last."""
        return list(accumulate(len(table.frames) for table in self.tables))

    def locate(self, index: int) -> tuple[Table, int]:
        number = bisect_right(self.ends, index)
        table = self.tables[number]
        return table, index - self.ends[number] + len(table.frames)

    def frame(self, index: int, buffer: bytearray) -> memoryview:
        table, own = self.locate(index)
        # Opened for each frame: a thousand files that are open at once are more than a process may have.
        with table.file.duplicate().open() as file:
            return replace(table, file=file).frame(own, buffer)

    def text(self, index: int) -> bytes:
        table, own = self.locate(index)
        with table.file.duplicate().open() as file:
            return replace(table, file=file).text(own)

    def place(self, index: int) -> tuple[str, int]:
        table, own = self.locate(index)
        return table.place(own)

    def open(self) -> AbstractContextManager[object]:
        return nullcontext()


def read_tables(files: Sequence[Input]) -> Iterator[Table | None]:
    """The tables of files, as `read_table` gives them; those of the next ones are fetched meanwhile."""
    return map(read_table, anticipated(files))


def read_table(file: Input) -> Table | None:
    """The table of a file; None unless it is one whole prune-cli stream with undamaged head and tail.

    Raises what `Input.open` raises, but reports no damage: that is for the reader of the whole file.
    """
    if file.identity is None:  # a pipe or standard input, which is only read in order
        return None
    # An input of its own, so that frames can be read while another reader has `file` open.
    with file.duplicate().open() as opened:
        try:
            return _read_table(opened, opened.size or 0)
        except DataError:
            return None


def _read_table(file: Input, size: int) -> Table | None:
    entries = _seek_table(file, size)
    if entries is None:
        return None
    sizes, texts = entries.T.tolist()
    # Head and trailer are skippable, and START is empty: none of them has text.
    if sizes[0] != len(START) or any(texts[:2] + texts[-1:]):
        return None
    if sizes[1] > container.HEAD_LIMIT or sizes[-1] > container.trailer_limit(len(sizes)):
        return None
    offsets = list(accumulate(sizes, initial=0))
    last = len(sizes) - 1
    start, head_frame, trailer_frame = (file.read_at(offsets[index], sizes[index]) for index in (0, 1, last))
    head = Head.parse(container.unpacked(head_frame, HEAD, "head", start))
    content = container.unpacked(trailer_frame, TRAILER, "trailer")
    trailer = Trailer.parse(content, len(sizes) - FEWEST_FRAMES)
    # The trailer has to belong to this head, and to agree with the seek table about every frame.
    if start != START or trailer.head != crc32(start + head_frame):
        return None
    if (trailer.frames.size, trailer.frames.text) != (sizes[2:-1], texts[2:-1]):
        return None
    return Table(file, head, trailer.frames, trailer.totals, offsets[2:-2], trailer.inputs)


def _seek_table(file: Input, size: int) -> np.ndarray | None:
    """Compressed and decompressed sizes of all frames, (frames, 2); None if the file has no such table."""
    # The last bytes are the number of frames, a flag for checksums (zero with us) and a magic number.
    end = file.read_at(max(0, size - 9), 9)
    count = int.from_bytes(end[:4], "little")
    length = 8 * count + TABLE_FRAME_BYTES
    if end[4:] != TABLE_END or not FEWEST_FRAMES <= count <= MOST_FRAMES or length > size:
        return None
    table = file.read_at(size - length, length)
    if not table.startswith(struct.pack("<II", TABLE, length - 8)):
        return None
    entries = np.frombuffer(table, "<u4", 2 * count, 8).reshape(count, 2)
    # In a concatenation, the table of the last stream does not account for the whole file.
    is_whole_file = int(entries[:, 0].sum(dtype=np.int64)) + length == size
    return entries if is_whole_file else None
