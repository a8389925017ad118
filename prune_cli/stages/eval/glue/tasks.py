"""How are the examples of GLUE's tasks (Wang et al. 2019) read from the files that GLUE distributes?

A task is a folder, an example a line of tab-separated columns. Quotes are literal. The first line of a file
names its columns; only CoLA's files have no such line.
"""

import math
import os
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from .... import storage
from ....errors import DataError, NoInputError, UsageError
from ....storage.os_errors import display

BINARY = ("0", "1")
ENTAILED = ("entailment", "not_entailment")
PAIR = ("sentence1", "sentence2")
IDS = ("#1 ID", "#2 ID")  # of MRPC's sentences


@dataclass(frozen=True)
class Task:
    """The columns of a task's one or two texts, and of its label.

    The label is one of `labels`, or a number if there are none. `columns` names those of files without a
    first line that does so.
    """

    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    columns: tuple[str, ...] = ()
    # The test sets of GLUE have no labels, so that models are measured on the development sets.
    held_out: tuple[str, ...] = ("dev",)


# Names and order of the columns are those of the files of gluebenchmark.com/tasks.
TASKS: Mapping[str, Task] = {
    "cola": Task(("sentence",), "label", BINARY, columns=("source", "label", "mark", "sentence")),
    "sst2": Task(("sentence",), "label", BINARY),
    "mrpc": Task(("#1 String", "#2 String"), "Quality", BINARY),
    "stsb": Task(PAIR, "score", ()),
    "qqp": Task(("question1", "question2"), "is_duplicate", BINARY),
    # Genres that the training set has (matched), and those that it lacks.
    "mnli": Task(
        PAIR,
        "gold_label",
        ("entailment", "neutral", "contradiction"),
        held_out=("dev_matched", "dev_mismatched"),
    ),
    "qnli": Task(("question", "sentence"), "label", ENTAILED),
    "rte": Task(PAIR, "label", ENTAILED),
    "wnli": Task(PAIR, "label", BINARY),
}


@dataclass(frozen=True)
class Examples:
    """The one or two texts of each example, and its label: an index into the task's labels, or its score."""

    texts: list[tuple[str, ...]]
    labels: NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """The training and held-out examples of a task; `hash` is that of the bytes of its files."""

    train: Examples
    held_out: dict[str, Examples]
    hash: str


# Called with the fault of a line that is not an example; it raises the fault, or returns to have the line
# skipped.
HandleBad = Callable[[DataError], object]
# Called with the bytes of each file.
Digest = Callable[[bytes], object]


def named(tasks: str) -> list[str]:
    """The tasks in a list such as "rte,SST-2", each once. Raises UsageError for an unknown task."""
    names = list(dict.fromkeys(_key(name) for name in tasks.split(",") if name.strip()))
    for name in names:
        if name not in TASKS:
            raise UsageError(
                f"{name} is not a task of GLUE", place="--tasks", remedy=f"choose from {','.join(TASKS)}"
            )
    return names


def folders(directory: str) -> dict[str, str]:
    """The folder of each task in a directory, in GLUE's order.

    A folder may be called SST-2, as GLUE does, or sst2. Raises NoInputError if there is none.
    """
    try:
        present = {_key(entry.name): entry.path for entry in os.scandir(directory) if entry.is_dir()}
    except OSError as error:
        raise NoInputError(os.strerror(error.errno or 0).lower(), place=display(directory)) from None
    by_task = {name: present[name] for name in TASKS if name in present}
    if not by_task:
        raise NoInputError(
            "holds no task of GLUE",
            place=display(directory),
            remedy="name the directory that contains RTE, SST-2 and so on",
        )
    return by_task


def _key(name: str) -> str:
    # SST-2, sst2 and SST_2 are one task.
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read(folder: str, name: str, handle_bad: HandleBad) -> Data:
    """The examples of a task. Raises NoInputError, and DataError for files that are not the task's."""
    task = TASKS[name]
    digest = sha256()
    parts = {
        part: _examples(rows, task, handle_bad, os.path.join(folder, f"{part}.tsv"))
        for part, rows in _parts(folder, name, handle_bad, digest.update)
    }
    return Data(parts.pop("train"), parts, digest.hexdigest())


