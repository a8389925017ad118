"""A source of records that are Python dicts: the same columns as of a stream, without JSON."""

import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import islice
from math import isfinite
from tempfile import gettempdir
from typing import Any

import numpy as np
import orjson

from ..errors import DataError
from ..records.documents import Document, Verbatim
from ..records.field_checks import FieldChecks
from ..records.fields import MISSING, WORDS, Number, convert_all, is_wrong
from ..records.reader import Batch, ReadingLimits, Source, Wanted
from ..storage.temporary import TemporaryFile
from ..stream.schema import Head

RECORDS = 256  # in a batch: few enough that the first result of an endless iterator comes soon
NAME = "(records)"

Fields = dict[str, Any]


class RecordBatch(Batch):
    """A batch of dicts. Its lines are pickles, which stages move about without looking inside.

    So a record may hold any Python object, and rank can sort on disk what does not fit in memory.
    """

    # The properties take the place of the fields of Batch: only rank and slice need lines at all.
    def __init__(self, numbers: Sequence[int], records: list[Fields], columns: dict[str, list[Any]]) -> None:
        self.file = NAME
        self.numbers = numbers
        self.records = records
        self.columns = columns

    def __len__(self) -> int:
        return len(self.records)

    def listed_names(self, index: int) -> str:
        """The names of the fields of a record, for a message."""
        return ", ".join(map(str, self.records[index])) or "no fields at all"

    @cached_property
    def lines(self) -> list[bytes]:
        """Each record as a pickle. The brace behind it is where stages look for the end of a record."""
        return [pickle.dumps(record, pickle.HIGHEST_PROTOCOL) + b"}" for record in self.records]

    @cached_property
    def text(self) -> bytes:  # type: ignore[override]
        """The lines, each with a line end."""
        return b"".join([line + b"\n" for line in self.lines])

    @cached_property
    def ends(self) -> np.ndarray:  # type: ignore[override]
        """Positions of the line ends; a pickle may contain more of the same byte."""
        return np.cumsum([len(line) + 1 for line in self.lines]) - 1


class RecordSource(Source):
    """Records of an iterator. With `replay` they are kept in a temporary file and can be read again.

    Raises DataError, with the number of the record, for one that is not as a stage wants it.
    """

    def __init__(
        self,
        records: Iterable[Mapping[str, Any]],
        reading: ReadingLimits = ReadingLimits(),
        *,
        replay: bool = False,
    ) -> None:
        super().__init__([], reading)
        self.heads = [None]
        self._records = iter(records)
        self._taken = 0
        self._copy = TemporaryFile(gettempdir()) if replay else None
        self._places: list[tuple[int, int]] = []  # offset and size of each batch in the copy

    @property
    def name(self) -> str:
        """The place that errors name."""
        return NAME

    def record(self, document: Document) -> Fields:
        """The record of a document of this source."""
        assert isinstance(document.batch, RecordBatch)
        return document.batch.records[document.index]

    def close(self) -> None:
        """Delete the temporary file."""
        if self._copy:
            self._copy.close()

    def peek(self) -> tuple[Head | None, list[str]]:
        """No head, and the names of the fields of the first record."""
        first = next(self._records, MISSING)  # None would be a record, though a wrong one
        if first is MISSING:
            return None, []
        rest = self._records
        self._records = (record for part in ([first], rest) for record in part)
        # Anything else than a dict is a fault that `batches` reports.
        return None, list(map(str, first)) if isinstance(first, Mapping) else []

    def again(self) -> "RecordSource":
        """The same records from the start. Raises ValueError without `replay`."""
        if self._copy is None:
            raise ValueError("the records of an iterator can be read only once without replay")
        source = RecordSource(self._replayed(self._copy), self.reading)
        source.checks = FieldChecks(self.checks.watched)
        self._derived.append(source)
        return source

    def _replayed(self, copy: TemporaryFile) -> Iterator[Fields]:
        # Asked for when the first pass is over, so all places are known.
        for offset, size in self._places:
            yield from pickle.loads(copy.read_at(offset, size))

    def batches(self, wanted: Wanted) -> Iterator[Batch]:
        """Every record once, with the wanted fields as columns."""
        while chunk := list(islice(self._records, RECORDS)):
            first = self._taken + 1
            self._taken += len(chunk)
            batch = self._batch(first, chunk, wanted)
            self.records += len(batch)
            self.checks.take(batch, wanted)
            if self._copy:
                pickled = pickle.dumps(batch.records, pickle.HIGHEST_PROTOCOL)
                self._places.append((self._copy.append(pickled), len(pickled)))
            if len(batch):
                yield batch
        self.check_count()

    def _batch(self, first: int, chunk: Sequence[Mapping[str, Any]], wanted: Wanted) -> RecordBatch:
        numbered = dict(enumerate(chunk, first))
        try:
            return RecordBatch(list(numbered), *_columns(chunk, wanted))
        except (TypeError, ValueError):
            # One of them is not as wanted: look for it, one by one.
            good = {
                number: record for number, record in numbered.items() if self._is_good(number, record, wanted)
            }
        return RecordBatch(list(good), *_columns(list(good.values()), wanted))

    def _is_good(self, number: int, record: Mapping[str, Any], wanted: Wanted) -> bool:
        """Whether the record is as wanted. Raises DataError if it is not and --skip-bad was not asked for."""
        fault = _fault(record, wanted)
        if fault is None:
            return True
        if not self.reading.skip_bad:
            raise DataError(fault, place=f"{NAME}:{number}")
        self.skipped += 1
        return False


