"""Where a long text may be cut so that the tokens of its pieces, one after the other, are exactly the tokens of the whole.

Byte-level tokenizers first cut a text into words by a regular expression, and every word becomes tokens by itself. With those
expressions in use that are listed here, a letter or digit in front of a space or stop always ends a word: each of their
alternatives that takes such a letter ends with it, none looks back, and none looks further ahead than a run of white space and
the character after it. So the words before such a place do not hang on what follows, nor those after it on what went before.

Llama 2's kind takes a text as one word, with ▁ in front and for every space. Where no token of the vocabulary has a ▁ behind
another character, no merge reaches over a space behind a letter. The piece after it is given without the space, for which the ▁
that is put in front of every text stands.

A tokenizer of which neither is known gets its texts whole.
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

PIECE = 1 << 16  # characters

# Letters of the scripts most written, all of them letters since Unicode 3.0 and unchanged by NFC; marks are none.
LETTERS = r"A-Za-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0391-\u03a1\u03a3-\u03c9\u0410-\u044f\u05d0-\u05ea\u0641-\u064a"
LETTERS += r"\u3041-\u3094\u30a1-\u30fa\u4e00-\u9fa5\uac00-\ud7a3"
END_OF_WORD = re.compile(rf"[0-9{LETTERS}](?=[ \t\r\n.,;:!?\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f])")
SPACE = re.compile(rf"[0-9{LETTERS}](?= [0-9{LETTERS}])")

CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
BEFORE, UPPER, LOWER = r"[^\r\n\p{L}\p{N}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
AFTER_WORDS = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = {
    "GPT-2": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{AFTER_WORDS}",
    "Qwen 2": rf"{CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{AFTER_WORDS}",
    "GPT-4o": rf"{BEFORE}?{UPPER}*{LOWER}+{CONTRACTIONS}?|{BEFORE}?{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}{{1,3}}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}

UNDERLINES = [
    {"type": "Prepend", "prepend": "▁"},
    {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
]
LATE_UNDERLINE = re.compile("[^▁]▁")

Specification = dict[str, Any]  # a tokenizer.json
Cut = Callable[[str], Iterator[str]]


def cutter(tokenizer: Specification, *, special: bool) -> Cut:
    """How texts are cut for this tokenizer: a text of any length → its pieces; `special`: special tokens in a text are not text."""
    added = tokenizer["added_tokens"]
    active = [token for token in added if special or not token["special"]]
    if not all(map(_stands_alone, active)) or (
        tokenizer["normalizer"] and any(token["normalized"] for token in active)
    ):
        return _whole
    contents = [token["content"] for token in added]
    if _is_local(tokenizer["normalizer"]) and _ends_words(tokenizer["pre_tokenizer"]):
        return lambda text: _pieces(text, END_OF_WORD, 0, contents)
    if _is_like_llama_2(tokenizer):
        return lambda text: _pieces(text, SPACE, 1, contents)
    return _whole


def _whole(text: str) -> Iterator[str]:
    yield text


def _ends_words(steps: Specification | None) -> bool:
    """Whether the text is cut into words in one of the ways we know; digits may be set apart before, and words cut again after."""
    found = steps["pretokenizers"] if steps and steps["type"] == "Sequence" else [steps] if steps else []
    while found and found[0]["type"] == "Digits":
        found = found[1:]
    return (
        bool(found)
        and _cuts_into_words(found[0])
        and all(step["type"] in ("ByteLevel", "Digits", "Split") for step in found)
    )


def _cuts_into_words(step: Specification) -> bool:
    if step["type"] == "ByteLevel":
        return bool(step["use_regex"]) and not step["add_prefix_space"]
    return (
        step["type"] == "Split"
        and step["pattern"].get("Regex") in WORDS.values()
        and (step["behavior"], step["invert"]) == ("Isolated", False)
    )


def _is_local(normalizer: Specification | None) -> bool:
    """NFC never joins what stands behind an end of a word to what stands before it."""
    return normalizer is None or normalizer["type"] == "NFC"


def _is_like_llama_2(tokenizer: Specification) -> bool:
    model, normalizer = tokenizer["model"], tokenizer["normalizer"] or {}
    if (
        tokenizer["pre_tokenizer"]
        or normalizer.get("normalizers") != UNDERLINES
        or model["type"] != "BPE"
        or model["ignore_merges"]
    ):
        return False
    return "▁" in model["vocab"] and not any(map(LATE_UNDERLINE.search, model["vocab"]))


def _stands_alone(token: Specification) -> bool:
    """Whether an added token is found by its letters alone, whatever is around it."""
    return not (token["lstrip"] or token["rstrip"] or token["single_word"])


def _pieces(text: str, ends: re.Pattern[str], gap: int, added: list[str]) -> Iterator[str]:
    """Cut at the first of the `ends` behind each stretch of `PIECE` characters, and leave out a `gap` there."""
    start = 0
    while len(text) - start > PIECE and (end := _end(text, ends, gap, start + PIECE, added)):
        yield text[start:end]
        start = end + gap
    yield text[start:]


def _end(text: str, ends: re.Pattern[str], gap: int, after: int, added: list[str]) -> int | None:
    """The first place behind `after` where the text can be cut: no added token stands across it, nor next to a gap."""
    for match in ends.finditer(text, after):
        at = match.end()
        if not any(
            token in text[max(0, at + 1 - gap - len(token)) : at - 1 + 2 * gap + len(token)]
            for token in added
        ):
            return at
    return None