def _parts(
    folder: str, name: str, handle_bad: HandleBad, digest: Digest
) -> Iterator[tuple[str, "Iterable[_Row]"]]:
    """The rows of each part of a task.

    GLUE may not distribute MRPC's sentences. Its files may lie there as Microsoft has them: then a list of
    pairs, which GLUE distributes instead, says which of them are held out.
    """
    task = TASKS[name]
    if name != "mrpc" or os.path.exists(os.path.join(folder, "train.tsv")):
        for part in ("train", *task.held_out):
            yield part, _rows(os.path.join(folder, f"{part}.tsv"), task.columns, handle_bad, digest)
        return
    rows = list(_rows(os.path.join(folder, "msr_paraphrase_train.txt"), (), handle_bad, digest))
    pairs = _rows(os.path.join(folder, "dev_ids.tsv"), IDS, handle_bad, digest)
    held_out = {row.values(IDS) for row in pairs}
    yield "train", (row for row in rows if row.values(IDS) not in held_out)
    yield "dev", (row for row in rows if row.values(IDS) in held_out)


def _examples(rows: "Iterable[_Row]", task: Task, handle_bad: HandleBad, path: str) -> Examples:
    texts = []
    labels = []
    for row in rows:
        try:
            # Both before either is stored: a row with a bad label must not leave its texts.
            text = row.values(task.texts)
            label = _label(row.values((task.label,))[0], task)
        except DataError as error:
            handle_bad(DataError(error.fault, place=row.place, remedy=error.remedy))
            continue
        texts.append(text)
        labels.append(label)
    if not texts:
        raise DataError("holds no example", place=display(path))
    return Examples(texts, np.array(labels, dtype=np.float64))


def _label(text: str, task: Task) -> float:
    """A label as a number. Raises DataError for one that the task does not have."""
    if task.labels:
        if text not in task.labels:
            raise DataError(f"{task.label} is {text!r}, not one of {', '.join(task.labels)}")
        return task.labels.index(text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    # `float` reads "nan" and "inf" as well.
    if not math.isfinite(value):
        raise DataError(f"{task.label} is {text!r}, not a number")
    return value


# Made for each line, of which the larger tasks have some 400,000: slots save a dictionary each.
@dataclass(frozen=True, slots=True)
class _Row:
    """A line: its columns, the index of each column's name, and where it stands."""

    columns: list[str]
    indices: dict[str, int]
    place: str

    def values(self, names: Iterable[str]) -> tuple[str, ...]:
        """The columns with these names. Raises DataError for one that the file lacks."""
        for name in names:
            if name not in self.indices:
                raise DataError(
                    f"there is no column {name!r}, only {', '.join(self.indices)}",
                    place=self.place,
                    remedy="the first line of GLUE's own file has it",
                )
        return tuple(self.columns[self.indices[name]] for name in names)


def _rows(path: str, columns: tuple[str, ...], handle_bad: HandleBad, digest: Digest) -> Iterator[_Row]:
    """The lines of a file. Its first line names the columns unless `columns` does."""
    lines = _lines(path, digest)
    names = columns or tuple(next(lines, (0, ""))[1].split("\t"))
    indices = {name: index for index, name in enumerate(names)}
    for number, line in lines:
        values = line.split("\t")
        place = f"{display(path)}:{number}"
        if len(values) == len(names):
            yield _Row(values, indices, place)
        else:
            handle_bad(
                DataError(
                    f"has {len(values)} columns, not {len(names)}",
                    place=place,
                    remedy="--skip-bad skips such lines",
                )
            )


def _lines(path: str, digest: Digest) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not empty.

    Raises NoInputError, and DataError for a line that is not UTF-8.
    """
    with storage.input_at(path).open() as file:
        content = file.read_all()
    # Over the bytes as they are, so that the hash can be checked with sha256sum(1) on the files in order.
    digest(content)
    # Microsoft's file of MRPC starts with a byte-order mark, and its lines end in \r\n.
    for number, line in enumerate(content.removeprefix(BOM_UTF8).split(b"\n"), 1):
        if line := line.removesuffix(b"\r"):
            try:
                yield number, line.decode()
            except UnicodeDecodeError as error:
                raise DataError(
                    f"is not UTF-8 at byte {error.start}",
                    place=f"{display(path)}:{number}",
                    remedy="convert it with iconv(1)",
                ) from None
