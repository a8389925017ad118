"""What a model directory must be before it is loaded: whole, of safetensors, without code of its own. Cheap, and without torch."""

import json
import os
import re
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ..errors import ConfigurationError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
)
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.00.pth")


def check(name: str) -> None:
    """Refuse a local model that cannot be used, before anything is loaded or read. A hub's is looked at once it is fetched.

    Raises ConfigurationError.
    """
    if is_local(name):
        check_directory(Path(name))


def is_local(name: str) -> bool:
    """Whether a model's name is a path, and so never tried on the hub: it exists, or is not spelled as a hub's name is."""
    return os.path.exists(name) or not HUB_NAME.fullmatch(name)


def check_directory(path: Path) -> None:
    """Refuse a directory in the Hugging Face layout that is not whole or not safe. Raises ConfigurationError."""
    if not path.is_dir():
        fault = "is not a directory" if path.exists() else "there is no such model directory"
        raise ConfigurationError(fault, place=str(path), remedy="name a directory in the Hugging Face layout")
    _read_json(path / "config.json")
    for name in ("config.json", "tokenizer_config.json"):
        if (path / name).exists() and "auto_map" in _read_json(path / name):
            fault = f"{name} asks for Python code of the model's own (auto_map)"
            raise ConfigurationError(
                fault, place=str(path), remedy="such code is never run; use a model that transformers knows"
            )
    for weights in _weight_files(path):
        _check_weights(weights)
    if not any((path / name).exists() for name in TOKENIZER_FILES):
        raise ConfigurationError(
            "there is no tokenizer", place=str(path), remedy="put its tokenizer.json beside the weights"
        )


def directory_hash(path: Path) -> str:
    """SHA-256, in hexadecimal, of a model's configuration and weights; a gigabyte takes about a second."""
    found = sha256()
    for file in (path / "config.json", *_weight_files(path)):
        with file.open("rb") as content:
            found.update(file_digest(content, "sha256").digest())
    return found.hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        remedy = "a model directory holds config.json, model.safetensors and tokenizer.json"
        raise ConfigurationError(f"there is no {path.name}", place=str(path.parent), remedy=remedy) from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"cannot be read: {error}", place=str(path), remedy="copy it again"
        ) from None
    if not isinstance(value, dict):
        raise ConfigurationError("is not a JSON object", place=str(path), remedy="copy it again")
    return value


def _weight_files(path: Path) -> list[Path]:
    if (path / "model.safetensors").exists():
        return [path / "model.safetensors"]
    index = path / "model.safetensors.index.json"
    if index.exists():
        return [path / name for name in sorted(set(_read_json(index).get("weight_map", {}).values()))]
    if any((path / name).exists() for name in PICKLES):
        fault = "the weights are a pickle, which can run code when it is loaded"
        raise ConfigurationError(fault, place=str(path), remedy="convert them to safetensors")
    raise ConfigurationError(
        "there are no weights", place=str(path), remedy="put model.safetensors beside config.json"
    )


def _check_weights(path: Path) -> None:
    """Opening reads only the header, and compares the sizes that it tells with the file's."""
    try:
        with safe_open(path, framework="numpy"):
            return
    except FileNotFoundError:
        raise ConfigurationError(
            "a part of the weights is missing", place=str(path), remedy="copy the model again"
        ) from None
    except (SafetensorError, OSError) as error:
        raise ConfigurationError(
            f"the weights are cut off or damaged ({error})", place=str(path), remedy="copy them again"
        ) from None
