"""What a model reads of each record: its text, or its token ids, which win where both are present."""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from msgspec import Raw

from ..errors import ConfigurationError, DataError
from ..stream.batch import Record
from ..stream.schema import Head
from .reader import MISSING, Anything, Batch, Content, Source, Wanted
from .splice import members, splice

IDS = "input_ids"
Verbatim = Raw  # a value as the very bytes that stand there


def documents(
    source: Source,
    text_field: str,
    *also: str,
    kind: Any = Anything,
    fresh: tuple[str, ...] = (),
    overwrite: bool = False,
    tokenizer: str | None = None,
) -> Iterator["Document"]:
    """Each record with what a model reads of it. `also` are optional fields of one `kind` to read beside it; `fresh` as in Wanted.

    Raises DataError for a record that has neither a text nor ids, and ConfigurationError as soon as the head of one of the streams
    says that it holds blocks of another tokenizer than the one with the hash `tokenizer`.
    """
    fields: dict[str, Any] = {**dict.fromkeys(also, kind), text_field: str, IDS: list[int]}
    wanted = Wanted(fields, tuple(fields), (text_field, IDS), fresh, overwrite)
    told = 0
    for batch in source.batches(wanted):
        if tokenizer is not None:
            check_tokenizer(source.heads[told:], tokenizer, batch.file)
            told = len(source.heads)
        for index, (text, ids) in enumerate(zip(batch[text_field], batch[IDS], strict=True)):
            content = text if ids is MISSING else ids
            if content is MISSING:
                names = ", ".join(orjson.loads(batch.lines[index])) or "no fields at all"
                remedy = "--text-field FIELD names the text"
                raise DataError(
                    f"no field `{text_field}` (nor `{IDS}`); the record has {names}",
                    place=batch.place(index),
                    remedy=remedy,
                )
            yield Document(batch, index, content)


def check_tokenizer(heads: Iterable[Head | None], tokenizer: str, place: str) -> None:
    """Raise ConfigurationError where a head says that another tokenizer packed the blocks; none has the hash ""."""
    for head in heads:
        found = head.pack.tokenizer if head and head.pack else None
        if isinstance(found, str) and found != tokenizer:
            ours = tokenizer[:12] or "one that is yet to be trained"
            fault = f"its blocks were packed with tokenizer {found[:12]}, not with {ours}"
            raise ConfigurationError(
                fault, place=place, remedy="use the tokenizer that packed them, or pack the documents anew"
            )


class Document:
    """A record and its content; `place` is where it stands."""

    __slots__ = ("batch", "content", "index")

    def __init__(self, batch: Batch, index: int, content: Content) -> None:
        self.batch, self.index, self.content = batch, index, content

    def __str__(self) -> str:
        return self.batch.place(self.index)

    @property
    def line(self) -> bytes:
        return self.batch.lines[self.index]

    def extended(self, fields: dict[str, Any], tokens: int, null: bool, group: Any) -> Record:
        """The record with new fields, on its way out."""
        return Record(
            splice(self.line, members(fields)), tokens, null, None, group if isinstance(group, str) else None
        )

    def __getitem__(self, name: str) -> Any:
        """The value of a field that was read beside the content; None if the record does not have it."""
        value = self.batch[name][self.index]
        return None if value is MISSING else value


# Records made new, of values that are passed on as they came.


def written(fields: dict[str, Any]) -> bytes:
    """A record of these fields."""
    return b"{" + members(fields) + b"}"


def verbatim(value: Raw | bytes) -> orjson.Fragment:
    """A value that was read as `Verbatim`, to be written as it came."""
    return orjson.Fragment(bytes(value))


def string(value: bytes) -> str | None:
    """The string that these bytes spell; None where they spell anything else."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:  # passed on all the same: only what a model reads must be text
        return None
    return found if isinstance(found, str) else None
