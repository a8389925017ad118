"""Score records with a language model: one number a metric, order kept."""

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from ..errors import DataError
from ..metrics import Metric
from ..model import Content, Document, LanguageModel, TokenStatistics

log = logging.getLogger(__name__)

Payload = TypeVar("Payload")
Fields = dict[str, Any]

# Records that are tokenized together: enough to keep the tokenizer's threads busy.
BLOCK_RECORDS, BLOCK_CHARACTERS = 256, 1 << 18
WINDOW_BYTES = 4 << 20  # of lines in a list, which become one frame


def score(
    items: Iterable[tuple[Payload, Content]],
    model: LanguageModel,
    metrics: Sequence[Metric],
    *,
    window_tokens: int = 1 << 17,
    min_tokens: int = 1,
    place: Callable[[Payload], str] = str,
    size: Callable[[Payload], int] = lambda payload: 0,
) -> Iterator[list[tuple[Payload, Fields]]]:
    """Each payload with its new fields, in input order, in lists of about `window_tokens` tokens that were batched together.

    A list's payloads have a `size` of at most WINDOW_BYTES together; one that is larger is a list of its own.

    The fields are one a metric, then `nll_sum`, `n_scored` and `n_bytes`. A record with fewer than `min_tokens` scored tokens,
    or none, has None for every metric. Where a list ends depends on the records since the last one ended and on nothing else,
    so scoring can be taken up again there. `place` names a record in errors.

    Raises DataError for ids that the model does not know and for likelihoods that are no numbers.
    """
    unknown = affected = 0
    for payloads, documents in _windows(items, model, window_tokens, place, size):
        rows = zip(payloads, documents, model.token_statistics(documents), strict=True)
        yield [(payload, _fields(document, tokens, metrics, max(1, min_tokens), place(payload))) for payload, document, tokens in rows]
        unknown += sum(document.n_unknown for document in documents)
        affected += sum(document.n_unknown > 0 for document in documents)
    if unknown:
        log.warning("%d tokens in %d records are text that the model's vocabulary cannot spell", unknown, affected)


def _fields(document: Document, tokens: TokenStatistics, metrics: Sequence[Metric], min_tokens: int, place: str) -> Fields:
    nll_sum = tokens.nll_sum
    if not math.isfinite(nll_sum):
        raise DataError(f"the model gives it a likelihood of {nll_sum}", place=place, remedy="check the model's weights")
    try:
        values = {metric.name: metric.score(document, tokens) if document.n_scored >= min_tokens else None for metric in metrics}
    except OverflowError:
        raise DataError("a score is too large for a number", place=place, remedy="check the model's weights") from None
    return values | {"nll_sum": nll_sum, "n_scored": document.n_scored, "n_bytes": document.n_bytes}


def _windows(
    items: Iterable[tuple[Payload, Content]],
    model: LanguageModel,
    window_tokens: int,
    place: Callable[[Payload], str],
    size: Callable[[Payload], int],
) -> Iterator[tuple[list[Payload], list[Document]]]:
    """Records until they hold `window_tokens` tokens, again and again; a record counts one more, so that empty ones fill it too."""
    payloads: list[Payload] = []
    documents: list[Document] = []
    tokens = n_bytes = 0
    for block in _blocks(items, size):
        block_bytes = sum(size(payload) for payload, _ in block)
        if payloads and n_bytes + block_bytes > WINDOW_BYTES:
            yield payloads, documents
            payloads, documents, tokens, n_bytes = [], [], 0, 0
        payloads += [payload for payload, _ in block]
        encoded = _encode(block, model, place)
        documents += encoded
        tokens += sum(1 + len(document.tokens) for document in encoded)
        n_bytes += block_bytes
        if tokens >= window_tokens:
            yield payloads, documents
            payloads, documents, tokens, n_bytes = [], [], 0, 0
    if payloads:
        yield payloads, documents


def _encode(block: list[tuple[Payload, Content]], model: LanguageModel, place: Callable[[Payload], str]) -> list[Document]:
    return model.encode_many([content for _, content in block], lambda index: place(block[index][0]))


def _blocks(items: Iterable[tuple[Payload, Content]], size: Callable[[Payload], int]) -> Iterator[list[tuple[Payload, Content]]]:
    block: list[tuple[Payload, Content]] = []
    characters = n_bytes = 0
    for payload, content in items:
        n_bytes += size(payload)
        if block and n_bytes > WINDOW_BYTES:
            yield block
            block, characters, n_bytes = [], 0, size(payload)
        block.append((payload, content))
        characters += len(content)
        if len(block) == BLOCK_RECORDS or characters >= BLOCK_CHARACTERS:
            yield block
            block, characters, n_bytes = [], 0, 0
    if block:
        yield block
