"""In which order, and on which thread, are the rows of a Parquet file read?

In file order, by two threads. Each decodes small row groups and makes their rows lines of JSON, several
groups at a time, because each call has a cost of its own. A large one is decoded batch by batch on the
caller's thread, so that memory is that of its columns' pages and of a few batches.
"""

import io
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import DataError, OutOfMemoryError, PruneError
from ..storage.base import Progress
from ..stream.lookahead import REMEDY, RandomAccess
from . import parquet_json
from .base import BadRow, Rows

BATCH = 4 << 20  # bytes of rows in a batch, about
# Bytes of small row groups that are decoded together: seven of 1,000 web texts. With fewer, threads wait for
# each other more often.
TOGETHER = 12 << 20
MOST_ROWS = 4096  # in a batch: a dictionary makes rows look smaller than they are
MOST_ROWS_TOGETHER = 16 * MOST_ROWS
SMALL = 16 << 20  # bytes of row groups, uncompressed, of which the file's bytes are read together
WORKERS = 2  # threads: more would take turns for the interpreter lock
AHEAD = 2  # pieces that wait for a worker, or for the caller
BUFFER = 4 << 20  # bytes of a read of a large row group, of which each column would be read whole otherwise
MOST_COLUMNS = 10_000  # that are read: each costs a buffer, and some time for each batch
SHOWN = 20  # names of columns in a message
OTHER_COLUMNS = "--columns NAME,... reads other columns without it"
CAST = "cast it to string"
# pyarrow raises these for damage. The last ones come from its own code, for a footer that contradicts itself.
DAMAGE = (pa.ArrowException, OSError, ValueError, MemoryError, KeyError, IndexError, OverflowError)

Piece = Callable[[], list[Rows | BadRow | PruneError]]  # returns lines; an error comes last


@dataclass(frozen=True)
class Groups:
    """The row groups that begin at offsets from `start` to before `end`."""

    start: int
    end: int


@dataclass(frozen=True)
class GroupLayout:
    """Where the row groups of a file lie: their offsets and the end of the last; and their bytes and rows."""

    offsets: tuple[int, ...]
    texts: tuple[int, ...]
    rows: tuple[int, ...]


def layout(content: RandomAccess, size: int) -> GroupLayout | None:
    """The row groups of a file; None unless they lie one behind the other. Raises DataError for no file."""
    table = _Table(content, size, ())
    spans = [table.whole_span(group) for group in table.groups]
    offsets = [start for start, _ in spans]
    ends = [end for _, end in spans]
    # What a writer may do, but nobody does: then the file is read whole.
    if not spans or offsets[0] < 0 or ends[-1] > size:
        return None
    if any(following < end for end, following in zip(ends, offsets[1:], strict=False)):
        return None
    described = [table.described(group) for group in table.groups]
    return GroupLayout(
        offsets=(*offsets, ends[-1]),
        texts=tuple(int(each.total_byte_size) for each in described),
        rows=tuple(each.num_rows for each in described),
    )


def lines(
    content: RandomAccess,
    size: int,
    columns: Sequence[str],
    progress: Progress,
    chosen: Groups | None = None,
) -> Iterator[Rows | BadRow]:
    """The rows as lines of JSON, in pieces. `columns` are those to read, in order; all if there are none.

    `progress` is advanced by `size` in all, or by that of the `chosen` row groups. Raises DataError after the
    lines before a fault, so that the next line has the number of the row that is at fault.
    """
    table = _Table(content, size, columns, chosen)
    size = size if chosen is None else chosen.end - chosen.start
    done = 0
    shown = 0
    for rows in table.rows():
        yield rows
        done += len(rows.ends) if isinstance(rows, Rows) else 1
        position = size * done // table.count
        progress(position - shown)
        shown = position
    progress(size - shown)


