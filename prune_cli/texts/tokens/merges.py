"""Which tokens do words have? Byte-pair merges (Sennrich et al. 2016) of thousands of texts at once.

A tokenizer takes 4 to 6 microseconds for a word that it meets for the first time, this takes one. In each
round every text merges its pair of the lowest rank, the leftmost if there are several, as tokenizers do.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..words import Counts, Hashes
from .characters import Characters, Flags

Specification = dict[str, Any]  # the content of a tokenizer.json
Ids = NDArray[np.int32]
Places = NDArray[np.int8]

# A pair's key is its rank, then its place in the text: the lowest key of a text is the pair to merge.
PLACE_BITS = 7
PLACE = (1 << PLACE_BITS) - 1
LONGEST = PLACE - 2  # bytes of a text: two more rows are needed, see _Chains
NEVER = np.int32((1 << 31) - 1)  # the key of pairs that never merge
RANK_BITS = 31 - PLACE_BITS
TOGETHER = 1 << 12  # texts that are merged at once, so that the arrays stay in the cache


class _Ranks:
    """Ranks of pairs of tokens, by open addressing.

    An entry is the number of a pair, then its rank, so that a search reads one place. An eighth of the places
    is taken: most pairs that are asked for have no rank, and shall not meet another.
    """

    def __init__(self, pairs: Counts) -> None:
        size = 1 << (8 * len(pairs) + 1).bit_length()
        self._shift = np.uint64(65 - size.bit_length())
        self._entries = np.zeros(size, np.uint64)
        numbers = self._numbers(pairs)
        entries = numbers << np.uint64(RANK_BITS) | np.arange(len(pairs)).astype(np.uint64)
        places = self._home(numbers)
        rest = np.arange(len(pairs))
        while len(rest):
            free = rest[self._entries[places[rest]] == 0]
            # Of several pairs that want the same place, the last one gets it.
            self._entries[places[free]] = entries[free]
            rest = rest[self._entries[places[rest]] != entries[rest]]
            places[rest] = (places[rest] + 1) % size

    def keys(self, pairs: Counts) -> Ids:
        """The keys of pairs whose place is 0."""
        numbers = self._numbers(pairs)
        places = self._home(numbers)
        entries = self._entries.take(places)
        is_ranked = entries >> np.uint64(RANK_BITS) == numbers
        rest = np.flatnonzero(~is_ranked & (entries != 0))
        # Those that met another pair look at the next place.
        while len(rest):
            places[rest] = (places[rest] + 1) % len(self._entries)
            entries[rest] = self._entries[places[rest]]
            is_ranked[rest] = entries[rest] >> np.uint64(RANK_BITS) == numbers[rest]
            rest = rest[~is_ranked[rest] & (entries[rest] != 0)]
        ranks = (entries & np.uint64((1 << RANK_BITS) - 1)).astype(np.int32)
        return np.where(is_ranked, ranks << PLACE_BITS, NEVER)

    def _numbers(self, pairs: Counts) -> Hashes:
        return (pairs + 1).astype(np.uint64)  # 0 is free

    def _home(self, numbers: Hashes) -> Counts:
        places: Counts = (numbers * np.uint64(0x9E3779B97F4A7C15) >> self._shift).astype(np.int64)
        return places


@dataclass(frozen=True)
class _Chains:
    """Tokens of runs of characters, each at the place of its first byte, linked to its neighbours.

    Of each array, a column is a run. Two more rows stand for what is behind the last token of a run and
    before the first, where there is no token: nothing merges with it.
    """

    keys: Ids  # of the pair of a token and the next one
    tokens: Ids
    following: Places
    before: Places
    is_token: Flags


class Merges:
    """The merges of a byte-level BPE model: `vocabulary` has the id of each token as tokenizers write it."""

    def __init__(self, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
        self._none = max(vocabulary.values()) + 1  # no token
        self._of_byte = np.array([vocabulary[letter] for letter in byte_letters()], np.int32)
        # If a pair is listed twice, the last place counts.
        ranked: dict[tuple[str, str], None] = {}
        for pair in merges:
            ranked.pop(pair, None)
            ranked[pair] = None
        self._merged = np.array([vocabulary[first + second] for first, second in ranked], np.int32)
        pairs = np.array([[vocabulary[half] for half in pair] for pair in ranked], np.int32).reshape(-1, 2)
        self._ranks = _Ranks(self._pairs(pairs[:, 0], pairs[:, 1]))
        every = self._pairs(np.repeat(self._of_byte, 256), np.tile(self._of_byte, 256))
        self._of_bytes = self._ranks.keys(every)
        # Of each pair of bytes, whether any merge joins them. Where none does, a text falls into runs that
        # know nothing of each other: short ones, of which many are merged at once, and many of a single byte.
        code_of = {letter: code for code, letter in enumerate(byte_letters())}
        self._joins = np.zeros(1 << 16, bool)
        for first, second in ranked:
            if first[-1] in code_of and second[0] in code_of:
                self._joins[code_of[first[-1]] << 8 | code_of[second[0]]] = True

    def tokens(self, characters: Characters, starts: Counts, begins: Flags) -> tuple[Ids, Counts]:
        """The ids of the tokens of all texts, and how many each has.

        A text begins at each of the `starts`, the first at 0, and ends where the next one begins. It has at
        most LONGEST bytes. A word begins wherever a character `begins` one.
        """
        is_token = begins.copy()
        is_token[1:] |= ~self._joins[_pairs_of_bytes(characters)]
        tokens = self._of_byte[characters]
        firsts = np.flatnonzero(is_token)
        lengths = np.diff(firsts, append=len(characters))
        firsts, lengths = firsts[lengths > 1], lengths[lengths > 1]
        # Those of a length together: an array is as high as its longest run.
        order = np.argsort(lengths.astype(np.uint8), kind="stable")
        for at in range(0, len(order), TOGETHER):
            part = order[at : at + TOGETHER]
            places, ids = self._of_runs(characters, firsts[part], lengths[part])
            is_token[places] = True
            tokens[places] = ids
        return tokens[is_token], np.add.reduceat(is_token, starts, dtype=np.int64)

    def _of_runs(self, characters: Characters, starts: Counts, lengths: Counts) -> tuple[Counts, Ids]:
        """The places and ids of the tokens of runs of characters."""
        chains = self._single_bytes(characters, starts, lengths)
        for lowest, columns in _rounds(chains.keys):
            self._merge(chains, lowest, columns)
        rows, columns = np.nonzero(chains.is_token)
        return starts[columns] + rows, chains.tokens[rows, columns]

    def _single_bytes(self, characters: Characters, starts: Counts, lengths: Counts) -> _Chains:
        height, shape = int(lengths.max()), (int(lengths.max()) + 2, len(starts))
        rows = np.arange(height)[:, None]
        codes = characters[np.minimum(starts + rows, len(characters) - 1)]
        is_token = np.zeros(shape, bool)
        is_token[:height] = rows < lengths
        is_last = rows >= lengths - 1  # or behind it
        tokens = np.full(shape, self._none, np.int32)
        tokens[:height] = self._of_byte[codes]
        following = np.full(shape, height, np.int8)
        following[:height] = np.where(is_last, height, rows + 1)
        before = np.full(shape, height + 1, np.int8)
        before[1:height] = rows[:-1]
        keys = np.full(shape, NEVER, np.int32)
        pairs = self._of_bytes[_pairs_of_bytes(codes)]
        is_pair = ~is_last[:-1] & (pairs < NEVER)
        keys[: height - 1] = np.where(is_pair, pairs + rows[:-1].astype(np.int32), NEVER)
        return _Chains(keys, tokens, following, before, is_token)

    def _merge(self, chains: _Chains, lowest: Ids, columns: Counts) -> None:
        """Merge the pairs with these keys, one in each of the columns."""
        width = chains.keys.shape[1]
        keys, tokens = chains.keys.ravel(), chains.tokens.ravel()
        following, before = chains.following.ravel(), chains.before.ravel()

        def at(rows: NDArray[Any]) -> Counts:
            places: Counts = rows.astype(np.int64) * width + columns
            return places

        row = (lowest & PLACE).astype(np.int8)
        first = at(row)
        second = at(following[first])
        row_behind, row_before = following[second], before[first]
        behind, ahead = at(row_behind), at(row_before)
        made = self._merged[lowest >> PLACE_BITS]
        tokens[first] = made
        chains.is_token.ravel()[second] = False
        keys[second] = NEVER
        following[first] = row_behind
        before[behind] = row
        new = self._ranks.keys(
            np.concatenate([self._pairs(made, tokens[behind]), self._pairs(tokens[ahead], made)])
        )
        new += np.concatenate([row, row_before]) * (new < NEVER)
        keys[np.concatenate([first, ahead])] = new

    def _pairs(self, first: Ids, second: Ids) -> Counts:
        pairs: Counts = first.astype(np.int64) * (self._none + 1) + second
        return pairs


def _pairs_of_bytes(characters: Characters) -> NDArray[np.uint16]:
    """Of each character (a row of them) and the next one, a number for both."""
    pairs = characters[:-1].astype(np.uint16)
    pairs <<= 8
    pairs |= characters[1:]
    return pairs


def _rounds(keys: Ids) -> Iterator[tuple[Ids, Counts]]:
    """The lowest key of each column that has one, and the columns, as long as there are any."""
    columns = np.arange(keys.shape[1])
    lowest = keys.min(axis=0)
    while True:
        goes_on = lowest < NEVER
        if not goes_on.any():
            return
        yield lowest[goes_on], columns[goes_on]
        # Columns that are done are left out once they are the half.
        if 2 * np.count_nonzero(goes_on) <= len(columns):
            columns = columns[goes_on]
        lowest = (keys if len(columns) == keys.shape[1] else keys[:, columns]).min(axis=0)


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
    if (max(vocabulary.values()) + 2) ** 2 >= 1 << 64 - RANK_BITS:  # an entry has no room for the pairs
        return None
    needed = {*byte_letters(), *(half for pair in merges for half in pair), *map("".join, merges)}
    return Merges(vocabulary, merges) if needed <= vocabulary.keys() else None


def byte_letters() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies (Radford et al. 2019)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(others)) for byte in range(256)]
