"""The token file: documents become blocks, in an order that follows from their content and a seed and from nothing else.

    tokens.bin    the tokens of all documents as they came, uint16 or uint32, each text closed by the separator
    tokens.npy    for every document, the hash of its content and its number of tokens
    hashes.npy    the hashes once more: sorted, each once
    tokens.json   the manifest, written last: where it is, the others are whole
    order-*.npy   orders that were worked out, of documents for a seed and of blocks for a pass: where there is one, it is whole

Memory holds some 40 bytes a document while the file is written or put in order, and never the text or the tokens. Blocks are put
together from the file when they are needed, through the index, so that nothing is written twice. What is there is mapped, not
read: to go on takes no longer with more documents.
"""

import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from ..storage import directories

Document = str | list[int]
Encode = Callable[[list[str]], Sequence[ArrayLike]]  # ids, a list or an array a text
Hashes = NDArray[np.uint64]
Integers = NDArray[np.int64]

CHARACTERS = 1 << 22  # encoded at a time: enough for every thread, little enough to hold
TOKENS, INDEX, HASHES, MANIFEST = FILES = ("tokens.bin", "tokens.npy", "hashes.npy", "tokens.json")
ORDERS = "order-*"


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
    """Write the token file of `documents`: texts encoded and closed by `separator`, lists of ids as they are, empty ones as nothing.

    Raises DataError for an id that the vocabulary does not have. `report` is told how many documents and tokens are written.
    """
    remove(directory)
    hashes, lengths, total, width = array("Q"), array("Q"), 0, _width(vocabulary)
    with (directory / TOKENS).open("wb") as file:
        for batch in _batches(documents):
            for document, ids in zip(batch, _encoded(batch, encode, separator), strict=True):
                file.write(_checked(ids, vocabulary, len(hashes)).astype(width).tobytes())
                hashes.append(content_hash(document))
                lengths.append(len(ids))
                total += len(ids)
            report(len(hashes), total)
        directories.sync_file(file)
    index = np.array([hashes, lengths], np.uint64)
    there = np.sort(index[0, index[1] > 0])
    _save(index, directory / INDEX)
    _save(_distinct(there), directory / HASHES)
    content = blake2b(there.tobytes(), digest_size=16).hexdigest()
    manifest = Manifest(len(there), total, vocabulary, separator, content, source)
    (directory / MANIFEST).write_bytes(orjson.dumps(asdict(manifest)))
    return manifest


def _distinct(ordered: Hashes) -> Hashes:
    distinct: Hashes = ordered[np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]]
    return distinct


def _save(values: NDArray[Any], path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, values)
        directories.sync_file(file)


