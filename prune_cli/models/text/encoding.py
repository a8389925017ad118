"""How a record becomes a model's input: its tokens, the prefix token in front of them, and how many bytes of
text they stand for.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigurationError, DataError
from .tokenizer import Ids as Ids
from .tokenizer import encode, specification, unknown_token

Content = str | Sequence[int]  # a text, or the token ids of a block

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")  # of sentencepiece's byte fallback


@dataclass(frozen=True)
class TokenizedDocument:
    """A record as the model reads it. Every token but the first is scored."""

    tokens: Ids
    n_bytes: int | None  # UTF-8 bytes of the scored tokens; None if the vocabulary cannot tell
    n_unknown: int = 0  # tokens that stand for text the vocabulary cannot spell
    n_prefix: int = 0  # tokens in front (0 or 1) that the record itself does not have

    @property
    def n_scored(self) -> int:
        return max(0, len(self.tokens) - 1)


class Encoder:
    """Turns records into documents with a tokenizer, for a model with `vocabulary` ids; `bos` is as in
    `ModelSettings`.

    Raises ConfigurationError if a prefix token is required and the tokenizer has none.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, bos: str, name: str) -> None:
        prefix = _prefix(tokenizer, bos, name)
        self.tokenizer = tokenizer
        self.vocabulary = vocabulary
        self._text_prefix = prefix if bos != "never" else []
        self._block_prefix = prefix if bos == "always" else []
        self._lengths = token_lengths(tokenizer, vocabulary)
        self._unknown = unknown_token(tokenizer)

    def documents(self, contents: Sequence[Content], place: Callable[[int], str]) -> list[TokenizedDocument]:
        """Encode many records, the texts in parallel. `place` names the record at an index in errors.

        With `bos` auto, a text gets the model's BOS in front (or its EOS, if it has no BOS) and a block of
        ids gets nothing, so every token of a text is scored and all but the first of a block. A special token
        that is spelled out in a text counts as that token, as in plain transformers. A BOS that the tokenizer
        would add by itself is not doubled.

        Raises DataError for an id that the model does not have, and for a text that spells such a token.
        """
        texts = [content for content in contents if isinstance(content, str)]
        ids = iter(encode(self.tokenizer, texts, special=True))
        return [
            self._text(content, next(ids), place(index))
            if isinstance(content, str)
            else self._block(content, place(index))
            for index, content in enumerate(contents)
        ]

    def _text(self, text: str, ids: Ids, place: str) -> TokenizedDocument:
        if len(ids) and int(ids.max()) >= self.vocabulary:
            token = int(ids.max())
            spelled = self.tokenizer.convert_ids_to_tokens(token)
            fault = f"the text spells {spelled} ({token}), a token that the model does not have"
            raise DataError(fault, place=place, remedy="take it out of the text")
        prefix = self._text_prefix
        n_bytes: int | None = len(text.encode())
        if len(ids) and not prefix:
            n_bytes = self._bytes_without_first(len(text.encode()), ids)
        n_unknown = 0 if self._unknown is None else int(np.count_nonzero(ids == self._unknown))
        tokens = np.concatenate([np.array(prefix, np.int32), ids])
        return TokenizedDocument(tokens, n_bytes, n_unknown, len(prefix))

    def _bytes_without_first(self, n_bytes: int, ids: Ids) -> int | None:
        """The bytes of a text without those of its first token, which is not scored."""
        if self._lengths is None:
            return None
        # Sentencepiece puts a space in front of a text; it is part of the first token but not of the text.
        added = max(0, int(self._lengths[ids].sum()) - n_bytes)
        return n_bytes - max(0, int(self._lengths[ids[0]]) - added)

    def _block(self, ids: Sequence[int], place: str) -> TokenizedDocument:
        self._check_ids(ids, place)
        prefix = self._block_prefix
        tokens = np.array([*prefix, *ids], dtype=np.int32)
        n_bytes = None if self._lengths is None else int(self._lengths[tokens[1:]].sum())
        return TokenizedDocument(tokens, n_bytes, n_prefix=len(prefix))

    def _check_ids(self, ids: Sequence[int], place: str) -> None:
        if not len(ids) or 0 <= min(ids) <= max(ids) < self.vocabulary:
            return
        invalid = min(ids) if min(ids) < 0 else max(ids)
        fault = f"input_ids has {invalid}, but the model's ids are 0 to {self.vocabulary - 1}"
        raise DataError(fault, place=place, remedy="use the model that the blocks were packed for")


def _prefix(tokenizer: Any, bos: str, name: str) -> list[int]:
    """The token in front of a text: BOS, or EOS if there is no BOS, as in lm-evaluation-harness; empty if
    there is neither.
    """
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None and bos == "always":
        fault = "its tokenizer has neither BOS nor EOS, and its configuration names none that it has"
        raise ConfigurationError(fault, place=name, remedy="use --bos never")
    return [] if token is None else [token]


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
