"""How is a tokenizer loaded without transformers, which takes three seconds to import?

Only where its files prove that transformers would make nothing else of them: it adds tokens that the files
beside a tokenizer.json name.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models

from .. import description
from .special_tokens import FILES as CONFIGURATIONS
from .special_tokens import TOKENIZER_CONFIG
from .tokenizer import byte_level

FILE = "tokenizer.json"
VOCABULARY, MERGES = "vocab.json", "merges.txt"
ADDED_TOKENS = "added_tokens.json"  # which transformers may add by rules of its own
# Lists of tokens in a configuration.
LISTS = ("extra_special_tokens", "additional_special_tokens")
# What else in a configuration changes tokens.
CHANGING = ("fix_mistral_regex", "model_specific_special_tokens", "init_inputs")


@dataclass(frozen=True, eq=False)
class FileTokenizer:
    """A tokenizer for texts without special tokens: it knows neither BOS nor EOS, nor a chat template."""

    backend_tokenizer: Tokenizer

    def get_vocab(self) -> dict[str, int]:
        """The id of each token, as tokenizers write it."""
        return self.backend_tokenizer.get_vocab(with_added_tokens=True)

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of special tokens, which no text has."""
        added = self.backend_tokenizer.get_added_tokens_decoder()
        return [number for number, token in added.items() if token.special]


def load(directory: Path) -> Any:
    """The tokenizer of a folder: a FileTokenizer, or whatever transformers makes of it.

    Raises NoInputError or ConfigurationError.
    """
    tokenizer = read(directory)
    if tokenizer is None:
        from .loading import load_tokenizer  # with transformers

        return load_tokenizer(directory, needs_eos=False, must_be_fast=False)
    description.refuse_pointers(directory)
    return tokenizer


def read(directory: Path) -> FileTokenizer | None:
    """The tokenizer of a folder; None if only transformers can load it, or say what is wrong with it."""
    try:
        present = {path.name for path in directory.iterdir()}
        if FILE in present:
            return _of_file(directory, present)
        # Beside a configuration the two files may be those of another class.
        if present >= {VOCABULARY, MERGES} and present.isdisjoint((TOKENIZER_CONFIG, "config.json")):
            model = models.BPE.from_file(str(directory / VOCABULARY), str(directory / MERGES))
            return FileTokenizer(byte_level(model))
    except Exception:  # each fault is of a type of its own, and transformers meets it again
        return None
    return None


def _of_file(directory: Path, present: set[str]) -> FileTokenizer | None:
    if ADDED_TOKENS in present:
        return None
    tokenizer = Tokenizer.from_file(str(directory / FILE))
    added = tokenizer.get_added_tokens_decoder()
    contents = [json.loads((directory / name).read_bytes()) for name in CONFIGURATIONS if name in present]
    return FileTokenizer(tokenizer) if all(_adds_nothing(content, added) for content in contents) else None


def _adds_nothing(content: dict[str, Any], added: dict[int, AddedToken]) -> bool:
    """Whether a configuration names no token that a tokenizer.json with these added tokens lacks."""
    special = {token.content for token in added.values() if token.special}
    is_complete = all(isinstance(token, str) and token in special for token in _named(content))
    is_changing = any(content.get(name) for name in CHANGING)
    return is_complete and not is_changing and _agrees(content, added)


def _named(content: dict[str, Any]) -> Iterator[Any]:
    """The special tokens that a configuration names, each by a text or a table with its `content`."""
    tokens = [value for name, value in content.items() if name.endswith("_token")]
    for name in LISTS:
        listed = content.get(name) or []
        tokens += listed if isinstance(listed, list) else [listed]
    for token in tokens:
        # `add_bos_token` is no token.
        if token is not None and not isinstance(token, bool):
            yield token.get("content") if isinstance(token, dict) else token


def _agrees(content: dict[str, Any], added: dict[int, AddedToken]) -> bool:
    """Whether the added tokens that a configuration repeats are those of the tokenizer.json."""
    repeated = content.get("added_tokens_decoder") or {}
    return all(
        repr(added.get(int(number))) == repr(AddedToken(**token)) for number, token in repeated.items()
    )
