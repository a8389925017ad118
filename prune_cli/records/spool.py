"""Rows sorted by key: in memory while they fit, else in sorted runs on disk that are merged block by block.

A run is a row of frames, each compressed and checksummed by zstd: a table of rows and their text, about
`block` bytes of it. Runs lie one after another in one file for each temporary directory. The files have no
name, so that nothing is left of them whatever ends the process, and no run needs an open file of its own.
"""

import resource
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain
from threading import local

import numpy as np
import zstandard

from ..errors import DataError
from ..storage.os_errors import check_memory, display
from ..storage.temporary import TemporaryFile, check_directories, check_room
from ..stream.batch import Text
from .columns import ROW, Part, cuts, joined

ROW_BYTES = 128  # what a row takes beside its text, while it is held and while it is sorted
PART = 1 << 20  # bytes of text that are handed on at a time
OTHER_FILES = 32  # that may be open beside the streams of a merge
FEWEST = 8  # runs that are merged at once, however little memory there is
LEVEL = 1  # of zstd: a third of the time of level 3, a seventh more bytes


Block = tuple[np.ndarray, Text]  # rows and the text that their lines are in


@dataclass(frozen=True)
class Place:
    """Where a frame lies, and how many bytes it holds."""

    file: TemporaryFile
    offset: int
    size: int
    text: int


@dataclass
class Run:
    """The frames of a sorted run, and those of the records without a score that came with it."""

    scored: list[Place] = field(default_factory=list)
    unscored: list[Place] = field(default_factory=list)

    @property
    def largest(self) -> int:
        return max((place.text for place in self.scored), default=0)


