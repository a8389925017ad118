"""Which tokens do words have? Byte-pair merges (Sennrich et al. 2016) of thousands of words at once.

A tokenizer takes 4 to 6 microseconds for a word that it meets for the first time, this takes 1.5. In each
round every word merges its pair of the lowest rank, the leftmost if there are several, as tokenizers do.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .hash_index import HashIndex
from .words import Counts, mixed

Characters = NDArray[np.uint8]  # of an encoded text
Specification = dict[str, Any]  # the content of a tokenizer.json

# A pair's key is its rank, then its place: the lowest key of a word is the pair to merge.
PLACE_BITS = 32
NO_RANK = (1 << 30) - 1  # of pairs that never merge
NEVER = NO_RANK << PLACE_BITS


@dataclass(frozen=True)
class _Chains:
    """Tokens of all words, each at the place of its first byte, linked to the next of its word."""

    tokens: Counts
    keys: Counts  # of the pair of a token and the next one; NEVER where a token was merged away
    following: Counts  # the place of the next token; of the last of a word the number of places
    before: Counts  # the place of the token before; of the first of a word -1
    is_token: NDArray[np.bool_]


class Merges:
    """The merges of a byte-level BPE model: `vocabulary` has the id of each token as tokenizers write it."""

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
        self._size = max(vocabulary.values()) + 1
        self._of_byte = np.array([vocabulary[letter] for letter in byte_letters()], np.int64)
        # If a pair is listed twice, the last place counts.
        ranked: dict[tuple[str, str], None] = {}
        for pair in merges:
            ranked.pop(pair, None)
            ranked[pair] = None
        self._merged = np.array([vocabulary[first + second] for first, second in ranked], np.int64)
        pairs = np.array([[vocabulary[half] for half in pair] for pair in ranked], np.int64).reshape(-1, 2)
        self._ranks = HashIndex()
        self._ranks.add(self._hash(pairs[:, 0], pairs[:, 1]))
        every = np.repeat(self._of_byte, 256), np.tile(self._of_byte, 256)
        self._of_bytes = self._rank(*every)

    def tokens(self, characters: Characters, starts: Counts) -> tuple[Counts, Counts]:
        """The ids of the tokens of all words, and where each begins.

        A word begins at each of the `starts`, the first at 0, and ends where the next one begins. The
        number of rounds, and with it the time, is that of the merges of a single word: keep words short.
        """
        chains = self._single_bytes(characters, starts)
        places = np.arange(len(characters))
        while len(starts):
            lowest = np.minimum.reduceat(chains.keys.take(places), starts)
            goes_on = lowest < NEVER
            self._merge(chains, lowest[goes_on])
            # Words that are done are left out once they are the half.
            if 2 * np.count_nonzero(goes_on) <= len(starts):
                lengths = np.diff(starts, append=len(places))
                places = places[np.repeat(goes_on, lengths)]
                starts = np.cumsum(lengths[goes_on]) - lengths[goes_on]
        return chains.tokens[chains.is_token], np.flatnonzero(chains.is_token)

    def _single_bytes(self, characters: Characters, starts: Counts) -> _Chains:
        size = len(characters)
        places = np.arange(size)
        codes = characters.astype(np.int64)
        keys = np.full(size, NEVER)
        keys[:-1] = self._of_bytes[codes[:-1] * 256 + codes[1:]] << PLACE_BITS | places[:-1]
        following, before = places + 1, places - 1
        ends = starts[1:] - 1
        keys[ends] = NEVER
        following[ends] = size
        before[starts] = -1
        return _Chains(self._of_byte[codes], keys, following, before, np.ones(size, bool))

    def _merge(self, chains: _Chains, lowest: Counts) -> None:
        """Merge the pairs with these keys, which are of different words."""
        first = lowest & ((1 << PLACE_BITS) - 1)
        second = chains.following[first]
        third = chains.following[second]
        chains.tokens[first] = self._merged[lowest >> PLACE_BITS]
        chains.is_token[second] = False
        chains.keys[second] = NEVER
        chains.keys[first] = NEVER
        chains.following[first] = third
        has_third = third < len(chains.tokens)
        chains.before[third[has_third]] = first[has_third]
        before = chains.before[first]
        self._update(chains, first[has_third])
        self._update(chains, before[before >= 0])

    def _update(self, chains: _Chains, places: Counts) -> None:
        """Compute the keys of the pairs that begin at these places."""
        ranks = self._rank(chains.tokens[places], chains.tokens[chains.following[places]])
        chains.keys[places] = ranks << PLACE_BITS | places

    def _rank(self, first: Counts, second: Counts) -> Counts:
        # -1, which is no rank, has all bits.
        return self._ranks.numbers(self._hash(first, second)) & NO_RANK

    def _hash(self, first: Counts, second: Counts) -> NDArray[np.uint64]:
        """One to one, and never 0."""
        return mixed((first * self._size + second + 1).astype(np.uint64))


def merges_of(specification: Specification) -> Merges | None:
    """The merges of a tokenizer.json; None if its model does more than merge bytes by rank."""
    model = specification["model"]
    special = ("dropout", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback", "ignore_merges")
    if model.get("type") != "BPE" or any(model.get(name) for name in special):
        return None
    vocabulary = model["vocab"]
    # Either form is written: "a b", or ["a", "b"].
    halves = (pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"])
    merges = [(first, second) for first, second in halves]
    needed = {*byte_letters(), *(half for pair in merges for half in pair), *map("".join, merges)}
    return Merges(vocabulary, merges) if needed <= vocabulary.keys() else None


def byte_letters() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies (Radford et al. 2019)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
