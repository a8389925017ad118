"""Which tokens do texts have? By pieces that occur again and again, each of which is tokenized once.

A tokenizer turns 2 to 5 MB of text into tokens a second. Where its rules prove that a text may be cut behind
its words (tokens/cuts.py), pieces are looked up by their hashes instead, ten times as fast; with any other
tokenizer a text is a single piece. Two pieces have the same hash with a probability of 2^-64. Most of the
pieces that are new are made into tokens here, too (tokens/merges.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from ..models.text.tokenizer import Ids, encode, specification, token_lengths, vocabulary_size
from .hash_index import HashIndex
from .tokens.characters import DIGIT, Characters, Flags, kinds_of
from .tokens.cuts import Cuts, cuts_of
from .tokens.merges import LONGEST, Merges, merges_of
from .tokens.pretokens import Words, words_of
from .words import Counts, Hashes, hash_spans

# Pieces that are remembered, at 60 to 80 bytes each. Whoever has more begins again: what is frequent is soon
# back, and tokenizing so many takes a few seconds.
MOST_PIECES = 2_000_000
JOINED = 1 << 10  # pieces that are tokenized as one text
SEPARATOR = b"1"  # between them
CHECKED = 1 << 9  # pieces whose own merges are compared with what the tokenizer does
PART_BYTES = 1 << 18  # of text that is looked up at once, so that the arrays stay in the cache


@dataclass(frozen=True)
class _Rules:
    """What a tokenizer.json says of the pieces of texts."""

    lengths: Counts | None  # bytes that each token stands for
    cuts: Cuts | None
    words: Words | None
    merges: Merges | None


@lru_cache(maxsize=2)  # reading the specification of a large vocabulary takes half a second
def _rules_of(tokenizer: Any) -> _Rules:
    if not hasattr(tokenizer, "backend_tokenizer"):
        return _Rules(None, None, None, None)
    content = specification(tokenizer)
    lengths = token_lengths(tokenizer, vocabulary_size(tokenizer))
    cuts = cuts_of(content) if lengths is not None else None
    words = words_of(content) if cuts else None
    return _Rules(lengths, cuts, words, merges_of(content) if words else None)


@dataclass(frozen=True)
class _Spans:
    """Pieces of some data: where they begin and end, and their hashes."""

    starts: Counts
    ends: Counts
    hashes: Hashes

    def __getitem__(self, chosen: Any) -> "_Spans":
        return _Spans(self.starts[chosen], self.ends[chosen], self.hashes[chosen])

    @property
    def lengths(self) -> Counts:
        return self.ends - self.starts

    def of(self, data: bytes) -> list[bytes]:
        """The pieces."""
        spans = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        return [data[start:end] for start, end in spans]


class Pieces:
    """Numbers the pieces of texts from 0, and remembers the tokens of each."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._rules = _rules_of(tokenizer)
        self._is_merging = self._rules.merges is not None
        self._is_checked = False
        self._index = HashIndex()
        # The tokens of the pieces, one after the other, and how many each has: parts in the order of the
        # numbers of the pieces. Whoever has no more use for a part may take it out.
        self.tokens: list[tuple[Ids, Counts]] = []

    def __len__(self) -> int:
        return len(self._index)

    def numbers(self, texts: Sequence[str]) -> tuple[Counts, Counts]:
        """The numbers of the pieces of each text, one text after the other, and how many each has."""
        encoded = [text.encode() for text in texts]
        data = b"".join(encoded)
        bounds = np.cumsum([0, *map(len, encoded)])
        numbers, counts, unknown = zip(*self._look_up(data, bounds), strict=True)
        every = np.concatenate(numbers)
        new = _Spans(*map(np.concatenate, zip(*unknown, strict=True)))
        if len(new.hashes):
            _, chosen, times = np.unique(new.hashes, return_index=True, return_counts=True)
            # Frequent ones first: their numbers, and so what is read for them, lie together.
            self._learn(data, new[chosen[np.argsort(-times, kind="stable")]])
            every[every < 0] = self._index.numbers(new.hashes)
        return every, np.concatenate(counts)

    def _look_up(self, data: bytes, bounds: Counts) -> Iterator[tuple[Counts, Counts, tuple[Any, ...]]]:
        """For each part the numbers of its pieces, how many each text has, and spans that are unknown."""
        for low, high in _parts(bounds):
            first = bounds[low]
            part = data[first : bounds[high]]
            own = bounds[low : high + 1] - first
            edges = self._rules.cuts.edges(part, own) if self._rules.cuts else np.unique(own)
            starts, ends = edges[:-1], edges[1:]
            hashes = hash_spans(part, starts, ends)
            numbers = self._index.numbers(hashes)
            new = np.flatnonzero(numbers < 0)
            unknown = (starts[new] + first, ends[new] + first, hashes[new])
            yield numbers, np.diff(np.searchsorted(starts, own)), unknown

    # --- New pieces ---

    def _learn(self, data: bytes, pieces: _Spans) -> None:
        """Remember the tokens of pieces that are new, and all different."""
        rest = pieces[self._learn_merged(data, pieces)]
        is_joined = self._may_join(data, rest)
        for chosen, encoder in ((is_joined, self._joined), (~is_joined, self._one_by_one)):
            self._index.add(rest.hashes[chosen])
            self.tokens += encoder(rest[chosen].of(data))

    def _learn_merged(self, data: bytes, pieces: _Spans) -> Flags:
        """Remember those that can do without the tokenizer, and return which cannot.

        The tokenizer's own merges take a quarter of the time that it takes.
        """
        is_left = np.ones(len(pieces.hashes), bool)
        short = np.flatnonzero((pieces.lengths <= LONGEST) & (pieces.lengths > 0))
        if not self._is_merging or self._rules.words is None or not len(short):
            return is_left
        fits, ids, sizes = self._merged(data, pieces[short])
        if not fits.any():
            return is_left
        chosen = pieces[short[fits]]
        if not self._is_checked:
            self._is_checked = True
            self._is_merging = self._agrees(chosen[:CHECKED].of(data), ids, sizes)
        if self._is_merging:
            self._index.add(chosen.hashes)
            self.tokens.append((ids, sizes))
            is_left[short[fits]] = False
        return is_left

    def _merged(self, data: bytes, pieces: _Spans) -> tuple[Flags, Ids, Counts]:
        """Which pieces can do without the tokenizer, and their tokens by its own merges."""
        words, merges = self._rules.words, self._rules.merges
        assert words is not None
        assert merges is not None
        characters, starts = _gathered(data, pieces)
        kinds = words.kinds(characters)
        fits = words.fits(characters, kinds, starts)
        lengths = pieces.lengths[fits]
        is_chosen = np.repeat(fits, pieces.lengths)
        characters, kinds = characters[is_chosen], kinds[is_chosen]
        starts = np.cumsum(lengths) - lengths
        return fits, *merges.tokens(characters, starts, words.begins(characters, kinds, starts))

    def _agrees(self, pieces: list[bytes], ids: Ids, sizes: Counts) -> bool:
        """Whether the first of the tokens are those that the tokenizer makes of these pieces."""
        [(expected, _)] = self._one_by_one(pieces)
        return np.array_equal(expected, ids[: int(sizes[: len(pieces)].sum())])

    def _may_join(self, data: bytes, pieces: _Spans) -> Flags:
        """Which pieces are cut from digits before and behind them."""
        if not self._rules.cuts or not len(pieces.hashes):
            return np.zeros(len(pieces.hashes), bool)
        characters, starts = _gathered(data, pieces)
        kinds = kinds_of(characters, False)
        return self._rules.cuts.are_apart(kinds[starts], kinds[starts + pieces.lengths - 1], DIGIT)

    def _one_by_one(self, pieces: list[bytes]) -> list[tuple[Ids, Counts]]:
        if not pieces:
            return []
        ids = encode(self._tokenizer, [piece.decode() for piece in pieces])
        return [(np.concatenate(ids), np.fromiter(map(len, ids), np.int64, len(ids)))]

    def _joined(self, pieces: list[bytes]) -> list[tuple[Ids, Counts]]:
        """The tokens of pieces with a digit between them. A text of its own would take a piece ten times as
        long.
        """
        groups = [pieces[at : at + JOINED] for at in range(0, len(pieces), JOINED)]
        encoded = encode(self._tokenizer, [SEPARATOR.join(group).decode() for group in groups])
        return [
            part for ids, group in zip(encoded, groups, strict=True) for part in self._divided(ids, group)
        ]

    def _divided(self, ids: Ids, pieces: list[bytes]) -> list[tuple[Ids, Counts]]:
        """The tokens of pieces that were joined; the bytes that tokens stand for tell where a piece ends."""
        assert self._rules.lengths is not None
        lengths = np.ones(2 * len(pieces) - 1, np.int64)  # of pieces and separators
        lengths[::2] = np.fromiter(map(len, pieces), np.int64, len(pieces))
        ends = np.cumsum(lengths)
        token_ends = np.cumsum(self._rules.lengths[ids])
        places = np.searchsorted(token_ends, ends)
        # Normalization may change the number of bytes.
        if not np.array_equal(token_ends[np.minimum(places, len(ids) - 1)], ends):
            return self._one_by_one(pieces)
        sizes = np.diff(places + 1, prepend=0)
        is_piece = np.arange(len(sizes)) % 2 == 0
        return [(ids[np.repeat(is_piece, sizes)], sizes[::2])]


def _parts(bounds: Counts) -> Iterator[tuple[int, int]]:
    """Texts of about PART_BYTES together: the first, and the one behind the last."""
    low = 0
    while low < len(bounds) - 1:
        high = int(np.searchsorted(bounds, bounds[low] + PART_BYTES, side="right")) - 1
        yield low, max(high, low + 1)
        low = max(high, low + 1)


def _gathered(data: bytes, pieces: _Spans) -> tuple[Characters, Counts]:
    """The characters of pieces one after the other, and where each begins."""
    lengths = pieces.lengths
    starts = np.cumsum(lengths) - lengths
    places = np.arange(int(lengths.sum())) + np.repeat(pieces.starts - starts, lengths)
    return np.frombuffer(data, np.uint8)[places], starts
