"""Where does the pattern of a tokenizer cut text into words, which it then makes tokens of one by one?

GPT-2's pattern is followed in full. Of the others, which join more to a word, only texts are taken that are
a single word by all of them: letters, with a space or a punctuation mark in front; and numbers.
"""

import string
from functools import cache
from typing import Protocol

import numpy as np

from ...models.text.splitting import word_pattern
from ..words import Counts
from .characters import (
    APOSTROPHE,
    BLANK,
    DIGIT,
    LETTER,
    MARK,
    PUNCTUATION,
    SPACE,
    Characters,
    Flags,
    kinds_of,
)
from .cuts import combining_are_marks
from .merges import LONGEST, Specification

UPPER, LOWER = string.ascii_uppercase.encode(), string.ascii_lowercase.encode()
DIGITS = {"Llama 3": 3, "Qwen 2": 1, "GPT-4o": 3}  # in a word
SHORT_CONTRACTIONS = b"stmd"
LONG_CONTRACTIONS = (b"re", b"ve", b"ll")


class Words(Protocol):
    """Texts lie one after the other in `characters`, and begin at `starts`, the first at 0."""

    def kinds(self, characters: Characters) -> Characters:
        """The kind of each character, which the others ask for: it takes a third of their time."""

    def fits(self, characters: Characters, kinds: Characters, starts: Counts) -> Flags:
        """Of each text, whether `begins` can tell."""

    def begins(self, characters: Characters, kinds: Characters, starts: Counts) -> Flags:
        """Of each character, whether a word begins with it, if all the texts fit."""


def words_of(specification: Specification) -> Words | None:
    """The words of a tokenizer.json; None if its pattern is not known, or if there are added tokens."""
    pattern = word_pattern(specification)
    is_plain = all(token["special"] for token in specification["added_tokens"])
    if pattern is None or not is_plain:
        return None
    if pattern == "GPT-2":
        return WordsOfGpt2(combining_are_marks(specification))
    return SingleWords(DIGITS[pattern], is_cased=pattern == "GPT-4o")


class WordsOfGpt2:
    """The words of GPT-2: contractions; letters, digits or marks behind at most a blank; white space."""

    def __init__(self, with_combining: bool) -> None:
        self._with_combining = with_combining

    def kinds(self, characters: Characters) -> Characters:
        """The kind of each character."""
        return kinds_of(characters, self._with_combining)

    def fits(self, characters: Characters, kinds: Characters, starts: Counts) -> Flags:
        """Of each text, whether it is short, and each of its characters of a kind."""
        return _is_short(characters, starts) & ~_any(kinds == 0, starts)

    def begins(self, characters: Characters, kinds: Characters, starts: Counts) -> Flags:
        """Of each character, whether a word begins with it."""
        kinds = kinds.copy()
        is_blank = kinds == BLANK
        kinds[(kinds & PUNCTUATION) != 0] = MARK
        kinds[(kinds & SPACE) != 0] = BLANK
        is_first = _at(starts, len(characters))
        is_space = kinds == BLANK
        begins = is_first.copy()
        # A blank belongs to the word behind it, unless that is white space.
        begins[1:] |= (kinds[1:] != kinds[:-1]) & ~is_blank[:-1]
        # Of white space before something else, the last character leaves the others.
        last = np.flatnonzero(is_space[:-1] & ~is_space[1:] & ~is_first[1:])
        for _ in range(2):  # outside ASCII, white space has up to three bytes
            last -= (characters[last] & 0xC0) == 0x80
        begins[last] = True
        self._contract(characters, is_first, begins)
        return begins

    def _contract(self, characters: Characters, is_first: Flags, begins: Flags) -> None:
        """Join 's, 't, 're, 've, 'm, 'll and 'd at the beginning of a word, whatever letters follow."""
        places = np.flatnonzero(begins & (characters == ord("'")))
        # Behind the end there is nothing: zeros, which begin a text of their own.
        behind = np.concatenate([characters, np.zeros(3, np.uint8)])
        is_first = np.concatenate([is_first, np.ones(3, bool)])
        second, third = behind[places + 1], behind[places + 2]
        is_short = np.isin(second, [*SHORT_CONTRACTIONS]) & ~is_first[places + 1]
        is_long = np.zeros(len(places), bool)
        for one, other in LONG_CONTRACTIONS:
            is_long |= (second == one) & (third == other)
        is_long &= ~is_first[places + 1] & ~is_first[places + 2]
        begins[places[is_short | is_long] + 1] = False
        ends = np.concatenate([places[is_short] + 2, places[is_long] + 3])
        begins[ends[ends < len(begins)]] = True


class SingleWords:
    """Texts of one word in GPT-2's successors, and numbers, of which so many `digits` are a word.

    If the expression `is_cased`, as GPT-4o's, a word ends between a lower and an upper case letter.
    """

    def __init__(self, digits: int, is_cased: bool) -> None:
        self._digits = digits
        self._is_cased = is_cased

    def kinds(self, characters: Characters) -> Characters:
        """The kind of each character."""
        return kinds_of(characters, False)

    def fits(self, characters: Characters, kinds: Characters, starts: Counts) -> Flags:
        """Of each text, whether it is letters with at most a blank or a mark before them, or a number."""
        is_first = _at(starts, len(characters))
        # An apostrophe could begin a contraction.
        is_foreign = (kinds != LETTER) & ~(is_first & ((kinds & (BLANK | PUNCTUATION - APOSTROPHE)) != 0))
        if self._is_cased:
            is_foreign[1:] |= _is_lower()[characters[:-1]] & _is_upper()[characters[1:]] & ~is_first[1:]
            # Which case other letters are of is not known here.
            is_foreign |= characters >= 0x80
        is_one = ~_any(is_foreign, starts) | ~_any((kinds != DIGIT) | (characters >= 0x80), starts)
        return _is_short(characters, starts) & is_one

    def begins(self, characters: Characters, kinds: Characters, starts: Counts) -> Flags:
        """Of each character, whether a word begins with it."""
        begins = _at(starts, len(characters))
        lengths = np.diff(starts, append=len(characters))
        offsets = np.arange(len(characters)) - np.repeat(starts, lengths)
        begins |= (characters < 0x80) & (kinds == DIGIT) & (offsets % self._digits == 0)
        return begins


def _at(places: Counts, size: int) -> Flags:
    flags = np.zeros(size, bool)
    flags[places] = True
    return flags


def _any(flags: Flags, starts: Counts) -> Flags:
    """Of each text, whether a flag is set."""
    found: Flags = np.logical_or.reduceat(flags, starts)
    return found


def _is_short(characters: Characters, starts: Counts) -> Flags:
    return np.diff(starts, append=len(characters)) <= LONGEST


def _table(characters: bytes) -> Flags:
    return _at(np.frombuffer(characters, np.uint8).astype(np.int64), 256)


@cache
def _is_upper() -> Flags:
    return _table(UPPER)


@cache
def _is_lower() -> Flags:
    return _table(LOWER)
