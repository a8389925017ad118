"""How is a part of a file read as an input of its own? As whole frames of a stream, or as whole lines."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from hashlib import blake2b

from .. import storage
from ..errors import DataError
from ..storage.base import CHUNK, Identity, Input, Progress, ignore_progress
from . import index
from .index import Table
from .schema import Event

DIGEST_CHUNK = 8 << 20  # bytes of a read for a digest


class Grain(StrEnum):
    """Where a file may be cut."""

    whole = "whole"  # nowhere
    lines = "lines"  # anywhere: a line belongs to the section in which it starts
    frames = "frames"  # at the data frames of one prune-cli stream
    groups = "groups"  # at the row groups of a Parquet file


@dataclass(frozen=True)
class Shard:
    """A piece of an input, by value: picklable, and the same on every machine that reaches the input."""

    number: int  # from 1, among all shards of a plan
    of: int
    input: str
    grain: Grain = Grain.whole
    start: int = 0  # bytes
    end: int | None = None  # bytes; None is the end of the input
    identity: Identity | None = None  # of the input when the plan was made
    part: int = 1  # from 1, among the shards of this input
    parts: int = 1

    def open_input(self) -> Input:
        """The input, or the section of it. Raises DataError if it has changed since the plan was made."""
        whole = storage.input_at(self.input)
        whole.check()
        if self.identity is not None and not _is_same(self.identity, whole.identity):
            raise DataError("changed since the run began", place=whole.name, remedy="run again")
        if self.grain is Grain.whole:
            return whole
        assert self.end is not None
        return Section(self.input, whole=whole, grain=self.grain, start=self.start, end=self.end)


def _is_same(before: Identity, now: Identity | None) -> bool:
    # The first of the five values of a local file is the device, which machines number as they like.
    return now is not None and before[-4:] == now[-4:]


@dataclass
class Section(Input):
    """The bytes of a file from `start` to `end`: data frames of a stream, or lines of text.

    It is read by `events`, in order, and by nothing else: as it has no identity, nobody tries.
    """

    whole: Input = field(kw_only=True)
    grain: Grain = field(kw_only=True)
    start: int = field(kw_only=True)
    end: int = field(kw_only=True)

    @property
    def name(self) -> str:
        """The name of the file; where lines cannot be counted from its start, with the first byte."""
        is_counted = self.grain is Grain.frames or (self.grain is Grain.lines and not self.start)
        return self.whole.name if is_counted else f"{self.whole.name} from byte {self.start}"

    @property
    def size(self) -> int:
        return self.end - self.start

    @property
    def identity(self) -> Identity | None:
        return None

    def check(self) -> None:
        self.whole.check()

    @contextmanager
    def open(self) -> Iterator[Input]:
        with self.whole.open():
            yield self

    def read(self, size: int, /) -> bytes:
        raise NotImplementedError("a section is read by `events`")

    def read_at(self, offset: int, size: int) -> bytes:
        raise NotImplementedError("a section is read by `events`")

    def duplicate(self) -> Input:
        return Section(self.path, whole=self.whole, grain=self.grain, start=self.start, end=self.end)

    def first_line(self) -> int:
        """The number of the first line, as far as `name` lets one count."""
        if self.grain is not Grain.frames:
            return 1
        table = self._table
        return table.place(self._frames(table).start)[1]

    def events(self) -> Iterator[Event]:
        """As `formats.read` of a file, except for Parquet, which `formats` reads. The input is open."""
        return self._frame_events() if self.grain is Grain.frames else self._line_events()

    def digest(self) -> str:
        """A digest of the content. Raises what `Input.open` raises."""
        summary = blake2b(f"{self.grain} {self.size}\n".encode(), digest_size=16)
        if self.grain is Grain.frames:
            # The CRC-32 of each frame is that of its compressed bytes, which a reader holds it to.
            table = self._table
            for frame in self._frames(table):
                summary.update(f"{table.frames.size[frame]} {table.frames.crc[frame]}\n".encode())
            return summary.hexdigest()
        with storage.input_at(self.path).open() as opened:
            for offset in range(self.start, self.end, DIGEST_CHUNK):
                summary.update(opened.read_at(offset, min(DIGEST_CHUNK, self.end - offset)))
        return summary.hexdigest()

    # --- Frames ---

    @cached_property
    def _table(self) -> Table:
        table = index.read_table(self.whole)
        if table is None:
            raise DataError("is no longer the stream that it was", place=self.whole.name, remedy="run again")
        return table

    def _frames(self, table: Table) -> range:
        offsets = table.offsets
        inside = [frame for frame, offset in enumerate(offsets) if self.start <= offset < self.end]
        return range(inside[0], inside[-1] + 1) if inside else range(0)

    def _frame_events(self) -> Iterator[Event]:
        table = self._table
        with _opened(table.file, self.progress):
            yield table.head
            for frame in self._frames(table):
                yield table.text(frame)

    # --- Lines ---

    def _line_events(self) -> Iterator[Event]:
        """The lines that start in the section, the last one to its end wherever that is."""
        position = self._first_start()
        while position < self.end:
            chunk = self.whole.read_at(position, min(CHUNK, self.end - position))
            self.progress(len(chunk))
            if not chunk:
                return
            yield chunk
            position += len(chunk)
            is_last = position == self.end
            if is_last and not chunk.endswith(b"\n"):
                yield from self._rest_of_line(position)

    def _first_start(self) -> int:
        """The offset of the first line that starts at `start` or behind it."""
        # The byte before tells: if it ends a line, the section begins with one.
        position = self.start - 1
        while 0 <= position < self.end:
            chunk = self.whole.read_at(position, CHUNK)
            line_end = chunk.find(b"\n")
            if line_end >= 0:
                return position + line_end + 1
            if not chunk:
                return self.end
            position += len(chunk)
        return max(position, 0)

    def _rest_of_line(self, position: int) -> Iterator[bytes]:
        # The reader of lines refuses one that is too long.
        while chunk := self.whole.read_at(position, CHUNK):
            line_end = chunk.find(b"\n")
            if line_end >= 0:
                yield chunk[: line_end + 1]
                return
            yield chunk
            position += len(chunk)


@contextmanager
def _opened(file: Input, progress: Progress) -> Iterator[Input]:
    """An input, open, whose progress is that of the section."""
    file.progress = progress
    opened: AbstractContextManager[Input] = file.open()
    try:
        with opened as open_file:
            yield open_file
    finally:
        file.progress = ignore_progress
