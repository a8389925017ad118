"""Of which kind are the characters of a text, as far as tokenizers cut texts into words by kinds?"""

import string
import unicodedata
from functools import cache
from unicodedata import is_normalized

import numpy as np
from numpy.typing import NDArray

from ..words import Counts

Characters = NDArray[np.uint8]  # of an encoded text
Flags = NDArray[np.bool_]

# Kinds of characters, a bit each; 0 for every other one.
LETTER, DIGIT, STOP, MARK, APOSTROPHE, BLANK, TAB, LINE_END = (1 << bit for bit in range(8))
PUNCTUATION = STOP | MARK | APOSTROPHE
SPACE = BLANK | TAB | LINE_END
VISIBLE = LETTER | DIGIT | PUNCTUATION

HIGHEST = 0x1FFFF  # the last code point that may have a kind; beyond are rare Chinese characters
JAMO = range(0x1100, 0x1200)  # letters that NFC may join to the one before
# First bytes of characters that are letters nearly always: Latin, Greek, Cyrillic, Arabic, Chinese, Hangul.
FIRST_OF_LETTERS = (*range(0xC3, 0xCC), *range(0xCE, 0xD2), *range(0xD8, 0xDC), 0xE1, *range(0xE4, 0xEE))


def _kinds() -> bytes:
    kinds = bytearray(256)
    groups = {
        string.ascii_letters: LETTER,
        string.digits: DIGIT,
        string.punctuation: MARK,
        ".,;:!?": STOP,
        "'": APOSTROPHE,
        " ": BLANK,
        "\t": TAB,
        "\r\n": LINE_END,
    }
    for characters, kind in groups.items():
        for code in characters.encode():
            kinds[code] = kind
    return bytes(kinds)


KINDS = _kinds()  # of every byte; those of characters outside ASCII have none
# Of every first byte, the bytes of its character.
LENGTHS = np.array([1] * 0xC0 + [2] * 0x20 + [3] * 0x10 + [4] * 0x10, np.int64)


def kind_of(character: str) -> int:
    """The kind of a character."""
    code = ord(character)
    return KINDS[code] if code < 0x80 else int(_kinds_outside(False)[min(code, HIGHEST)])


def kinds_of(characters: Characters, with_combining: bool) -> Characters:
    """The kind of every byte: that of its character; see `outside_ascii`."""
    kinds = np.frombuffer(characters.tobytes().translate(KINDS), np.uint8).copy()
    places, ends, found = outside_ascii(characters, with_combining)
    for at in range(4):
        is_longer = places + at < ends
        kinds[places[is_longer] + at] = found[is_longer]
    return kinds


def outside_ascii(
    characters: Characters, with_combining: bool, is_bound: Flags | None = None
) -> tuple[Counts, Counts, Characters]:
    """Characters outside ASCII: where they begin and end, and their kinds.

    Combining marks are punctuation if they are asked for; else they are of no kind. If texts begin and end
    where it `is_bound`, some are left out that stand between two others inside of a text: letters most often.
    """
    places = np.flatnonzero(characters >= 0xC0)
    first = characters[places]
    ends = places + LENGTHS[first]
    # Zeros stand in for what is behind the text.
    padded = np.concatenate([characters, np.zeros(4, np.uint8)])
    if is_bound is not None:
        # `take` needs half the time of an index in brackets.
        is_chosen = (padded.take(places - 1) < 0x80) | (padded.take(ends) < 0x80)
        is_chosen |= ~_begins_letters().take(first) | is_bound.take(places) | is_bound.take(ends)
        chosen = np.flatnonzero(is_chosen)
        places, first, ends = places.take(chosen), first.take(chosen), ends.take(chosen)
    second, third, fourth = (padded.take(places + at).astype(np.int64) & 0x3F for at in (1, 2, 3))
    codes = first.astype(np.int64)
    two, three = (codes & 0x1F) << 6 | second, (codes & 0x0F) << 12 | second << 6 | third
    four = (codes & 0x07) << 18 | second << 12 | third << 6 | fourth
    codes = np.where(codes < 0xE0, two, np.where(codes < 0xF0, three, np.minimum(four, HIGHEST)))
    return places, ends, _kinds_outside(with_combining).take(codes)


@cache
def _begins_letters() -> Flags:
    flags = np.zeros(256, bool)
    flags[[*FIRST_OF_LETTERS]] = True
    return flags


@cache
def _kinds_outside(with_combining: bool) -> Characters:
    """The kind of every code point but for ASCII; 0.1 s, once a process."""
    kinds = np.zeros(HIGHEST + 1, np.uint8)
    for code in range(0x80, HIGHEST):
        kinds[code] = _kind_outside(chr(code), with_combining)
    return kinds


def _kind_outside(character: str, with_combining: bool) -> int:
    """The kind of a character that is the same in every version of Unicode that a tokenizer may follow."""
    category = unicodedata.category(character)
    kind = _kind_of_category(category)
    if category == "Cn" or kind != _kind_of_category(unicodedata.ucd_3_2_0.category(character)):
        return 0
    # NFC leaves it alone, and joins it to nothing before it.
    is_alone = category[0] != "M" and ord(character) not in JAMO and is_normalized("NFC", character)
    return kind if with_combining or is_alone else 0


def _kind_of_category(category: str) -> int:
    """Expressions ask for letters, numbers and white space; all else is punctuation."""
    if category[0] in "LN":
        return LETTER if category[0] == "L" else DIGIT
    if category in ("Cc", "Cs", "Zl", "Zp"):
        return 0
    return TAB if category == "Zs" else MARK
