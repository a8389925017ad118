"""What a model reads of each record: its text, or its token ids, which win where both are present."""

from collections.abc import Iterator
from typing import Any

import orjson

from ..errors import DataError
from .records import MISSING, Anything, Batch, Content, Record, Source, Wanted
from .splicing import members, splice

IDS = "input_ids"


def documents(source: Source, text_field: str, *also: str, fresh: tuple[str, ...] = (), overwrite: bool = False) -> Iterator["Document"]:
    """Each record with what a model reads of it. `also` are optional fields to read beside it; `fresh` as in Wanted.

    Raises DataError for a record that has neither a text nor ids.
    """
    fields: dict[str, Any] = {**dict.fromkeys(also, Anything), text_field: str, IDS: list[int]}
    wanted = Wanted(fields, tuple(fields), (text_field, IDS), fresh, overwrite)
    for batch in source.batches(wanted):
        for index, (text, ids) in enumerate(zip(batch[text_field], batch[IDS], strict=True)):
            content = text if ids is MISSING else ids
            if content is MISSING:
                names = ", ".join(orjson.loads(batch.lines[index])) or "no fields at all"
                remedy = "--text-field FIELD names the text"
                raise DataError(f"no field `{text_field}` (nor `{IDS}`); the record has {names}", place=batch.place(index), remedy=remedy)
            yield Document(batch, index, content)


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
        return Record(splice(self.line, members(fields)), tokens, null, None, group if isinstance(group, str) else None)

    def __getitem__(self, name: str) -> Any:
        """The value of a field that was read beside the content; None if the record does not have it."""
        value = self.batch[name][self.index]
        return None if value is MISSING else value
