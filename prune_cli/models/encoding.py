"""A text or a block of ids as a model sees it: tokens, what stands in front of them, and how many bytes they are."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, DataError
from .pretrained import encode, specification, unknown_token

Content = str | Sequence[int]  # a text, or the ids of a block
Ids = NDArray[np.int32]

BYTE_TOKEN = re.compile(r"<0x[0-9A-F]{2}>")


@dataclass(frozen=True)
class Document:
    """A record as the model sees it: every token but the first is scored; `n_prefix` of them (0 or 1) the record does not have."""

    tokens: Ids
    n_bytes: int | None  # UTF-8 bytes of the scored tokens, None where the vocabulary cannot say
    n_unknown: int = 0  # tokens that stand for text the vocabulary cannot spell
    n_prefix: int = 0

    @property
    def n_scored(self) -> int:
        return max(0, len(self.tokens) - 1)


class Encoder:
    """Makes documents with a tokenizer, for a model of `vocabulary` ids; `bos` is as in `ModelSettings`."""

    def __init__(self, tokenizer: Any, vocabulary: int, bos: str, name: str) -> None:
        self.tokenizer, self.vocabulary = tokenizer, vocabulary
        first = _prefix(tokenizer, bos, name)
        self._before_text = first if bos != "never" else []
        self._before_block = first if bos == "always" else []
        self._lengths = token_lengths(tokenizer, vocabulary)
        self._unknown = unknown_token(tokenizer)

    def documents(self, contents: Sequence[Content], place: Callable[[int], str]) -> list[Document]:
        """Many records' documents, the texts in parallel. `place` names the record at an index, for errors.

        A text gets the model's BOS in front (else its EOS), a block gets nothing, unless `bos` says otherwise: then every token that
        the record itself has is scored, or all but its first. A special token that is spelled out in a text is that token, as plain
        transformers has it; a BOS that the tokenizer would add itself is not doubled. Raises DataError for an unknown id.
        """
        texts = [content for content in contents if isinstance(content, str)]
        ids = iter(encode(self.tokenizer, texts, special=True))
        return [
            self._text(content, next(ids)) if isinstance(content, str) else self._block(content, place(index))
            for index, content in enumerate(contents)
        ]

    def _text(self, text: str, ids: Ids) -> Document:
        before = self._before_text
        n_bytes: int | None = len(text.encode())
        if len(ids) and not before:
            n_bytes = self._without_first(len(text.encode()), ids)
        unknown = 0 if self._unknown is None else int(np.count_nonzero(ids == self._unknown))
        return Document(np.concatenate([np.array(before, np.int32), ids]), n_bytes, unknown, len(before))

    def _without_first(self, n_bytes: int, ids: Ids) -> int | None:
        """A text's bytes without its first token's; the space that sentencepiece puts in front of a text is not the text's."""
        if self._lengths is None:
            return None
        added = max(0, int(self._lengths[ids].sum()) - n_bytes)
        return n_bytes - max(0, int(self._lengths[ids[0]]) - added)

    def _block(self, ids: Sequence[int], place: str) -> Document:
        if len(ids) and not 0 <= min(ids) <= max(ids) < self.vocabulary:
            fault = f"input_ids has {min(ids) if min(ids) < 0 else max(ids)}, and the model knows the ids from 0 to {self.vocabulary - 1}"
            raise DataError(fault, place=place, remedy="use the model that the blocks were packed for")
        before = self._before_block
        tokens = np.array([*before, *ids], dtype=np.int32)
        n_bytes = None if self._lengths is None else int(self._lengths[tokens[1:]].sum())
        return Document(tokens, n_bytes, n_prefix=len(before))


def _prefix(tokenizer: Any, bos: str, name: str) -> list[int]:
    """The token that stands before a text: BOS, else EOS, as in lm-evaluation-harness."""
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None and bos == "always":
        raise ConfigurationError(
            "the tokenizer has neither BOS nor EOS", place=name, remedy="use --bos never"
        )
    return [] if token is None else [token]


def token_lengths(tokenizer: Any, vocabulary: int) -> NDArray[np.int64] | None:
    """How many bytes of text each id stands for, special tokens 0; None unless the vocabulary is made of bytes.

    In byte-level BPE each character of a token stands for one byte; with byte fallback ▁ is a space and <0x0A> a byte.
    """
    spec = specification(tokenizer)
    byte_level = "ByteLevel" in json.dumps(spec.get("decoder"))
    if not byte_level and not spec["model"].get("byte_fallback"):
        return None
    lengths = np.zeros(vocabulary, np.int64)
    for token, index in tokenizer.get_vocab().items():
        lengths[index] = len(token) if byte_level else _sentencepiece_length(token)
    for added in spec["added_tokens"]:
        lengths[added["id"]] = len(added["content"].encode())
    lengths[tokenizer.all_special_ids] = 0
    return lengths


def _sentencepiece_length(token: str) -> int:
    return 1 if BYTE_TOKEN.fullmatch(token) else len(token.replace("▁", " ").encode())
