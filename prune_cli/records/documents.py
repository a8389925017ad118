"""What does a model read of a record?

Its content: the token ids if it has any, else the text. Decided here alone.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import orjson
from msgspec import Raw

from ..errors import ConfigurationError, DataError
from ..stream.batch import Record
from ..stream.schema import Head
from .decoder import Batch, Wanted
from .fields import MISSING, Anything, Content, TokenIds, nested_remedy
from .reader import Source
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
    """Each record with its content. `also` are optional fields to read, all of one `kind`; `fresh` as in
    `Wanted`.

    Raises DataError for a record that has neither a text nor ids, and ConfigurationError as soon as a head
    says that its blocks were packed with another tokenizer than that with the hash `tokenizer`.
    """
    fields: dict[str, Any] = {**dict.fromkeys(also, kind), **content_fields(text_field)}
    wanted = Wanted(fields, tuple(fields), (text_field, IDS), fresh, overwrite)
    checked = 0  # heads
    for batch in source.batches(wanted):
        if tokenizer is not None:
            check_tokenizer(source.heads[checked:], tokenizer, batch.file)
            checked = len(source.heads)
        for index, content in enumerate(contents(batch, text_field)):
            if content is MISSING:
                raise no_content(batch, index, text_field)
            yield Document(batch, index, content)


def content_fields(text_field: str, nullable: bool = False) -> dict[str, Any]:
    """The fields that `contents` reads, with their types.

    `nullable` accepts null, and strings for ids, in both.
    """
    if nullable:
        return {text_field: str | None, IDS: Content | None}
    return {text_field: str, IDS: TokenIds}


def contents(batch: Batch, text_field: str) -> list[Any]:
    """The content of each record: its token ids, or its text where it has no ids; MISSING where it has
    neither.

    Ids win because a packed stream may carry the text field of its documents along.
    """
    pairs = zip(batch[text_field], batch[IDS], strict=True)
    return [text if ids is MISSING else ids for text, ids in pairs]


def no_content(batch: Batch, index: int, text_field: str) -> DataError:
    """The error for a record that has neither a text nor ids."""
    names = batch.listed_names(index)
    fault = f"no field `{text_field}` (nor `{IDS}`); the record has {names}"
    return DataError(
        fault,
        place=batch.place(index),
        remedy=nested_remedy(text_field) or "--text-field FIELD names the text",
    )


def check_tokenizer(heads: Iterable[Head | None], tokenizer: str, place: str) -> None:
    """Raise ConfigurationError if a head says that another tokenizer packed the blocks.

    The hash of a tokenizer that is yet to be trained is "": it can have packed none.
    """
    for head in heads:
        packed_with = head.pack.tokenizer if head and head.pack else None
        if isinstance(packed_with, str) and packed_with != tokenizer:
            expected = tokenizer[:12] or "one that is yet to be trained"
            raise ConfigurationError(
                f"its blocks were packed with tokenizer {packed_with[:12]}, not with {expected}",
                place=place,
                remedy="use the tokenizer that packed them, or pack the documents anew",
            )


class Document:
    """A record and its content. str() of it is its place: file and line."""

    __slots__ = ("batch", "content", "index")

    def __init__(self, batch: Batch, index: int, content: Content) -> None:
        self.batch, self.index, self.content = batch, index, content

    def __str__(self) -> str:
        return self.batch.place(self.index)

    @property
    def line(self) -> bytes:
        return self.batch.lines[self.index]

    def extended(self, fields: dict[str, Any], tokens: int, null: bool, group: Any) -> Record:
        """The record with new fields, to be written."""
        line = splice(self.line, members(fields))
        return Record(line, tokens, null, rank=None, group=group if isinstance(group, str) else None)

    def __getitem__(self, name: str) -> Any:
        """The value of a field in `also`; None if the record does not have it."""
        value = self.batch[name][self.index]
        return None if value is MISSING else value


# --- New records, of values that are passed on as they came ---


def written(fields: dict[str, Any]) -> bytes:
    """A record of these fields."""
    return b"{" + members(fields) + b"}"


def verbatim(value: Raw | bytes) -> orjson.Fragment:
    """A value that was read as `Verbatim`, to be written as it came."""
    return orjson.Fragment(bytes(value))


def string(value: bytes) -> str | None:
    """The string that these bytes spell; None if they spell anything else."""
    try:
        spelt = orjson.loads(value)
    except orjson.JSONDecodeError:
        # Invalid UTF-8, for example. The bytes are passed on: only what a model reads has to be text.
        return None
    return spelt if isinstance(spelt, str) else None
