"""Which tokens do texts have? By pieces that occur again and again, each of which is tokenized once.

A tokenizer turns 2 to 5 MB of text into tokens a second. Where its rules prove that a text may be split
behind every word (models/text/splitting.py), pieces are looked up by their hashes instead, ten times as fast;
with any other tokenizer a text is a single piece. Two pieces have the same hash with a probability of 2^-64.
Most of the pieces that are new are made into tokens here, too (merges.py).
"""

import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.text.encoding import token_lengths
from ..models.text.splitting import LETTER_OR_DIGIT, may_split_behind_words
from ..models.text.tokenizer import Ids, encode, specification, vocabulary_size
from .hash_index import HashIndex
from .merges import Characters, Merges, merges_of
from .pretokens import LONGEST, Words, words_of
from .words import Counts, Hashes, hash_spans

# Pieces that are remembered, at 60 to 80 bytes each. Whoever has more begins again: what is frequent is soon
# back, and tokenizing so many takes a few seconds.
MOST_PIECES = 1 << 21
JOINED = 1 << 10  # pieces that are tokenized as one text
CHECKED = 1 << 9  # pieces whose own merges are compared with what the tokenizer does
PART_BYTES = 1 << 18  # of text that is cut and hashed at once, so that the arrays stay in the cache
SPACE = ord(" ")
STOPS = b" \t\r\n.,;:!?"  # those of splitting.END_OF_WORD that are ASCII


@dataclass(frozen=True)
class _Rules:
    """What a tokenizer.json says of the pieces of texts."""

    lengths: Counts | None  # bytes that each token stands for
    is_split: bool  # whether texts may be split behind words
    words: Words | None
    merges: Merges | None


@lru_cache(maxsize=2)  # reading the specification of a large vocabulary takes half a second
def _rules_of(tokenizer: Any) -> _Rules:
    if not hasattr(tokenizer, "backend_tokenizer"):
        return _Rules(None, False, None, None)
    content = specification(tokenizer)
    lengths = token_lengths(tokenizer, vocabulary_size(tokenizer))
    is_split = lengths is not None and may_split_behind_words(content)
    words = words_of(content) if is_split else None
    return _Rules(lengths, is_split, words, merges_of(content) if words else None)


class Pieces:
    """Numbers the pieces of texts from 0, and remembers the tokens of each."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._rules = _rules_of(tokenizer)
        self._is_merging = self._rules.merges is not None
        self._is_checked = False
        self._index = HashIndex()
        # The tokens of the pieces, one after the other, and how many each has: parts in the order of the
        # numbers of the pieces.
        self.tokens: list[tuple[Ids, Counts]] = []

    def __len__(self) -> int:
        return len(self._index)

    def numbers(self, texts: Sequence[str]) -> tuple[Counts, Counts]:
        """The numbers of the pieces of each text, one text after the other, and how many each has."""
        encoded = [text.encode() for text in texts]
        data = b"".join(encoded)
        bounds = np.cumsum([0, *map(len, encoded)])
        starts, ends, hashes = self._cut(data, bounds)
        numbers = self._index.numbers(hashes)
        unknown = np.flatnonzero(numbers < 0)
        if len(unknown):
            first = unknown[np.unique(hashes[unknown], return_index=True)[1]]
            self._learn(data, starts[first], ends[first], hashes[first])
            numbers[unknown] = self._index.numbers(hashes[unknown])
        return numbers, np.diff(np.searchsorted(starts, bounds))

    def _cut(self, data: bytes, bounds: Counts) -> tuple[Counts, Counts, Hashes]:
        """Where pieces begin and end, and their hashes."""
        parts = []
        for low, high in _parts(bounds):
            part = data[bounds[low] : bounds[high]]
            edges = _edges(part, bounds[low : high + 1] - bounds[low], self._rules.is_split)
            hashes = hash_spans(part, edges[:-1], edges[1:])
            parts.append((edges[:-1] + bounds[low], edges[1:] + bounds[low], hashes))
        starts, ends, every = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return starts, ends, every

    # --- New pieces ---

    def _learn(self, data: bytes, starts: Counts, ends: Counts, hashes: Hashes) -> None:
        """Remember the tokens of pieces that are new, and all different."""
        characters = np.frombuffer(data, np.uint8)
        is_merged = self._fit(characters, starts, ends)
        is_word = self._rules.is_split & _is_stop()[characters[starts]]
        is_word &= _ends_word(characters, ends - 1) & ~is_merged
        encoders = (
            (is_merged, self._merged),
            (is_word, self._of_words),
            (~is_merged & ~is_word, self._one_by_one),
        )
        for chosen, encoder in encoders:
            self._index.add(hashes[chosen])
            spans = zip(starts[chosen].tolist(), ends[chosen].tolist(), strict=True)
            self.tokens += encoder([data[start:end] for start, end in spans])

    def _fit(self, characters: Characters, starts: Counts, ends: Counts) -> NDArray[np.bool_]:
        """Which pieces can do without the tokenizer."""
        is_short = (ends - starts <= LONGEST) & (ends > starts)
        if not self._is_merging or self._rules.words is None or not is_short.any():
            return np.zeros(len(starts), bool)
        lengths = ends[is_short] - starts[is_short]
        offsets = np.cumsum(lengths) - lengths
        places = np.arange(int(lengths.sum())) + np.repeat(starts[is_short] - offsets, lengths)
        is_short[is_short] = self._rules.words.fits(characters[places], offsets)
        return is_short

    def _merged(self, pieces: list[bytes]) -> list[tuple[Ids, Counts]]:
        """The tokens of pieces by the tokenizer's own merges, in a quarter of the time that it takes."""
        if not pieces:
            return []
        assert self._rules.words is not None
        assert self._rules.merges is not None
        characters = np.frombuffer(b"".join(pieces), np.uint8)
        lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
        starts = np.cumsum(lengths) - lengths
        words = np.flatnonzero(self._rules.words.begins(characters, starts))
        ids, places = self._rules.merges.tokens(characters, words)
        sizes = np.diff(np.searchsorted(places, starts), append=len(ids))
        return self._checked(pieces, ids.astype(np.int32), sizes)

    def _checked(self, pieces: list[bytes], ids: Ids, sizes: Counts) -> list[tuple[Ids, Counts]]:
        """The tokens, once the first of them are those of the tokenizer; else the tokenizer's."""
        if not self._is_checked:
            count = min(len(pieces), CHECKED)
            [(expected, _)] = self._one_by_one(pieces[:count])
            self._is_checked = True
            self._is_merging = np.array_equal(expected, ids[: int(sizes[:count].sum())])
        return [(ids, sizes)] if self._is_merging else self._one_by_one(pieces)

    def _one_by_one(self, pieces: list[bytes]) -> list[tuple[Ids, Counts]]:
        if not pieces:
            return []
        ids = encode(self._tokenizer, [piece.decode() for piece in pieces])
        return [(np.concatenate(ids), np.fromiter(map(len, ids), np.int64, len(ids)))]

    def _of_words(self, pieces: list[bytes]) -> list[tuple[Ids, Counts]]:
        """The tokens of pieces that begin with a stop and end a word: one after the other they are a text
        that may be split between them. A text of its own would take a piece ten times as long.
        """
        groups = [pieces[at : at + JOINED] for at in range(0, len(pieces), JOINED)]
        encoded = encode(self._tokenizer, [b"".join(group).decode() for group in groups])
        return [
            part for ids, group in zip(encoded, groups, strict=True) for part in self._divided(ids, group)
        ]

    def _divided(self, ids: Ids, pieces: list[bytes]) -> list[tuple[Ids, Counts]]:
        """The tokens of pieces that were joined; the bytes that tokens stand for tell where a piece ends."""
        assert self._rules.lengths is not None
        ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
        token_ends = np.cumsum(self._rules.lengths[ids])
        places = np.searchsorted(token_ends, ends)
        # Normalization may change the number of bytes.
        if not np.array_equal(token_ends[np.minimum(places, len(ids) - 1)], ends):
            return self._one_by_one(pieces)
        return [(ids, np.diff(places + 1, prepend=0))]


