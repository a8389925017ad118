"""What `eval` is asked and what it finds of each document: test sets, and result files from which every result can be computed again.

A result file has one record a model, test set and document.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import orjson
from numpy.typing import NDArray

from ...errors import DataError
from ...records.documents import Document, documents
from ...records.reader import MISSING, Anything, Content, Count, Number, Source, Wanted
from ...stream.schema import Head

NUMBERS = (
    "nll_sum",
    "n_scored",
    "n_bytes",
    "words",
)  # nats over scored tokens, their count and bytes, words between white space
NAMED = ("model", "tokenizer", "data")  # hashes that a provenance has to say


class Item(NamedTuple):
    """A document of a test set: which it is, from 1, its id, and the values of its group and cluster fields."""

    document: int
    id: Any = None
    group: Any = None
    cluster: Any = None


# Test sets


@dataclass(frozen=True)
class Heldout:
    """A test set: its documents, what a model reads of them, and the heads of the streams they came in."""

    name: str
    hash: str
    items: Sequence[Item]
    contents: Sequence[Content]
    heads: Sequence[Head | None]


def heldout(name: str, source: Source, text_field: str, group_by: str | None, cluster: str | None) -> Heldout:
    """All documents of a source. Raises DataError where none has a field that they are to be grouped or clustered by."""
    items, contents = [], []
    for number, one in enumerate(
        documents(source, text_field, *dict.fromkeys(["id", *filter(None, (group_by, cluster))])), 1
    ):
        items.append(Item(number, one["id"], _label(one, group_by), _label(one, cluster)))
        contents.append(one.content)
    for field, values in (
        (group_by, [item.group for item in items]),
        (cluster, [item.cluster for item in items]),
    ):
        if field and items and all(value is None for value in values):
            raise DataError(
                f"no document has the field `{field}`",
                place=source.inputs[0].name,
                remedy="name a field that they have",
            )
    return Heldout(name, data_hash(contents), items, contents, source.heads)


def _label(document: Document, field: str | None) -> Any:
    """The value of a field by which documents belong together."""
    value = document[field] if field else None
    if isinstance(value, list | dict):
        raise DataError(
            f"`{field}` is neither a string nor a number", place=str(document), remedy="name another field"
        )
    return value


def data_hash(contents: Iterable[Content]) -> str:
    """The same for two test sets with the same texts, or ids, in the same order."""
    found = blake2b(digest_size=16)
    for content in contents:
        found.update(orjson.dumps(content))
        found.update(b"\n")
    return found.hexdigest()


# Results


@dataclass(frozen=True)
class Task:
    """A model and a test set whose results are wanted; `provenance` says what they hang on."""

    model: str
    data: str
    provenance: dict[str, Any]
    items: Sequence[Item]


@dataclass(frozen=True)
class Run(Task):
    """The results: a row of NUMBERS for each of the items, NaN where one is not known."""

    numbers: NDArray[np.float64]

    @property
    def tokens(self) -> NDArray[np.float64]:
        column: NDArray[np.float64] = self.numbers[:, 1]
        return column


def runs(source: Source) -> list[Run]:
    """The runs of a result file. Raises DataError where it is none, or where the documents of a run are not in their order."""
    counts = dict.fromkeys(("n_scored", "n_bytes", "words"), Count)
    kinds = {
        "model": str,
        "data": str,
        "document": Count,
        "provenance": dict[str, Any],
        "nll_sum": Number,
        **counts,
    }
    labels = dict.fromkeys(("id", "group", "cluster"), Anything)
    found: dict[tuple[str, str, str], tuple[Task, list[Item], list[list[float]]]] = {}
    for batch in source.batches(Wanted({**kinds, **labels}, tuple(labels))):
        columns = [batch[name] for name in (*kinds, *labels)]
        for index, (model, data, number, made, *row, name, group, cluster) in enumerate(
            zip(*columns, strict=True)
        ):
            key = (model, *_hashes(made, batch.place(index)))
            _, items, rows = found.setdefault(key, (Task(model, data, made, ()), [], []))
            if (number or 0) <= (items[-1].document if items else 0):
                fault = f"document {number} of {model} on {data} does not follow those before"
                raise DataError(
                    fault,
                    place=batch.place(index),
                    remedy="name each file once, in the order it was written in",
                )
            items.append(
                Item(number, *(None if value is MISSING else value for value in (name, group, cluster)))
            )
            rows.append([math.nan if value is None else value for value in row])
    return [
        Run(task.model, task.data, task.provenance, items, np.array(rows, dtype=np.float64))
        for task, items, rows in found.values()
    ]


def _hashes(made: dict[str, Any], place: str) -> tuple[str, str]:
    """Of the model and the data."""
    if not all(isinstance(made.get(name), str) for name in NAMED):
        raise DataError(
            "`provenance` does not say which model and data it is of", place=place, remedy="evaluate again"
        )
    return made["model"], made["data"]


def again(run: Run, test: Heldout) -> Run:
    """A run on a test set that is at hand, which says which documents belong together. Raises DataError where it has others."""
    if run.items and run.items[-1].document > len(test.items):
        raise DataError(
            f"the results of {run.model} have documents that are not there",
            place=test.name,
            remedy="evaluate it again",
        )
    return replace(run, data=test.name, items=[test.items[item.document - 1] for item in run.items])
