"""Which documents have been measured, in this run or in the one that it resumes?"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import orjson

from ... import storage
from ...errors import CannotCreateError
from ...records.documents import written
from ...records.reader import Source, Wanted
from ...records.splice import members, splice, spliced
from ...settings.streams import processors
from ...storage.base import Input, Output
from ...stream import resume, writer
from ...stream.batch import Record
from ...stream.schema import Head
from .held_out import Item
from .results import NUMBERS, Measured, Measurement

Numbers = dict[str, Any]
# The parts of a provenance that differ between models or test sets; the head has the others once.
VARYING = ("model", "tokenizer", "data", "training")


class Slot(NamedTuple):
    """A record that is due: its line without the numbers, and the list of numbers that it is added to."""

    line: bytes
    item: Item
    numbers: list[Numbers]

    def __str__(self) -> str:
        return f"document {self.item.document}"


class Journal:
    """The numbers of each measurement, document by document; `write` puts new records into a file."""

    def __init__(self, measurements: Sequence[Measurement]) -> None:
        self.measurements = measurements
        self.numbers: list[list[Numbers]] = [[] for _ in measurements]
        self.write: Callable[[list[Record]], object] = lambda records: None

    def slots(self, first: int = 0) -> Iterator[Slot]:
        """The missing records of all measurements from number `first` on, in the order of the file."""
        for measurement, numbers in zip(self.measurements[first:], self.numbers[first:], strict=True):
            about = {"model": measurement.model, "data": measurement.data}
            # Serialised once for thousands of records.
            provenance = orjson.Fragment(orjson.dumps(measurement.provenance))
            for item in measurement.items[len(numbers) :]:
                line = written({**about, **item._asdict(), "provenance": provenance})
                yield Slot(line, item, numbers)

    def read_back(self, slot: Slot, line: bytes) -> Record | None:
        """The record of a slot as an earlier run wrote it; None if the line is not this slot's."""
        numbers = spliced(line, slot.line)
        if numbers is None or tuple(numbers) != NUMBERS:
            return None
        return _record(slot, numbers, line)

    def add(self, measurement: int, results: Iterable[Numbers]) -> None:
        """Add the results of the next documents of a measurement."""
        # `results` comes first: zip would otherwise take a slot too many.
        slots = zip(results, self.slots(measurement), strict=False)
        self.write([_record(slot, numbers, splice(slot.line, members(numbers))) for numbers, slot in slots])

    def measured(self, number: int) -> Measured:
        """A measurement whose numbers are all there; the journal no longer keeps them."""
        measurement = self.measurements[number]
        numbers = self.numbers[number]
        self.numbers[number] = []
        # A number that is None becomes NaN.
        rows = np.array([[row[name] for name in NUMBERS] for row in numbers], dtype=np.float64)
        return Measured(
            measurement.model,
            measurement.data,
            measurement.provenance,
            measurement.items,
            rows.reshape(-1, len(NUMBERS)),
        )


def _record(slot: Slot, numbers: Numbers, line: bytes) -> Record:
    """The record of a slot, whose numbers are stored."""
    slot.numbers.append(numbers)
    # `n_scored` of 0 is a document without a likelihood: null for the counts of the trailer.
    group = slot.item.group
    # A trailer counts records by strings alone.
    label = group if isinstance(group, str) else None
    return Record(line, numbers["n_scored"], not numbers["n_scored"], None, label)


@contextmanager
def in_file(
    path: str, measurements: Sequence[Measurement], inputs: Sequence[Input], *, force: bool, resumed: bool
) -> Iterator[Journal]:
    """A journal in a file, which is whole or absent; with `resumed` it starts with what a stopped run left.

    Every list of results becomes a frame of its own, after which a later run can resume. Raises what
    `stream.resume` raises.
    """
    journal = Journal(measurements)
    opened = (resume.resume if resumed else resume.afresh)(path, inputs, force=force)
    with (
        opened as output,
        writer.open_sink(output, _head(measurements), _writing(path, output)) as sink,
    ):
        # Raises if the file holds anything but the first records of this run.
        resume.take_up(output, sink, journal.slots(), journal.read_back)

        def write(records: list[Record]) -> None:
            # One frame for each window, so that a run can resume after it.
            sink.write(records, whole=True)
            sink.end_frame()

        journal.write = write
        yield journal


def _writing(path: str, output: Output) -> writer.Writing:
    plain = path.endswith(".jsonl") or output.is_terminal()
    return writer.Writing(plain=plain, threads=processors())


def _head(measurements: Sequence[Measurement]) -> Head:
    """The head of a result file: the models, the test sets, and the settings that all of them share.

    A run resumes a file only if its head is the same, byte for byte.
    """
    models = {measurement.model: measurement.provenance for measurement in measurements}
    sets = {measurement.data: measurement.provenance for measurement in measurements}
    first = next(iter(models.values()), {})
    content = {
        "models": [*models],
        "data": [*sets],
        "hashes": [provenance["model"] for provenance in models.values()],
        "data_hashes": [provenance["data"] for provenance in sets.values()],
        **{name: value for name, value in first.items() if name not in VARYING},
    }
    return Head.compose("eval", "group", eval=content)


def is_finished(path: str) -> bool:
    """Whether an earlier run has finished the file at `path`."""
    return storage.exists(path) and not storage.is_stream(path)


def finished(source: Source, measurements: Sequence[Measurement]) -> Journal:
    """The journal of a finished file. Raises CannotCreateError if the file holds other measurements."""
    journal = Journal(measurements)
    lines = (line for batch in source.batches(Wanted({})) for line in batch.lines)
    for line, slot in zip_longest(lines, journal.slots()):
        # Too many lines or too few leave one side empty.
        if not (line and slot and journal.read_back(slot, line)):
            raise CannotCreateError(
                "exists and holds other results",
                place=source.inputs[0].name,
                remedy="name the same models, data and options as then, or replace it with -f",
            )
    return journal
