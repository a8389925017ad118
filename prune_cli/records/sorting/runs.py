"""How do several processes share sorted records? In files of sorted runs, of which any stretch can be read.

A file holds the runs of consecutive records of the input. A run is frames of rows and their text, as in
`spool`, and columns with a value for each row: key, tokens, bytes and the value of the `within` field.
RunColumns are enough to count, and to find the stretch of a run that lies between two keys.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from threading import local

import numpy as np
import zstandard

from ...errors import DataError
from ...storage.os_errors import check_memory, display
from ...storage.temporary import SharedFile
from ...stream.batch import Text
from ..columns import ROW, Part
from ..spool import COUNT_BYTES, LEVEL, PART, HeldRows, parts_of, payload_of
from .keys import ordered_keys

COLUMN_TYPES = {"keys": "<u8", "tokens": "<i8", "bytes": "<i8", "within": "<i4"}
# Of each frame: its offset and size in the file, and the rows of the run before it.
FRAME = np.dtype([("offset", "<i8"), ("size", "<i8"), ("rows_before", "<i8")])
SMALLEST_FRAME = 1 << 14  # bytes of text: smaller ones compress badly


@dataclass(frozen=True)
class RunPlace:
    """A run in its file: the numbers of its rows and frames, and the offsets of their tables."""

    rows: int
    frames: int
    columns: int
    frame_table: int


@dataclass(frozen=True)
class SortedFile:
    """A file of sorted runs, by value: another process can open it."""

    path: str
    runs: tuple[RunPlace, ...]
    is_compressed: bool


@dataclass(frozen=True)
class RunColumns:
    """The columns of a run, in the order of its rows."""

    keys: np.ndarray
    tokens: np.ndarray
    bytes: np.ndarray
    within: np.ndarray


class RunWriter:
    """Sorts rows with their text by key, equal ones in input order, and writes them as runs.

    `size` bounds the bytes in memory, counting ROW_BYTES for each row and its text. `frame` is the bytes of
    text that a reader has to take at once. `on_run` sees the columns of each run.
    """

    def __init__(
        self, path: str, size: int, *, frame: int, compress: bool, on_run: Callable[["RunColumns"], object]
    ) -> None:
        self.file = SharedFile(path, write=True)
        self.size = size
        self.frame = min(max(frame, SMALLEST_FRAME), PART)
        self.compress = compress
        self.on_run = on_run
        self.workers = local()
        self.held = HeldRows()
        self.runs: list[RunPlace] = []

    def __enter__(self) -> "RunWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.__exit__(None, None, None)

    def add(self, text: Text, rows: np.ndarray) -> None:
        """Add rows whose lines are in `text`."""
        self.held.add(text, rows)
        if self.held.size >= self.size:
            self._write_run()

    def finish(self) -> SortedFile:
        """The file, with all that was added."""
        if self.held.tables:
            self._write_run()
        return SortedFile(self.file.path, tuple(self.runs), self.compress)

    def _write_run(self) -> None:
        rows, blocks = self.held.take()
        keys = ordered_keys(rows["key"])
        order = np.argsort(keys, kind="stable")
        frames = self._write_frames(parts_of(rows, order, blocks, self.frame))
        rows = rows[order]
        values = (keys[order], rows["tokens"], rows["end"] + 1 - rows["start"], rows["within"])
        tables = [column.astype(kind) for column, kind in zip(values, COLUMN_TYPES.values(), strict=True)]
        self.on_run(RunColumns(*tables))
        offset = self.file.append(b"".join(column.tobytes() for column in tables))
        frame_table = self.file.append(frames.tobytes())
        self.runs.append(RunPlace(len(rows), len(frames), offset, frame_table))

    def _write_frames(self, parts: Iterator[Part]) -> np.ndarray:
        frames: list[tuple[int, int, int]] = []
        rows_before = 0
        # One thread encodes while this one writes: the other processors have workers of their own.
        with ThreadPoolExecutor(1, "run") as pool:
            waiting: deque[tuple[int, Future[bytes]]] = deque()
            for rows, blocks in parts:
                waiting.append((rows_before, pool.submit(self._encode, rows, blocks)))
                rows_before += len(rows)
                if len(waiting) > 1:
                    frames.append(self._append(*waiting.popleft()))
            frames += [self._append(*item) for item in waiting]
        return np.array(frames, FRAME)

    def _append(self, rows_before: int, frame: "Future[bytes]") -> tuple[int, int, int]:
        data = frame.result()
        return self.file.append(data), len(data), rows_before

    def _encode(self, rows: np.ndarray, blocks: Sequence[Text]) -> bytes:
        payload = payload_of(rows, blocks)
        if not self.compress:
            return payload
        # A compressor must not be shared between threads, and takes longer to make than to use.
        if not hasattr(self.workers, "compressor"):
            self.workers.compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True)
        try:
            compressed: bytes = self.workers.compressor.compress(payload)
        except zstandard.ZstdError as error:
            check_memory(error)
            raise
        return compressed


class RunReader:
    """Reads columns and stretches of the runs of a file."""

    def __init__(self, file: SortedFile) -> None:
        self.sorted = file
        self.file = SharedFile(file.path)
        self.decompressor = zstandard.ZstdDecompressor()

    def __enter__(self) -> "RunReader":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.__exit__(None, None, None)

    def columns(self, run: int) -> RunColumns:
        """All columns of a run."""
        place = self.sorted.runs[run]
        columns = {}
        offset = place.columns
        for name, kind in COLUMN_TYPES.items():
            size = place.rows * np.dtype(kind).itemsize
            columns[name] = np.frombuffer(self._bytes(offset, size), kind)
            offset += size
        return RunColumns(**columns)

    def stretch(self, run: int, start: int, end: int) -> Iterator[tuple[np.ndarray, Text]]:
        """The rows `start` to `end` of a run, frame by frame, with the text that they are in."""
        if start == end:
            return
        place = self.sorted.runs[run]
        table = np.frombuffer(self._bytes(place.frame_table, place.frames * FRAME.itemsize), FRAME)
        before = table["rows_before"]
        first = int(np.searchsorted(before, start, side="right")) - 1
        last = int(np.searchsorted(before, end, side="left"))
        for offset, size, rows_before in table[first:last].tolist():
            rows, text = self._frame(offset, size)
            yield rows[max(start - rows_before, 0) : end - rows_before], text

    def _frame(self, offset: int, size: int) -> tuple[np.ndarray, Text]:
        data = self._bytes(offset, size)
        try:
            payload = self.decompressor.decompress(data) if self.sorted.is_compressed else data
        except zstandard.ZstdError as error:
            check_memory(error)
            raise self._damaged(str(error)) from None
        count = int.from_bytes(payload[:COUNT_BYTES], "little")
        # A copy, because a merge writes into the rows. The text stays a view of the payload.
        return np.frombuffer(payload, ROW, count, COUNT_BYTES).copy(), memoryview(payload)

    def _bytes(self, offset: int, size: int) -> bytes:
        data = self.file.read_at(offset, size)
        if len(data) != size:
            raise self._damaged("it is too short")
        return data

    def _damaged(self, fault: str) -> DataError:
        return DataError(f"a temporary file is damaged ({fault})", place=display(self.file.path))
