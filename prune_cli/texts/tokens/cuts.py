"""Where may a text be cut, so that its pieces have the very tokens of the whole?

Tokenizers cut a text into words by an expression (splitting.WORD_PATTERNS), and make tokens of each word by
itself. None of the expressions looks back, so a text may be cut wherever a word ends for certain. Two
neighbouring characters of these kinds tell:

- A letter or digit ends its word before any other kind, but an apostrophe may belong to it: GPT-4o's "it's".
- Punctuation never reaches over a blank or a digit; GPT-2's neither over a line end nor into a letter.
- White space before something else leaves its last character to what follows: GPT-2's any, others' a blank.
  This takes three characters. Others take line ends for themselves, but GPT-4o joins "\\n/" to punctuation.

Characters of no kind tell nothing. Where an ordinary added token is found, a text ends and
another begins, so no cut may lie in one.
"""

from collections.abc import Iterable
from itertools import pairwise

import numpy as np

from ...models.text.splitting import Specification, may_split_behind_words, word_pattern
from ..words import Counts
from .characters import (
    APOSTROPHE,
    BLANK,
    DIGIT,
    KINDS,
    LETTER,
    LINE_END,
    MARK,
    SPACE,
    STOP,
    VISIBLE,
    Characters,
    Flags,
    kind_of,
    outside_ascii,
)

ANY = VISIBLE | SPACE

Pairs = dict[int, int]  # by the kind before a cut, the kinds behind it
# In all of WORD_PATTERNS.
PAIRS: Pairs = {
    LETTER: ANY - LETTER - APOSTROPHE,
    DIGIT: ANY - DIGIT,
    STOP: DIGIT | BLANK,
    MARK: DIGIT | BLANK,
    APOSTROPHE: DIGIT | BLANK,
}
PAIRS_OF_OTHERS: Pairs = PAIRS | {LINE_END: VISIBLE - MARK}
# An apostrophe may begin a contraction with the letters behind it.
PAIRS_OF_GPT2: Pairs = {
    LETTER: ANY - LETTER,
    DIGIT: ANY - DIGIT,
    STOP: LETTER | DIGIT | SPACE,
    MARK: LETTER | DIGIT | SPACE,
    APOSTROPHE: DIGIT | SPACE,
}


class Cuts:
    """Cuts texts at pairs of kinds, and white space before its last character if that is one of `last`.

    Combining marks are of a kind if they are asked for.
    """

    def __init__(self, pairs: Pairs, last: int, with_combining: bool) -> None:
        self._with_combining = with_combining
        self._last = last
        self._pairs = np.array([pairs.get(kind, 0) for kind in range(256)], np.uint8)
        self._behind = bytes(self._pairs[[*KINDS]])

    def edges(self, data: bytes, bounds: Counts) -> Counts:
        """Where pieces begin, and the end of the last; texts begin and end at `bounds`."""
        is_edge = np.zeros(len(data) + 1, bool)
        is_edge[bounds] = True
        if len(data) > 1:
            # `translate` needs a fifth of the time of an index.
            kinds = np.frombuffer(data.translate(KINDS), np.uint8)
            behind = np.frombuffer(data.translate(self._behind), np.uint8)
            if not data.isascii():
                kinds, behind = kinds.copy(), behind.copy()
                places, ends, found = outside_ascii(
                    np.frombuffer(data, np.uint8), self._with_combining, is_edge
                )
                kinds[places] = found
                behind[ends - 1] = self._pairs[found]
            is_edge[1:-1] |= (behind[:-1] & kinds[1:]) != 0
            if self._last:
                self._cut_white_space(kinds, bounds, is_edge)
        return np.flatnonzero(is_edge)

    def are_apart(self, first: Characters, last: Characters, kind: int) -> Flags:
        """Which pieces are cut from a character of a kind on either side, by their first and last kinds."""
        are_apart: Flags = (self._pairs[last] & kind) != 0
        are_apart &= (self._pairs[kind] & first) != 0
        return are_apart

    def _cut_white_space(self, kinds: Characters, bounds: Counts, is_edge: Flags) -> None:
        """Cut white space with something else behind it: before its last character, and behind that one."""
        # Of every character: to fetch only those that are wanted takes three times as long.
        is_last = (kinds[:-1] & self._last) != 0
        is_last &= (kinds[1:] & VISIBLE) != 0
        # What is behind a text is no part of it.
        is_last[bounds[(bounds > 0) & (bounds < len(kinds))] - 1] = False
        is_edge[1:-2] |= is_last[1:] & ((kinds[:-2] & SPACE) != 0)
        # A blank belongs to what is behind it. If it is not cut before, there may be more white space.
        is_edge[1:-1] |= is_last & is_edge[:-2] & (kinds[:-1] != BLANK)


def cuts_of(specification: Specification) -> Cuts | None:
    """The cuts of a tokenizer.json; None if nothing is proved for it.

    Special tokens that are spelled out in a text are ordinary text.
    """
    if not may_split_behind_words(specification):
        return None
    added = [token["content"] for token in specification["added_tokens"] if not token["special"]]
    pairs, last = _rules(word_pattern(specification), bool(added))
    return Cuts(_without(pairs, added), last, combining_are_marks(specification))


def combining_are_marks(specification: Specification) -> bool:
    """Whether combining marks are punctuation to an expression, and none is joined to a letter before."""
    return word_pattern(specification) == "GPT-2" and specification["normalizer"] is None


def _rules(pattern: str | None, has_added: bool) -> tuple[Pairs, int]:
    """The pairs, and the last characters of white space, of an expression; None is any with more cuts."""
    # What comes before an added token is a text of its own, and so may end in white space.
    if pattern == "GPT-2":
        return PAIRS_OF_GPT2, 0 if has_added else SPACE
    if pattern is None:
        return PAIRS, 0
    return PAIRS_OF_OTHERS, 0 if has_added else BLANK


def _without(pairs: Pairs, contents: Iterable[str]) -> Pairs:
    """The pairs without those inside of added tokens."""
    left = dict(pairs)
    for content in contents:
        for before, behind in pairwise(map(kind_of, content)):
            left[before] = left.get(before, 0) & ~behind
    return left