def _columns(
    records: Sequence[Mapping[str, Any]], wanted: Wanted
) -> tuple[list[Fields], dict[str, list[Any]]]:
    """Copies of the records, and a column for each wanted field. Raises ValueError or TypeError."""
    copies = [dict(record) for record in records]
    for name in wanted.fresh:
        for record in copies:
            if name in record and not wanted.overwrite:
                raise ValueError(name)
            record.pop(name, None)
    return copies, {name: _column(records, name, kind, wanted) for name, kind in wanted.fields.items()}


def _column(records: Sequence[Mapping[str, Any]], name: str, kind: Any, wanted: Wanted) -> list[Any]:
    values = [record.get(name, MISSING) for record in records]
    present = [value for value in values if value is not MISSING]
    if len(present) < len(values) and name not in wanted.optional:
        raise ValueError(name)
    if kind is Verbatim:
        return [value if value is MISSING else orjson.dumps(value) for value in values]
    # The whole column in one call, since there is a value for each record.
    converted = iter(convert_all(present, kind))
    if kind is Number and not all(value is None or isfinite(value) for value in present):
        raise ValueError(name)
    return [value if value is MISSING else next(converted) for value in values]


def _fault(record: Any, wanted: Wanted) -> str | None:
    """What is wrong with a record, in the words of the reader of streams; None if nothing is."""
    if not isinstance(record, Mapping):
        return f"a record is a dict, not a {type(record).__name__}"
    for name in wanted.fresh:
        if name in record and not wanted.overwrite:
            return f"the field `{name}` already exists; overwrite=True replaces it, prefix= renames the new"
    for name, kind in wanted.fields.items():
        value = record.get(name, MISSING)
        if value is MISSING:
            if name not in wanted.optional:
                return (
                    f"no field `{name}`; the record has {', '.join(map(str, record)) or 'no fields at all'}"
                )
        elif not _is_right(value, kind):
            return f"`{name}` is {value!r:.40}, not {WORDS.get(kind, 'a value of JSON')}"
    return None


def _is_right(value: Any, kind: Any) -> bool:
    if kind is Verbatim:
        try:
            orjson.dumps(value)
        except TypeError:
            return False
        return True
    if kind is Number and value is not None:
        return not is_wrong(value, kind) and isfinite(value)
    return not is_wrong(value, kind)


def decoded(text: bytes | memoryview, sizes: np.ndarray) -> Iterator[Fields]:
    """The records of lines that a stage kept whole."""
    ends = np.cumsum(sizes)
    view = memoryview(text)
    for start, end in zip((ends - sizes).tolist(), ends.tolist(), strict=True):
        yield pickle.loads(view[start:end])


def records_of(rows: np.ndarray, blocks: Sequence[bytes | memoryview]) -> Iterator[Fields]:
    """The records of rows, which say in which block of text each one is."""
    places = zip(rows["block"].tolist(), rows["start"].tolist(), rows["end"].tolist(), strict=True)
    for block, start, end in places:
        yield pickle.loads(blocks[block][start:end])
