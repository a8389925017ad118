"""How a text becomes token ids: tokenizers loaded, trained and hashed, and long texts split into pieces.

Why long texts are split: a tokenizer holds about a hundred bytes for every token until its ids are in an
array. A split must leave the tokens as they are, so it is only made where the tokenizer's rules prove that it
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

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerFast as PreTrainedTokenizerFast

from ..errors import ConfigurationError, NoInputError, UsageError
from ..records.batching import batched

EOS = "<|endoftext|>"
SMALLEST_VOCABULARY = 257  # of a byte-level tokenizer: the 256 bytes and EOS
BATCH_CHARACTERS = 1 << 20  # tokenized together: about 25 MB of tokens, and enough texts for every core
PIECE_CHARACTERS = 1 << 16  # longer texts are split: sixteen pieces make a batch

Ids = NDArray[np.int32]
Specification = dict[str, Any]  # the content of a tokenizer.json
Split = Callable[[str], Iterator[str]]

# --- loading and training ---


def load_tokenizer(directory: Path, *, needs_eos: bool = True, must_be_fast: bool = True) -> Any:
    """The tokenizer in a directory: any that transformers loads without running its code, or GPT-2's bare
    vocab.json and merges.txt.

    A tokenizer that is written in Python is refused if it `must_be_fast`.

    Raises NoInputError if there is no such directory, and ConfigurationError if the tokenizer cannot be
    loaded, or `needs_eos` and has no EOS token.
    """
    if not directory.is_dir():
        remedy = "name the folder that holds the tokenizer"
        raise NoInputError("is not a directory", place=str(directory), remedy=remedy)
    place = str(directory)
    tokenizer: Any
    try:
        tokenizer = _read(directory)
    except Exception as error:  # each format fails in a way of its own
        fault = f"its tokenizer cannot be loaded ({first_line(error)})"
        raise ConfigurationError(fault, place=place) from error
    if must_be_fast and not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigurationError(
            "its tokenizer is not a fast one", place=place, remedy="convert it to a tokenizer.json"
        )
    if needs_eos and tokenizer.eos_token_id is None:
        raise ConfigurationError("its tokenizer has no EOS token", place=place, remedy="set eos_token")
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        _remove_limits(tokenizer.backend_tokenizer)  # before it is saved with a new model, too
    return tokenizer


def _read(directory: Path) -> Any:
    """Load whichever format the directory holds."""
    vocabulary = directory / "vocab.json"
    merges = directory / "merges.txt"
    # A tokenizer_config.json or config.json names the class that reads the two files, which need not be
    # GPT-2's.
    described = any(
        (directory / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "config.json")
    )
    if merges.exists() and not described:
        return _byte_level(models.BPE.from_file(str(vocabulary), str(merges)))
    return AutoTokenizer.from_pretrained(directory, local_files_only=True, trust_remote_code=False)


def train_tokenizer(texts: Iterable[str], size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE of `size` entries: EOS, the 256 bytes, then merges. It has fewer if the texts
    yield fewer merges.

    Raises UsageError if `size` has no room for the bytes and EOS.
    """
    if size < SMALLEST_VOCABULARY:
        fault = f"a vocabulary of {size} is too small for the 256 bytes and the EOS token"
        raise UsageError(fault, remedy=f"ask for {SMALLEST_VOCABULARY} or more")
    tokenizer = _byte_level(models.BPE()).backend_tokenizer
    alphabet = sorted(
        pre_tokenizers.ByteLevel.alphabet()
    )  # sorted, so that the ids of the bytes are always the same
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=[EOS], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS)


def _byte_level(model: models.BPE) -> PreTrainedTokenizerFast:
    """A tokenizer with GPT-2's rules around a BPE model."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS)


def first_line(error: BaseException) -> str:
    """The first line of an error's text that is not empty, at most 200 characters; the error's class if it
    has none.
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next((line[:200] for line in lines if line), type(error).__name__)


# --- encoding ---


def encode(tokenizer: Any, texts: Sequence[str], *, special: bool = False) -> list[Ids]:
    """The token ids of each text, int32 (T,), computed on every core; nothing is added and nothing is cut
    off.

    A special token that is spelled out in a text is ordinary text, unless `special` is set. Long texts are
    split, which changes no token (see the top of this file), so memory holds the ids of all texts and little
    more.
    """
    if not hasattr(tokenizer, "backend_tokenizer"):  # a tokenizer that is written in Python
        settings = {"add_special_tokens": False, "split_special_tokens": not special, "verbose": False}
        return [np.array(ids, np.int32) for ids in tokenizer(list(texts), **settings)["input_ids"]]
    pieces: list[list[Ids]] = [[] for _ in texts]
    for batch in batched(_numbered_pieces(tokenizer, texts, special), _size, BATCH_CHARACTERS):
        encoded = _encode_batch(tokenizer, [piece for _, piece in batch], special)
        for (index, _), ids in zip(batch, encoded, strict=True):
            pieces[index].append(ids)
    return [_joined(ids) for ids in pieces]


