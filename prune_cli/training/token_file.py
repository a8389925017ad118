"""The token file: documents become blocks, in an order that depends only on their content and a seed.

    tokens.bin    the tokens of all documents in input order, uint16 or uint32; EOS ends each text
    tokens.npy    for each document the hash of its content and its number of tokens
    hashes.npy    the distinct hashes, sorted
    sums.npy      a checksum for each 16 KiB of tokens.bin
    tokens.json   the manifest, written last: if it is there, the files above are complete
    order-*.npy   orders computed earlier: of documents for a seed, of blocks for an epoch

A run may resume from these files weeks later, so damage must show: tokens.bin is checked piece by piece as it
is read. The others are small, and checked whole; the manifest, or the name of an order, has their checksums.

While the file is written and sorted it takes about 40 bytes of memory per document, and never holds the text
or the tokens. Blocks are assembled through the index when they are needed, so nothing is written a second
time. Files are mapped: to resume takes a second for some ten million documents, whatever their length.
"""

import logging
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray

from ..errors import DataError
from ..records.batching import Bound, batched
from ..storage import arrays, checksums, directories
from .passes.orders import block_order, document_order

Document = str | list[int]
Encode = Callable[[list[str]], Sequence[ArrayLike]]  # token ids for each text
Hashes = NDArray[np.uint64]
Integers = arrays.Integers

CHARACTERS = 1 << 22  # tokenized at a time: enough to keep all threads busy, few enough to hold in memory
FILES = ("tokens.bin", "tokens.npy", "hashes.npy", "sums.npy", "tokens.json")
TOKENS, INDEX, HASHES, SUMS, MANIFEST = FILES
CHECKED_WHOLE = (INDEX, HASHES, SUMS)
ORDERS = "order-*"
AGAIN = "run it again with --resume: its documents are then tokenized again"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Manifest:
    """The contents of a token file.

    `separator` is the id of EOS. `content` is a hash of all documents that does not depend on their order,
    `source` the caller's fingerprint of the input and the tokenizer, if it has one. `checksums` are those of
    the other files, by name; version 0.1.0 wrote none.
    """

    documents: int
    tokens: int
    vocabulary: int
    separator: int
    content: str
    source: str | None = None
    checksums: dict[str, str] = field(default_factory=dict)

    def described(self) -> dict[str, Any]:
        """The contents for train.json, which outlives the files."""
        return {name: value for name, value in asdict(self).items() if name != "checksums"}


def content_hash(document: Document) -> int:
    """A hash of 64 bits of a text or a block of ids, whatever the other fields of its record."""
    if isinstance(document, str):
        data, kind = document.encode(), b"text"
    else:
        # Fixed width and byte order, so that the hash is the same on every machine.
        data, kind = np.asarray(document, "<u4").tobytes(), b"ids"
    return int.from_bytes(blake2b(data, digest_size=8, person=kind).digest(), "little")


def write_copy(documents: Iterable[Document], path: Path) -> Iterator[Document]:
    """Yield the documents and write each to `path`, for inputs that cannot be read twice."""
    with path.open("wb") as file:
        for document in documents:
            file.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))
            yield document


def read_copy(path: Path) -> Iterator[Document]:
    """Yield the documents that `write_copy` wrote."""
    with path.open("rb") as file:
        yield from map(orjson.loads, file)


# --- writing ---


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
    """Write the token file of `documents`: texts encoded, with EOS at the end, and lists of ids as they are.

    Empty documents are left out. `report` gets the numbers of documents and tokens written so far. Raises
    DataError for an id outside the vocabulary.
    """
    remove(directory)
    index, sums = _write_tokens(documents, encode, directory / TOKENS, vocabulary, separator, report)
    nonempty = np.sort(index[0, index[1] > 0])
    arrays.save(index, directory / INDEX)
    arrays.save(_distinct(nonempty), directory / HASHES)
    arrays.save(sums, directory / SUMS)
    # Of the sorted hashes: the same documents in another order are the same content.
    content = blake2b(nonempty.tobytes(), digest_size=16).hexdigest()
    tokens = int(index[1].sum())
    of_files = {name: checksums.of_file(directory / name) for name in CHECKED_WHOLE}
    manifest = Manifest(len(nonempty), tokens, vocabulary, separator, content, source, of_files)
    # Last, and after the others were synced: whoever finds it can rely on them.
    text = orjson.dumps(asdict(manifest))
    (directory / MANIFEST).write_bytes(orjson.dumps({**asdict(manifest), "own": checksums.of_bytes(text)}))
    return manifest