def _parts(bounds: Counts) -> Iterator[tuple[int, int]]:
    """Texts of about PART_BYTES together: the first, and the one behind the last."""
    low = 0
    while low < len(bounds) - 1:
        high = int(np.searchsorted(bounds, bounds[low] + PART_BYTES, side="right")) - 1
        yield low, max(high, low + 1)
        low = max(high, low + 1)


def _edges(data: bytes, bounds: Counts, is_split: bool) -> Counts:
    """Where pieces begin, and the end of the last."""
    is_edge = np.zeros(len(data) + 1, bool)
    if is_split and len(data) > 2:
        characters = np.frombuffer(data, np.uint8)
        is_stop = _is_stop()[characters]
        before_stop = np.flatnonzero(is_stop[1:])
        is_edge[before_stop[_ends_word(characters, before_stop)] + 1] = True
        # ", and" is two pieces, too: punctuation never reaches over a space, and a space before a letter
        # belongs to the word.
        behind_stop = is_stop[:-2] & (characters[:-2] > SPACE)
        behind_stop &= (characters[1:-1] == SPACE) & _is_ascii_letter()[characters[2:]]
        # Not with the letter of the next text: sums by pieces would depend on it in their last digit.
        behind_stop[bounds[(bounds >= 2) & (bounds < len(data))] - 2] = False
        is_edge[1:-2] |= behind_stop
    is_edge[bounds] = True
    return np.flatnonzero(is_edge)


def _ends_word(characters: NDArray[np.uint8], places: Counts) -> NDArray[np.bool_]:
    """Whether the character whose last byte is at a place is a letter or digit that ends a word."""
    last = characters[places]
    codes = last.astype(np.int64)
    outside = np.flatnonzero(last >= 0x80)
    # UTF-8: the last byte has six bits of the code point, so has the one before it unless it is the first.
    at = places[outside]
    before, first = characters[at - 1].astype(np.int64), characters[at - 2].astype(np.int64)
    is_two = before >= 0xC0
    two = (before & 0x1F) << 6
    three = (first & 0x0F) << 12 | (before & 0x3F) << 6
    # No character of four bytes is among the letters; 0 is none either.
    three[(first < 0xE0) | (first >= 0xF0)] = 0
    codes[outside] = np.where(is_two, two, three) | (last[outside] & 0x3F)
    return _is_letter()[codes]


@cache
def _is_stop() -> NDArray[np.bool_]:
    """Of every byte, whether it is a stop or white space before which a text may be split."""
    table = np.zeros(256, bool)
    table[[*STOPS]] = True
    return table


@cache
def _is_ascii_letter() -> NDArray[np.bool_]:
    table = np.zeros(256, bool)
    table[[*string.ascii_letters.encode()]] = True
    return table


@cache
def _is_letter() -> NDArray[np.bool_]:
    """Of every code point below 2^16, whether it is a letter or digit behind which a text may be split."""
    return np.array([bool(LETTER_OR_DIGIT.fullmatch(chr(code))) for code in range(1 << 16)])
