"""The token file: documents become blocks, in an order that follows from their content and a seed and from nothing else.

    tokens.bin    the tokens of all documents as they came, uint16 or uint32, each text closed by the separator
    tokens.npy    for every document, the hash of its content and its number of tokens
    tokens.json   the manifest, written last: where it is, the other two are whole

Memory holds some 40 bytes a document and never the text or the tokens. Blocks are put together from the file when they are
needed, through the index, so that nothing is written twice.
"""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError

Document = str | list[int]
Encode = Callable[[list[str]], Sequence[ArrayLike]]  # ids, a list or an array a text
Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]

CHARACTERS = 1 << 22  # encoded at a time: enough for every thread, little enough to hold
TOKENS, INDEX, MANIFEST = FILES = ("tokens.bin", "tokens.npy", "tokens.json")


@dataclass(frozen=True)
class Manifest:
    """What a token file holds. `content` is a hash of the documents in any order, `source` what the caller knows them by."""

    documents: int
    tokens: int
    vocabulary: int
    separator: int
    content: str
    source: str | None = None


def content_hash(document: Document) -> int:
    """64 bits by which a document is known again, whatever the other fields of its record."""
    if isinstance(document, str):
        data, kind = document.encode(), b"text"
    else:
        data, kind = np.asarray(document, "<u4").tobytes(), b"ids"
    return int.from_bytes(blake2b(data, digest_size=8, person=kind).digest(), "little")


def spool(documents: Iterable[Document], path: Path) -> Iterator[Document]:
    """Pass documents on and write them down, to be read once more by `spooled`."""
    with path.open("wb") as file:
        for document in documents:
            file.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))
            yield document


def spooled(path: Path) -> Iterator[Document]:
    with path.open("rb") as file:
        yield from map(orjson.loads, file)


# Writing


def pack(
    documents: Iterable[Document],
    encode: Encode,
    directory: Path,
    *,
    vocabulary: int,
    separator: int,
    source: str | None = None,
    report: Callable[[int, int], object] = lambda documents, tokens: None,
) -> Manifest:
    """Write the token file of `documents`: texts encoded and closed by `separator`, lists of ids as they are, empty ones left out.

    Raises DataError for an id that the vocabulary does not have. `report` is told how many documents and tokens are written.
    """
    (directory / MANIFEST).unlink(missing_ok=True)
    hashes, lengths, total, width = array("Q"), array("Q"), 0, _width(vocabulary)
    with (directory / TOKENS).open("wb") as file:
        for batch in _batches(documents):
            for document, ids in zip(batch, _encoded(batch, encode, separator), strict=True):
                file.write(_checked(ids, vocabulary, len(hashes)).astype(width).tobytes())
                hashes.append(content_hash(document))
                lengths.append(len(ids))
                total += len(ids)
            report(len(hashes), total)
        _sync(file)
    index = np.array([hashes, lengths], np.uint64)
    with (directory / INDEX).open("wb") as file:
        np.save(file, index)
        _sync(file)
    content = blake2b(np.sort(index[0]).tobytes(), digest_size=16).hexdigest()
    manifest = Manifest(len(hashes), total, vocabulary, separator, content, source)
    (directory / MANIFEST).write_bytes(orjson.dumps(asdict(manifest)))
    return manifest


