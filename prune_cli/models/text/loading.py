"""How are tokenizers loaded and trained? By transformers: importing this takes three seconds."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import models, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerFast as PreTrainedTokenizerFast

from ...errors import ConfigurationError, NoInputError, UsageError
from .. import description
from ..library_errors import first_line, remedy_of
from ..safety import TOKENIZER_FILES
from .special_tokens import TOKENIZER_CONFIG, complete
from .tokenizer import EOS, byte_level, remove_limits

SMALLEST_VOCABULARY = 257  # of a byte-level tokenizer: the 256 bytes and EOS

TOKENIZER_REMEDY = "name a folder with a tokenizer.json or tokenizer.model"


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
    description.refuse_pointers(directory)
    tokenizer: Any
    try:
        tokenizer = _read(directory)
    except Exception as error:  # each format fails in a way of its own
        if not any((directory / name).exists() for name in TOKENIZER_FILES):
            description.refuse_adapter(directory, ())  # an adapter's folder need not have a tokenizer
        fault = f"its tokenizer cannot be loaded ({first_line(error)})"
        raise ConfigurationError(fault, place=place, remedy=remedy_of(error, TOKENIZER_REMEDY)) from error
    complete(tokenizer, directory)
    if must_be_fast and not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigurationError(
            "its tokenizer is not a fast one", place=place, remedy="convert it to a tokenizer.json"
        )
    if needs_eos and tokenizer.eos_token_id is None:
        remedy = f"set eos_token in {TOKENIZER_CONFIG}"
        raise ConfigurationError("its tokenizer has no EOS token", place=place, remedy=remedy)
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        remove_limits(tokenizer.backend_tokenizer)  # before it is saved with a new model, too
    return tokenizer


def _read(directory: Path) -> Any:
    """Load whichever format the directory holds."""
    present = {path.name for path in directory.iterdir()}
    if "tokenizer.json" in present:
        # Not by the class that tokenizer_config.json or config.json implies: transformers 5 lets the rules of
        # some classes (Qwen 2, Llama) replace those of the file, and adds the special tokens of a class.
        return PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    # A tokenizer_config.json or config.json names the class that reads the two files, which need not be
    # GPT-2's.
    is_described = not present.isdisjoint((TOKENIZER_CONFIG, "config.json"))
    if "merges.txt" in present and not is_described:
        vocabulary = directory / "vocab.json"
        merges = directory / "merges.txt"
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
    return PreTrainedTokenizerFast(tokenizer_object=byte_level(model), bos_token=EOS, eos_token=EOS)
