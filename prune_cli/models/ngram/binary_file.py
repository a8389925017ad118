"""Where are the tables in a binary file of KenLM? Of its default kind: hash tables with linear probing.

The file is a header, a hash table of the words, log-probabilities and backoffs of the words, a hash table for
each order from 2, and the words themselves (binary_format.cc, vocab.hh and search_hashed.hh in KenLM's lm/).
"""

from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from .hash_table import Bytes, TableOf32Bits, TableOf64Bits

# The numbers behind the text show whether the machine that wrote the file keeps numbers as this one does.
MAGIC = b"mmap lm http://kheafield.com/code format version 5\n\0".ljust(56, b"\0") + bytes.fromhex(
    "00000000 0000803f 000000bf 01000000 ffffffff 00000000 01000000 00000000"
)
# What follows: the highest order, the places of a table for each of its entries, the kind of the tables,
# whether the words are at the end, and the tables' version. Then comes the number of n-grams of each order.
FIXED = np.dtype(
    {
        "names": ["order", "multiplier", "kind", "has_words", "version"],
        "formats": ["u1", "<f4", "<u4", "u1", "<u4"],
        "offsets": [0, 4, 8, 12, 16],
        "itemsize": 20,
    }
)
PROBING = 0  # the kind
LARGEST_MULTIPLIER = 1000  # nobody wants so many; a damaged file may have any number
VOCABULARY_HEAD, UNIGRAM = 8, 8  # bytes
UNKNOWN = b"<unk>\0"  # the first word
SAMPLE = 1 << 12  # bytes of words


@dataclass(frozen=True)
class BinaryFile:
    """The tables. They are mapped into memory, which all processes share."""

    words: TableOf32Bits  # from hashes to numbers
    unigrams: NDArray[np.uint64]  # by number: log10 p and the backoff, as two float32
    ngrams: list[TableOf64Bits]  # of order 2, 3 and so on: both of them
    longest: TableOf32Bits  # of the highest order: log10 p
    sample: bytes  # the first words

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """The tables of a file. None if it is not such a file, or not all of it: KenLM says why."""
        head = len(MAGIC) + FIXED.itemsize
        with path.open("rb") as file:
            start = file.read(head)
        if len(start) < head or not start.startswith(MAGIC):
            return None
        # As a plain array: what is taken from a `memmap` would be one too, and each costs a call in Python.
        data = np.asarray(np.memmap(path, np.uint8, "r"))
        [fixed] = np.frombuffer(start, FIXED, 1, len(MAGIC))
        order = int(fixed["order"])
        if fixed["kind"] != PROBING or fixed["version"] or not fixed["has_words"] or order < 2:
            return None
        counts = np.frombuffer(data[head : head + 8 * order].tobytes(), "<u8").tolist()
        return cls._of_counts(data, counts, fixed["multiplier"])

    @classmethod
    def _of_counts(cls, data: Bytes, counts: list[int], multiplier: np.float32) -> Self | None:
        if not 1 <= multiplier <= LARGEST_MULTIPLIER:
            return None
        # The product is one in float32, as KenLM computes it.
        places = [max(count + 1, int(multiplier * np.float32(count))) for count in counts]
        head = len(MAGIC) + FIXED.itemsize + 8 * len(counts)
        sizes = [
            head + -head % 8 + VOCABULARY_HEAD,
            places[0] * TableOf32Bits.entry_bytes,
            (counts[0] + 1) * UNIGRAM,
            *(count * TableOf64Bits.entry_bytes for count in places[1:-1]),
            places[-1] * TableOf32Bits.entry_bytes,
        ]
        ends = list(accumulate(sizes))
        # Where the tables end the words begin, or the tables are not what they should be.
        sample = data[ends[-1] :][:SAMPLE].tobytes() if ends[-1] < len(data) else b""
        if not sample.startswith(UNKNOWN):
            return None
        _, words, unigrams, *ngrams, longest, _ = np.split(data, ends)
        return cls(
            TableOf32Bits(words),
            np.frombuffer(unigrams.tobytes(), "<u8"),
            [TableOf64Bits(table) for table in ngrams],
            TableOf32Bits(longest),
            sample,
        )
