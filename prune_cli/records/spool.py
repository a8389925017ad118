"""How are more rows sorted than fit into memory? In sorted runs on disk, which are merged block by block.

A run is a sequence of frames, each compressed and checksummed by zstd: a table of rows and about `block`
bytes of their text. All runs of a temporary directory share one file. It has no name, so that nothing is left
of it whatever ends the process, and the number of runs is not limited by the number of open files.
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

ROW_BYTES = 128  # memory of a row without its text, while it is held and sorted
PART = 1 << 20  # bytes of text in a part of the result
OTHER_FILES = 32  # open files that are not the streams of a merge
FEWEST = 8  # runs that are merged at once, however little memory there is
LEVEL = 1  # of zstd: a third of the time of level 3, a seventh more bytes
COUNT_BYTES = 8  # at the start of a frame: its number of rows


Block = tuple[np.ndarray, Text]  # rows and the text that their lines are in


@dataclass(frozen=True)
class Place:
    """Position of a compressed frame in its file, and the bytes it decompresses to."""

    file: TemporaryFile
    offset: int
    size: int
    text: int


@dataclass
class Run:
    """A sorted run: its frames in order, and the frames of its records without a score."""

    scored: list[Place] = field(default_factory=list)
    unscored: list[Place] = field(default_factory=list)

    @property
    def largest(self) -> int:
        """Bytes of the largest scored frame: what the run takes of memory in a merge."""
        return max((place.text for place in self.scored), default=0)


class HeldRows:
    """Rows in memory, and the texts that their lines are in.

    `size` is in bytes: ROW_BYTES for each row, and its text.
    """

    def __init__(self) -> None:
        self.texts: list[Text] = []
        self.tables: list[np.ndarray] = []
        self.size = 0

    def add(self, text: Text, rows: np.ndarray) -> None:
        """Add rows whose lines are in `text`."""
        rows["block"] = len(self.texts)
        self.texts.append(text)
        self.tables.append(rows)
        self.size += len(text) + ROW_BYTES * len(rows)

    def take(self) -> tuple[np.ndarray, list[memoryview]]:
        """All rows in one table, and their texts. Nothing is held afterwards."""
        rows = np.concatenate(self.tables) if self.tables else np.zeros(0, ROW)
        blocks = [memoryview(text) for text in self.texts]  # slices of views are no copies
        self.texts = []
        self.tables = []
        self.size = 0
        return rows, blocks


class Spool:
    """Sorts rows with their text by key: equal keys in input order, rows whose key is NaN last.

    `size` bounds the bytes in memory, counting ROW_BYTES for each row and its text; a frame of 4 MiB for each
    of the `threads` that compress comes on top. `descending` reverses the order of the rows with a key, equal
    keys included.
    """

    def __init__(
        self, size: int, directories: Sequence[str], threads: int = 1, descending: bool = False
    ) -> None:
        self.size = size
        self.directories = directories
        self.threads = threads
        self.descending = descending
        # A merge holds a block of each run: small blocks let 128 runs merge at once in half of `size`.
        self.block = min(max(size // 256, 1 << 16), PART)
        self.held = HeldRows()
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
        """Check the temporary directories for runs of about `needed` bytes.

        Raises CannotCreateError, PermissionDeniedError or InputOutputError if they cannot hold them.
        """
        check_directories(self.directories)
        if self.size < needed:  # else everything fits into memory, and no run is written
            check_room(self.directories, needed)

    def fan_in(self, size: int) -> int:
        """The number of streams that can be merged at once if each takes `size` bytes of memory."""
        open_files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return min(max(FEWEST, self.size // size), open_files - OTHER_FILES)

    def add(self, text: Text, rows: np.ndarray) -> None:
        """Add rows whose lines are in `text`."""
        self.held.add(text, rows)
        if self.held.size >= self.size:
            self._spill()

    def parts(self) -> Iterator[Part]:
        """Everything that was added, in order, about a megabyte at a time.

        A part is only valid until the next one is asked for.
        """
        if not self.runs:
            yield from chain(*self._held_parts(PART))
            return
        if self.held.tables:
            self._spill()
        # Each round merges groups of runs into longer runs, until the last merge can take all of them.
        while len(groups := list(self._groups())) > 1:
            self.runs = [self._merge_into_one(group) for group in groups]
        yield from self._merge(self.runs)
        # Runs are in input order, and so are the unscored records of each: they need no merge.
        for run in self.runs:
            for place in run.unscored:
                rows, text = self._read(place)
                yield rows, [text]

    def _held_parts(self, most: int) -> tuple[Iterator[Part], Iterator[Part]]:
        """The rows in memory, in parts of about `most` bytes: sorted rows with a key, then rows without."""
        rows, blocks = self.held.take()
        has_no_key = np.isnan(rows["key"])
        scored = np.flatnonzero(~has_no_key)
        unscored = np.flatnonzero(has_no_key)
        order = scored[np.argsort(rows["key"][scored], kind="stable")]
        if self.descending:
            order = order[::-1]
        return parts_of(rows, order, blocks, most), parts_of(rows, unscored, blocks, most)

    # --- Runs on disk ---

    def _spill(self) -> None:
        """Write the rows in memory as a sorted run. The temporary directories take turns."""
        scored, unscored = self._held_parts(self.block)
        self.runs.append(Run(self._write(scored), self._write(unscored)))

    def _write(self, parts: Iterable[Part]) -> list[Place]:
        file = self._file(len(self.runs))
        places: list[Place] = []
        with ThreadPoolExecutor(self.threads, "spill") as pool:
            # Frames are compressed in parallel, but written in order. The queue bounds the memory.
            waiting: deque[Future[tuple[bytes, int]]] = deque()
            for rows, blocks in parts:
                waiting.append(pool.submit(self._compress, payload_of(rows, blocks)))
                if len(waiting) > self.threads:
                    places.append(_append(file, *waiting.popleft().result()))
            places += [_append(file, *frame.result()) for frame in waiting]
        return places

    def _file(self, turn: int) -> TemporaryFile:
        """The file of the directory whose turn it is; all files are created at the first spill."""
        if not self.files:
            for directory in self.directories:
                self.files.append(self.opened.enter_context(TemporaryFile(directory)))
        return self.files[turn % len(self.files)]

    def _compress(self, payload: bytes) -> tuple[bytes, int]:
        # A compressor must not be shared between threads, and takes longer to make than to use.
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
            directories = ", ".join(map(display, self.directories))
            raise DataError(f"a temporary file is damaged ({error})", place=directories) from None
        count = int.from_bytes(payload[:COUNT_BYTES], "little")
        # A copy, because a merge writes into the rows. The text stays a view of the payload.
        return np.frombuffer(payload, ROW, count, COUNT_BYTES).copy(), payload

    # --- Merging ---

    def _groups(self) -> Iterator[list[Run]]:
        """Groups of runs that can be merged at once.

        One frame of each run takes at most half of the memory, but a group has at least FEWEST runs.
        """
        group: list[Run] = []
        for run in self.runs:
            # Fewer than FEWEST at a time would read and write everything in many more rounds.
            if len(group) >= FEWEST and sum(member.largest for member in [*group, run]) > self.size // 2:
                yield group
                group = []
            group.append(run)
        yield group

    def _merge_into_one(self, group: list[Run]) -> Run:
        if len(group) == 1:
            return group[0]
        unscored = [place for run in group for place in run.unscored]
        return Run(self._write(self._merge(group)), unscored)

    def _merge(self, runs: Sequence[Run]) -> Iterator[Part]:
        return merge([map(self._read, run.scored) for run in runs], self.descending, self.block)


def merge(streams: Sequence[Iterator[Block]], descending: bool = False, most: int = PART) -> Iterator[Part]:
    """Merge sorted streams into parts of about `most` bytes. Equal keys come in the order of the streams.

    With `descending`, keys fall and the last stream comes first among equals. One block of each stream is in
    memory.
    """
    # Each block's last key bounds what its stream still holds. Rows up to the smallest of these bounds can
    # go. Equal keys may follow in the stream that set the bound; streams after it have to hold theirs back.
    fronts = [_Front(stream, descending) for stream in (reversed(streams) if descending else streams)]
    while fronts := [front for front in fronts if front.refill()]:
        bound, first = min((front.keys[-1], index) for index, front in enumerate(fronts))
        taken = [front.take(index, bound, index <= first) for index, front in enumerate(fronts)]
        rows, keys = (np.concatenate(arrays) for arrays in zip(*taken, strict=True))
        yield from parts_of(rows, np.argsort(keys, kind="stable"), [front.text for front in fronts], most)


class _Front:
    """The block of a sorted stream that is in memory: its rows that are still to be merged."""

    def __init__(self, blocks: Iterator[Block], descending: bool) -> None:
        self.blocks = blocks
        self.descending = descending
        self.rows = np.zeros(0, ROW)
        self.keys = np.zeros(0)
        self.text: Text = b""

    def refill(self) -> bool:
        """Read the next block if no rows are left. Returns False at the end of the stream."""
        while not len(self.keys) and (block := next(self.blocks, None)):
            self.rows, self.text = block
            # Negated keys rise, so that one merge serves both orders. A column of a table has gaps between
            # its values; searchsorted would copy it again and again.
            self.keys = -self.rows["key"] if self.descending else np.ascontiguousarray(self.rows["key"])
        return len(self.keys) > 0

    def take(self, index: int, bound: float, equal: bool) -> tuple[np.ndarray, np.ndarray]:
        """Remove and return the rows with keys below `bound` (or `equal` to it), and their keys.

        The rows are marked as being in the text with number `index`.
        """
        stop = int(np.searchsorted(self.keys, bound, side="right" if equal else "left"))
        rows = self.rows[:stop]
        keys = self.keys[:stop]
        rows["block"] = index
        self.rows = self.rows[stop:]
        self.keys = self.keys[stop:]
        return rows, keys


def parts_of(rows: np.ndarray, order: np.ndarray, blocks: Sequence[Text], most: int) -> Iterator[Part]:
    """The rows in the given order, in parts of at most `most` bytes of text, or of one longer row."""
    sizes = (rows["end"] + 1 - rows["start"])[order]
    for stretch in cuts(sizes, most):
        yield rows[order[stretch]], blocks


# --- Frames ---


def payload_of(rows: np.ndarray, blocks: Sequence[Text]) -> bytes:
    """The content of a frame: the number of rows, the rows, their lines.

    The offsets in the rows count from the start of the content.
    """
    moved = rows.copy()
    # The new offset of each line end: lines follow each other behind the count and the table.
    table_end = COUNT_BYTES + ROW.itemsize * len(rows)
    ends = np.cumsum(rows["end"] + 1 - rows["start"]) + (table_end - 1)
    for name in ("start", "close", "end"):
        moved[name] = ends - (rows["end"] - rows[name])
    moved["block"] = 0
    return b"".join((len(rows).to_bytes(COUNT_BYTES, "little"), moved.tobytes(), joined(rows, blocks)))


def _append(file: TemporaryFile, frame: bytes, text: int) -> Place:
    return Place(file, file.append(frame), len(frame), text)