class Spool:
    """Takes rows with their text and gives them back in order: by key, equal keys as they came, keys that are
    NaN last.

    `size` bounds the bytes that are held, each row counting ROW_BYTES beside its text; beyond it a few frames
    of 4 MiB, one for each of the `threads` that compress, are on their way. `descending` turns the order of
    all but the last, ties included.
    """

    def __init__(
        self, size: int, directories: Sequence[str], threads: int = 1, descending: bool = False
    ) -> None:
        self.size, self.directories, self.threads, self.descending = size, directories, threads, descending
        self.block = min(max(size // 256, 1 << 16), PART)
        self.texts: list[Text] = []
        self.tables: list[np.ndarray] = []
        self.held = 0
        self.runs: list[Run] = []
        self.files: list[TemporaryFile] = []
        self.opened = ExitStack()
        self.decompressor = zstandard.ZstdDecompressor()
        self.workers = local()

    def __enter__(self) -> "Spool":
        return self

    def __exit__(self, *error: object) -> None:
        self.opened.close()

    def check(self, needed: int) -> None:
        """Raise CannotCreateError, PermissionDeniedError or InputOutputError where runs of about `needed`
        bytes could not be kept.
        """
        check_directories(self.directories)
        if self.size < needed:  # else all fits into memory, and no run may be written
            check_room(self.directories, needed)

    def fan_in(self, size: int) -> int:
        """How many streams that take `size` bytes of memory each can be merged at once."""
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return min(max(FEWEST, self.size // size), files - OTHER_FILES)

    def add(self, text: Text, rows: np.ndarray) -> None:
        """Take rows whose lines are in `text`."""
        rows["block"] = len(self.texts)
        self.texts.append(text)
        self.tables.append(rows)
        self.held += len(text) + ROW_BYTES * len(rows)
        if self.held >= self.size:
            self._spill()

    def parts(self) -> Iterator[Part]:
        """Everything that was added, in order, about a megabyte at a time; each part is to be used before the
        next is asked for.
        """
        if not self.runs:
            yield from chain(*self._held(PART))
            return
        if self.tables:
            self._spill()
        while len(groups := list(self._groups())) > 1:
            self.runs = [self._merged(group) for group in groups]
        yield from self._merge(self.runs)
        for run in self.runs:
            for place in run.unscored:
                rows, text = self._read(place)
                yield rows, [text]

    def _held(self, most: int) -> tuple[Iterator[Part], Iterator[Part]]:
        """What is in memory, in parts of about `most` bytes: the rows with a key in order, then those
        without.
        """
        rows = np.concatenate(self.tables) if self.tables else np.zeros(0, ROW)
        self.tables = []
        blocks = [memoryview(text) for text in self.texts]  # slices of views are no copies
        scored = np.flatnonzero(~np.isnan(rows["key"]))
        order = scored[np.argsort(rows["key"][scored], kind="stable")]
        unscored = np.flatnonzero(np.isnan(rows["key"]))
        return _pieces(rows, order[::-1] if self.descending else order, blocks, most), _pieces(
            rows, unscored, blocks, most
        )

    def _spill(self) -> None:
        """Write what is held as a sorted run, to each directory in turn."""
        scored, unscored = self._held(self.block)
        self.runs.append(Run(self._write(scored), self._write(unscored)))
        self.texts, self.held = [], 0

    def _write(self, parts: Iterable[Part]) -> list[Place]:
        file = self._file(len(self.runs))
        written: list[Place] = []
        with ThreadPoolExecutor(self.threads, "spill") as pool:
            waiting: deque[Future[tuple[bytes, int]]] = deque()
            for rows, blocks in parts:
                waiting.append(pool.submit(self._compress, _payload(rows, blocks)))
                if len(waiting) > self.threads:
                    written.append(_append(file, *waiting.popleft().result()))
            written += [_append(file, *each.result()) for each in waiting]
        return written

    def _file(self, turn: int) -> TemporaryFile:
        """The file of the directory whose turn it is; all are made at the first spill."""
        if not self.files:
            for directory in self.directories:
                self.files.append(self.opened.enter_context(TemporaryFile(directory)))
        return self.files[turn % len(self.files)]

    def _compress(self, payload: bytes) -> tuple[bytes, int]:
        if not hasattr(self.workers, "compressor"):
            self.workers.compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        try:
            return self.workers.compressor.compress(payload), len(payload)
        except zstandard.ZstdError as error:
            check_memory(error)
            raise

    def _read(self, place: Place) -> Block:
        try:
            payload = self.decompressor.decompress(place.file.read_at(place.offset, place.size))
        except zstandard.ZstdError as error:
            check_memory(error)
            raise DataError(
                f"a temporary file is damaged ({error})", place=", ".join(map(display, self.directories))
            ) from None
        count = int.from_bytes(payload[:8], "little")
        return np.frombuffer(payload, ROW, count, 8).copy(), payload

    def _groups(self) -> Iterator[list[Run]]:
        """The runs in groups that can be merged at once: a frame of each in half of the memory, but at least
        FEWEST of them.
        """
        group: list[Run] = []
        for run in self.runs:
            if len(group) >= FEWEST and sum(each.largest for each in [*group, run]) > self.size // 2:
                yield group
                group = []
            group.append(run)
        yield group

    def _merged(self, group: list[Run]) -> Run:
        if len(group) == 1:
            return group[0]
        return Run(self._write(self._merge(group)), [place for run in group for place in run.unscored])

    def _merge(self, runs: Sequence[Run]) -> Iterator[Part]:
        return merge([map(self._read, run.scored) for run in runs], self.descending, self.block)


def merge(streams: Sequence[Iterator[Block]], descending: bool = False, most: int = PART) -> Iterator[Part]:
    """The rows of some sorted streams in order, in parts of `most` bytes; equal keys in the order of the
    streams (from the last one if `descending`).

    Of each stream one block is in memory. All rows up to the smallest of the blocks' last keys can go: what
    is still to be read comes after them. Of the streams behind the one with that key only smaller keys go,
    since equal ones may still come before.
    """
    heads = [_Head(stream, descending) for stream in (reversed(streams) if descending else streams)]
    while heads := [head for head in heads if head.refill()]:
        bound, first = min((head.keys[-1], index) for index, head in enumerate(heads))
        taken = [head.take(index, bound, index <= first) for index, head in enumerate(heads)]
        rows, keys = (np.concatenate(each) for each in zip(*taken, strict=True))
        yield from _pieces(rows, np.argsort(keys, kind="stable"), [head.text for head in heads], most)


class _Head:
    """The block of a stream that is in memory: the rows that are still to be merged."""

    def __init__(self, blocks: Iterator[Block], descending: bool) -> None:
        self.blocks, self.descending = blocks, descending
        self.rows, self.keys = np.zeros(0, ROW), np.zeros(0)
        self.text: Text = b""

    def refill(self) -> bool:
        """Whether there are rows, read now if need be."""
        while not len(self.keys) and (block := next(self.blocks, None)):
            self.rows, self.text = block
            self.keys = -self.rows["key"] if self.descending else np.ascontiguousarray(self.rows["key"])
        return len(self.keys) > 0

    def take(self, index: int, bound: float, equal: bool) -> tuple[np.ndarray, np.ndarray]:
        """The rows with keys below the bound, or equal to it, marked as being in text `index`, and their
        keys; the rest is kept.
        """
        stop = int(np.searchsorted(self.keys, bound, side="right" if equal else "left"))
        rows, keys = self.rows[:stop], self.keys[:stop]
        rows["block"] = index
        self.rows, self.keys = self.rows[stop:], self.keys[stop:]
        return rows, keys


def _pieces(rows: np.ndarray, order: np.ndarray, blocks: Sequence[Text], most: int) -> Iterator[Part]:
    """Rows in some order, in parts of at most `most` bytes of text, or of one row that has more."""
    for stretch in cuts((rows["end"] + 1 - rows["start"])[order], most):
        yield rows[order[stretch]], blocks


def _payload(rows: np.ndarray, blocks: Sequence[Text]) -> bytes:
    """What a frame holds: how many rows, the rows, their lines; where a line is counts from the start of all
    this.
    """
    text, moved = joined(rows, blocks), rows.copy()
    ends = np.cumsum(rows["end"] + 1 - rows["start"]) + (8 + ROW.itemsize * len(rows) - 1)
    for name in ("start", "close", "end"):
        moved[name] = ends - (rows["end"] - rows[name])
    moved["block"] = 0
    return b"".join((len(rows).to_bytes(8, "little"), moved.tobytes(), text))


def _append(file: TemporaryFile, frame: bytes, text: int) -> Place:
    return Place(file, file.append(frame), len(frame), text)
