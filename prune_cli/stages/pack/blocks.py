"""Which tokens are in which block?

The paper's unit: every token of every document in one block, and no padding.

Documents are tokenized and concatenated, with an EOS token after each; the stream of tokens is cut into
blocks of one length, wherever that falls.
"""

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...records.batching import Bound, batched
from ...records.documents import IDS, Document, string, verbatim, written
from ...stream.batch import Record

log = logging.getLogger(__name__)

Ids = NDArray[np.int32]
Encode = Callable[[list[str]], list[Ids]]

CHARACTERS = 1 << 20  # per batch that is tokenized while the batch before it is packed
IDENTITY, SPANS = "id", "spans"


@dataclass(frozen=True)
class BlockLayout:
    """How blocks are made: `context` tokens each, with the token `eos` after each document."""

    context: int
    eos: int
    keep_last: bool = False  # write the last block even if it is short
    carry: tuple[str, ...] = ()  # fields to copy from documents to spans and blocks
    group: str = ""  # the carried field by which the trailer counts blocks
    unknown: int | None = None  # the token for text that the vocabulary cannot spell


@dataclass
class PackCounts:
    """Counts that grow while blocks are made.

    `tokens` are those of the blocks, `dropped` those of a short last one.
    """

    documents: int = 0
    empty: int = 0
    blocks: int = 0
    tokens: int = 0
    dropped: int = 0
    unknown: int = 0
    with_eos: int = 0  # documents whose text has the EOS token in it
    absent: set[str] = field(default_factory=set)  # carried fields that no document has had so far


@dataclass(frozen=True)
class Portion:
    """The blocks that begin in one shard of the documents, among those of all."""

    documents: int  # before the shard
    first_block: int
    skip: int  # tokens of the shard that belong to a block which began before it
    blocks: int  # that begin in the shard


def pack_portion(
    documents: Iterable[Document], encode: Encode, layout: BlockLayout, portion: Portion
) -> Iterator[Record]:
    """As `pack`, only the blocks of a portion. The documents begin with its shard, and go on behind it."""
    counts = PackCounts(blocks=portion.first_block)
    skip = portion.skip
    block = _Block(layout)
    last = portion.first_block + portion.blocks
    for ordinal, document, ids in token_stream(documents, encode, layout, counts):
        start = min(skip, len(ids))
        skip -= start
        while start < len(ids):
            start += block.take(document, portion.documents + ordinal, ids, start)
            if not block.room:
                yield block.record(counts)
                if counts.blocks == last:
                    return
                block = _Block(layout)
    # The last block of all may be short.
    if block.spans:
        yield block.record(counts)


def pack(
    documents: Iterable[Document], encode: Encode, layout: BlockLayout, counts: PackCounts
) -> Iterator[Record]:
    """The blocks of all documents, `block-0` first. Documents without tokens are left out and counted.

    A block has `spans`, one for each stretch of a document in it, in order: the number of the `document`
    (from 0), its `id` if it has one, the `start` of the stretch in the document, the place `at` which it
    stands in the block, its `tokens`, and the carried fields. The EOS token belongs to the span of its
    document. The block's own value of a carried field is that of most of its tokens; the first one wins a
    tie.

    Raises DataError for a record that has token ids already.
    """
    counts.absent = set(layout.carry)
    block = _Block(layout)
    for ordinal, document, ids in token_stream(documents, encode, layout, counts):
        start = 0
        # A document can fill several blocks, and the next document begins in the last of them.
        while start < len(ids):
            start += block.take(document, ordinal, ids, start)
            if not block.room:
                yield block.record(counts)
                block = _Block(layout)
    if block.spans and layout.keep_last:
        yield block.record(counts)
    elif block.spans:
        counts.dropped = layout.context - block.room
    warn(counts)


def token_stream(
    documents: Iterable[Document], encode: Encode, layout: BlockLayout, counts: PackCounts
) -> Iterator[tuple[int, Document, Ids]]:
    """Each document that has tokens: its number among all, itself, and its tokens with EOS at the end."""
    for ordinal, (document, ids) in enumerate(_encoded(documents, encode)):
        counts.documents += 1
        counts.empty += not len(ids)
        counts.with_eos += layout.eos in ids
        # Usually empty after the first document, so that this costs nothing.
        counts.absent -= {name for name in counts.absent if document[name] is not None}
        if layout.unknown is not None:
            counts.unknown += int(np.count_nonzero(ids == layout.unknown))
        if len(ids):
            yield ordinal, document, np.append(ids, np.int32(layout.eos))


