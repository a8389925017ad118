"""May a model directory be loaded? It must be complete, need no other model, and bring no code.

Its weights must be safetensors of plain numbers. The checks read no weights and need no torch: a mistake is
reported within milliseconds, before any input is read.
"""

import os
import re
from hashlib import file_digest, sha256
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ..errors import ConfigurationError
from . import description
from .description import read_json

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")  # gpt2, or EleutherAI/pythia-70m
# Any of these files is a tokenizer. Whether transformers can load it shows later.
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
# The first of them counts, here and in transformers. Both are there after a merge or a change of format.
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
# Unpickling can run any code, so these files are never opened. They only give a more precise error.
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.00.pth")


def check(name: str) -> None:
    """Check a local model. A model of the hub is checked after its download.

    Raises ConfigurationError.
    """
    if is_local(name):
        check_directory(Path(name))


def is_local(name: str) -> bool:
    """Whether a model's name is a path: it exists, or cannot be a name of the hub."""
    # A path is never looked up on the hub, where somebody else may own that name.
    return os.path.exists(name) or not HUB_NAME.fullmatch(name)


def check_directory(path: Path) -> None:
    """Check a model directory. Raises ConfigurationError if it is incomplete or unsafe."""
    if not path.is_dir():
        fault = "is not a directory" if path.exists() else "there is no such model directory"
        raise _error(path, fault, "name a directory in the Hugging Face layout")
    description.refuse_pointers(path)
    description.refuse_adapter(path, _present_weights(path))
    config = read_json(path / "config.json")
    _check_code(path)
    # An encoder-decoder first: what is said about its weights would mislead.
    description.refuse_encoder_decoder(path, config)
    description.refuse_quantization(path, config)
    for weights in _weight_files(path):
        description.refuse_pointer(weights)
        _check_weights(weights)
    if not any((path / name).exists() for name in TOKENIZER_FILES):
        raise _error(path, "there is no tokenizer", "put its tokenizer.json next to the weights")


def candidate_weights(path: Path) -> list[str]:
    """The names under which a directory holds weights, the one that is used first."""
    return [name for name in WEIGHTS if (path / name).exists()]


def directory_hash(path: Path) -> str:
    """SHA-256, in hexadecimal, of a model's configuration and weights. A gigabyte takes about a second."""
    # The hash of the files' hashes, because large models have their weights in several files.
    digest = sha256()
    for file in (path / "config.json", *_weight_files(path)):
        with file.open("rb") as content:
            digest.update(file_digest(content, "sha256").digest())
    return digest.hexdigest()


def _error(path: Path, fault: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(fault, place=str(path), remedy=remedy)


def _check_code(path: Path) -> None:
    """Refuse a model that comes with Python code."""
    # The code would never be run, but without it the weights would be loaded into a different model.
    for name in ("config.json", "tokenizer_config.json"):
        if (path / name).exists() and "auto_map" in read_json(path / name):
            fault = f"{name} asks for Python code that comes with the model (auto_map)"
            raise _error(path, fault, "such code is never run; use an architecture of transformers")


def _present_weights(path: Path) -> list[Path]:
    """The weights; none if there are none, or only pickles."""
    try:
        return _weight_files(path)
    except ConfigurationError:
        return []


def _weight_files(path: Path) -> list[Path]:
    """The weights, as one file or as the files that the index lists, in the order of their names."""
    whole, index = (path / name for name in WEIGHTS)
    if whole.exists():
        return [whole]
    if index.exists():
        # The index maps tensors to files, so each file occurs many times.
        names = set(read_json(index).get("weight_map", {}).values())
        return [path / name for name in sorted(names)]
    if any((path / name).exists() for name in PICKLES):
        fault = "the weights are a pickle, which can run code when it is loaded"
        raise _error(path, fault, "convert them to safetensors")
    raise _error(path, "there are no weights", "put model.safetensors next to config.json")


def _check_weights(path: Path) -> None:
    """Refuse a file of weights that is missing, truncated or damaged."""
    # Opening it reads only the header, and compares the sizes there with that of the file.
    try:
        with safe_open(path, framework="numpy"):
            return
    except FileNotFoundError:
        raise _error(path, "a part of the weights is missing", "copy the model again") from None
    except (SafetensorError, OSError) as error:
        fault = f"the weights are truncated or damaged ({error})"
        raise _error(path, fault, "copy them again") from None
