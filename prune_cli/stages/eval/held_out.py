"""Which documents does a test set hold, and which of them belong together?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, NamedTuple

import orjson

from ...errors import DataError, UsageError
from ...records.documents import Document, documents
from ...records.reader import Content, Source
from ...settings.eval import Evaluation
from ...settings.streams import Reading
from ...stream.schema import Head
from .. import streams


class Item(NamedTuple):
    """A document of a test set: its number, counted from 1, its id, its group and its cluster."""

    document: int
    id: Any = None
    group: Any = None
    cluster: Any = None


@dataclass(frozen=True)
class HeldOutSet:
    """A test set: its documents, the text or token ids of each, and the heads of the streams that held them.

    `skipped` counts the bad records that were left out.
    """

    name: str
    hash: str
    items: Sequence[Item]
    contents: Sequence[Content]
    heads: Sequence[Head | None]
    skipped: int = 0


def read_all(evaluation: Evaluation, reading: Reading) -> list[HeldOutSet]:
    """The test sets that --data names, each read once.

    Raises UsageError for two that hold the same documents: a result file could not tell them apart, since it
    names them by hash.
    """
    sets: list[HeldOutSet] = []
    names: dict[str, str] = {}
    # No progress bar: a test set is read in a moment, and models take their time over its documents.
    for name in dict.fromkeys(evaluation.data or ()):
        with streams.open_source("eval", [name], reading, bar=False) as source:
            held_out = from_source(name, source, evaluation)
        first = names.setdefault(held_out.hash, name)
        if first != name:
            raise UsageError(f"{first} and {name} hold the same documents", remedy="name one of them")
        sets.append(held_out)
    return sets


def from_source(name: str, source: Source, evaluation: Evaluation) -> HeldOutSet:
    """All documents of a source. Raises DataError if no document has the field to group or cluster by."""
    group_by = evaluation.group_by
    cluster = evaluation.cluster
    # Each field once: documents may be grouped by the field that clusters them.
    fields = dict.fromkeys(["id", *filter(None, (group_by, cluster))])
    items: list[Item] = []
    contents: list[Content] = []
    for number, document in enumerate(documents(source, evaluation.text_field, *fields), 1):
        items.append(
            Item(number, document["id"], _label(document, group_by), _label(document, cluster)),
        )
        contents.append(document.own_content)
    _check_present(group_by, [item.group for item in items], source)
    _check_present(cluster, [item.cluster for item in items], source)
    return HeldOutSet(name, data_hash(contents), items, contents, source.heads, source.skipped)


def _check_present(field: str | None, values: list[Any], source: Source) -> None:
    """Raise DataError if the field was asked for and every document lacks it: most likely it is misspelt."""
    if field and values and all(value is None for value in values):
        raise DataError(
            f"no document has the field `{field}`",
            place=source.name,
            remedy="name a field that the documents have",
        )


def _label(document: Document, field: str | None) -> Any:
    """The value of a field by which documents belong together; None without one."""
    # A number stays a number: 1 and "1" are two groups.
    value = document[field] if field else None
    if isinstance(value, list | dict):
        raise DataError(
            f"`{field}` is neither a string nor a number",
            place=str(document),
            remedy="name another field",
        )
    return value


def data_hash(contents: Iterable[Content]) -> str:
    """Hash of a test set: the same for the same texts, or token ids, in the same order."""
    # Over contents alone, so that a test set that was compressed again or got another id is the same.
    digest = blake2b(digest_size=16)
    for content in contents:
        # JSON escapes line breaks, so the separator cannot be part of a text.
        digest.update(orjson.dumps(content))
        digest.update(b"\n")
    return digest.hexdigest()
