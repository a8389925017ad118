"""How a text becomes token ids: tokenizers loaded, trained and hashed."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer
from transformers import PreTrainedTokenizerFast as PreTrainedTokenizerFast

from ...errors import ConfigurationError, NoInputError, UsageError
from ...records.batching import Bound, batched
from .. import description
from ..library_errors import first_line, remedy_of
from ..safety import TOKENIZER_FILES
from . import splitting
from .special_tokens import TOKENIZER_CONFIG, complete
from .splitting import Specification, Split, splitter

EOS = "<|endoftext|>"
SMALLEST_VOCABULARY = 257  # of a byte-level tokenizer: the 256 bytes and EOS
BATCH_CHARACTERS = 1 << 20  # tokenized together: about 25 MB of tokens, and enough texts for every core

TOKENIZER_REMEDY = "name a folder with a tokenizer.json or tokenizer.model"

Ids = NDArray[np.int32]

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
        _remove_limits(tokenizer.backend_tokenizer)  # before it is saved with a new model, too
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
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=EOS, eos_token=EOS)


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


@lru_cache(maxsize=8)  # reading the specification of a large vocabulary takes half a second
def _splitter_of(tokenizer: Any, special: bool) -> Split:
    return splitter(specification(tokenizer), special=special)


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
