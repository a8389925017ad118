"""A result file of `eval` as it grows: what it holds already is taken up, and what is missing is added to it."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import zip_longest
from typing import Any, NamedTuple

import numpy as np
import orjson

from ... import storage
from ...errors import CannotCreateError
from ...records.documents import written
from ...records.reader import Record, Source, Wanted
from ...records.splice import members, splice, spliced
from ...storage.base import Input, Output
from ...stream import resume as partial
from ...stream import writer
from ...stream.schema import Head
from .results import NUMBERS, Item, Run, Task

Numbers = dict[str, Any]
APART = ("model", "tokenizer", "data", "training")  # of a provenance: what is told of each model and test set


class Slot(NamedTuple):
    """A record that is to be written: all of it but its numbers, and where they are kept, too."""

    line: bytes
    item: Item
    found: list[Numbers]

    def __str__(self) -> str:
        return f"document {self.item.document}"


class Journal:
    """The results of tasks in turn: those that a file holds already, and those that are added; `write` puts them into a file."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self.tasks = tasks
        self.found: list[list[Numbers]] = [[] for _ in tasks]
        self.write: Callable[[list[Record]], object] = lambda records: None

    def slots(self, first: int = 0) -> Iterator[Slot]:
        """What is not there yet of all tasks from the task `first` on."""
        for task, found in zip(self.tasks[first:], self.found[first:], strict=True):
            made = orjson.Fragment(orjson.dumps(task.provenance))
            for item in task.items[len(found) :]:
                yield Slot(
                    written({"model": task.model, "data": task.data, **item._asdict(), "provenance": made}),
                    item,
                    found,
                )

    def read_back(self, slot: Slot, line: bytes) -> Record | None:
        """Take up what was written of a slot; None where the line is another's."""
        numbers = spliced(line, slot.line)
        return None if numbers is None or tuple(numbers) != NUMBERS else _kept(slot, numbers, line)

    def add(self, task: int, results: Iterable[Numbers]) -> None:
        """The results of the next documents of a task."""
        slots = zip(results, self.slots(task), strict=False)
        self.write([_kept(slot, numbers, splice(slot.line, members(numbers))) for numbers, slot in slots])

    def run(self, task: int) -> Run:
        """A task with its results, once they are all there; they are handed over, and kept no longer."""
        one, found, self.found[task] = self.tasks[task], self.found[task], []
        rows = np.array(
            [[row[name] for name in NUMBERS] for row in found], dtype=np.float64
        )  # None becomes NaN
        return Run(one.model, one.data, one.provenance, one.items, rows.reshape(-1, len(NUMBERS)))


def _kept(slot: Slot, numbers: Numbers, line: bytes) -> Record:
    slot.found.append(numbers)
    group = slot.item.group
    return Record(
        line, numbers["n_scored"], not numbers["n_scored"], None, group if isinstance(group, str) else None
    )


@contextmanager
def kept(
    path: str, tasks: Sequence[Task], inputs: Sequence[Input], *, force: bool, resume: bool, threads: int
) -> Iterator[Journal]:
    """A journal in a file, which is whole or absent as `files.create` makes it, or with `resume` gone on with as `partial.resume` does.

    A compressed one gets a frame for each list of results, behind which it can be gone on with.
    """
    journal = Journal(tasks)
    making = (
        partial.resume(path, inputs, force=force) if resume else partial.afresh(path, inputs, force=force)
    )
    with making as output, writer.open_sink(output, _head(tasks), _writing(path, output, threads)) as out:
        partial.take_up(output, out, journal.slots(), journal.read_back)

        def write(records: list[Record]) -> None:
            out.write(records, whole=True)
            out.end_frame()

        journal.write = write
        yield journal


def _writing(path: str, output: Output, threads: int) -> writer.Writing:
    return writer.Writing(plain=path.endswith(".jsonl") or output.is_terminal(), threads=threads)


def _head(tasks: Sequence[Task]) -> Head:
    """What the results hang on."""
    models, sets = (
        {task.model: task.provenance for task in tasks},
        {task.data: task.provenance for task in tasks},
    )
    how = {name: value for name, value in next(iter(models.values()), {}).items() if name not in APART}
    hashes = {
        "hashes": [one["model"] for one in models.values()],
        "data_hashes": [one["data"] for one in sets.values()],
    }
    return Head.compose("eval", "group", eval={"models": [*models], "data": [*sets], **hashes, **how})


def is_finished(path: str) -> bool:
    """Whether an earlier run has given its results their name."""
    return storage.exists(path) and not storage.is_stream(path)


def finished(source: Source, tasks: Sequence[Task]) -> Journal:
    """The journal of a file that is whole. Raises CannotCreateError where it is of other tasks."""
    journal = Journal(tasks)
    lines = (line for batch in source.batches(Wanted({})) for line in batch.lines)
    if not all(
        line and slot and journal.read_back(slot, line) for line, slot in zip_longest(lines, journal.slots())
    ):
        remedy = "name the same models, data and options as then, or replace it with -f"
        raise CannotCreateError("exists, and holds other results", place=source.inputs[0].name, remedy=remedy)
    return journal
