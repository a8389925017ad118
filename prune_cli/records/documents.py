"""Which part of a record does a model read? Its token ids if it has any, else its text. Only decided here."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from msgspec import Raw

from ..errors import ConfigurationError, DataError
from ..stream.schema import Head
from .decoder import Batch, Wanted
from .fields import MISSING, Anything, Content, Messages, TokenIds, nested_remedy
from .reader import Source
from .splice import members

IDS = "input_ids"
Verbatim = Raw  # the type of a field whose value is kept as bytes, not parsed


ASSISTANT = "assistant"  # the role whose turns are scored


@dataclass(frozen=True)
class Prompted:
    """A text, or the ids of a block, behind a prompt."""

    prompt: str
    text: Content

    def __len__(self) -> int:
        """Characters, and ids of a block: what a batch is measured by."""
        return len(self.prompt) + len(self.text)


@dataclass(frozen=True)
class Conversation:
    """Messages with a `role` and a `content` each, for a chat template."""

    messages: Sequence[dict[str, Any]]

    def __len__(self) -> int:
        """Characters, roughly."""
        return sum(len(str(message.get("content"))) for message in self.messages)


PromptedContent = Content | Prompted | Conversation


def without_prompt(content: PromptedContent) -> Content:
    """The text or ids that are scored; of a conversation the assistant's turns, joined by line ends."""
    if isinstance(content, Prompted):
        return content.text
    if isinstance(content, Conversation):
        turns = (turn for turn in content.messages if turn.get("role") == ASSISTANT)
        return "\n".join(str(turn.get("content") or "") for turn in turns)
    return content


def documents(
    source: Source,
    text_field: str,
    *also: str,
    kind: Any = Anything,
    fresh: tuple[str, ...] = (),
    overwrite: bool = False,
    tokenizer: str | None = None,
    prompt_field: str | None = None,
    is_chat: bool = False,
) -> Iterator["Document"]:
    """Each record with its content.

    `also` names more optional fields to read, all of one `kind`; `fresh` and `overwrite` are those of
    `Wanted`. `tokenizer` is the hash of the model's tokenizer, if it has one. With a `prompt_field` a content
    is `Prompted`; with `is_chat` the text field holds messages, and a content is a `Conversation`.

    Raises DataError for a record with neither a text nor ids, or without a prompt or messages, and
    ConfigurationError for blocks that were packed with a different tokenizer.
    """
    # The content comes last: a user may name the text among the other fields, and its type must stand.
    own: dict[str, Any] = {text_field: Messages} if is_chat else content_fields(text_field)
    prompt: dict[str, Any] = {prompt_field: str | None} if prompt_field else {}
    fields: dict[str, Any] = {**dict.fromkeys(also, kind), **own, **prompt}
    required = {*prompt, *([text_field] if is_chat else [])}
    optional = tuple(name for name in fields if name not in required)
    wanted = Wanted(fields, optional, (*own, *prompt), fresh, overwrite)
    # Each file has a head of its own, which is known once the file is read.
    checked = 0  # heads
    for batch in source.batches(wanted):
        if tokenizer is not None:
            check_tokenizer(source.heads[checked:], tokenizer, batch.file)
            checked = len(source.heads)
        contents_of = _conversations if is_chat else contents
        prompts = batch[prompt_field] if prompt_field else None
        for index, content in enumerate(contents_of(batch, text_field)):
            if content is MISSING:
                raise no_content(batch, index, text_field)
            # A prompt that is null is one of no tokens.
            yield Document(batch, index, Prompted(prompts[index] or "", content) if prompts else content)


def _conversations(batch: Batch, field: str) -> list[Any]:
    return [Conversation(messages) for messages in batch[field]]


def content_fields(text_field: str, nullable: bool = False) -> dict[str, Any]:
    """The fields that `contents` reads, with their types.

    With `nullable`, both may be null, and ids may be a string: for verbs to which the content is incidental.
    """
    if nullable:
        return {text_field: str | None, IDS: Content | None}
    return {text_field: str, IDS: TokenIds}


def contents(batch: Batch, text_field: str) -> list[Any]:
    """The content of each record: its token ids, else its text, else MISSING."""
    # Ids come first because a packed stream may carry the texts of its documents along.
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
    """Raise ConfigurationError if a head says that the blocks were packed with a different tokenizer.

    `tokenizer` is a hash, or "" if the tokenizer is not trained yet: then no blocks can be its own.
    """
    for head in heads:
        packed_with = head.pack.tokenizer if head and head.pack else None
        if isinstance(packed_with, str) and packed_with != tokenizer:
            expected = tokenizer[:12] or "one that is yet to be trained"
            raise ConfigurationError(
                f"its blocks were packed with tokenizer {packed_with[:12]}, not with {expected}",
                place=place,
                remedy="use the tokenizer that packed them, or pack the documents again",
            )


class Document:
    """A record and its content. Its str() is its place: file and line."""

    # Slots, because there is one of these for each record of a corpus.
    __slots__ = ("batch", "content", "index")

    def __init__(self, batch: Batch, index: int, content: PromptedContent) -> None:
        self.batch = batch
        self.index = index
        self.content = content

    def __str__(self) -> str:
        return self.batch.place(self.index)

    @property
    def line(self) -> bytes:
        return self.batch.lines[self.index]

    @property
    def own_content(self) -> Content:
        """The content without a prompt."""
        return without_prompt(self.content)

    def __getitem__(self, name: str) -> Any:
        """The value of a field in `also`; None if the record lacks it."""
        value = self.batch[name][self.index]
        return None if value is MISSING else value


# --- New records, with values copied byte for byte ---


def written(fields: dict[str, Any]) -> bytes:
    """A record with these fields."""
    return b"{" + members(fields) + b"}"


def verbatim(value: Raw | bytes) -> orjson.Fragment:
    """A value that was read as `Verbatim`, in the form in which orjson writes it unchanged."""
    return orjson.Fragment(bytes(value))


def string(value: bytes) -> str | None:
    """The string that these bytes of JSON stand for; None if they stand for anything else."""
    try:
        parsed = orjson.loads(value)
    except orjson.JSONDecodeError:
        # Invalid UTF-8, for example. The bytes are still copied: only text for a model has to be valid.
        return None
    return parsed if isinstance(parsed, str) else None
