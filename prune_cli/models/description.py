"""What do the small files of a model's folder say about the model?

No weights are read, and torch is not needed. Besides config.json there are files that change what a model is
(adapters, quantization), and files that only stand for others (pointers of Git LFS).
"""

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError

CONFIG = "config.json"
GENERATION = "generation_config.json"

# Where configurations say how many tokens a model reads; MPT has max_seq_len, BLOOM has seq_length. The
# tokenizer's `model_max_length` is not asked: where nobody set it, it is 1e30.
CONTEXT_NAMES = (
    *("max_position_embeddings", "n_positions", "n_ctx"),
    *("max_seq_len", "max_seq_length", "max_sequence_length", "seq_length"),
    *("context_length", "max_context_length"),
)

# The first line of a file that git puts in the place of a large one until `git lfs pull`.
POINTER = b"version https://git-lfs.github.com/spec/"

ADAPTER = "adapter_config.json"  # of peft, which writes it beside the weights of an adapter
# Words in the names of files with weights that are to be added to those of another model.
PARTS = {"adapter", "adapters", "lora", "delta", "diff"}
# Where quantized weights are described if config.json does not do it: GPTQ, AWQ, and ModelOpt.
QUANTIZATION_FILES = ("quantize_config.json", "quant_config.json", "hf_quant_config.json")
QUANTIZATION_KEYS = ("quantization_config", "compression_config")


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ConfigurationError."""
    refuse_pointer(path)
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        remedy = "a model directory holds config.json, model.safetensors and tokenizer.json"
        raise _error(path.parent, f"there is no {path.name}", remedy) from None
    except (OSError, ValueError) as error:
        raise _error(path, f"cannot be read: {error}", "copy it again") from None
    if not isinstance(value, dict):
        raise _error(path, "is not a JSON object", "copy it again")
    return value


def sections(config: dict[str, Any]) -> list[dict[str, Any]]:
    """A configuration, and that of its language model if it has one of its own, as with images."""
    text = config.get("text_config")
    return [config, text] if isinstance(text, dict) else [config]


def context_length(config: Any) -> int | None:
    """How many tokens a model reads, by its loaded configuration; None if that does not say it."""
    for name in CONTEXT_NAMES:
        value = getattr(config, name, None)
        # XLNet says -1 where it has no limit.
        if isinstance(value, int) and value > 0:
            return value
    return None


def first_rotations(config: Any) -> int | None:
    """Up to how many tokens a model with two sets of rotations ("longrope", as Phi-3) uses the first.

    None for a model with one set.
    """
    rope = getattr(config, "rope_parameters", None) or {}
    # Models with layers of several kinds have parameters for each.
    for parameters in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if parameters.get("rope_type") == "longrope":
            first: int | None = parameters.get("original_max_position_embeddings")
            return first or getattr(config, "original_max_position_embeddings", None)
    return None


def token_ids(folder: Path, name: str) -> dict[str, list[int]]:
    """The ids of a special token, such as `bos_token_id`, by the configuration file that names them.

    A file that is missing, is no JSON or names none is left out: a tokenizer's folder needs no such file.
    """
    named = {}
    for file in (CONFIG, GENERATION):
        values = [section.get(name) for section in sections(_content(folder / file))]
        value = next((value for value in values if value is not None), None)
        # Models of chats name several tokens that end an answer.
        listed = value if isinstance(value, list) else [value]
        # -1 stands for none in some files.
        if ids := [number for number in listed if isinstance(number, int) and number >= 0]:
            named[file] = ids
    return named


def _content(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


# --- files that make a folder unusable ---


def refuse_pointers(folder: Path) -> None:
    """Raise ConfigurationError if a file that describes a model or its tokenizer is a pointer of Git LFS."""
    # Weights are not among them: those for other programs need not have been downloaded.
    for kind in ("*.json", "*.model", "*.txt"):
        for path in sorted(folder.glob(kind)):
            refuse_pointer(path)


def refuse_pointer(path: Path) -> None:
    """Raise ConfigurationError if a file is a pointer of Git LFS."""
    try:
        with path.open("rb") as file:
            is_pointer = file.read(len(POINTER)) == POINTER
    except OSError:  # whoever reads the file says so
        return
    if is_pointer:
        fault = "is only a pointer of Git LFS: the file itself was not downloaded"
        raise _error(path, fault, f"run git lfs pull in {path.parent}")


def refuse_adapter(folder: Path, weights: Collection[Path]) -> None:
    """Raise ConfigurationError if a folder holds an adapter, with or without a model's own `weights`."""
    files = [path for kind in ("*.safetensors", "*.bin", "*.pt") for path in sorted(folder.glob(kind))]
    parts = [path.name for path in files if _is_part(path.name) and path not in weights]
    if (folder / ADAPTER).exists():
        parts.insert(0, ADAPTER)
    if not parts:
        return
    if weights:
        # transformers applies it or not, depending on whether peft is installed.
        fault = f"{parts[0]} belongs to an adapter, which changes the model beside it"
        remedy = "merge the two first (peft: merge_and_unload), or move the adapter out of the folder"
        raise _error(folder, fault, remedy)
    base = _content(folder / ADAPTER).get("base_model_name_or_path") or "another model"
    fault = f"holds an adapter alone ({parts[0]}), to be added to {base}"
    raise _error(folder, fault, "merge it into that model first (peft: merge_and_unload)")


def _is_part(name: str) -> bool:
    # By whole words: "diff" is no part of "diffusion".
    return not PARTS.isdisjoint(re.split("[^a-z]+", name.lower()))


def refuse_quantization(folder: Path, config: dict[str, Any]) -> None:
    """Raise ConfigurationError if the weights are quantized.

    Their packages compute in numbers of their own, whatever --dtype says, and need a GPU of a certain kind.
    """
    for section in sections(config):
        for key in QUANTIZATION_KEYS:
            if section.get(key):
                method = section[key].get("quant_method") if isinstance(section[key], dict) else None
                raise _quantized(folder, f"{CONFIG} ({key}{f': {method}' if method else ''})")
    for name in QUANTIZATION_FILES:
        if (folder / name).exists():
            raise _quantized(folder, name)


def _quantized(folder: Path, place: str) -> ConfigurationError:
    remedy = "take the original weights, or save them with model.dequantize() of transformers"
    return _error(folder, f"the weights are quantized, says {place}", remedy)


def refuse_encoder_decoder(folder: Path, config: dict[str, Any]) -> None:
    """Raise ConfigurationError for a model such as T5 or BART, which reads one text and writes another."""
    if config.get("is_encoder_decoder"):
        kind = config.get("model_type", "it")
        fault = f"{kind} is an encoder and a decoder, not a causal language model"
        raise _error(folder, fault, "use a causal language model")


def _error(path: Path, fault: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(fault, place=str(path), remedy=remedy)
