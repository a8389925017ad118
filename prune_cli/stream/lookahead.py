"""How are the next bytes of a file looked at before they are taken?

Every reader of a format stands on this.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..errors import DataError

REMEDY = "fetch the file again, or make it again"
CHUNK = 1 << 20  # bytes of a read: large enough that a system call costs nothing beside decompressing them

Warn = Callable[[str], None]


class Raw(Protocol):
    """A file that is read once, from its start to its end."""

    def read(self, size: int, /) -> bytes:
        """The next bytes: between 1 and `size`, or none at the end."""
        ...


@dataclass(frozen=True)
class Limits:
    """How far an input is trusted.

    `window_log` bounds the memory of the zstd decoder at 2^window_log bytes (`--long` of zstd).
    """

    window_log: int = 27
    ignore_trailing: bool = False
    allow_empty: bool = False


class LookAhead:
    """The bytes of a file, with a buffer of those that were read and not taken yet.

    `position` is the offset in the file of the next byte: error messages name it.
    """

    def __init__(self, raw: Raw) -> None:
        self.raw = raw
        self.buffer = b""
        self.start = 0  # of what is left in the buffer: cutting the front off each time would copy a megabyte
        self.position = 0

    def peek(self, size: int) -> bytes:
        """The next `size` bytes, which are not taken; fewer only at the end of the file."""
        while len(self.buffer) - self.start < size:
            more = self.raw.read(max(CHUNK, size))
            if not more:
                break
            self.buffer = self.buffer[self.start :] + more
            self.start = 0
        return self.buffer[self.start : self.start + size]

    def take(self, size: int, what: str = "zstd frame") -> bytes:
        """The next `size` bytes.

        Raises DataError if the file ends before, which names `what` is truncated.
        """
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
        """Take `size` bytes of a skippable frame, a megabyte in memory at a time."""
        while size > 0:
            size -= len(self.take(min(size, CHUNK), "skippable frame"))

    def chunk(self) -> bytes:
        """Whatever comes next, about a megabyte; nothing at the end."""
        chunk = self.buffer[self.start :] or self.raw.read(CHUNK)
        self.buffer = b""
        self.start = 0
        self.position += len(chunk)
        return chunk

    def give_back(self, rest: bytes) -> None:
        """Return the end of the last chunk, which belongs to whatever follows."""
        self.buffer = rest
        self.start = 0
        self.position -= len(rest)

    @property
    def has_more_at_hand(self) -> bool:
        """Whether bytes are left in the buffer: the next ones cost no read, which may wait for a pipe."""
        return self.start < len(self.buffer)