class _Table:
    """The rows of one file. Raises DataError for a footer that cannot be used."""

    def __init__(
        self, content: RandomAccess, size: int, columns: Sequence[str], chosen: Groups | None = None
    ) -> None:
        reader = _opened(_File(content, size))
        self.metadata = reader.metadata
        self.readers = _Readers(content, size, self.metadata)
        self.groups = range(self.metadata.num_row_groups)
        self.count = self.metadata.num_rows
        if chosen is not None:
            inside = [at for at in self.groups if chosen.start <= self.whole_span(at)[0] < chosen.end]
            self.groups = range(inside[0], inside[-1] + 1) if inside else range(0)
            self.count = sum(self.described(group).num_rows for group in self.groups)
        self.all_columns = not columns
        self.names = _checked_columns(reader, columns)

    def rows(self) -> Iterator[Rows | BadRow]:
        """All rows in file order. Raises the failure to read one in its place."""
        waiting: deque[Future[list[Rows | BadRow | PruneError]]] = deque()
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="parquet") as workers:
            try:
                for piece in self._pieces():
                    waiting.append(workers.submit(piece))
                    if len(waiting) > AHEAD:
                        yield from _raised(waiting.popleft().result())
                while waiting:
                    yield from _raised(waiting.popleft().result())
            finally:
                # The input is closed next: a thread that reads it has to end first.
                workers.shutdown(cancel_futures=True)

    def _pieces(self) -> Iterator[Piece]:
        """What workers are to do, in file order: make rows lines, and decode them first if they are few."""
        for run in self._runs():
            if self._size_of(run) <= TOGETHER and self._rows_of(run) <= MOST_ROWS_TOGETHER:
                yield partial(self._lines_of, run)
            else:
                for batch in self._batches(run):
                    yield partial(_lines, [batch])

    def _lines_of(self, run: range) -> list[Rows | BadRow | PruneError]:
        return _lines(self._batches(run))

    def _runs(self) -> Iterator[range]:
        """All row groups in order, the small ones several at a time."""
        start = size = rows = 0
        for at, group in enumerate(self.groups):
            described = self.described(group)
            size += described.total_byte_size
            rows += described.num_rows
            if start < at and (size > TOGETHER or rows > MOST_ROWS_TOGETHER):
                yield self.groups[start:at]
                start = at
                size = described.total_byte_size
                rows = described.num_rows
        if start < len(self.groups):
            yield self.groups[start:]

    def _batches(self, run: range) -> Iterator[pa.RecordBatch | PruneError]:
        """The rows of some row groups in batches; a failure to read them comes last."""
        try:
            if len(run) > 1:
                yield from self._together(run)
                return
        except DAMAGE as error:
            if self.readers.file.failure:
                yield _described(error, self.readers.file)
                return
        # Read alone, a row group says what is wrong with it, after the rows of those before it.
        for group in run:
            yield from self._alone(range(group, group + 1))

    def _together(self, run: range) -> list[pa.RecordBatch]:
        """The rows of small row groups, all of them or an error of pyarrow."""
        batches = list(self._read(run, None if self.all_columns else self.names))
        if sum(map(len, batches)) != self._rows_of(run):
            raise ValueError("rows are missing")
        return batches

    def _alone(self, run: range) -> Iterator[pa.RecordBatch | PruneError]:
        """The rows of one row group; a failure to read them comes last."""
        count = self._rows_of(run)
        done = 0
        try:
            for batch in self._read(run, None if self.all_columns else self.names):
                yield batch
                done += len(batch)
        except DAMAGE as error:
            yield self._failure(error, run)
            return
        if done != count:
            yield DataError(f"damaged Parquet: {done} rows in a row group of {count}", remedy=REMEDY)

    def _read(self, run: range, names: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        average = self._size_of(run) // max(self._rows_of(run), 1)
        most = min(max(BATCH // max(average, 1), 1), MOST_ROWS)
        is_small = self._size_of(run) <= SMALL
        reader = self.readers.small if is_small else self.readers.large
        batches = reader.iter_batches(most, row_groups=list(run), columns=names, use_threads=False)
        for batch in batches if is_small else _sparingly(batches):
            # In the order of --columns. A name also selects columns that begin with it and a dot.
            yield batch.select(names) if names else batch

    def _failure(self, error: Exception, run: range) -> PruneError:
        """The failure of reading a row group, with the name of the column that it lies in."""
        failure = _described(error, self.readers.file)
        if not isinstance(failure, DataError):
            return failure
        # pyarrow does not say which column it was, so they are read again one by one.
        for name in self.names:
            try:
                for _ in self._read(run, [name]):
                    pass
            except DAMAGE as again:
                return DataError(f"column `{name}` cannot be read ({_line(again)})", remedy=REMEDY)
        return failure

    def described(self, group: int) -> pq.RowGroupMetaData:
        """What the footer says of a row group."""
        return self.metadata.row_group(group)

    def _rows_of(self, run: range) -> int:
        return sum(self.described(group).num_rows for group in run)

    def whole_span(self, group: int) -> tuple[int, int]:
        """The offset of the first byte of all columns of a row group, and that behind the last."""
        described = self.described(group)
        chunks = [described.column(at) for at in range(described.num_columns)]
        starts = list(map(_start_of, chunks))
        ends = [start + chunk.total_compressed_size for start, chunk in zip(starts, chunks, strict=True)]
        return min(starts, default=0), max(ends, default=0)

    def _size_of(self, run: range) -> int:
        """Bytes of all columns, uncompressed, as the footer says."""
        # Not of the columns to read: pyarrow ends the process where the footer says false things of a column.
        return sum(int(self.described(group).total_byte_size) for group in run)


class _Readers(threading.local):
    """The readers of the thread that asks: pyarrow's have a position."""

    def __init__(self, content: RandomAccess, size: int, metadata: pq.FileMetaData) -> None:
        self.file = _File(content, size)
        # What the columns of small row groups need is read together, perhaps from a server. Of large ones, a
        # column would be read whole.
        self.small = _opened(self.file, metadata=metadata, pre_buffer=True)
        self.large = _opened(self.file, metadata=metadata, pre_buffer=False, buffer_size=BUFFER)


def _sparingly(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The batches of a large row group. Free memory, which pyarrow would keep for a second, is given back."""
    # That of the pages of the group before, which may be as large as this one.
    pa.default_memory_pool().release_unused()
    for number, batch in enumerate(batches):
        # That of batches that are done with: 100 MB. After every one it would take more time.
        if number % 2 == 0:
            pa.default_memory_pool().release_unused()
        yield batch


def _opened(file: "_File", **options: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file, page_checksum_verification=True, **options)
    except DAMAGE as error:
        raise _described(error, file) from None


def _start_of(chunk: pq.ColumnChunkMetaData) -> int:
    return int(min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset))


def _lines(batches: Iterable[pa.RecordBatch | PruneError]) -> list[Rows | BadRow | PruneError]:
    """The lines of some batches. An error stays in its place."""
    pieces: list[Rows | BadRow | PruneError] = []
    for batch in batches:
        pieces += [batch] if isinstance(batch, PruneError) else _spelled(batch)
    return pieces


def _raised(pieces: list[Rows | BadRow | PruneError]) -> Iterator[Rows | BadRow]:
    """The pieces up to an error, which is raised."""
    for piece in pieces:
        if isinstance(piece, PruneError):
            raise piece
        yield piece


def _spelled(batch: pa.RecordBatch) -> Iterator[Rows | BadRow]:
    """The lines of a batch, and between them the rows that have no spelling in JSON."""
    if not len(batch):
        return
    try:
        yield Rows(*parquet_json.lines(batch))
    except parquet_json.Unspeakable:
        yield from _between_faults(batch)


def _between_faults(batch: pa.RecordBatch) -> Iterator[Rows | BadRow]:
    start = 0
    faults = parquet_json.faults(batch)
    for bad, fault in faults.items():
        if start < bad:
            yield Rows(*parquet_json.lines(batch.slice(start, bad - start)))
        yield BadRow(fault, OTHER_COLUMNS)
        start = bad + 1
    if start < len(batch):
        yield Rows(*parquet_json.lines(batch.slice(start)))


def _checked_columns(reader: pq.ParquetFile, columns: Sequence[str]) -> list[str]:
    """The names of the columns to read. Raises DataError if one is absent or cannot be written as JSON."""
    try:
        schema = reader.schema_arrow
        present = schema.names
    except DAMAGE as error:
        raise DataError(f"damaged Parquet: {_line(error)}", remedy=REMEDY) from None
    repeated = [name for name, count in Counter(present).items() if count > 1]
    if repeated:
        raise DataError(f"two columns are called `{repeated[0]}`", remedy="rename one")
    absent = [name for name in columns if name not in present]
    if absent:
        shown = ", ".join(present[:SHOWN]) + (", ..." if len(present) > SHOWN else "")
        raise DataError(f"no column `{absent[0]}` in the Parquet file", remedy=f"its columns are {shown}")
    names = list(columns or present)
    if not 0 < len(names) <= MOST_COLUMNS:
        fault = f"{len(names):,} columns, which is more than {MOST_COLUMNS:,}" if names else "no columns"
        raise DataError(fault, remedy="--columns NAME,... reads some of them" if names else "")
    try:
        parquet_json.check(pa.schema([schema.field(name) for name in names]))
    except parquet_json.Unspeakable as error:
        # No other column is a way out for one that was asked for, or that is the text.
        raise DataError(str(error), remedy=CAST if columns else f"{CAST}, or {OTHER_COLUMNS}") from None
    return names


class _File(io.RawIOBase):
    """The file as pyarrow reads it. It keeps the failure of a read, which pyarrow may report as its own."""

    def __init__(self, content: RandomAccess, size: int) -> None:
        self.content = content
        self.size = size
        self.position = 0
        self.failure: PruneError | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self.position, io.SEEK_END: self.size}[whence]
        self.position = origin + offset
        return self.position

    def read(self, size: int | None = -1) -> bytes:
        wanted = self.size - self.position if size is None or size < 0 else size
        data = self._fetched(wanted)
        self.position += len(data)
        return data

    def _fetched(self, size: int) -> bytes:
        try:
            return self.content.read_at(self.position, size)
        except PruneError as error:
            self.failure = error
            raise OSError(str(error)) from None


def _described(error: Exception, file: _File) -> PruneError:
    """An error of pyarrow as ours: that of the storage if a read failed."""
    if file.failure:
        return file.failure
    if isinstance(error, MemoryError):
        return OutOfMemoryError("a row group does not fit into memory", remedy=OTHER_COLUMNS)
    return DataError(f"damaged Parquet: {_line(error)}", remedy=REMEDY)


def _line(error: Exception) -> str:
    """The first line of an error of pyarrow, which may have many."""
    return (str(error).splitlines() or [type(error).__name__])[0][:200].rstrip(". ")
