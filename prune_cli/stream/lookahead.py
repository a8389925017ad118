"""How does a reader look at bytes of a file before it takes them? Every format is read through this."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..errors import DataError

REMEDY = "download or regenerate the file"
CHUNK = 1 << 20  # bytes of a read: a system call then costs nothing compared to decompressing them

Warn = Callable[[str], None]


class Raw(Protocol):
    """A file that is read once, from start to end."""

    def read(self, size: int, /) -> bytes:
        """The next bytes: between 1 and `size`, or none at the end of the file."""
        ...


class RandomAccess(Protocol):
    """Bytes that can be read at any offset, by several threads at a time."""

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on, fewer only at the end."""
        ...


@dataclass(frozen=True)
class Limits:
    """The limits that a user sets for the bytes of an input.

    `window_log` bounds the memory of the zstd decoder at 2^window_log bytes, like `--long` of zstd. `columns`
    are those to read of a table (Parquet), in order; all of them if there are none.
    """

    window_log: int = 27
    ignore_trailing: bool = False
    allow_empty: bool = False
    columns: tuple[str, ...] = ()


class LookAhead:
    """The bytes of a file, with a buffer of those that were read but not taken yet.

    `position` is the offset of the next byte in the file, for error messages.
    """

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.buffer = b""
        # Where the rest of the buffer begins. Cutting its front off each time would copy a megabyte.
        self.start = 0
        self.position = 0

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, without taking them; fewer only at the end of the file."""
        # A read from a pipe may return less than it was asked for.
        while len(self.buffer) - self.start < size:
            more = self.raw.read(max(CHUNK, size))
            if not more:
                break
            self.buffer = self.buffer[self.start :] + more
            self.start = 0
        return self.buffer[self.start : self.start + size]

    def take(self, size: int, what: str = "zstd frame") -> bytes:
        """Take the next `size` bytes. Raises DataError, which calls them `what`, if the file ends first."""
        taken = self.peek(size)
        if len(taken) < size:
            raise DataError(
                f"truncated {what} at byte {self.position + len(taken)}",
                remedy=f"the rest is missing: {REMEDY}",
            )
        self.start += size
        self.position += size
        return taken

    def skip(self, size: int) -> None:
        """Take and drop `size` bytes of a skippable frame."""
        # A megabyte at a time: the size is what a damaged or hostile file says, up to 4 GiB.
        while size > 0:
            size -= len(self.take(min(size, CHUNK), "skippable frame"))

    def chunk(self) -> bytes:
        """Take whatever comes next, about a megabyte; nothing at the end."""
        chunk = self.buffer[self.start :] or self.raw.read(CHUNK)
        self.buffer = b""
        self.start = 0
        self.position += len(chunk)
        return chunk

    def give_back(self, rest: bytes) -> None:
        """Return the unused end of the last chunk, which belongs to what follows."""
        self.buffer = rest
        self.start = 0
        self.position -= len(rest)

    @property
    def has_more_at_hand(self) -> bool:
        """Whether the next bytes are in the buffer, so that taking them cannot wait for a pipe."""
        return self.start < len(self.buffer)