def _encoded(documents: Iterable[Document], encode: Encode) -> Iterator[tuple[Document, Ids]]:
    """Each document with its tokens. One batch is tokenized in a thread while the batch before it is used."""
    # One worker keeps batches in order; the tokenizer itself uses more threads, and leaves the interpreter
    # free.
    with ThreadPoolExecutor(1, "encode") as pool:
        waiting: deque[tuple[list[Document], Future[list[Ids]]]] = deque()
        for batch in batched(documents, Bound(_size, CHARACTERS)):
            waiting.append((batch, pool.submit(encode, [_text(document) for document in batch])))
            if len(waiting) > 1:
                yield from _done(*waiting.popleft())
        for batch, future in waiting:
            yield from _done(batch, future)


def _done(batch: list[Document], future: "Future[list[Ids]]") -> Iterator[tuple[Document, Ids]]:
    return zip(batch, future.result(), strict=True)


def _size(document: Document) -> int:
    # 1 more than its characters, so that empty documents fill a batch as well.
    return 1 + len(document.content)


def _text(document: Document) -> str:
    if isinstance(document.content, str):
        return document.content
    raise DataError(
        f"it has `{IDS}`: it is packed or tokenized already",
        place=str(document),
        remedy="pack documents of text; score or train on a packed stream as it is",
    )


class _Block:
    """A block that is being filled; `room` is the number of tokens that still fit."""

    def __init__(self, layout: BlockLayout) -> None:
        self.layout = layout
        self.room = layout.context
        self.ids: list[Ids] = []
        self.spans: list[dict[str, Any]] = []
        self.carried: list[dict[str, bytes]] = []

    def take(self, document: Document, ordinal: int, ids: Ids, start: int) -> int:
        """Add tokens of a document from `start` on. Returns how many fitted."""
        taken = ids[start : start + self.room]
        # Ids and carried values are copied as bytes: 1.10 stays 1.10, and big integers keep their digits.
        identity = {} if document[IDENTITY] is None else {IDENTITY: verbatim(document[IDENTITY])}
        at = self.layout.context - self.room
        self.ids.append(taken)
        self.spans.append({"document": ordinal, **identity, "start": start, "at": at, "tokens": len(taken)})
        self.carried.append({name: bytes(document[name] or b"null") for name in self.layout.carry})
        self.room -= len(taken)
        return len(taken)

    def record(self, counts: PackCounts) -> Record:
        """The block as a record, named by the number of blocks before it."""
        ids = np.concatenate(self.ids)
        carried = {name: self._majority(name) for name in self.layout.carry}
        spans = [{**span, **_verbatim(fields)} for span, fields in zip(self.spans, self.carried, strict=True)]
        fields = {
            IDENTITY: f"block-{counts.blocks}",
            IDS: ids,
            "n_tokens": len(ids),
            **_verbatim(carried),
            SPANS: spans,
        }
        counts.blocks += 1
        counts.tokens += len(ids)
        group = string(carried.get(self.layout.group, b"null"))
        return Record(written(fields), len(ids), group=group)

    def _majority(self, name: str) -> bytes:
        """The value of a carried field that most of the block's tokens have."""
        tokens: Counter[bytes] = Counter()
        for span, fields in zip(self.spans, self.carried, strict=True):
            tokens[fields[name]] += span["tokens"]
        return max(tokens, key=tokens.__getitem__)


def _verbatim(fields: dict[str, bytes]) -> dict[str, Any]:
    return {name: verbatim(value) for name, value in fields.items()}


def warn(counts: PackCounts) -> None:
    """Log what a user may not expect: no blocks, an absent field, tokens that stand for something else."""
    if counts.dropped and not counts.blocks:
        log.warning("all %d tokens are dropped: they do not fill one block; see --last keep", counts.dropped)
    if counts.absent and counts.documents:
        names = " or ".join(f"`{name}`" for name in sorted(counts.absent))
        log.warning("no document has a field %s to carry", names)
    if counts.with_eos:
        log.warning("%d documents contain the EOS token", counts.with_eos)
    if counts.unknown:
        log.warning("%d tokens stand for text that the vocabulary cannot spell", counts.unknown)
    if counts.empty:
        log.info("%d documents have no tokens and are left out", counts.empty)
