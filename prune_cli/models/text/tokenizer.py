"""How a text becomes token ids: encoding, and the properties and the hash of a tokenizer.

A tokenizer is what loading.py or tokenizer_file.py loads. Importing this imports no transformers, which takes
three seconds.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ...records.batching import Bound, batched
from . import splitting
from .splitting import Specification, Split, splitter

EOS = "<|endoftext|>"
BATCH_CHARACTERS = 1 << 20  # tokenized together: about 25 MB of tokens, and enough texts for every core

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")  # of sentencepiece's byte fallback

Ids = NDArray[np.int32]


def byte_level(model: models.BPE) -> Tokenizer:
    """A tokenizer with GPT-2's rules around a BPE model."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens([AddedToken(EOS, special=True)])
    return tokenizer


# --- encoding ---


def encode(tokenizer: Any, texts: Sequence[str], *, special: bool = False) -> list[Ids]:
    """The token ids of each text, int32 (T,), computed on every core; nothing is added and nothing is cut
    off.

    A special token that is spelled out in a text is ordinary text, unless `special` is set. Long texts are
    split, which changes no token (see splitting.py), so memory holds the ids of all texts and little
    more.
    """
    if not hasattr(tokenizer, "backend_tokenizer"):  # a tokenizer that is written in Python
        settings = {"add_special_tokens": False, "split_special_tokens": not special, "verbose": False}
        return [np.array(ids, np.int32) for ids in tokenizer(list(texts), **settings)["input_ids"]]
    pieces: list[list[Ids]] = [[] for _ in texts]
    for batch in batched(_numbered_pieces(tokenizer, texts, special), Bound(_size, BATCH_CHARACTERS)):
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
        is_long = len(text) > splitting.PIECE_CHARACTERS
        for piece in _splitter_of(tokenizer, special)(text) if is_long else [text]:
            yield index, piece


def _size(piece: tuple[int, str]) -> int:
    return len(piece[1])


def _encode_batch(tokenizer: Any, texts: list[str], special: bool) -> Iterator[Ids]:
    backend = tokenizer.backend_tokenizer
    remove_limits(backend)
    if backend.encode_special_tokens == special:
        backend.encode_special_tokens = not special
    for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
        yield np.array(encoding.ids, np.int32)


def remove_limits(backend: Tokenizer) -> None:
    """Switch off the truncation and padding that a tokenizer.json may ask for. Setting an option clears
    caches, so test it first.
    """
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()


@lru_cache(maxsize=8)  # reading the specification of a large vocabulary takes half a second
def _splitter_of(tokenizer: Any, special: bool) -> Split:
    return splitter(specification(tokenizer), special=special)


# --- properties ---


def vocabulary_size(tokenizer: Any) -> int:
    """One more than the highest id. A tokenizer's length is less where its ids have gaps."""
    highest: int = max(tokenizer.get_vocab().values())
    return highest + 1


def unknown_token(tokenizer: Any) -> int | None:
    """The id for text that the vocabulary cannot spell. GPT-2 names one, too, but means its EOS."""
    token: int | None = tokenizer.unk_token_id
    return None if token in (tokenizer.bos_token_id, tokenizer.eos_token_id) else token


def token_lengths(tokenizer: Any, vocabulary: int) -> NDArray[np.int64] | None:
    """How many bytes of text each id stands for, int64 (V,), special tokens 0; None unless the vocabulary is
    made of bytes.
    """
    content = specification(tokenizer)
    is_byte_level = "ByteLevel" in json.dumps(content.get("decoder"))
    if not is_byte_level and not content["model"].get("byte_fallback"):
        return None
    # A tokenizer may have special tokens beyond the model's vocabulary.
    lengths = np.zeros(max(vocabulary, *tokenizer.get_vocab().values()) + 1, np.int64)
    for token, index in tokenizer.get_vocab().items():
        # Byte-level BPE writes each byte as one character: a space is Ġ.
        lengths[index] = len(token) if is_byte_level else _sentencepiece_length(token)
    for added in content["added_tokens"]:  # which are written as they are
        lengths[added["id"]] = len(added["content"].encode())
    lengths[tokenizer.all_special_ids] = 0
    return lengths[:vocabulary]


def _sentencepiece_length(token: str) -> int:
    """The bytes of a token where ▁ is a space and <0x0A> is the byte 10."""
    return 1 if BYTE_TOKEN.fullmatch(token) else len(token.replace("▁", " ").encode())


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
