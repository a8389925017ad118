"""Which tokenizer makes the tokens of blocks? Importing this imports torch."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import ConfigurationError
from ...models.text import tokenizer as tokenizers
from ...models.text.loading import PreTrainedTokenizerFast, load_tokenizer
from ...models.text.special_tokens import warnings_about_end
from ...settings.pack import Last, Packing
from .blocks import BlockLayout, Ids

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BlockTokenizer:
    """A tokenizer, and the EOS token that follows each document."""

    loaded: PreTrainedTokenizerFast
    eos: int

    def encode(self, texts: list[str]) -> list[Ids]:
        """The token ids of each text. Special tokens in a text are plain text."""
        return tokenizers.encode(self.loaded, texts)

    @property
    def hash(self) -> str:
        """Hash of the vocabulary and its rules: equal hashes give equal tokens."""
        return tokenizers.tokenizer_hash(self.loaded)

    @property
    def unknown(self) -> int | None:
        """The token for text that the vocabulary cannot spell; None if it spells everything."""
        return tokenizers.unknown_token(self.loaded)


def load(directory: Path, eos: int | None) -> BlockTokenizer:
    """Load a tokenizer; `eos` overrides its EOS token.

    Raises NoInputError, and ConfigurationError without an EOS token.
    """
    tokenizer = load_tokenizer(directory, needs_eos=eos is None)
    if eos is None:
        for sentence in warnings_about_end(tokenizer, directory):
            log.warning("%s: %s", directory, sentence)
        return BlockTokenizer(tokenizer, int(tokenizer.eos_token_id))
    size = tokenizers.vocabulary_size(tokenizer)
    if eos >= size:
        fault = f"--eod {eos} is outside its vocabulary of {size}"
        raise ConfigurationError(fault, place=str(directory), remedy="name a token that it has")
    return BlockTokenizer(tokenizer, eos)


def provenance_of(packing: Packing, tokenizer: BlockTokenizer) -> dict[str, Any]:
    """Tokenizer and layout for the head.

    `train` and `score` refuse blocks of another tokenizer by this hash.
    """
    return {
        "tokenizer": tokenizer.hash,
        "context": packing.context,
        "eod": tokenizer.eos,
        "last": packing.last.value,
    }


def layout_of(packing: Packing, tokenizer: BlockTokenizer, group: str) -> BlockLayout:
    """How blocks are made with a tokenizer."""
    return BlockLayout(
        context=packing.context,
        eos=tokenizer.eos,
        keep_last=packing.last == Last.keep,
        carry=packing.carried_fields(),
        group=group,
        unknown=tokenizer.unknown,
    )
