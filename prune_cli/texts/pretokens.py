"""Where does the pattern of a tokenizer cut ASCII text into words, which it then makes tokens of one by one?

GPT-2's pattern is followed in full. Of the others, which join more to a word, only texts are taken that are
a single word by all of them: letters, with a space or a punctuation mark in front.
"""

import string
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..models.text.splitting import word_pattern
from .merges import Characters, Specification
from .words import Counts

Flags = NDArray[np.bool_]

# Bytes; a longer text is left to the tokenizer. Merging goes on for as many rounds as a word has merges.
LONGEST = 48
LETTER, DIGIT, PUNCTUATION, SPACE, OTHER = range(5)
UPPER, LOWER = string.ascii_uppercase.encode(), string.ascii_lowercase.encode()
BLANK, APOSTROPHE = b" '"
SHORT_CONTRACTIONS = b"stmd"
LONG_CONTRACTIONS = (b"re", b"ve", b"ll")


class Words(Protocol):
    """Texts lie one after the other in `characters`, and begin at `starts`, the first at 0."""

    def fits(self, characters: Characters, starts: Counts) -> Flags:
        """Of each text, whether `begins` can tell."""

    def begins(self, characters: Characters, starts: Counts) -> Flags:
        """Of each character, whether a word begins with it, if all the texts fit."""


def words_of(specification: Specification) -> Words | None:
    """The words of a tokenizer.json; None if its pattern is not known, or if there are added tokens."""
    pattern = word_pattern(specification)
    is_plain = all(token["special"] for token in specification["added_tokens"])
    if pattern is None or not is_plain:
        return None
    return WordsOfGpt2() if pattern == "GPT-2" else SingleWords()


class WordsOfGpt2:
    """The words of GPT-2: contractions; letters, digits or marks behind at most a blank; white space."""

    def fits(self, characters: Characters, starts: Counts) -> Flags:
        """Of each text, whether it is short, and of ASCII without control characters."""
        return _is_short(characters, starts) & ~_any(_kinds()[characters] == OTHER, starts)

    def begins(self, characters: Characters, starts: Counts) -> Flags:
        """Of each character, whether a word begins with it."""
        kinds = _kinds()[characters]
        is_first = _at(starts, len(characters))
        is_space = kinds == SPACE
        begins = is_first.copy()
        # A blank belongs to the word behind it, unless that is white space.
        begins[1:] |= (kinds[1:] != kinds[:-1]) & (characters[:-1] != BLANK)
        # Of white space before something else, the last character leaves the others.
        is_last = is_space[1:-1] & is_space[:-2] & ~is_space[2:] & ~is_first[2:]
        begins[1:-1] |= is_last
        self._contract(characters, is_first, begins)
        return begins

    def _contract(self, characters: Characters, is_first: Flags, begins: Flags) -> None:
        """Join 's, 't, 're, 've, 'm, 'll and 'd at the beginning of a word, whatever letters follow."""
        places = np.flatnonzero(begins & (characters == APOSTROPHE))
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
    """Texts of one word in GPT-2's successors, too."""

    def fits(self, characters: Characters, starts: Counts) -> Flags:
        """Of each text, whether it is letters, with at most a blank or a mark before them.

        GPT-4o's pattern ends a word between a lower and an upper case letter.
        """
        is_first = _at(starts, len(characters))
        kinds = _kinds()[characters]
        is_foreign = (kinds != LETTER) & ~is_first
        is_foreign |= is_first & (kinds != LETTER) & ~_marks()[characters]
        is_foreign[1:] |= _is_lower()[characters[:-1]] & _is_upper()[characters[1:]] & ~is_first[1:]
        return _is_short(characters, starts) & ~_any(is_foreign, starts)

    def begins(self, characters: Characters, starts: Counts) -> Flags:
        """Only the texts themselves begin."""
        return _at(starts, len(characters))


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
def _kinds() -> NDArray[np.int8]:
    """The kind of every byte. Control characters and bytes of other alphabets are OTHER."""
    kinds = np.full(256, OTHER, np.int8)
    kinds[_table(UPPER + LOWER)] = LETTER
    kinds[_table(string.digits.encode())] = DIGIT
    kinds[_table(string.punctuation.encode())] = PUNCTUATION
    kinds[_table(b" \t\r\n")] = SPACE
    return kinds


@cache
def _marks() -> Flags:
    """What may stand before the letters of a word: an apostrophe could begin a contraction."""
    return _table(b" " + string.punctuation.replace("'", "").encode())


@cache
def _is_upper() -> Flags:
    return _table(UPPER)


@cache
def _is_lower() -> Flags:
    return _table(LOWER)
