"""Which sequences of words does a text have? As 64-bit hashes, for many texts at once.

A word is what Brown et al. 2020 (appendix C) compare: lower case, between white space, without punctuation.
Punctuation is Unicode's category P and string.punctuation; white space is what str.split() takes for it. A
word of nothing but punctuation is none.

No step takes a Python operation for each word: split() and a set of tuples would take ten times as long.
"""

import string
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from ..records.batching import Bound, batched

Hashes = NDArray[np.uint64]
Counts = NDArray[np.int64]

BATCH_BYTES = 1 << 17  # hashed at once, so that the arrays of a batch stay in the cache
LONG = 128  # bytes; a span of more is hashed by itself

# What becomes of the bytes of an ASCII text: lower case, and a space for white space.
ASCII_SPACES = bytes(code for code in range(128) if chr(code).isspace())
OF_ASCII = bytes(range(256)).lower().translate(bytes.maketrans(ASCII_SPACES, b" " * len(ASCII_SPACES)))
ASCII_PUNCTUATION = string.punctuation.encode()
REMOVED = sys.maxunicode + 1  # no character

FIRST = np.array([(1 << 8 * count) - 1 for count in range(9)], np.uint64)  # masks: that many bytes of eight
LENGTH_FACTOR = np.uint64(0x9E3779B97F4A7C15)
# The base of the polynomial of a sequence: odd, so that it has an inverse modulo 2^64.
BASE = 0xD1342543DE82EF95


def ngrams(texts: Sequence[str], n: int) -> tuple[Hashes, Counts]:
    """The hashes of every `n` consecutive words of each text, one text after the other, and how many each
    has.

    Two different sequences have the same hash with a probability of 2^-64.
    """
    words, counts = hashed_words(texts)
    sizes = np.maximum(counts - (n - 1), 0)
    if not sizes.any():
        return np.zeros(0, np.uint64), sizes
    # Sequences that begin in one text and end in the next are none.
    text_of = np.repeat(np.arange(len(counts)), counts)
    return _hash_sequences(words, n)[text_of[: len(words) - n + 1] == text_of[n - 1 :]], sizes


def hashed_words(texts: Sequence[str]) -> tuple[Hashes, Counts]:
    """The hashes of the words of each text, one text after the other, and how many each text has."""
    normalized = (_normalized(text) for text in texts)
    batches = [_hash_batch(batch) for batch in batched(normalized, Bound(_size, BATCH_BYTES))]
    empty = (np.zeros(0, np.uint64), np.zeros(0, np.int64))
    words, counts = zip(empty, *batches, strict=True)
    return np.concatenate(words), np.concatenate(counts)


def _size(text: bytes) -> int:
    return len(text) + 1  # texts without a word must not make an endless batch


def _normalized(text: str) -> bytes:
    """The text in lower case, without punctuation, with spaces as its only white space, in UTF-8."""
    if text.isascii():
        return text.encode().translate(OF_ASCII, ASCII_PUNCTUATION)
    characters = _of_unicode()[np.frombuffer(text.lower().encode("utf-32-le"), np.uint32)]
    kept: bytes = characters[characters != REMOVED].tobytes()
    return kept.decode("utf-32-le").encode()


@cache
def _of_unicode() -> NDArray[np.uint32]:
    """What becomes of every code point that is in lower case already; 0.3 s, once a process."""
    table = np.arange(sys.maxunicode + 1, dtype=np.uint32)
    for code in range(len(table)):
        character = chr(code)
        if character.isspace():
            table[code] = ord(" ")
        elif unicodedata.category(character)[0] == "P":
            table[code] = REMOVED
    table[[*ASCII_PUNCTUATION]] = REMOVED
    return table


def _hash_batch(texts: Sequence[bytes]) -> tuple[Hashes, Counts]:
    """The hashes of the words of each text, one after the other, and how many each has."""
    # A space before each text and behind the last: words begin and end inside.
    data = b" " + b" ".join(texts) + b" "
    is_space = np.frombuffer(data, np.uint8) == ord(" ")
    edges = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    bounds = np.cumsum([0, *(len(text) + 1 for text in texts)])
    return hash_spans(data, starts, ends), np.diff(np.searchsorted(starts, bounds))


def hash_spans(data: bytes, starts: Counts, ends: Counts) -> Hashes:
    """A hash of the bytes from each start to its end: eight at a time, of all spans at once."""
    # The eight bytes from every position on, as a number; behind the last there is nothing to read. To copy
    # them first takes less time than to fetch those that are wanted from between the others.
    eights = np.ascontiguousarray(np.ndarray(len(data), "<u8", data + bytes(7), strides=(1,)))

    def read(places: Counts, left: Counts) -> Hashes:
        return eights.take(places) & FIRST.take(left, mode="clip")

    lengths = ends - starts
    hashes = mixed(read(starts, lengths) ^ lengths.astype(np.uint64) * LENGTH_FACTOR)
    longer = np.flatnonzero((lengths > 8) & (lengths <= LONG))
    done = 8
    while len(longer):
        hashes[longer] = mixed(hashes[longer] ^ read(starts[longer] + done, lengths[longer] - done))
        done += 8
        longer = longer[lengths[longer] > done]
    for index in np.flatnonzero(lengths > LONG).tolist():
        digest = blake2b(data[starts[index] : ends[index]], digest_size=8).digest()
        hashes[index] = int.from_bytes(digest, "little")
    return hashes


def _hash_sequences(words: Hashes, n: int) -> Hashes:
    """The hash of every `n` consecutive words: Σ w_i b^i modulo 2^64, mixed."""
    # Prefix sums make every sum a difference of two; an inverse power moves it to the front.
    powers = _powers(BASE, len(words))
    inverses = _powers(pow(BASE, -1, 1 << 64), len(words) - n + 1)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(words * powers)])
    return mixed((sums[n:] - sums[:-n]) * inverses)


def _powers(base: int, count: int) -> Hashes:
    steps = np.full(count, base, np.uint64)
    steps[0] = 1
    return np.cumprod(steps)


def mixed(numbers: Hashes) -> Hashes:
    """Spread every bit over all bits, one to one: the finalizer of SplitMix64 (Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
