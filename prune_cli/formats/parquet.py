"""How is a Parquet file read? Its rows become lines of JSON; the bytes of a pipe are copied to disk first."""

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, DataError
from ..storage.base import Input, Progress, ignore_progress
from ..storage.temporary import TemporaryFile
from ..stream.lookahead import REMEDY, Limits, LookAhead, RandomAccess, Warn
from .base import START, BadRow, Format, Rows

if TYPE_CHECKING:
    from .parquet_rows import GroupLayout

MAGIC = b"PAR1"  # at both ends of a file
ENCRYPTED = b"PARE"  # instead, where the footer is encrypted
FOOTER = 8  # bytes behind the footer: its length and the magic number


def _matches(start: bytes) -> bool:
    return start[:4] in (MAGIC, ENCRYPTED)


def _read(source: LookAhead, limits: Limits, warn: Warn) -> Iterator[Rows | BadRow]:
    if source.peek(4) == ENCRYPTED:
        raise DataError("encrypted Parquet", remedy="decrypt it first: no keys are read")
    rows = _rows_module()
    with ExitStack() as stack:
        content, size, progress = _random_access(source, stack)
        _check_end(content, size)
        yield from rows.lines(content, size, limits.columns, progress)


def read_groups(file: Input, start: int, end: int, limits: Limits) -> Iterator[Rows | BadRow]:
    """As a whole file, only the row groups that begin from `start` to before `end`. The input is open."""
    rows = _rows_module()
    yield from rows.lines(file, file.size or 0, limits.columns, file.progress, rows.Groups(start, end))


def layout_of(file: Input) -> "GroupLayout | None":
    """Where the row groups of a file lie; None if it cannot be read by row groups, or not at all."""
    try:
        with file.duplicate().open() as opened:
            size = opened.size or 0
            _check_end(opened, size)
            layout: GroupLayout | None = _rows_module().layout(opened, size)
            return layout
    # What is wrong with it is for the reader of the whole file to say.
    except (ConfigurationError, DataError):
        return None


def _rows_module() -> ModuleType:
    try:
        # Late, because it imports pyarrow, which takes 0.2 s and is installed by those who read Parquet.
        from . import parquet_rows
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"reading Parquet needs {error.name}", remedy="pip install 'prune-cli[parquet]'"
        ) from None
    return parquet_rows


def _random_access(source: LookAhead, stack: ExitStack) -> tuple[RandomAccess, int, Progress]:
    """The bytes of the file, their number, and what takes the number of those that are done."""
    raw = source.raw
    if isinstance(raw, Input) and _is_seekable(raw, source.peek(START)):
        # The look-ahead has read, and reported, the first bytes. The rest is reported as rows are done.
        return raw, raw.size or 0, _after(source.position + len(source.buffer), raw.progress)
    copy = stack.enter_context(TemporaryFile(tempfile.gettempdir()))
    while chunk := source.chunk():
        copy.append(chunk)
    return copy, source.position, ignore_progress


def _is_seekable(raw: Input, start: bytes) -> bool:
    """Whether any offset of the input can be read, and offset 0 is where this reader began."""
    # Standard input may be a file of which the shell has read the beginning.
    return raw.size is not None and raw.read_at(0, len(start)) == start


def _after(done: int, progress: Progress) -> Progress:
    """The same progress, without the first `done` bytes."""

    def advance(size: int) -> None:
        nonlocal done
        passed = min(size, done)
        done -= passed
        progress(size - passed)

    return advance


def _check_end(content: RandomAccess, size: int) -> None:
    """Raise DataError unless the file ends as Parquet does: a cut file has lost its footer."""
    end = content.read_at(max(0, size - FOOTER), FOOTER)
    if end[4:] == ENCRYPTED:
        raise DataError("encrypted Parquet", remedy="decrypt it first: no keys are read")
    if end[4:] != MAGIC:
        raise DataError(f"truncated Parquet: no footer at byte {size}, where the file ends", remedy=REMEDY)
    if int.from_bytes(end[:4], "little") > size - FOOTER:
        raise DataError("damaged Parquet: its footer is longer than the file", remedy=REMEDY)


FORMAT = Format("Parquet", suffixes=(".parquet",), matches=_matches, read=_read)
