"""GLUE's tasks (Wang et al. 2019) as their own files have them: a folder for each, an example a line, columns between tabs.

Quotes are literal. The columns are found by the names in a file's first line; only CoLA's files have no such line.
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
    """The columns of a task's one or two texts and of its label, which is one of `labels`, or a number where there are none."""

    texts: tuple[str, ...]
    label: str
    labels: tuple[str, ...]
    columns: tuple[str, ...] = ()  # of files without a first line that names them
    held_out: tuple[str, ...] = ("dev",)


TASKS: Mapping[str, Task] = {
    "cola": Task(("sentence",), "label", BINARY, columns=("source", "label", "mark", "sentence")),
    "sst2": Task(("sentence",), "label", BINARY),
    "mrpc": Task(("#1 String", "#2 String"), "Quality", BINARY),
    "stsb": Task(PAIR, "score", ()),
    "qqp": Task(("question1", "question2"), "is_duplicate", BINARY),
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
    """The one or two texts of each example, and its label: the place among the task's, or its score."""

    texts: list[tuple[str, ...]]
    labels: NDArray[np.float64]


@dataclass(frozen=True)
class Data:
    """A task to train on and to be held to; the hash is of the bytes of its files."""

    train: Examples
    held_out: dict[str, Examples]
    hash: str


Bad = Callable[[DataError], object]  # told of a line that is no example; it may raise what it is told
Read = Callable[[bytes], object]  # told the bytes of each file


def named(tasks: str) -> list[str]:
    """The tasks in "rte,SST-2", each once. Raises UsageError for one that is none of GLUE's."""
    found = list(dict.fromkeys(_key(name) for name in tasks.split(",") if name.strip()))
    for name in found:
        if name not in TASKS:
            raise UsageError(
                f"{name} is no task of GLUE", place="--tasks", remedy=f"take some of {','.join(TASKS)}"
            )
    return found


def folders(directory: str) -> dict[str, str]:
    """The folder of every task that lies in a directory, whether it is called SST-2 or sst2, in GLUE's order. Raises NoInputError."""
    try:
        present = {_key(entry.name): entry.path for entry in os.scandir(directory) if entry.is_dir()}
    except OSError as error:
        raise NoInputError(os.strerror(error.errno or 0).lower(), place=display(directory)) from None
    found = {name: present[name] for name in TASKS if name in present}
    if not found:
        raise NoInputError(
            "holds no task of GLUE",
            place=display(directory),
            remedy="name the directory that has RTE, SST-2 and so on in it",
        )
    return found


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def read(folder: str, name: str, bad: Bad) -> Data:
    """A task's examples. Raises NoInputError, and DataError for files that are not the task's."""
    task, digest = TASKS[name], sha256()
    parts = {
        part: _examples(rows, task, bad, os.path.join(folder, f"{part}.tsv"))
        for part, rows in _parts(folder, name, bad, digest.update)
    }
    return Data(parts.pop("train"), parts, digest.hexdigest())


def _parts(folder: str, name: str, bad: Bad, read: Read) -> Iterator[tuple[str, "Iterable[_Row]"]]:
    """The rows of each part of a task; MRPC may also lie there as Microsoft has it, with GLUE's list of the pairs to hold out."""
    task = TASKS[name]
    if name != "mrpc" or os.path.exists(os.path.join(folder, "train.tsv")):
        for part in ("train", *task.held_out):
            yield part, _rows(os.path.join(folder, f"{part}.tsv"), task.columns, bad, read)
        return
    rows = list(_rows(os.path.join(folder, "msr_paraphrase_train.txt"), (), bad, read))
    held_out = {row.of(IDS) for row in _rows(os.path.join(folder, "dev_ids.tsv"), IDS, bad, read)}
    yield "train", (row for row in rows if row.of(IDS) not in held_out)
    yield "dev", (row for row in rows if row.of(IDS) in held_out)


def _examples(rows: "Iterable[_Row]", task: Task, bad: Bad, path: str) -> Examples:
    texts, labels = [], []
    for row in rows:
        try:
            text, label = row.of(task.texts), _label(row.of((task.label,))[0], task)
        except DataError as error:
            bad(DataError(error.fault, place=row.place, remedy=error.remedy))
            continue
        texts.append(text)
        labels.append(label)
    if not texts:
        raise DataError("holds no example", place=display(path))
    return Examples(texts, np.array(labels, dtype=np.float64))


def _label(text: str, task: Task) -> float:
    if task.labels:
        if text not in task.labels:
            raise DataError(f"{task.label} is {text!r}, and not one of {', '.join(task.labels)}")
        return task.labels.index(text)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(f"{task.label} is {text!r}, and not a number")
    return value


@dataclass(frozen=True, slots=True)
class _Row:
    """A line's columns, where each name is found among them, and the line's place."""

    columns: list[str]
    names: dict[str, int]
    place: str

    def of(self, names: Iterable[str]) -> tuple[str, ...]:
        """The columns of these names."""
        for name in names:
            if name not in self.names:
                fault = f"there is no column {name!r}, only {', '.join(self.names)}"
                raise DataError(fault, place=self.place, remedy="the first line of GLUE's own file has it")
        return tuple(self.columns[self.names[name]] for name in names)


def _rows(path: str, columns: tuple[str, ...], bad: Bad, read: Read) -> Iterator[_Row]:
    """The lines of a file, which names its columns in the first of them unless they are given."""
    lines = _lines(path, read)
    names = columns or tuple(next(lines, (0, ""))[1].split("\t"))
    places = {name: index for index, name in enumerate(names)}
    for number, line in lines:
        found, place = line.split("\t"), f"{display(path)}:{number}"
        if len(found) == len(names):
            yield _Row(found, places, place)
        else:
            bad(
                DataError(
                    f"has {len(found)} columns, not {len(names)}",
                    place=place,
                    remedy="--skip-bad leaves such lines out",
                )
            )


def _lines(path: str, read: Read) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not empty; `read` is told the bytes. Raises NoInputError and DataError."""
    with storage.input_at(path).open() as file:
        content = file.read_all()
    read(content)
    for number, line in enumerate(content.removeprefix(BOM_UTF8).split(b"\n"), 1):
        if line := line.removesuffix(b"\r"):
            try:
                yield number, line.decode()
            except UnicodeDecodeError as error:
                fault = f"is not UTF-8 at byte {error.start}"
                raise DataError(
                    fault, place=f"{display(path)}:{number}", remedy="convert it with iconv(1)"
                ) from None
