"""How are records written? Compressed, in frames that a trailer counts, or as plain lines.

A reader can tell an unfinished stream from a whole one, whatever stopped the writer.
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
PLAIN_WRITE = 1 << 18  # bytes of text in a write without compression
# A field with more values than this, or longer ones, is taken for something like an id, not for a group.
GROUPS = 256
GROUP_LENGTH = 64
# The end of a failed run: half a line that no JSON reader accepts, half a frame that no zstd decoder accepts.
HALF_LINE = b'{"unfinished":'
HALF_FRAME = START[:6]


Closing = Callable[[Totals], dict[str, Any]]


@dataclass(frozen=True)
class Writing:
    """How records are written. The bytes do not depend on the number of `threads` that compress."""

    plain: bool = False
    single_frame: bool = False
    level: int = 3
    threads: int = 1


@contextmanager
def open_sink(
    output: Output, head: Head, writing: Writing, trailer: Closing = lambda totals: {}
) -> Iterator["Sink"]:
    """A sink that finishes the stream when the block ends, or leaves it unfinished if the block fails.

    `trailer` computes more keys of the trailer from the totals of the stream.
    """
    sink = _kind(writing)(output, head, writing)
    sink.trailer = trailer
    try:
        yield sink
        sink.finish()
    except BaseException:
        sink.abandon()
        raise


def _kind(writing: Writing) -> type["Sink"]:
    if writing.plain:
        return Plain
    return SingleFrame if writing.single_frame else Frames


def leave_unfinished(output: Output, plain: bool) -> None:
    """Make the readers of a run that failed before its first byte fail, too."""
    # Most readers accept empty input as a complete stream with no records.
    if not output.written:
        _break_off(output, HALF_LINE if plain else HALF_FRAME)


def _break_off(output: Output, half: bytes) -> None:
    # A resumable output keeps its whole frames, and the next run appends to them.
    if output.is_terminal() or output.resumable:
        return
    with suppress(PruneError, BrokenPipeError):  # the first failure is the one to report
        output.write(half)


class Sink(ABC):
    """Takes records and counts them; each subclass writes them in one form."""

    def __init__(self, output: Output, head: Head, writing: Writing) -> None:
        self.output = output
        self.writing = writing
        self.facts: dict[str, Any] = {"unscored_tokens": 0}  # more totals for the trailer
        self.records = 0
        self.trailer: Closing = lambda totals: {}
        # Whether the group field has too many values to be counted, or some that are too long.
        self.drops_groups = False

    @abstractmethod
    def write(self, records: Iterable[Record], *, whole: bool = False) -> None:
        """Write records, later if they do not fill a frame. `whole`: keep them in one frame."""

    @abstractmethod
    def write_lines(self, lines: Lines) -> None:
        """Write many records at once: the same bytes as `write`, in a tenth of the time."""

    @abstractmethod
    def copy_frame(self, table: Table, index: int) -> None:
        """Write a frame of another prune-cli stream. Either all of its records have a score, or none has."""

    def count_groups(self, names: Iterable[str]) -> None:
        """Count these groups as present: too many of them, or too long ones, are left out of the trailer."""
        return  # only a trailer has groups

    def drain(self) -> None:
        """Write what is queued, so that nothing is read from the source of a copied frame any more."""
        return  # only frames that are compressed in threads wait

    @abstractmethod
    def end_frame(self) -> None:
        """Make everything written so far visible to readers."""

    @abstractmethod
    def finish(self) -> None:
        """Complete the stream."""

    @abstractmethod
    def abandon(self) -> None:
        """Give the stream up. Its readers must not take it for whole."""


class Plain(Sink):
    """JSON Lines without compression. Nothing marks their end, so only half a line shows a failure."""

    def __init__(self, output: Output, head: Head, writing: Writing) -> None:
        super().__init__(output, head, writing)
        self.lines: list[bytes] = []
        self.size = 0

    def write(self, records: Iterable[Record], *, whole: bool = False) -> None:
        for record in records:
            self.lines.append(record.line)
            self.size += len(record.line)
            self.records += 1
            if self.size >= PLAIN_WRITE:
                self.end_frame()

    def end_frame(self) -> None:
        if self.lines:
            self.lines.append(b"")  # so that the join ends with a line end
            text = b"\n".join(self.lines)
            self.lines = []
            self.size = 0
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
    """One ordinary zstd frame, for readers that stop after the first."""

    def __init__(self, output: Output, head: Head, writing: Writing) -> None:
        super().__init__(output, head, writing)
        # Always one worker, so that the bytes do not depend on the number of threads.
        compressor = zstandard.ZstdCompressor(level=writing.level, threads=1, write_checksum=True)
        self.stream = compressor.compressobj()

    def out(self, text: Text) -> None:
        if packed := self.stream.compress(text):
            self.output.write(packed)

    def finish(self) -> None:
        self.end_frame()
        self.output.write(self.stream.flush())

    def abandon(self) -> None:
        # Once its frame has begun, its missing end is enough.
        leave_unfinished(self.output, plain=False)


class Frames(Sink):
    """A prune-cli stream: START, head, data frames, trailer, seek table.

    Each thread compresses a data frame of its own. They are written in order.
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
        # If a run is killed, only written frames survive, so a resumable output writes each frame at once.
        self.most_waiting = 0 if output.resumable else writing.threads + 2
        # Reused for frames that are copied: new memory for each would cost more than the copy.
        self.buffers: list[bytearray] = []
        self._begin_frame()

    def _begin_frame(self) -> None:
        self.pieces: list[Text] = []
        self.held = 0  # records
        self.size = 0  # bytes of text
        self.nulls = 0
        self.tokens = 0
        self.first: int | None = None  # rank
        self.last: int | None = None
        self.groups: dict[str, list[int]] = {}  # records and tokens by value of the group field

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
            # More values than GROUPS are dropped in the end, so counting them any further is a waste.
            if record.group is not None and len(self.values) <= GROUPS:
                group = self.groups.get(record.group)
                if group is None:
                    group = self.groups[record.group] = [0, 0]
                group[0] += 1
                group[1] += record.tokens

    def write_lines(self, lines: Lines) -> None:
        ends = np.cumsum(lines.sizes)
        text = memoryview(lines.text)
        row = 0
        start = 0  # offset of that row in the text
        while row < len(ends):
            # All lines that fit into the open frame go into it as one piece.
            stop = int(np.searchsorted(ends, start + FRAME - self.size, side="right"))
            if stop > row or not self.held:
                stop = max(stop, row + 1)  # a line longer than a frame has a frame of its own
                end = int(ends[stop - 1])
                self.pieces.append(text[start:end])
                self.size += end - start
                self._count(lines, slice(row, stop))
                row = stop
                start = end
            # Left open after the last line, for the lines of the next call.
            if row < len(ends):
                self.end_frame()

    def _count(self, lines: Lines, rows: slice) -> None:
        """Count these rows as records of the open frame."""
        ranks = lines.ranks[rows]
        tokens = lines.tokens[rows]
        nulls = lines.nulls[rows]
        self.held += len(ranks)
        self.tokens += int(tokens.sum())
        self.nulls += int(nulls.sum())
        self.facts["unscored_tokens"] += int(tokens[nulls].sum())
        if len(ranked := ranks[ranks >= 0]):
            self.first = int(ranked[0]) if self.first is None else self.first
            self.last = int(ranked[-1])
        if len(lines.names) > GROUPS:
            self.values.update(lines.names)
        self._count_groups(lines, lines.groups[rows], tokens)

    def _count_groups(self, lines: Lines, groups: np.ndarray, tokens: np.ndarray) -> None:
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
        # Size and CRC-32 follow when the frame is written.
        for name in ("text", "records", "nulls", "tokens", "first", "last", "groups"):
            getattr(self.counts, name).append(getattr(frames, name)[index])
        self.records += frames.records[index]
        if frames.nulls[index] == frames.records[index]:
            self.facts["unscored_tokens"] += frames.tokens[index]
        self.values.update(frames.groups[index])
        buffer = self.buffers.pop() if self.buffers else bytearray()
        self._wait_for(self.pool.submit(lambda: (table.frame(index, buffer), frames.crc[index])))

    def adopt(self, records: Iterable[Record], size: int, crc: int) -> None:
        """Count a frame that the output already holds: its records, size in bytes and CRC-32."""
        self.write(records, whole=True)
        self._close_frame()
        self.counts.size.append(size)
        self.counts.crc.append(crc)

    def _close_frame(self) -> list[Text]:
        """Count the open frame, begin the next, and return the text of the closed one in pieces."""
        pieces = self.pieces
        counts = self.counts
        self.records += self.held
        counts.text.append(self.size)
        counts.records.append(self.held)
        counts.nulls.append(self.nulls)
        counts.tokens.append(self.tokens)
        counts.first.append(self.first)
        counts.last.append(self.last)
        counts.groups.append(dict(sorted(self.groups.items())))
        self.values.update(self.groups)
        self._begin_frame()
        return pieces

    def _wait_for(self, frame: "Future[tuple[Text, int]]") -> None:
        """Queue a frame, and write the ones that are ready, in order."""
        self.waiting.append(frame)
        while len(self.waiting) > self.most_waiting or (self.waiting and self.waiting[0].done()):
            self._write_frame(*self.waiting.popleft().result())

    def _compress(self, pieces: list[Text]) -> tuple[Text, int]:
        """A data frame and its CRC-32."""
        # A compressor must not be shared between threads.
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
        # The buffer of a copied frame is free again.
        if isinstance(frame, memoryview) and isinstance(frame.obj, bytearray):
            self.buffers.append(frame.obj)
            frame.release()

    def count_groups(self, names: Iterable[str]) -> None:
        self.values.update(names)

    def drain(self) -> None:
        while self.waiting:
            self._write_frame(*self.waiting.popleft().result())

    def finish(self) -> None:
        self.end_frame()
        self.drain()
        self.pool.shutdown()
        self.drops_groups |= len(self.values) > GROUPS
        self.drops_groups |= any(len(value) > GROUP_LENGTH for value in self.values)
        if self.drops_groups:
            self.counts.groups = [{}] * len(self.counts.size)
        trailer = self._trailer()
        self.output.write(trailer + seek_table(frame_sizes(len(self.head), self.counts, len(trailer))))

    def _trailer(self) -> bytes:
        totals = self.counts.totals()
        content = {
            "frames": self.counts.columns(),
            # The order of `facts` is that in which the verb measured them, and part of the written bytes.
            "totals": msgspec.to_builtins(totals) | self.facts,
            **self.trailer(totals),
            # Ties the trailer to its head: parts of different streams do not make one.
            "head": crc32(START + self.head),
        }
        return skippable(TRAILER, "trailer", content)

    def abandon(self) -> None:
        self.pool.shutdown(wait=False, cancel_futures=True)
        _break_off(self.output, HALF_FRAME)
