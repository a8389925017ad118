"""Which tokens do texts have? By pieces that occur again and again, each of which is tokenized once.

A tokenizer turns 2 to 5 MB of text into tokens a second. Where its rules prove that a text may be split
behind every word (models/text/splitting.py), pieces are looked up by their hashes instead, ten times as fast;
with any other tokenizer a text is a single piece. Two pieces have the same hash with a probability of 2^-64.
"""

import string
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..models.text.encoding import token_lengths
from ..models.text.splitting import LETTER_OR_DIGIT, may_split_behind_words
from ..models.text.tokenizer import Ids, encode, specification, vocabulary_size
from .hash_index import HashIndex
from .words import Counts, hash_spans

# Pieces that are remembered, at 60 to 80 bytes each. Whoever has more begins again: what is frequent is soon
# back, and tokenizing so many takes a few seconds.
MOST_PIECES = 1 << 21
JOINED = 1 << 10  # pieces that are tokenized as one text
SPACE = ord(" ")
STOPS = b" \t\r\n.,;:!?"  # those of splitting.END_OF_WORD that are ASCII


class Pieces:
    """Numbers the pieces of texts from 0, and remembers the tokens of each."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        is_fast = hasattr(tokenizer, "backend_tokenizer")
        self._lengths = token_lengths(tokenizer, vocabulary_size(tokenizer)) if is_fast else None
        self._is_split = self._lengths is not None and may_split_behind_words(specification(tokenizer))
        self._index = HashIndex()
        # The tokens of the pieces, one after the other, and how many each has: a part for each call of
        # `numbers` that met new ones, in the order of their numbers.
        self.tokens: list[tuple[Ids, Counts]] = []

    def __len__(self) -> int:
        return len(self._index)

    def numbers(self, texts: Sequence[str]) -> tuple[Counts, Counts]:
        """The numbers of the pieces of each text, one text after the other, and how many each has."""
        encoded = [text.encode() for text in texts]
        data = b"".join(encoded)
        bounds = np.cumsum([0, *map(len, encoded)])
        edges = _edges(data, bounds, self._is_split)
        starts, ends = edges[:-1], edges[1:]
        hashes = hash_spans(data, starts, ends)
        numbers = self._index.numbers(hashes)
        unknown = np.flatnonzero(numbers < 0)
        if len(unknown):
            first = unknown[np.unique(hashes[unknown], return_index=True)[1]]
            characters = np.frombuffer(data, np.uint8)
            is_word = self._is_split & _is_stop()[characters[starts[first]]]
            is_word &= _ends_word(characters, ends[first] - 1)
            for new, encoder in ((first[is_word], self._of_words), (first[~is_word], self._one_by_one)):
                self._index.add(hashes[new])
                spans = zip(starts[new].tolist(), ends[new].tolist(), strict=True)
                self.tokens += encoder([data[start:end] for start, end in spans])
            numbers[unknown] = self._index.numbers(hashes[unknown])
        return numbers, np.diff(np.searchsorted(starts, bounds))

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
        assert self._lengths is not None
        ends = np.cumsum(np.fromiter(map(len, pieces), np.int64, len(pieces)))
        token_ends = np.cumsum(self._lengths[ids])
        places = np.searchsorted(token_ends, ends)
        # Normalization may change the number of bytes.
        if not np.array_equal(token_ends[np.minimum(places, len(ids) - 1)], ends):
            return self._one_by_one(pieces)
        return [(ids, np.diff(places + 1, prepend=0))]


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
        is_edge[1:-2] |= behind_stop & (characters[1:-1] == SPACE) & _is_ascii_letter()[characters[2:]]
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