def _joined(pieces: list[Ids]) -> Ids:
    if len(pieces) == 1:  # nearly every text: no copy
        return pieces[0]
    return np.concatenate([np.empty(0, np.int32), *pieces])


def _numbered_pieces(tokenizer: Any, texts: Sequence[str], special: bool) -> Iterator[tuple[int, str]]:
    """The pieces of all texts, each with the index of its text."""
    for index, text in enumerate(texts):
        is_long = len(text) > PIECE_CHARACTERS
        for piece in _splitter_of(tokenizer, special)(text) if is_long else [text]:
            yield index, piece


def _size(piece: tuple[int, str]) -> int:
    return len(piece[1])


def _encode_batch(tokenizer: Any, texts: list[str], special: bool) -> Iterator[Ids]:
    backend = tokenizer.backend_tokenizer
    _remove_limits(backend)
    if backend.encode_special_tokens == special:
        backend.encode_special_tokens = not special
    for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
        yield np.array(encoding.ids, np.int32)


def _remove_limits(backend: Tokenizer) -> None:
    """Switch off the truncation and padding that a tokenizer.json may ask for. Setting an option clears
    caches, so test it first.
    """
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()


# --- properties ---


def vocabulary_size(tokenizer: PreTrainedTokenizerFast) -> int:
    """One more than the highest id. A tokenizer's length is less where its ids have gaps."""
    return max(tokenizer.get_vocab().values()) + 1


def unknown_token(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The id for text that the vocabulary cannot spell. GPT-2 names one, too, but means its EOS."""
    token: int | None = tokenizer.unk_token_id
    return None if token in (tokenizer.bos_token_id, tokenizer.eos_token_id) else token


def specification(tokenizer: Any) -> Specification:
    """The content of its tokenizer.json; of a tokenizer that is written in Python, only its vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {"model": {"vocab": tokenizer.get_vocab()}}
    content: Specification = json.loads(backend.to_str())
    return content


def tokenizer_hash(tokenizer: Any) -> str:
    """SHA-256, in hexadecimal, of everything that decides the ids of a text.

    It is the same for a bare vocab.json and merges.txt, a tokenizer.json, and what any version of
    transformers makes of them. The decoder, the post-processor, truncation and padding are left out: they do
    not change the ids that `encode` returns.
    """
    content = specification(tokenizer)
    normalizer = content.get("normalizer")
    parts = {
        "normalizer": normalizer,
        "pre_tokenizer": content.get("pre_tokenizer"),
        # Whether an added token is normalized makes no difference without a normalizer.
        "added_tokens": [
            {**token, "normalized": token["normalized"] and bool(normalizer)}
            for token in content.get("added_tokens", ())
        ],
        # An affix of "" is no affix, and some writers leave it out.
        "model": {name: value for name, value in content["model"].items() if value not in (None, "")},
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


# --- splitting long texts ---

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


@lru_cache(maxsize=8)  # reading the specification of a large vocabulary takes half a second
def _splitter_of(tokenizer: Any, special: bool) -> Split:
    return splitter(specification(tokenizer), special=special)


def splitter(tokenizer: Specification, *, special: bool) -> Split:
    """A function from a text to its pieces, which have the same tokens as the whole; one piece if nothing is
    proved for this tokenizer.

    With `special`, special tokens that are spelled out in a text count as tokens and must not be split
    either.
    """
    added = tokenizer["added_tokens"]
    active = [token for token in added if special or not token["special"]]
    # An added token that looks at its surroundings, or is compared after normalization, may differ at a
    # split.
    if not all(map(_ignores_surroundings, active)):
        return _whole
    if tokenizer["normalizer"] and any(token["normalized"] for token in active):
        return _whole
    contents = [token["content"] for token in added]
    if _is_local(tokenizer["normalizer"]) and _splits_into_words(tokenizer["pre_tokenizer"]):
        return lambda text: _pieces(text, END_OF_WORD, 0, contents)
    if _is_like_llama_2(tokenizer):
        return lambda text: _pieces(text, LETTER_BEFORE_SPACE, 1, contents)
    return _whole


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
