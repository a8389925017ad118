"""Pack documents into blocks: the paper's unit, every token of every document in one block and no padding in any.

Documents become tokens, an end-of-document token after each; they follow one another in one stream of tokens, which is cut
into blocks of one length wherever that falls.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError
from ..records.documents import IDS, Document, string, verbatim, written
from ..records.reader import Record

log = logging.getLogger(__name__)

Ids = NDArray[np.int32]
Encode = Callable[[list[str]], list[Ids]]

CHARACTERS = 1 << 20  # tokenized at a time, while what came before is packed
IDENTITY, SPANS = "id", "spans"


@dataclass(frozen=True)
class Packing:
    """How blocks are made: `context` tokens each, `end` after each document; `carry` are fields of documents that blocks get, too."""

    context: int
    end: int
    keep_last: bool = False
    carry: tuple[str, ...] = ()
    group: str = ""
    unknown: int | None = None  # the token that stands for text the vocabulary cannot spell


@dataclass
class Tally:
    """What was packed; the tokens are those of the blocks, and those of the last short one where that was dropped."""

    documents: int = 0
    empty: int = 0
    blocks: int = 0
    tokens: int = 0
    dropped: int = 0
    unknown: int = 0
    ends: int = 0
    absent: set[str] = field(default_factory=set)  # the carried fields that no document has had yet


def pack(documents: Iterable[Document], encode: Encode, packing: Packing, tally: Tally) -> Iterator[Record]:
    """The blocks of all documents, `block-0` first. A document without tokens is left out, and counted.

    A block has `spans`, one for each stretch of a document in it, in their order: the document's number among all (from 0) and its
    `id` if it has one, the `start` in the document, the place `at` which it stands in the block, its `tokens`, and the carried
    fields. The end-of-document token belongs to its document's span. The block's own carried field is the value that most of its
    tokens have, the first among equals. Raises DataError for a record that holds ids already.
    """
    block, tally.absent = _Block(packing), set(packing.carry)
    for ordinal, document, ids in _stream(documents, encode, packing, tally):
        start = 0
        while start < len(ids):
            start += block.take(document, ordinal, ids, start)
            if not block.room:
                yield block.record(tally)
                block = _Block(packing)
    if block.spans and packing.keep_last:
        yield block.record(tally)
    elif block.spans:
        tally.dropped = packing.context - block.room
    _warn(tally)


def _stream(
    documents: Iterable[Document], encode: Encode, packing: Packing, tally: Tally
) -> Iterator[tuple[int, Document, Ids]]:
    """Each document that has tokens with its number among all and its tokens, the end-of-document token last."""
    for ordinal, (document, ids) in enumerate(_encoded(documents, encode)):
        tally.documents += 1
        tally.empty += not len(ids)
        tally.ends += packing.end in ids
        tally.absent -= {name for name in tally.absent if document[name] is not None}
        if packing.unknown is not None:
            tally.unknown += int(np.count_nonzero(ids == packing.unknown))
        if len(ids):
            yield ordinal, document, np.append(ids, np.int32(packing.end))


def _encoded(documents: Iterable[Document], encode: Encode) -> Iterator[tuple[Document, Ids]]:
    """Each document and its tokens; while they are used, those of the next batch are made."""
    with ThreadPoolExecutor(1, "encode") as pool:
        waiting: deque[tuple[list[Document], Future[list[Ids]]]] = deque()
        for batch in _batches(documents):
            waiting.append((batch, pool.submit(encode, [_text(document) for document in batch])))
            if len(waiting) > 1:
                yield from _done(*waiting.popleft())
        for batch, future in waiting:
            yield from _done(batch, future)


def _done(batch: list[Document], future: "Future[list[Ids]]") -> Iterator[tuple[Document, Ids]]:
    return zip(batch, future.result(), strict=True)


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += 1 + len(document.content)  # empty ones fill it, too
        if size >= CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _text(document: Document) -> str:
    if isinstance(document.content, str):
        return document.content
    fault = f"it has `{IDS}`: it is packed or tokenized already"
    raise DataError(
        fault,
        place=str(document),
        remedy="pack documents, of text; a packed stream is scored or trained on as it is",
    )


class _Block:
    """A block that is being filled; `room` is what it has left."""

    def __init__(self, packing: Packing) -> None:
        self.packing, self.room = packing, packing.context
        self.ids: list[Ids] = []
        self.spans: list[dict[str, Any]] = []
        self.carried: list[dict[str, bytes]] = []

    def take(self, document: Document, ordinal: int, ids: Ids, start: int) -> int:
        """Fill up with a document's tokens from `start` on; how many there was room for."""
        taken = ids[start : start + self.room]
        identity = {} if document[IDENTITY] is None else {IDENTITY: verbatim(document[IDENTITY])}
        at = self.packing.context - self.room
        self.ids.append(taken)
        self.spans.append({"document": ordinal, **identity, "start": start, "at": at, "tokens": len(taken)})
        self.carried.append({name: bytes(document[name] or b"null") for name in self.packing.carry})
        self.room -= len(taken)
        return len(taken)

    def record(self, tally: Tally) -> Record:
        """The block as a record, numbered and counted by the tally."""
        ids = np.concatenate(self.ids)
        carried = {name: self._most(name) for name in self.packing.carry}
        spans = [{**span, **_verbatim(fields)} for span, fields in zip(self.spans, self.carried, strict=True)]
        fields = {
            IDENTITY: f"block-{tally.blocks}",
            IDS: ids,
            "n_tokens": len(ids),
            **_verbatim(carried),
            SPANS: spans,
        }
        tally.blocks += 1
        tally.tokens += len(ids)
        return Record(written(fields), len(ids), group=string(carried.get(self.packing.group, b"null")))

    def _most(self, name: str) -> bytes:
        """The value of a carried field that most of the block's tokens have."""
        tokens: Counter[bytes] = Counter()
        for span, fields in zip(self.spans, self.carried, strict=True):
            tokens[fields[name]] += span["tokens"]
        return max(tokens, key=tokens.__getitem__)


def _verbatim(fields: dict[str, bytes]) -> dict[str, Any]:
    return {name: verbatim(value) for name, value in fields.items()}


def _warn(tally: Tally) -> None:
    if tally.dropped and not tally.blocks:
        log.warning("all %d tokens there are make no block, and --last keep was not asked for", tally.dropped)
    if tally.absent and tally.documents:
        log.warning(
            "no document has a field %s to be carried",
            " or ".join(f"`{name}`" for name in sorted(tally.absent)),
        )
    if tally.ends:
        log.warning("%d documents have the end-of-document token inside them", tally.ends)
    if tally.unknown:
        log.warning("%d tokens are text that the vocabulary cannot spell", tally.unknown)
    if tally.empty:
        log.info("%d documents had no tokens and were left out", tally.empty)