def _write_tokens(
    documents: Iterable[Document],
    encode: Encode,
    path: Path,
    vocabulary: int,
    separator: int,
    report: Callable[[int, int], object],
) -> tuple[Hashes, checksums.Sums]:
    """Write the tokens of all documents.

    Returns their hashes (row 0) and numbers of tokens (row 1), and the checksums of the pieces of the file.
    """
    width = _width(vocabulary)
    # Arrays of the standard library grow in place and take 8 bytes a number; lists would take 40.
    hashes = array("Q")
    lengths = array("Q")
    total = 0
    sums = checksums.PieceSums()
    with path.open("wb") as file:
        for batch in batched(documents, Bound(_size, CHARACTERS)):
            for document, ids in zip(batch, _encoded(batch, encode, separator), strict=True):
                data = _checked(ids, vocabulary, len(hashes)).astype(width).tobytes()
                file.write(data)
                # From memory: read back from the disk, the bytes could be wrong already.
                sums.add(data)
                hashes.append(content_hash(document))
                lengths.append(len(ids))
                total += len(ids)
            report(len(hashes), total)
        directories.sync_file(file)
    return np.array([hashes, lengths], np.uint64), sums.sums()


def _distinct(ordered: Hashes) -> Hashes:
    """Each value of a sorted array once. np.unique would sort again, in twice the memory."""
    is_first = np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)]
    distinct: Hashes = ordered[is_first]
    return distinct


def _width(vocabulary: int) -> np.dtype[Any]:
    return np.dtype("<u2" if vocabulary <= 1 << 16 else "<u4")


def _size(document: Document) -> int:
    return len(document) + 1  # a stream of empty documents must not grow a batch without end


def _encoded(batch: list[Document], encode: Encode, separator: int) -> Iterator[NDArray[Any]]:
    """The ids of each document, all texts of the batch tokenized in one call."""
    texts = iter(encode([document for document in batch if isinstance(document, str) and document]))
    for document in batch:
        if isinstance(document, str) and document:
            yield np.append(np.asarray(next(texts), np.int64), separator)
        else:
            yield np.asarray(document or [])


def _checked(ids: NDArray[Any], vocabulary: int, number: int) -> NDArray[Any]:
    """The ids of document `number`, counted from 0. Raises DataError if one is outside the vocabulary."""
    if len(ids) and (ids.min() < 0 or ids.max() >= vocabulary):
        wrong = next(token for token in ids if not 0 <= token < vocabulary)
        fault = f"document {number + 1} has token {wrong}, outside a vocabulary of {vocabulary}"
        raise DataError(fault, remedy="use the tokenizer that made the ids")
    return ids


# --- reading ---


def find(directory: Path) -> Manifest | None:
    """The manifest of the token file in a directory; None if there is none, or it is incomplete or damaged.

    tokens.bin is only looked at for its size: `Blocks` checks it.
    """
    try:
        manifest = _manifest(directory)
        size = manifest.tokens * _width(manifest.vocabulary).itemsize
        if directories.file_size(directory / TOKENS) != size:
            return None
        for name in CHECKED_WHOLE:
            _check(directory, name, manifest)
    except (FileNotFoundError, orjson.JSONDecodeError, TypeError):
        return None
    except DataError as error:
        log.warning("%s: %s; the documents are tokenized again", error.place, error.fault)
        return None
    return manifest


def _manifest(directory: Path) -> Manifest:
    """The manifest. Raises FileNotFoundError, and for damage DataError, JSONDecodeError or TypeError."""
    path = directory / MANIFEST
    values = orjson.loads(path.read_bytes())
    own = values.pop("own", None)
    # Without a checksum of its own it is of version 0.1.0.
    if own not in (None, checksums.of_bytes(orjson.dumps(values))):
        raise DataError("is damaged", place=str(path), remedy=AGAIN)
    return Manifest(**values)


def _check(directory: Path, name: str, manifest: Manifest) -> None:
    """Raise DataError if a file is not what was written, FileNotFoundError if it is missing."""
    if not manifest.checksums and name != SUMS:
        directories.file_size(directory / name)
    elif manifest.checksums and manifest.checksums[name] != checksums.of_file(directory / name):
        raise damage(directory, name)


def damage(directory: Path, name: str) -> DataError:
    """The error for a damaged file. The manifest goes, so that a later run makes the token file anew."""
    (directory / MANIFEST).unlink(missing_ok=True)
    return DataError("is damaged", place=str(directory / name), remedy=AGAIN)


def document_hashes(directory: Path) -> Hashes:
    """The distinct content hashes of all documents, sorted and mapped. Raises DataError for damage."""
    _check(directory, HASHES, _manifest(directory))
    hashes: Hashes = np.load(directory / HASHES, mmap_mode="r")
    return hashes


def is_known(hashes: Hashes, known: Hashes) -> NDArray[np.bool_]:
    """Which of `hashes` are in `known`, a sorted array, by binary search."""
    if not len(known):
        return np.zeros(len(hashes), bool)
    # searchsorted returns len(known) for a hash above all of them.
    candidates = known[np.minimum(np.searchsorted(known, hashes), len(known) - 1)]
    matches: NDArray[np.bool_] = candidates == hashes
    return matches


