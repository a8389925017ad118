"""How are records written? Compressed, in frames that a trailer counts, or as plain lines.

What is not finished cannot be taken for whole.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import local
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import zstandard

from ..errors import PruneError
from ..storage.base import Output
from ..storage.os_errors import check_memory
from .batch import Lines, Record, Text
from .container import HEAD, START, TRAILER, frame_sizes, seek_table, skippable
from .index import Table
from .schema import FrameCountsBuilder, Head, Totals

# Bytes of text in a data frame: 16 MiB would save 0.4 % of the bytes, for four times the memory and latency.
FRAME = 4 << 20
# A field with more values than these, or with longer ones, is no group field: an id, for example.
GROUPS = 256
GROUP_LENGTH = 64
# The end of a failed run: half a line that no JSON reader accepts, half a frame that no zstd decoder does.
HALF_LINE, HALF_FRAME = b'{"unfinished":', START[:6]


Closing = Callable[[Totals], dict[str, Any]]


@dataclass(frozen=True)
class Writing:
    """How records are written. `threads` compress; the bytes do not depend on it."""

    plain: bool = False
    single_frame: bool = False
    level: int = 3
    threads: int = 1


@contextmanager
def open_sink(
    output: Output, head: Head, writing: Writing, trailer: Closing = lambda totals: {}
) -> Iterator["Sink"]:
    """A sink that finishes the stream when the block ends well, and otherwise leaves it unfinished for every
    reader to see.

    `trailer` makes of the totals of a stream what else its trailer says.
    """
    kind = Plain if writing.plain else SingleFrame if writing.single_frame else Frames
    sink = kind(output, head, writing)
    sink.trailer = trailer
    try:
        yield sink
        sink.finish()
    except BaseException:
        sink.abandon()
        raise


def leave_unfinished(output: Output, plain: bool) -> None:
    """Have a run that failed before its first byte fail its readers, too: to most of them nothing at all is a
    whole stream.
    """
    if not output.written:
        _break_off(output, HALF_LINE if plain else HALF_FRAME)


def _break_off(output: Output, half: bytes) -> None:
    if not output.is_terminal() and not output.resumable:
        with suppress(PruneError, BrokenPipeError):  # what failed first is what is told
            output.write(half)


class Sink(ABC):
    """Counts what passes; subclasses say how it is written."""

    def __init__(self, output: Output, head: Head, writing: Writing) -> None:
        self.output, self.writing = output, writing
        self.facts: dict[str, Any] = {"unscored_tokens": 0}  # what else the trailer says of the whole
        self.records = 0
        self.trailer: Closing = lambda totals: {}

    @abstractmethod
    def write(self, records: Iterable[Record], *, whole: bool = False) -> None:
        """Take records; they may wait for more of their kind. `whole`: no frame ends between them."""

    @abstractmethod
    def write_lines(self, lines: Lines) -> None:
        """The same for many records at once: the same bytes come out, in a tenth of the time."""

    @abstractmethod
    def copy_frame(self, table: Table, index: int) -> None:
        """The records of a whole frame of another stream of ours, which have all a score or all none."""

    @abstractmethod
    def end_frame(self) -> None:
        """What was written so far becomes visible to readers."""

    @abstractmethod
    def finish(self) -> None:
        """The stream is whole."""

    @abstractmethod
    def abandon(self) -> None:
        """The stream will never be whole."""


class Plain(Sink):
    """JSON Lines as they are."""

    def __init__(self, output: Output, head: Head, writing: Writing) -> None:
        super().__init__(output, head, writing)
        self.lines: list[bytes] = []
        self.size = 0

    def write(self, records: Iterable[Record], *, whole: bool = False) -> None:
        for record in records:
            self.lines.append(record.line)
            self.size += len(record.line)
            self.records += 1
            if self.size >= 1 << 18:
                self.end_frame()

    def end_frame(self) -> None:
        if self.lines:
            self.lines.append(b"")
            text = b"\n".join(self.lines)
            self.lines, self.size = [], 0
            self.out(text)

    def write_lines(self, lines: Lines) -> None:
        self.end_frame()
        self.out(lines.text)
        self.records += len(lines.sizes)

    def copy_frame(self, table: Table, index: int) -> None:
        self.end_frame()
        self.out(table.text(index))
        self.records += table.frames.records[index]

    def out(self, text: Text) -> None:
        self.output.write(text)

    def finish(self) -> None:
        self.end_frame()

    def abandon(self) -> None:
        _break_off(self.output, HALF_LINE)


class SingleFrame(Plain):
    """One ordinary zstd frame, for readers that stop after the first.

    Always one worker: then the bytes do not depend on the threads.
    """

    def __init__(self, output: Output, head: Head, writing: Writing) -> None:
        super().__init__(output, head, writing)
        compressor = zstandard.ZstdCompressor(level=writing.level, threads=1, write_checksum=True)
        self.stream = compressor.compressobj()

    def out(self, text: Text) -> None:
        if packed := self.stream.compress(text):
            self.output.write(packed)

    def finish(self) -> None:
        self.end_frame()
        self.output.write(self.stream.flush())

    def abandon(self) -> None:
        leave_unfinished(self.output, plain=False)  # else its one frame has begun and does not end


class Frames(Sink):
    """A stream of ours:

    START, head, data frames compressed one to a thread and written in order, trailer, seek table.
    """

    def __init__(self, output: Output, head: Head, writing: Writing) -> None:
        super().__init__(output, head, writing)
        self.head = skippable(HEAD, "head", head.json, START)
        output.begin(START + self.head)
        self.counts = FrameCountsBuilder()
        self.values: set[str] = set()
        self.pool = ThreadPoolExecutor(writing.threads, "compress")
        self.workers = local()
        self.waiting: deque[Future[tuple[Text, int]]] = deque()
        self.most_waiting = (
            0 if output.resumable else writing.threads + 2
        )  # what is written is what a killed run keeps
        self.buffers: list[
            bytearray
        ] = []  # for frames that are copied: fresh memory for each would cost more than the copy
        self._empty_frame()

    def _empty_frame(self) -> None:
        self.pieces: list[Text] = []
        self.held = self.size = self.nulls = self.tokens = 0
        self.first: int | None = None
        self.last: int | None = None
        self.groups: dict[str, list[int]] = {}

    def write(self, records: Iterable[Record], *, whole: bool = False) -> None:
        for record in records:
            size = len(record.line) + 1
            if self.size + size > FRAME and not whole:
                self.end_frame()
            self.size += size
            self.pieces += (record.line, b"\n")
            self.held += 1
            self.tokens += record.tokens
            self.nulls += record.null
            self.facts["unscored_tokens"] += record.tokens * record.null
            if record.rank is not None:
                self.last = record.rank
                if self.first is None:
                    self.first = record.rank
            if record.group is not None and len(self.values) <= GROUPS:
                group = self.groups.get(record.group)
                if group is None:
                    group = self.groups[record.group] = [0, 0]
                group[0] += 1
                group[1] += record.tokens

    def write_lines(self, lines: Lines) -> None:
        ends, text = np.cumsum(lines.sizes), memoryview(lines.text)
        at = start = 0
        while at < len(ends):
            stop = int(np.searchsorted(ends, start + FRAME - self.size, side="right"))
            if stop > at or not self.held:
                stop = max(stop, at + 1)  # a line that is longer than a frame has one for itself
                end = int(ends[stop - 1])
                self.pieces.append(text[start:end])
                self.size += end - start
                self._count(lines, slice(at, stop))
                at, start = stop, end
            if at < len(ends):
                self.end_frame()

    def _count(self, lines: Lines, rows: slice) -> None:
        ranks, groups, tokens = lines.ranks[rows], lines.groups[rows], lines.tokens[rows]
        self.held += len(ranks)
        self.tokens += int(tokens.sum())
        self.nulls += int(lines.nulls[rows].sum())
        self.facts["unscored_tokens"] += int(tokens[lines.nulls[rows]].sum())
        if len(ranked := ranks[ranks >= 0]):
            self.first = int(ranked[0]) if self.first is None else self.first
            self.last = int(ranked[-1])
        if len(lines.names) > GROUPS:
            self.values.update(lines.names)
        for code in np.unique(groups[groups >= 0]).tolist():
            group = self.groups.setdefault(lines.names[code], [0, 0])
            group[0] += int((groups == code).sum())
            group[1] += int(tokens[groups == code].sum())

    def end_frame(self) -> None:
        if self.held:
            self._wait_for(self.pool.submit(self._compress, self._close_frame()))

    def copy_frame(self, table: Table, index: int) -> None:
        self.end_frame()
        frames = table.frames
        for name in ("text", "records", "nulls", "tokens", "first", "last", "groups"):
            getattr(self.counts, name).append(getattr(frames, name)[index])
        self.records += frames.records[index]
        if frames.nulls[index] == frames.records[index]:
            self.facts["unscored_tokens"] += frames.tokens[index]
        self.values.update(frames.groups[index])
        buffer = self.buffers.pop() if self.buffers else bytearray()
        self._wait_for(self.pool.submit(lambda: (table.frame(index, buffer), frames.crc[index])))

    def adopt(self, records: Iterable[Record], size: int, crc: int) -> None:
        """Count a frame that the output holds already: its records, its bytes and their CRC-32."""
        self.write(records, whole=True)
        self._close_frame()
        self.counts.size.append(size)
        self.counts.crc.append(crc)

    def _close_frame(self) -> list[Text]:
        """Count the open frame and begin another; the text of the one that was open."""
        pieces, counts = self.pieces, self.counts
        self.records += self.held
        counts.text.append(self.size)
        counts.records.append(self.held)
        counts.nulls.append(self.nulls)
        counts.tokens.append(self.tokens)
        counts.first.append(self.first)
        counts.last.append(self.last)
        counts.groups.append(dict(sorted(self.groups.items())))
        self.values.update(self.groups)
        self._empty_frame()
        return pieces

    def _wait_for(self, frame: "Future[tuple[Text, int]]") -> None:
        """Write the frames that are ready, in order; a few may be on their way."""
        self.waiting.append(frame)
        while len(self.waiting) > self.most_waiting or (self.waiting and self.waiting[0].done()):
            self._write_frame(*self.waiting.popleft().result())

    def _compress(self, pieces: list[Text]) -> tuple[Text, int]:
        if not hasattr(self.workers, "compressor"):
            self.workers.compressor = zstandard.ZstdCompressor(
                level=self.writing.level, write_checksum=True, write_content_size=True
            )
        compressor: zstandard.ZstdCompressor = self.workers.compressor
        try:
            frame = compressor.compress(pieces[0] if len(pieces) == 1 else b"".join(pieces))
        except zstandard.ZstdError as error:
            check_memory(error)
            raise
        return frame, crc32(frame)

    def _write_frame(self, frame: Text, crc: int) -> None:
        self.counts.size.append(len(frame))
        self.counts.crc.append(crc)
        self.output.write(frame)
        if isinstance(frame, memoryview) and isinstance(frame.obj, bytearray):
            self.buffers.append(frame.obj)
            frame.release()

    def finish(self) -> None:
        self.end_frame()
        while self.waiting:
            self._write_frame(*self.waiting.popleft().result())
        self.pool.shutdown()
        if len(self.values) > GROUPS or any(len(value) > GROUP_LENGTH for value in self.values):
            self.counts.groups = [{}] * len(self.counts.size)
        totals = self.counts.totals()
        content = {
            "frames": self.counts.columns(),
            # The order of `facts` is that in which the verb measured them: it is part of the bytes that are
            # written.
            "totals": msgspec.to_builtins(totals) | self.facts,
            **self.trailer(totals),
            "head": crc32(START + self.head),
        }
        trailer = skippable(TRAILER, "trailer", content)
        self.output.write(trailer + seek_table(frame_sizes(len(self.head), self.counts, len(trailer))))

    def abandon(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        _break_off(self.output, HALF_FRAME)
