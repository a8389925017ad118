"""Where may a long text be split, so that its pieces have the very tokens of the whole?

A tokenizer holds about a hundred bytes for every token until its ids are in an array, so long texts are
split. A split must leave the tokens as they are, so it is only made where the tokenizer's rules prove that it
does:

- Byte-level tokenizers first cut a text into words with a regular expression, and then tokenize each word by
  itself. With every expression in WORD_PATTERNS, a letter or digit in front of a space or a stop ends a word:
  each alternative that takes such a letter ends with it, none looks back, and none looks further ahead than a
  run of white space and the character after it. So the words before such a position do not depend on the text
  after it, nor the words after it on the text before.
- Llama 2's kind takes the whole text as one word, with ▁ in front and for every space. Where no token of the
  vocabulary has a ▁ behind another character, no merge reaches over a space behind a letter. The piece after
  such a space is tokenized without it, because the ▁ that the normalizer puts in front of every text stands
  for it.

Every other tokenizer gets its texts whole.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

PIECE_CHARACTERS = 1 << 16  # longer texts are split; BATCH_CHARACTERS is sixteen of them

Specification = dict[str, Any]  # the content of a tokenizer.json
Split = Callable[[str], Iterator[str]]

# Letters of the scripts written most, all of them letters since Unicode 3.0 and unchanged by NFC. Combining
# marks are left out.
LETTERS = (
    r"A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f"  # Latin
    r"\u0391-\u03a1\u03a3-\u03c9\u0410-\u044f\u05d0-\u05ea\u0641-\u064a"  # Greek, Cyrillic, Hebrew, Arabic
    r"\u3041-\u3094\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"  # kana, Chinese characters, Hangul
)
END_OF_WORD = re.compile(rf"[0-9{LETTERS}](?=[ \t\r\n.,;:!?\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f])")
LETTER_BEFORE_SPACE = re.compile(rf"[0-9{LETTERS}](?= [0-9{LETTERS}])")

# The expressions as they stand in the tokenizer.json files of these families. Only an exact match counts.
CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
BEFORE = r"[^\r\n\p{L}\p{N}]"
UPPER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LOWER = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
AFTER_WORDS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORD_PATTERNS = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{AFTER_WORDS}",
    "Qwen 2": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{AFTER_WORDS}",
    "GPT-4o": rf"{BEFORE}?{UPPER}*{LOWER}+{CONTRACTIONS}?|{BEFORE}?{UPPER}+{LOWER}*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}

# Llama 2's normalizer: ▁ in front of the text, and for every space.
SPACES_TO_UNDERLINES = [
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
]
INNER_UNDERLINE = re.compile("[^▁]▁")


def splitter(tokenizer: Specification, *, special: bool) -> Split:
    """A function from a text to its pieces, which have the same tokens as the whole; one piece if nothing is
    proved for this tokenizer.

    With `special`, special tokens that are spelled out in a text count as tokens and must not be split
    either.
    """
    if not _adds_no_context(tokenizer, special):
        return _whole
    contents = [token["content"] for token in tokenizer["added_tokens"]]
    if _is_split_by_words(tokenizer):
        return lambda text: _pieces(text, END_OF_WORD, 0, contents)
    if _is_like_llama_2(tokenizer):
        return lambda text: _pieces(text, LETTER_BEFORE_SPACE, 1, contents)
    return _whole


def may_split_behind_words(tokenizer: Specification) -> bool:
    """Whether a text may be cut wherever a word ends for certain, unless an ordinary added token lies there.

    Special tokens that are spelled out in it are ordinary text.
    """
    return _adds_no_context(tokenizer, False) and _is_split_by_words(tokenizer)


def word_pattern(tokenizer: Specification) -> str | None:
    """The name in WORD_PATTERNS of the expression that alone cuts a text into words; None if more does."""
    pre_tokenizer = tokenizer["pre_tokenizer"] or {"type": None}
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    # The last step only writes bytes as letters, if it does not cut by an expression of its own.
    *cutting, last = steps or [pre_tokenizer]
    if last["type"] != "ByteLevel" or last["add_prefix_space"] or len(cutting) + last["use_regex"] != 1:
        return None
    if not cutting:
        return "GPT-2"
    names = {pattern: name for name, pattern in WORD_PATTERNS.items()}
    return names[cutting[0]["pattern"]["Regex"]] if _is_split_by_pattern(cutting[0]) else None


def _adds_no_context(tokenizer: Specification, special: bool) -> bool:
    """Whether no added token looks at its surroundings, or is compared after normalization: it may differ at
    a split.
    """
    active = [token for token in tokenizer["added_tokens"] if special or not token["special"]]
    if tokenizer["normalizer"] and any(token["normalized"] for token in active):
        return False
    return all(map(_ignores_surroundings, active))


def _is_split_by_words(tokenizer: Specification) -> bool:
    return _is_local(tokenizer["normalizer"]) and _splits_into_words(tokenizer["pre_tokenizer"])


def _whole(text: str) -> Iterator[str]:
    yield text


def _splits_into_words(pre_tokenizer: Specification | None) -> bool:
    """Whether a text is cut into words by one of the patterns above. Digits may be set apart before, and
    words cut again after.
    """
    if not pre_tokenizer:
        return False
    steps = pre_tokenizer["pretokenizers"] if pre_tokenizer["type"] == "Sequence" else [pre_tokenizer]
    while steps and steps[0]["type"] == "Digits":
        steps = steps[1:]
    if not steps or not _is_word_pattern(steps[0]):
        return False
    return all(step["type"] in ("ByteLevel", "Digits", "Split") for step in steps)


def _is_word_pattern(step: Specification) -> bool:
    if step["type"] == "ByteLevel":  # which has GPT-2's pattern built in
        return bool(step["use_regex"]) and not step["add_prefix_space"]
    return _is_split_by_pattern(step)


def _is_split_by_pattern(step: Specification) -> bool:
    if step["type"] != "Split" or step["pattern"].get("Regex") not in WORD_PATTERNS.values():
        return False
    return step["behavior"] == "Isolated" and not step["invert"]


def _is_local(normalizer: Specification | None) -> bool:
    """Whether a normalizer leaves the two sides of a split alone: NFC never joins a stop or a space to the
    letter before it.
    """
    return normalizer is None or normalizer["type"] == "NFC"


def _is_like_llama_2(tokenizer: Specification) -> bool:
    model = tokenizer["model"]
    normalizer = tokenizer["normalizer"] or {}
    if tokenizer["pre_tokenizer"] or normalizer.get("normalizers") != SPACES_TO_UNDERLINES:
        return False
    if (
        model["type"] != "BPE" or model["ignore_merges"]
    ):  # ignore_merges takes a whole text that is in the vocabulary
        return False
    return "▁" in model["vocab"] and not any(map(INNER_UNDERLINE.search, model["vocab"]))


def _ignores_surroundings(token: Specification) -> bool:
    """Whether an added token is found by its own characters alone."""
    return not (token["lstrip"] or token["rstrip"] or token["single_word"])


def _pieces(text: str, boundary: re.Pattern[str], gap: int, added: list[str]) -> Iterator[str]:
    """Split at the first `boundary` after every PIECE_CHARACTERS characters, and leave out `gap` characters
    there.
    """
    start = 0
    while len(text) - start > PIECE_CHARACTERS:
        end = _split_position(text, boundary, gap, start + PIECE_CHARACTERS, added)
        if not end:
            break
        yield text[start:end]
        start = end + gap
    yield text[start:]


def _split_position(
    text: str, boundary: re.Pattern[str], gap: int, after: int, added: list[str]
) -> int | None:
    """The first position behind `after` where the text can be split: no added token lies across it, nor next
    to the gap.
    """
    for match in boundary.finditer(text, after):
        position = match.end()
        if not any(_lies_across(token, text, position, gap) for token in added):
            return position
    return None


def _lies_across(token: str, text: str, position: int, gap: int) -> bool:
    # With a gap, a token that begins or ends right at it would lose its neighbour: look one character further
    # on both sides.
    start = max(0, position + 1 - gap - len(token))
    return token in text[start : position - 1 + 2 * gap + len(token)]