def _width(vocabulary: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for document in documents:
        batch.append(document)
        size += len(document) + 1
        if size >= CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _encoded(batch: list[Document], encode: Encode, separator: int) -> Iterator[NDArray[Any]]:
    texts = iter(encode([document for document in batch if isinstance(document, str) and document]))
    for document in batch:
        if isinstance(document, str) and document:
            yield np.append(np.asarray(next(texts), np.int64), separator)
        else:
            yield np.asarray(document or [])


def _checked(ids: NDArray[Any], vocabulary: int, ordinal: int) -> NDArray[Any]:
    if len(ids) and (ids.min() < 0 or ids.max() >= vocabulary):
        wrong = next(each for each in ids if not 0 <= each < vocabulary)
        raise DataError(
            f"document {ordinal + 1} has token {wrong}, outside a vocabulary of {vocabulary}",
            remedy="another tokenizer?",
        )
    return ids


# Reading


def find(directory: Path) -> Manifest | None:
    """The manifest of the token file in a folder; None if there is none, or not a whole one."""
    try:
        manifest = Manifest(**orjson.loads((directory / MANIFEST).read_bytes()))
        whole = (
            directories.file_size(directory / TOKENS)
            == manifest.tokens * _width(manifest.vocabulary).itemsize
        )
        return manifest if whole and all((directory / name).exists() for name in FILES) else None
    except (FileNotFoundError, orjson.JSONDecodeError, TypeError):
        return None


def document_hashes(directory: Path) -> Hashes:
    """The content hashes of all documents, sorted, each once; mapped."""
    hashes: Hashes = np.load(directory / HASHES, mmap_mode="r")
    return hashes


def is_known(hashes: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Which of some documents are among others, by their hashes; those of the others are sorted."""
    if not len(known):
        return np.zeros(len(hashes), bool)
    found: NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)] == hashes
    return found


def remove(directory: Path) -> None:
    """Delete the token file, the manifest first."""
    for path in [*(directory / name for name in reversed(FILES)), *directory.glob(ORDERS)]:
        path.unlink(missing_ok=True)


class Blocks:
    """The documents of a token file one after the other, in their seeded order, cut into blocks of `context` tokens.

    Documents that fill whole blocks, as packed ones do, come first and so are cut nowhere else. What is left at the end is no
    block. Neither the order of the documents' arrival nor the machine changes a block.
    """

    def __init__(self, directory: Path, manifest: Manifest, context: int, seed: int) -> None:
        self.tokens = (
            np.memmap(directory / TOKENS, _width(manifest.vocabulary), "r")
            if manifest.tokens
            else np.empty(0, np.uint16)
        )
        self.directory, self.manifest, self.context, self.seed = directory, manifest, context, seed
        self.count = manifest.tokens // context
        # Where each document ends in the order, and from a place in the order to its place in the file.
        self.ends, self.shifts = _kept(
            directory / f"order-documents-{context}-{seed}.npy", self._document_places
        )
        self._turns: dict[int, Integers] = {}

    def _document_places(self) -> Integers:
        hashes, lengths = np.load(self.directory / INDEX)
        order = _document_order(hashes, self.seed)
        order = order[np.argsort(lengths[order] % self.context != 0, kind="stable")]
        starts = np.cumsum(lengths, dtype=np.int64) - lengths.astype(np.int64)
        ends = np.cumsum(lengths[order], dtype=np.int64)
        return np.stack([ends, starts[order] - ends + lengths[order].astype(np.int64)])

    def __getitem__(self, index: int) -> Integers:
        return np.asarray(self.tokens[self._places(index)], np.int64)

    def _places(self, index: int) -> Integers:
        """Where the tokens of a block stand in the file."""
        start, end = index * self.context, (index + 1) * self.context
        first, last = np.searchsorted(self.ends, (start, end - 1), "right")
        counts = np.diff(np.minimum(self.ends[first : last + 1], end), prepend=start)
        places: Integers = np.arange(start, end) + np.repeat(self.shifts[first : last + 1], counts)
        return places

    def batch(self, step: int, size: int, rows: slice = slice(None)) -> Integers:
        """Blocks (size, context) of a step, the first being 0, or some of its `rows`: every block once a pass, each pass in an order
        of its own."""
        return np.stack([self[index] for index in self._batch(step, size, rows)])

    def _batch(self, step: int, size: int, rows: slice = slice(None)) -> Iterator[int]:
        turns, places = np.divmod(np.arange(step * size, (step + 1) * size)[rows], self.count)
        for turn, place in zip(turns.tolist(), places.tolist(), strict=True):
            yield int(self._block_order(turn)[place])

    def _block_order(self, turn: int) -> Integers:
        """Of one pass; that of the pass before goes."""
        if turn not in self._turns:
            path = self.directory / f"order-blocks-{self.context}-{self.seed}-{turn}.npy"
            self._turns = {turn: _kept(path, partial(_block_order, self.count, self.seed, turn))}
            for other in set(self.directory.glob("order-blocks-*.npy")) - {path}:
                other.unlink(missing_ok=True)
        return self._turns[turn]

    def documents(self, step: int, size: int) -> list[int]:
        """Which documents the batch of a step is made of: their numbers in the stream, from 1."""
        lengths = np.load(self.directory / INDEX, mmap_mode="r")[1]
        places = np.concatenate([self._places(index) for index in self._batch(step, size)])
        found: list[int] = (
            np.unique(np.searchsorted(np.cumsum(lengths, dtype=np.int64), places, "right")) + 1
        ).tolist()
        return found


def _kept(path: Path, make: Callable[[], Integers]) -> Integers:
    """What `make` gives, mapped from the file it is kept in from the first time on."""
    try:
        return np.asarray(np.load(path, mmap_mode="r"))
    except FileNotFoundError:  # or another process of the run is past it
        _save(found := make(), beside := path.with_suffix(f".{os.getpid()}"))
        beside.replace(path)
        return found


def _document_order(hashes: Hashes, seed: int) -> Integers:
    """A permutation that hangs on the hashes alone; documents with one content are told apart by a number and do not stay together."""
    by_content = np.argsort(hashes, kind="stable")
    ordered, numbers = hashes[by_content], np.arange(len(hashes), dtype=np.uint64)
    first = np.ones(len(hashes), bool)
    first[1:] = ordered[1:] != ordered[:-1]
    repeat = numbers - np.maximum.accumulate(np.where(first, numbers, np.uint64(0)))
    return by_content[np.argsort(_mixed(_mixed(ordered, seed) + repeat), kind="stable")]


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
