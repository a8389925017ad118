"""Which tokens of a conversation are the assistant's? The tokenizer's chat template says so.

A template that marks them ({% generation %}) is asked for its marks. Of any other, the assistant's turn is
what it writes between the prompt for a generation and the end of the turn, without white space at the end.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConfigurationError, DataError
from ...records.documents import ASSISTANT, Conversation
from ..library_errors import first_line
from .tokenizer import Ids

MARKED = re.compile(r"\{%-?\s*generation\b")


def check_template(tokenizer: Any, name: str) -> None:
    """Raise ConfigurationError unless a tokenizer has a chat template, and can say where its tokens are."""
    if not getattr(tokenizer, "chat_template", None):
        remedy = "name a model with a chat_template.jinja, or score a text with --prompt-field"
        raise ConfigurationError("its tokenizer has no chat template", place=name, remedy=remedy)
    if not tokenizer.is_fast:
        fault = "its tokenizer does not say where its tokens are in a text, as --chat needs"
        raise ConfigurationError(fault, place=name, remedy="convert it to a tokenizer.json")


def template_hash(tokenizer: Any) -> str:
    """SHA-256 of the chat template."""
    # Several templates by name are a dict; transformers takes the one called default.
    return hashlib.sha256(str(tokenizer.chat_template).encode()).hexdigest()


class ChatEncoder:
    """Encodes conversations with the chat template of a tokenizer, of a model called `name`.

    Raises ConfigurationError as `check_template` does.
    """

    def __init__(self, tokenizer: Any, name: str) -> None:
        check_template(tokenizer, name)
        self.tokenizer = tokenizer
        self.name = name
        self.is_marked = bool(MARKED.search(str(tokenizer.chat_template)))

    def encode(self, conversation: Conversation, place: str) -> tuple[Ids, NDArray[np.bool_]]:
        """The tokens of a conversation, and which of them are the assistant's: (T) each.

        Raises DataError if the template refuses the messages, and ConfigurationError for a template that
        writes earlier turns differently once others follow.
        """
        messages = list(conversation.messages)
        _check_roles(messages, place)
        if self.is_marked:
            options = {"return_dict": True, "return_assistant_tokens_mask": True, "verbose": False}
            encoded = self._apply(messages, place, tokenize=True, **options)
            return np.array(encoded["input_ids"], np.int32), np.array(encoded["assistant_masks"], bool)
        text = self._apply(messages, place, tokenize=False)
        spans = list(self._spans(messages, text, place))
        encoding = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        ids = np.array(encoding["input_ids"], np.int32)
        offsets = np.array(encoding["offset_mapping"], np.int64).reshape(-1, 2)
        is_scored = np.zeros(len(ids), bool)
        for start, end in spans:
            # A token across the border counts, as in transformers.
            is_scored |= (offsets[:, 0] < end) & (offsets[:, 1] > start)
        return ids, is_scored

    def _spans(self, messages: Sequence[dict[str, Any]], text: str, place: str) -> Iterator[tuple[int, int]]:
        """Where the assistant's turns begin and end in the text of all messages."""
        for index, message in enumerate(messages):
            if message["role"] != ASSISTANT:
                continue
            before = self._before(messages, index, place)
            through = self._apply(messages[: index + 1], place, tokenize=False)
            # A template may end all it writes with white space.
            if not (text.startswith(through.rstrip()) and through.startswith(before)):
                raise ConfigurationError(
                    "its chat template does not write a conversation turn by turn",
                    place=self.name,
                    remedy="mark the assistant's text with {% generation %} in chat_template.jinja",
                )
            yield len(before), len(through.rstrip())

    def _before(self, messages: Sequence[dict[str, Any]], index: int, place: str) -> str:
        """What the template writes before the content of a turn of the assistant."""
        if index:
            return str(self._apply(messages[:index], place, tokenize=False, add_generation_prompt=True))
        # No template writes an empty conversation: look for what prompts for a generation in the first turn.
        first = messages[:1]
        text = self._apply(first, place, tokenize=False)
        prompted = self._apply(first, place, tokenize=False, add_generation_prompt=True)
        prompt = prompted.removeprefix(text)
        return str(text[: text.find(prompt) + len(prompt)])

    def _apply(self, messages: Sequence[dict[str, Any]], place: str, **options: Any) -> Any:
        try:
            return self.tokenizer.apply_chat_template(messages, **options)
        except Exception as error:  # a template may fail in any way, and raise what it likes
            fault = f"the chat template refuses its messages: {first_line(error)}"
            raise DataError(fault, place=place, remedy="mend the messages, or remove the record") from None


def _check_roles(messages: Sequence[dict[str, Any]], place: str) -> None:
    """Raise DataError unless each message has a role and a content."""
    for number, message in enumerate(messages, 1):
        if not isinstance(message.get("role"), str) or "content" not in message:
            fault = f"message {number} has no `role` or no `content`"
            raise DataError(fault, place=place, remedy="mend the messages, or remove the record")
