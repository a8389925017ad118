"""Text cut into whole lines: read and decompressed in one thread, cut in another, ahead of whoever reads the lines."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Semaphore, Thread, current_thread
from typing import Any, TypeVar

import numpy as np

from .. import formats
from ..errors import DataError
from ..storage.base import Input
from ..stream.batch import Text
from ..stream.lookahead import Limits
from ..stream.schema import Event, Head

AHEAD = 3  # pieces of text (of 2 MiB at most) that wait to be asked for
NEWLINE = 10

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines; `ends` are the places of their line ends, `number` is that of the first line."""

    file: str
    number: int
    text: Text
    ends: np.ndarray


def line_ends(text: Text) -> np.ndarray:
    """Where each line ends (a tenth of the time that splitting takes, and the interpreter is free meanwhile)."""
    return np.flatnonzero(np.frombuffer(text, np.uint8) == NEWLINE)


def blocks(
    file: Input,
    limits: Limits,
    max_line: int,
    warn: Callable[[str], None],
    told: Callable[[Event], None],
) -> Iterator[Block]:
    """One input's text cut at line ends; `told` is called with each head and trailer, and with no text for a part without a head.

    The end of a stream of ours, and of a file, ends a line too. Raises DataError, with file and line, for what frames.read finds
    and for a line longer than `max_line`.
    """
    with file.open() as raw:
        events = formats.read(raw, limits, lambda message: warn(f"{file.name}: {message}"), file.path)
        for item in ahead(_cut(ahead(events), file.name, max_line)):
            if isinstance(item, Block):
                yield item
            else:
                told(item)


def _cut(events: Iterator[Event], name: str, max_line: int) -> Iterator[Block | Event]:
    """Blocks of whole lines in place of pieces of text: a line that goes over a cut is a block, and all between two cuts another,
    which is not copied."""
    parts: list[bytes] = []
    number, size, headless = 1, 0, True

    def block(text: Text) -> Block:
        nonlocal number
        whole = Block(name, number, text, line_ends(text))
        number += len(whole.ends)
        return whole

    try:
        for event in events:
            if isinstance(event, bytes):
                if headless:
                    yield b""
                    headless = False
                first, last = event.find(b"\n") + 1, event.rfind(b"\n") + 1
                if first and parts:
                    yield block(b"".join([*parts, event[:first]]))
                    parts, size = [], 0
                else:
                    first = 0
                if first < last:
                    yield block(memoryview(event)[first:last])
                if last < len(event):
                    parts.append(event[last:])
                    size += len(event) - last
                if size > max_line:
                    raise too_long(max_line)
                continue
            if parts:
                yield block(b"".join([*parts, b"\n"]))
                parts, size = [], 0
            yield event
            headless = not isinstance(event, Head)
    except DataError as error:
        if error.place:
            raise
        raise DataError(error.fault, place=f"{name}:{number}", remedy=error.remedy) from None
    if parts:
        yield block(b"".join([*parts, b"\n"]))


def too_long(max_line: int) -> DataError:
    return DataError(
        f"a line longer than --max-line ({max_line >> 20} MiB)", remedy="--max-line SIZE allows longer ones"
    )


def ahead(items: Iterator[Item], depth: int = AHEAD) -> Iterator[Item]:
    """The same items, made in a thread while earlier ones are used; what fails there is raised here, in its turn."""
    made: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    room, left = Semaphore(depth), False

    def make() -> None:
        failed: BaseException = StopIteration()
        try:
            for item in items:
                made.put((item, None))
                room.acquire()
                if left:
                    return
        except BaseException as error:
            failed = error
        made.put((None, failed))

    thread = Thread(
        target=make, name="read ahead", daemon=True
    )  # one that waits for a pipe must not hold up the end
    thread.start()
    try:
        while True:
            item, failed = made.get()
            if isinstance(failed, StopIteration):
                return
            if failed:
                raise failed
            room.release()
            yield item
    finally:
        left = True
        room.release()
        if thread is not current_thread():  # where the collector of cycles closes this may be any thread
            thread.join(0.2)  # its file is closed next
