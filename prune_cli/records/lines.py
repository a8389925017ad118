"""How does text become blocks of whole lines?

Read and decompressed in one thread, cut in another, ahead of the reader.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from .. import formats
from ..errors import DataError
from ..storage.base import Input
from ..stream.batch import Text
from ..stream.lookahead import Limits, Warn
from ..stream.schema import Event, Head
from .prefetch import prefetch

OPEN, CLOSE, NEWLINE = b"{}\n"  # as numbers: numpy compares whole blocks with them


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of one file.

    `ends` are the offsets of their line ends in `text`, `number` is that of the first line.
    """

    file: str
    number: int
    text: Text
    ends: np.ndarray


def line_ends(text: Text) -> np.ndarray:
    """The offset of each line end.

    It takes a tenth of the time of a split, and other threads run meanwhile.
    """
    return np.flatnonzero(np.frombuffer(text, np.uint8) == NEWLINE)


def line_starts(ends: np.ndarray) -> np.ndarray:
    """The offset of the first byte of each line, from the offsets of the line ends."""
    return np.concatenate(([0], ends[:-1] + 1)) if len(ends) else ends


def blocks(
    file: Input,
    limits: Limits,
    max_line: int,
    warn: Warn,
    on_event: Callable[[Event], None],
    on_text: Callable[[int], None] = lambda size: None,
) -> Iterator[Block]:
    """The lines of one input.

    `on_text` is called with the size of each piece of text as it is decompressed, ahead of the reader and in
    the thread that calls the input's progress. `on_event` is called with each head and trailer, and with an
    empty text where text without a head begins. The end of a prune-cli stream and the end of the file end a
    line, too. Raises DataError, with file and line, for what the format's reader finds and for a line longer
    than `max_line`.
    """

    def warn_of_file(message: str) -> None:
        warn(f"{file.name}: {message}")

    with file.open() as raw:
        events = _counted(formats.read(raw, limits, warn_of_file, file.path), on_text)
        for item in prefetch(_Cutter(file.name, max_line).cut(prefetch(events))):
            if isinstance(item, Block):
                yield item
            else:
                on_event(item)


def _counted(events: Iterator[Event], on_text: Callable[[int], None]) -> Iterator[Event]:
    for event in events:
        if isinstance(event, bytes):
            on_text(len(event))
        yield event


class _Cutter:
    """Cuts pieces of text at line ends.

    The line that reaches over two pieces is joined to a block of its own; the lines between two such lines
    are a block that is a view of the piece, and not copied.
    """

    def __init__(self, name: str, max_line: int) -> None:
        self.name = name
        self.max_line = max_line
        self.number = 1  # of the next line
        self.parts: list[bytes] = []  # of the line that is not ended yet
        self.size = 0  # of those parts

    def cut(self, events: Iterator[Event]) -> Iterator[Block | Event]:
        """Blocks in place of pieces of text; all other events as they come."""
        is_headless = True
        try:
            for event in events:
                if isinstance(event, bytes):
                    if is_headless:
                        yield b""
                        is_headless = False
                    yield from self._lines(event)
                    continue
                yield from self._last_line()
                yield event
                is_headless = not isinstance(event, Head)
        except DataError as error:
            if error.place:
                raise
            raise DataError(error.fault, place=f"{self.name}:{self.number}", remedy=error.remedy) from None
        yield from self._last_line()

    def _lines(self, piece: bytes) -> Iterator[Block]:
        first = 0
        last = piece.rfind(b"\n") + 1
        if self.parts and last:
            first = piece.find(b"\n") + 1
            yield self._block(b"".join([*self.parts, piece[:first]]))
            self._clear()
        if first < last:
            yield self._block(memoryview(piece)[first:last])
        if last < len(piece):
            self.parts.append(piece[last:])
            self.size += len(piece) - last
        # Checked here, too: a line without an end must not fill the memory before it is found to be too long.
        if self.size > self.max_line:
            raise too_long(self.max_line)

    def _last_line(self) -> Iterator[Block]:
        """The line that is not ended, with a line end."""
        if self.parts:
            yield self._block(b"".join([*self.parts, b"\n"]))
            self._clear()

    def _block(self, text: Text) -> Block:
        block = Block(self.name, self.number, text, line_ends(text))
        self.number += len(block.ends)
        return block

    def _clear(self) -> None:
        self.parts = []
        self.size = 0


def too_long(max_line: int) -> DataError:
    """The error for a line over the limit."""
    fault = f"a line longer than --max-line ({max_line >> 20} MiB)"
    return DataError(fault, remedy="--max-line SIZE allows longer ones")