def remove(directory: Path) -> None:
    """Delete the token file."""
    # The manifest first: it must not stand for files that are gone.
    for path in [*(directory / name for name in reversed(FILES)), *directory.glob(ORDERS)]:
        path.unlink(missing_ok=True)


class Blocks:
    """The documents of a token file, concatenated in their seeded order and cut into blocks of `context`
    tokens.

    Documents that fill whole blocks, such as packed ones, come first and so are cut nowhere else. The tokens
    left at the end make no block. A block depends neither on the order of the input nor on the machine.
    """

    def __init__(self, directory: Path, manifest: Manifest, context: int, seed: int) -> None:
        self.directory = directory
        self.manifest = manifest
        self.context = context
        self.seed = seed
        self.count = manifest.tokens // context
        self.tokens = self._map_tokens()
        self._pieces = self._map_pieces()
        # For each document in the order: where it ends, and how far its tokens are shifted in the file.
        order = f"order-documents-{context}-{seed}"
        self.ends, self.shifts = arrays.cached(directory, order, self._document_positions)
        self._block_orders: dict[int, Integers] = {}  # by epoch; only the current one

    def _map_tokens(self) -> NDArray[Any]:
        if not self.manifest.tokens:
            return np.empty(0, np.uint16)  # an empty file cannot be mapped
        return np.memmap(self.directory / TOKENS, _width(self.manifest.vocabulary), "r")

    def _map_pieces(self) -> checksums.CheckedPieces | None:
        """What the tokens are checked by; None for a token file of version 0.1.0."""
        if not self.manifest.checksums:
            return None
        return checksums.CheckedPieces(self.tokens, np.load(self.directory / SUMS))

    def _document_positions(self) -> Integers:
        """Row 0: the ends of the documents in the order; row 1: the shifts to their positions in the file."""
        _check(self.directory, INDEX, self.manifest)
        hashes, lengths = np.load(self.directory / INDEX)
        order = document_order(hashes, self.seed)
        # Stable, so that both kinds of document stay in their seeded order.
        order = order[np.argsort(lengths[order] % self.context != 0, kind="stable")]
        starts = np.cumsum(lengths, dtype=np.int64) - lengths.astype(np.int64)
        ends = np.cumsum(lengths[order], dtype=np.int64)
        return np.stack([ends, starts[order] - ends + lengths[order].astype(np.int64)])

    def __getitem__(self, index: int) -> Integers:
        """The tokens of a block. Raises DataError if the file is damaged where they are."""
        positions = self._positions(index)
        if self._pieces and self._pieces.first_damaged(positions * self.tokens.itemsize) is not None:
            raise damage(self.directory, TOKENS)
        return np.asarray(self.tokens[positions], np.int64)

    def _positions(self, index: int) -> Integers:
        """The positions in the file of the tokens of a block."""
        start = index * self.context
        end = start + self.context
        first, last = np.searchsorted(self.ends, (start, end - 1), "right")
        # Tokens of the block in each of the documents first to last.
        counts = np.diff(np.minimum(self.ends[first : last + 1], end), prepend=start)
        positions: Integers = np.arange(start, end) + np.repeat(self.shifts[first : last + 1], counts)
        return positions

    def batch(self, step: int, size: int) -> Integers:
        """The `size` blocks (size, context) of a step, the first step being 0."""
        return self.stack(self.indices(step, size))

    def stack(self, indices: Iterable[int]) -> Integers:
        """The tokens of these blocks, one block a row."""
        return np.stack([self[index] for index in indices])

    def indices(self, step: int, size: int) -> Integers:
        """The indices of the `size` blocks of a step, the first step being 0.

        Each block occurs once per epoch, and each epoch has an order of its own. A batch may span epochs.
        """
        epochs, places = np.divmod(np.arange(step * size, (step + 1) * size), self.count)
        pairs = zip(epochs.tolist(), places.tolist(), strict=True)
        return np.array([self.order(epoch)[place] for epoch, place in pairs])

    def order(self, epoch: int) -> Integers:
        """The order of the blocks in an epoch, the first epoch being 0."""
        if epoch not in self._block_orders:
            # The order of the epoch before is not needed again: training goes on in one direction.
            stem = f"order-blocks-{self.context}-{self.seed}-{epoch}"
            for outdated in self.directory.glob("order-blocks-*.npy"):
                if not outdated.name.startswith(f"{stem}."):
                    outdated.unlink(missing_ok=True)
            order = arrays.cached(self.directory, stem, partial(block_order, self.count, self.seed, epoch))
            self._block_orders = {epoch: order}
        return self._block_orders[epoch]

    def documents(self, indices: Iterable[int]) -> list[int]:
        """The documents in these blocks, by their numbers in the input, from 1."""
        lengths = np.load(self.directory / INDEX, mmap_mode="r")[1]
        positions = np.concatenate([self._positions(index) for index in indices])
        ends = np.cumsum(lengths, dtype=np.int64)
        numbers: list[int] = (np.unique(np.searchsorted(ends, positions, "right")) + 1).tolist()
        return numbers