def _width(vocabulary: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        if document:
            batch.append(document)
            size += len(document)
        if size >= CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encoded(batch: list[Document], encode: Encode, separator: int) -> Iterator[NDArray[Any]]:
    texts = iter(encode([document for document in batch if isinstance(document, str)]))
    for document in batch:
        yield np.append(np.asarray(next(texts), np.int64), separator) if isinstance(document, str) else np.asarray(document)


def _checked(ids: NDArray[Any], vocabulary: int, ordinal: int) -> NDArray[Any]:
    if ids.min() < 0 or ids.max() >= vocabulary:
        wrong = next(each for each in ids if not 0 <= each < vocabulary)
        raise DataError(f"document {ordinal + 1} has token {wrong}, outside a vocabulary of {vocabulary}", remedy="another tokenizer?")
    return ids


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


# Reading


def find(directory: Path) -> Manifest | None:
    """The manifest of the token file in a folder; None if there is none, or not a whole one."""
    try:
        manifest = Manifest(**orjson.loads((directory / MANIFEST).read_bytes()))
        whole = (directory / TOKENS).stat().st_size == manifest.tokens * _width(manifest.vocabulary).itemsize
        return manifest if whole and (directory / INDEX).exists() else None
    except (FileNotFoundError, orjson.JSONDecodeError, TypeError):
        return None


def document_hashes(directory: Path) -> Hashes:
    """The content hashes of all documents, sorted, each once."""
    return np.unique(np.load(directory / INDEX)[0])


def remove(directory: Path) -> None:
    """Delete the token file, the manifest first."""
    for name in reversed(FILES):
        (directory / name).unlink(missing_ok=True)


class Blocks:
    """The documents of a token file one after the other, in their seeded order, cut into blocks of `context` tokens.

    Documents that fill whole blocks, as packed ones do, come first and so are cut nowhere else. What is left at the end is no
    block. Neither the order of the documents' arrival nor the machine changes a block.
    """

    def __init__(self, directory: Path, manifest: Manifest, context: int, seed: int) -> None:
        self.tokens = np.memmap(directory / TOKENS, _width(manifest.vocabulary), "r") if manifest.tokens else np.empty(0, np.uint16)
        hashes, lengths = np.load(directory / INDEX)
        order = _document_order(hashes, seed)
        order = order[np.argsort(lengths[order] % context != 0, kind="stable")]
        starts = np.cumsum(lengths, dtype=np.int64) - lengths.astype(np.int64)
        self.ends = np.cumsum(lengths[order], dtype=np.int64)
        self.shifts = starts[order] - self.ends + lengths[order].astype(np.int64)  # from a place in the order to its place in the file
        self.context, self.seed = context, seed
        self.count = manifest.tokens // context

    def __getitem__(self, index: int) -> Integers:
        start, end = index * self.context, (index + 1) * self.context
        first, last = np.searchsorted(self.ends, (start, end - 1), "right")
        counts = np.diff(np.minimum(self.ends[first : last + 1], end), prepend=start)
        places: Integers = np.arange(start, end) + np.repeat(self.shifts[first : last + 1], counts)
        return np.asarray(self.tokens[places], np.int64)

    def batch(self, step: int, size: int, rows: slice = slice(None)) -> Integers:
        """Blocks (size, context) of a step, the first being 0, or some of its `rows`: every block once a pass, each pass in an order
        of its own."""
        turns, places = np.divmod(np.arange(step * size, (step + 1) * size)[rows], self.count)
        return np.stack([self[_block_order(self.count, self.seed, int(turn))[place]] for turn, place in zip(turns, places, strict=True)])


def _document_order(hashes: Hashes, seed: int) -> Integers:
    """A permutation that hangs on the hashes alone; documents with one content are told apart by a number and do not stay together."""
    by_content = np.argsort(hashes, kind="stable")
    ordered, numbers = hashes[by_content], np.arange(len(hashes), dtype=np.uint64)
    first = np.ones(len(hashes), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    repeat = numbers - np.maximum.accumulate(np.where(first, numbers, np.uint64(0)))
    return by_content[np.argsort(_mixed(_mixed(ordered, seed) + repeat), kind="stable")]


@lru_cache(maxsize=2)  # a batch may span the end of one pass and the start of the next
def _block_order(count: int, seed: int, turn: int) -> Integers:
    return np.argsort(_mixed(np.arange(count, dtype=np.uint64), seed, turn), kind="stable")


def _mixed(values: Hashes, *salts: int) -> Hashes:
    """64 well-mixed bits for each value (splitmix64's steps, Steele et al. 2014); unlike numpy's generators, the same for ever."""
    for salt in (0, *salts):
        values = values ^ np.uint64(salt % (1 << 64))
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ values >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ values >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        values = values ^ values >> np.uint64(31)
    return values
