"""How a record becomes a model's input: its tokens, the prefix token in front of them, and how many bytes of
text they stand for.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigurationError, DataError
from ...records.documents import Conversation, Prompted, PromptedContent
from ...records.fields import Content as Content
from .chat import ChatEncoder
from .tokenizer import Ids as Ids
from .tokenizer import encode, token_lengths, unknown_token


@dataclass(frozen=True)
class TokenizedDocument:
    """A record as the model reads it.

    Every token but the first is scored, or those that `is_scored` marks, bool (T,). Behind a prompt, or in a
    conversation, `unprompted` are the same tokens without what comes before.
    """

    tokens: Ids
    n_bytes: int | None  # UTF-8 bytes of the scored tokens; None if the vocabulary cannot tell
    n_unknown: int = 0  # tokens that stand for text the vocabulary cannot spell
    n_prefix: int = 0  # tokens in front (0 or 1) that the record itself does not have
    is_scored: NDArray[np.bool_] | None = None
    unprompted: "TokenizedDocument | None" = None
    is_unfit: bool = False  # what comes before the first scored token is longer than the context

    @property
    def n_scored(self) -> int:
        return self.scored_before(len(self.tokens))

    def scored_before(self, end: int) -> int:
        """How many of the first `end` tokens are scored."""
        if self.is_scored is None:
            return max(0, end - 1)
        return int(self.is_scored[:end].sum())

    def within(self, context: int) -> "TokenizedDocument":
        """The same, or without any scored token if what comes before the first is longer than the context."""
        if self.is_scored is None or not self.is_scored.any() or self.is_scored.argmax() <= context:
            return self
        return replace(self, is_scored=np.zeros(len(self.tokens), bool), n_bytes=0, is_unfit=True)


class Encoder:
    """Turns records into documents with a tokenizer, for a model with `vocabulary` ids; `bos` is as in
    `ModelSettings`.

    Raises ConfigurationError if a prefix token is required and the tokenizer has none.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, bos: str, name: str) -> None:
        prefix = _prefix(tokenizer, bos, name)
        self.tokenizer = tokenizer
        self.name = name
        self.vocabulary = vocabulary
        self._text_prefix = prefix if bos != "never" else []
        self._block_prefix = prefix if bos == "always" else []
        self._lengths = token_lengths(tokenizer, vocabulary)
        self._unknown = unknown_token(tokenizer)

    def documents(
        self, contents: Sequence[PromptedContent], place: Callable[[int], str]
    ) -> list[TokenizedDocument]:
        """Encode many records, the texts in parallel. `place` names the record at an index in errors.

        With `bos` auto, a text gets the model's BOS in front (or its EOS, if it has no BOS) and a block of
        ids gets nothing, so every token of a text is scored and all but the first of a block. A special token
        that is spelled out in a text counts as that token, as in plain transformers. A BOS that the tokenizer
        would add by itself is not doubled.

        A prompt is tokenized on its own, so that the text behind it has the tokens that it has without.

        Raises DataError for an id that the model does not have, for a text that spells such a token and for
        messages that a chat template refuses, and ConfigurationError for a template that is of no use.
        """
        texts = [text for content in contents for text in _texts(content)]
        ids = iter(encode(self.tokenizer, texts, special=True))
        return [self._document(content, ids, place(index)) for index, content in enumerate(contents)]

    def _document(self, content: PromptedContent, ids: Iterator[Ids], place: str) -> TokenizedDocument:
        """The document of a content; `ids` has those of its texts."""
        if isinstance(content, Conversation):
            return self._conversation(content, place)
        if isinstance(content, Prompted):
            return self._prompted(content, ids, place)
        if isinstance(content, str):
            return self._text(content, next(ids), place)
        return self._block(content, place)

    def _prompted(self, content: Prompted, ids: Iterator[Ids], place: str) -> TokenizedDocument:
        """A text, or a block, behind a prompt."""
        prompt = next(ids)
        self._check_spelling(prompt, place)
        text = self._document(content.text, ids, place)
        prefix, own = np.split(text.tokens, [text.n_prefix])
        tokens = np.concatenate([prefix, prompt, own])
        is_scored = np.arange(len(tokens)) >= max(1, len(tokens) - len(own))  # nothing predicts the first
        n_bytes = text.n_bytes
        if len(prompt) and not len(prefix):
            # Alone, the first token of the text is not scored.
            n_bytes = self._bytes_of(content.text)
        return replace(text, tokens=tokens, n_bytes=n_bytes, is_scored=is_scored, unprompted=text)

    def _bytes_of(self, content: Content) -> int | None:
        if isinstance(content, str):
            return len(content.encode())
        return None if self._lengths is None else int(self._lengths[np.array(content, np.int64)].sum())

    @cached_property
    def _chat(self) -> ChatEncoder:
        return ChatEncoder(self.tokenizer, self.name)

    def _conversation(self, conversation: Conversation, place: str) -> TokenizedDocument:
        """The turns of a conversation. Templates write BOS themselves, so none is added but with `always`."""
        ids, is_scored = self._chat.encode(conversation, place)
        self._check_spelling(ids, place)
        prefix = self._block_prefix if ids[:1].tolist() != self._block_prefix else []
        own = ids[is_scored]
        is_scored = np.concatenate([np.zeros(len(prefix), bool), is_scored])
        is_scored[:1] = False  # nothing predicts it
        tokens = np.concatenate([np.array(prefix, np.int32), ids])
        n_bytes = None if self._lengths is None else int(self._lengths[tokens[is_scored]].sum())
        alone = np.concatenate([np.array(self._text_prefix, np.int32), own])
        return TokenizedDocument(
            tokens,
            n_bytes,
            n_unknown=self._n_unknown(ids),
            n_prefix=len(prefix),
            is_scored=is_scored,
            unprompted=TokenizedDocument(alone, n_bytes, n_prefix=len(self._text_prefix)),
        )

    def _check_spelling(self, ids: Ids, place: str) -> None:
        """Raise DataError if a text spells a token that the model does not have."""
        if len(ids) and int(ids.max()) >= self.vocabulary:
            token = int(ids.max())
            spelled = self.tokenizer.convert_ids_to_tokens(token)
            fault = f"the text spells {spelled} ({token}), a token that the model does not have"
            raise DataError(fault, place=place, remedy="take it out of the text")

    def _n_unknown(self, ids: Ids) -> int:
        return 0 if self._unknown is None else int(np.count_nonzero(ids == self._unknown))

    def _text(self, text: str, ids: Ids, place: str) -> TokenizedDocument:
        self._check_spelling(ids, place)
        prefix = self._text_prefix
        n_bytes: int | None = len(text.encode())
        if len(ids) and not prefix:
            n_bytes = self._bytes_without_first(len(text.encode()), ids)
        tokens = np.concatenate([np.array(prefix, np.int32), ids])
        return TokenizedDocument(tokens, n_bytes, self._n_unknown(ids), len(prefix))

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


def _texts(content: PromptedContent) -> list[str]:
    """The texts of a content that are tokenized as they stand."""
    if isinstance(content, Prompted):
        return [content.prompt, *_texts(content.text)]
    return [content] if isinstance(content, str) else []


def _prefix(tokenizer: Any, bos: str, name: str) -> list[int]:
    """The token in front of a text: BOS, or EOS if there is no BOS, as in lm-evaluation-harness; empty if
    there is neither.
    """
    token = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if token is None and bos == "always":
        fault = "its tokenizer has neither BOS nor EOS, and its configuration names none that it has"
        raise ConfigurationError(fault, place=name, remedy="use --bos never")
    return [] if token is None else [token]
