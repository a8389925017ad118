"""How does text become blocks of whole lines? One thread decompresses, another cuts, and both run ahead."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np

from .. import formats
from ..errors import DataError
from ..formats import parquet
from ..formats.base import BadRow, Piece, Rows
from ..storage.base import Input
from ..stream.batch import Text
from ..stream.lookahead import Limits, Warn
from ..stream.schema import Event, Head, Trailer
from ..stream.section import Grain, Section
from .prefetch import prefetch

OPEN, CLOSE, NEWLINE = b"{}\n"  # as integers, which numpy compares with whole blocks


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of one file.

    `number` is the line number of the first, and `ends` are the offsets of the line ends in `text`.
    """

    file: str
    number: int
    text: Text
    ends: np.ndarray


def line_ends(text: Text) -> np.ndarray:
    """The offset of each line end."""
    # A tenth of the time of bytes.split, and numpy releases the interpreter lock meanwhile.
    return np.flatnonzero(np.frombuffer(text, np.uint8) == NEWLINE)


def line_starts(ends: np.ndarray) -> np.ndarray:
    """The offset of the first byte of each line, from the offsets of the line ends."""
    return np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends


def blocks(
    file: Input,
    limits: Limits,
    max_line: int,
    warn: Warn,
    on_event: Callable[[Event | DataError], None],
    on_text: Callable[[int], None] = lambda size: None,
) -> Generator[Block, None, None]:
    """The lines of one input. A last line without a line end gets one, in each part of a concatenation.

    `on_text` is called with the size of each piece of text as it is decompressed, ahead of the reader and in
    the thread that calls the input's progress. `on_event` is called with each head and trailer, with an
    empty text where text without a head begins, and with an error for each row of a table that has no line.
    Raises DataError, with file and line, for damage and for a line longer than `max_line` bytes.
    """

    def warn_of_file(message: str) -> None:
        warn(f"{file.name}: {message}")

    with file.open() as raw:
        first = 1
        if isinstance(file, Section):
            first = file.first_line()
            read = file.events() if file.grain is not Grain.groups else _rows(file, limits)
        else:
            read = formats.read(raw, limits, warn_of_file, file.path)
        # Two threads: one decompresses while the other searches for line ends.
        cutter = _LineCutter(file.name, max_line, first)
        for item in prefetch(cutter.cut(prefetch(_counted(read, on_text)))):
            if isinstance(item, Block):
                yield item
            else:
                on_event(item)


def _rows(section: Section, limits: Limits) -> Iterator[Piece]:
    """The rows of a section of a Parquet file."""
    section.whole.progress = section.progress
    return parquet.read_groups(section.whole, section.start, section.end, limits)


def _counted(events: Iterator[Piece], on_text: Callable[[int], None]) -> Iterator[Piece]:
    for event in events:
        if isinstance(event, bytes):
            on_text(len(event))
        elif isinstance(event, Rows):
            on_text(len(event.text))
        yield event


class _LineCutter:
    """Cuts pieces of text at line ends.

    The whole lines of a piece become a block that is a view of it, not a copy. Only a line that spans pieces
    is copied, into a block of its own.
    """

    def __init__(self, name: str, max_line: int, first: int) -> None:
        self.name = name
        self.max_line = max_line
        self.number = first  # of the next line
        self.parts: list[bytes] = []  # of the line whose end has not come yet
        self.size = 0  # bytes in those parts

    def cut(self, events: Iterator[Piece]) -> Iterator[Block | Event | DataError]:
        """The events with blocks in place of pieces of text and of rows."""
        is_headless = True
        try:
            for event in events:
                if isinstance(event, Head | Trailer):
                    yield from self._last_line()
                    yield event
                    is_headless = not isinstance(event, Head)
                    continue
                if is_headless:
                    yield b""
                    is_headless = False
                yield from self._blocks(event)
        except DataError as error:
            # The format's reader knows the byte, but not the line.
            if error.place:
                raise
            raise DataError(error.fault, place=f"{self.name}:{self.number}", remedy=error.remedy) from None
        yield from self._last_line()

    def _blocks(self, piece: bytes | Rows | BadRow) -> Iterator[Block | DataError]:
        if isinstance(piece, bytes):
            yield from self._lines(piece)
        elif isinstance(piece, Rows):
            yield self._block(piece.text, piece.ends)
        else:
            yield DataError(piece.fault, place=f"{self.name}:{self.number}", remedy=piece.remedy)
            self.number += 1

    def _lines(self, piece: bytes) -> Iterator[Block]:
        """The lines that end in this piece. The rest waits in `parts`."""
        first = 0
        last = piece.rfind(b"\n") + 1  # 0 if no line ends here
        if self.parts and last:
            first = piece.find(b"\n") + 1
            yield self._block(b"".join([*self.parts, piece[:first]]))
            self._clear()
        if first < last:
            yield self._block(memoryview(piece)[first:last])
        if last < len(piece):
            self.parts.append(piece[last:])
            self.size += len(piece) - last
        # Checked here, too, because a line without an end would fill the memory first.
        if self.size > self.max_line:
            raise too_long(self.max_line)

    def _last_line(self) -> Iterator[Block]:
        """The line without a line end, if there is one, with its end added."""
        if self.parts:
            yield self._block(b"".join([*self.parts, b"\n"]))
            self._clear()

    def _block(self, text: Text, ends: np.ndarray | None = None) -> Block:
        block = Block(self.name, self.number, text, line_ends(text) if ends is None else ends)
        self.number += len(block.ends)
        return block

    def _clear(self) -> None:
        self.parts = []
        self.size = 0


def too_long(max_line: int) -> DataError:
    """The error for a line over the limit of `max_line` bytes."""
    fault = f"a line longer than --max-line ({max_line >> 20} MiB)"
    return DataError(fault, remedy="--max-line SIZE allows longer lines")
