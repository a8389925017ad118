"""How are bytes read that lie on a server? In ranges, each a request of its own that names the version.

A reader may take minutes for what it holds, and a server closes a response that nobody reads. So no response
is held open: a few ranges are fetched ahead, whole, and wait in memory.
"""

from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from threading import Lock

from ..base import Identity, Input, RangedInput
from .workers import WORKERS

RANGE = 8 << 20  # bytes of a request: its latency costs little, and a retry costs no more than this
FIRST_RANGE = 1 << 20  # who reads only the first record should not fetch more
AHEAD = 4  # ranges that are fetched ahead of the reader
LARGEST = 32 << 20  # bytes of a request for a range that the caller chose
# Together at most 256 KiB an object: head, trailer and seek table of a stream of ours are in them.
HEAD_BYTES = 64 << 10
TAIL_BYTES = 160 << 10
# Bytes of the first ranges that a caller chose, which are kept: `slice` looks for the edges of the cut in
# frames that it copies later.
EARLY_BYTES = 16 << 20

Span = tuple[int, int]  # offsets of the first byte and of the byte after the last


@dataclass(frozen=True)
class Meta:
    """What a server says of the bytes at a URL. `tag` is the ETag; where there is none, the time of change.

    `token` is that of the run that wrote the object, if it was ours and the server was asked for it.
    """

    size: int
    tag: str
    etag: str | None = None
    token: str | None = None


class Ends:
    """The first and the last bytes of an object, fetched once and shared by its readers."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.pending: dict[Span, Future[memoryview]] = {}

    def fetch(self, span: Span, file: "RemoteInput") -> "Future[memoryview]":
        """The bytes of one end, which are asked for unless they already were."""
        with self.lock:
            if span not in self.pending:
                self.pending[span] = file.request(span)
            return self.pending[span]

    def clear(self) -> None:
        """Forget what was fetched."""
        with self.lock:
            self.pending = {}


@dataclass
class RemoteInput(RangedInput):
    """An input on a server. A kind of server derives it and adds `look` and `fetch`.

    `meta` is given by who has listed what is there, else looked up when it is needed first. From then on
    every range has to be of that version.
    """

    meta: Meta | None = field(default=None, repr=False)
    ends: Ends = field(default_factory=Ends, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.current = memoryview(b"")  # the rest of the range that is being read
        self.waiting: deque[Future[memoryview]] = deque()
        self.next = 0  # offset of the range to ask for next
        self.looking: Future[Meta] | None = None
        self.early: dict[Span, memoryview] = {}

    @abstractmethod
    def look(self) -> Meta:
        """Ask the server, in a thread. Raises NoInputError, PermissionDeniedError or UnavailableError."""

    @abstractmethod
    def fetch(self, start: int, stop: int, meta: Meta) -> memoryview:
        """The bytes of a range, in a thread. Raises DataError if they are not of this version."""

    def request(self, span: Span) -> "Future[memoryview]":
        """Begin to fetch a range."""
        return WORKERS.submit(partial(self.fetch, *span, self.version))

    @property
    def version(self) -> Meta:
        """The version that this run reads. Raises what `look` raises."""
        if self.meta is None:
            self.prepare()
            assert self.looking is not None
            self.meta = self.looking.result()
        return self.meta

    def prepare(self) -> None:
        if self.meta is None and self.looking is None:
            self.looking = WORKERS.submit(self.look)

    @property
    def size(self) -> int | None:
        return self.version.size

    @property
    def identity(self) -> Identity | None:
        return (self.path, self.version.tag, self.version.size)

    def check(self) -> None:
        _ = self.version

    @contextmanager
    def open(self) -> Iterator[Input]:
        self.position = self.next = 0
        self.current = memoryview(b"")
        self.early.clear()
        _ = self.version
        try:
            # Every range names the version: nothing is left to compare at the end.
            yield self
        finally:
            for future in self.waiting:
                future.cancel()
            self.waiting.clear()
            self.early.clear()
            self.current = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        if not self.current:
            self._fill()
        data = bytes(self.current[:size])
        self.current = self.current[size:]
        self.position += len(data)
        self.progress(len(data))
        return data

    def read_at(self, offset: int, size: int) -> bytes:
        stop = min(offset + size, self.version.size)
        if offset >= stop:
            return b""
        span = self._end_with(offset, stop)
        if span is None:
            return b"".join(self._ranges(offset, stop))
        block = self.ends.fetch(span, self).result()
        return bytes(block[offset - span[0] : stop - span[0]])

    def read_into(self, buffer: memoryview, offset: int) -> int:
        stop = min(offset + len(buffer), self.version.size)
        if self._end_with(offset, stop):
            return super().read_into(buffer, offset)
        filled = 0
        for piece in self._ranges(offset, stop):
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def anticipate(self) -> None:
        for span in self._spans():
            self.ends.fetch(span, self)

    def forget(self) -> None:
        self.ends.clear()

    # --- Ranges ---

    def _fill(self) -> None:
        """Wait for the next range, and ask for some behind it."""
        size = self.version.size
        if not self.waiting and self.next < size:
            self._ask(FIRST_RANGE if self.next == 0 else RANGE)
        if not self.waiting:
            return
        # From the second range on: the reader goes on, so it probably reads everything.
        while self.position and len(self.waiting) < AHEAD and self.next < size:
            self._ask(RANGE)
        self.current = self.waiting.popleft().result()

    def _ask(self, length: int) -> None:
        stop = min(self.next + length, self.version.size)
        self.waiting.append(self.request((self.next, stop)))
        self.next = stop

    def _ranges(self, start: int, stop: int) -> Iterator[memoryview]:
        """A range that the caller chose, in pieces that one request may have."""
        for first in range(start, stop, LARGEST):
            span = (first, min(first + LARGEST, stop))
            data = self.early.get(span) or self.request(span).result()
            if sum(map(len, self.early.values())) + len(data) <= EARLY_BYTES:
                self.early[span] = data
            yield data

    def _spans(self) -> list[Span]:
        """Both ends; one span if the object is no larger than they are."""
        size = self.version.size
        if size <= HEAD_BYTES + TAIL_BYTES:
            return [(0, size)] if size else []
        return [(0, HEAD_BYTES), (size - TAIL_BYTES, size)]

    def _end_with(self, start: int, stop: int) -> Span | None:
        """The end that a range lies in, if it does."""
        return next((span for span in self._spans() if span[0] <= start and stop <= span[1]), None)
