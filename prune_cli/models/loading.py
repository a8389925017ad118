"""A causal language model and its tokenizer brought into memory: what may be loaded, on which device, with which numbers.

The one home of transformers for models that exist (`pretrained.py` is that for models that are made).
"""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars

from ..errors import ConfigurationError, OutOfMemoryError, UnavailableError, UsageError
from ..settings.model import Dtype, ModelSettings
from .device import has_bfloat16
from .fast_inference import make_fast
from .safety import check_directory, is_local

log = logging.getLogger(__name__)

HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]
LOADING_ERRORS = (
    OSError,
    ValueError,
    LookupError,
    RuntimeError,
    ImportError,
    AttributeError,
    TypeError,
    MemoryError,
)

# Tokens in a batch, padding included: on a processor no more than its cache takes between two layers; a card wants to be filled.
BATCH_TOKENS = {"cpu": 4096, "cuda": 1 << 16}


@dataclass(frozen=True)
class Found:
    """A model in the Hugging Face layout, but for its weights; `settings` has no `auto` left in it."""

    directory: Path
    tokenizer: Any
    settings: ModelSettings


@dataclass(frozen=True)
class Loaded(Found):
    """A model that is ready to run."""

    network: Any
    parameters: int  # that every token is multiplied with: all but an embedding that is only looked up


def load(name: str, settings: ModelSettings = ModelSettings(), *, trainable: bool = False) -> Loaded:
    """A model and its tokenizer. Nothing is fetched unless `name` is a hub's; only safetensors are read.

    A `trainable` one has weights in float32, whatever it is to compute in, takes gradients, and is not made fast.

    Raises ConfigurationError, UnavailableError (the hub did not answer), OutOfMemoryError.
    """
    found = find(name, settings)
    how = replace(found.settings, dtype=Dtype.float32) if trainable else found.settings
    network = _load_network(found.directory, how, name).requires_grad_(trainable)
    parameters = _parameters(network)
    if not trainable:
        make_fast(network)
    return Loaded(found.directory, found.tokenizer, found.settings, network, parameters)


def find(name: str, settings: ModelSettings = ModelSettings()) -> Found:
    """What can be known of a model before its weights are read; raises as `load`."""
    _silence()
    directory = Path(name) if is_local(name) else _fetch(name)
    check_directory(directory)
    tokenizer = _load_tokenizer(directory)
    with _loading(name):
        config = transformers.AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        ).get_text_config()
    settings = _resolve(settings, config, name)
    _check_vocabulary(tokenizer, config.vocab_size, name)
    return Found(directory, tokenizer, settings)


def versions() -> dict[str, str]:
    """Of the libraries that decide the last digits of a score."""
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def _load_tokenizer(directory: Path) -> Any:
    with _loading(str(directory)):
        return transformers.AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )


def _silence() -> None:
    """Standard error is for people: the libraries' bars and logs are off."""
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    disable_progress_bars()


def _fetch(name: str) -> Path:
    try:
        return Path(
            huggingface_hub.snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["*/*"])
        )
    except (RepositoryNotFoundError, HFValidationError):
        fault = "there is neither such a directory nor such a public model on the hub"
        raise ConfigurationError(fault, place=name, remedy="begin a path with ./") from None
    except OSError as error:
        raise UnavailableError(
            f"the hub cannot be reached ({_first_line(error)})", place=name, remedy="begin a path with ./"
        ) from None


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Say what transformers raises in our words; what it warns of is checked by ourselves."""
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except LOADING_ERRORS as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                "no memory for the weights", place=name, remedy="use --dtype bfloat16 or a smaller model"
            ) from None
        fault = f"cannot be loaded ({_first_line(error)})"
        raise ConfigurationError(
            fault, place=name, remedy="it must be a causal language model that transformers knows"
        ) from error


def _first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def _resolve(settings: ModelSettings, config: Any, name: str) -> ModelSettings:
    """Put what this machine and this model have in place of `auto` and None."""
    device = settings.device if settings.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and (torch.device(device).index or 0) >= torch.cuda.device_count():
        raise ConfigurationError("there is no such device", place=device, remedy="use --device cpu")
    limit = getattr(config, "max_position_embeddings", None)
    context = settings.context or limit
    if context is None:
        raise ConfigurationError(
            "its configuration tells no context length", place=name, remedy="name one with --context"
        )
    if limit and context > limit:
        raise ConfigurationError(
            f"the model reads {limit} tokens at most", place=name, remedy=f"use --context {limit} or less"
        )
    stride = settings.stride or context
    if stride > context:
        raise UsageError(
            f"a stride of {stride} passes over tokens: the context is {context}", place="--stride"
        )
    dtype = settings.dtype
    if dtype == Dtype.auto:
        dtype = Dtype.bfloat16 if has_bfloat16(torch.device(device)) else Dtype.float32
    batch_tokens = settings.batch_tokens or BATCH_TOKENS[torch.device(device).type]
    return replace(
        settings, device=device, dtype=dtype, context=context, stride=stride, batch_tokens=batch_tokens
    )


def _check_vocabulary(tokenizer: Any, size: int, name: str) -> None:
    largest = max(tokenizer.get_vocab().values(), default=-1)
    if largest >= size:
        fault = f"the tokenizer has ids up to {largest}, the model knows {size}"
        raise ConfigurationError(
            fault, place=name, remedy="use the tokenizer that the model was trained with"
        )


def _load_network(directory: Path, settings: ModelSettings, name: str) -> Any:
    loaded: Any
    with _loading(name):
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=getattr(torch, settings.dtype),
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        network, report = loaded
        network = network.eval().to(settings.device)
    if report["missing_keys"]:
        fault = f"the weights lack {_some(report['missing_keys'])}"
        raise ConfigurationError(
            fault, place=name, remedy="config.json is of another model, or this is no language model"
        )
    if report["unexpected_keys"]:
        log.warning("%s: the model has no use for some weights: %s", name, _some(report["unexpected_keys"]))
    return network


def _parameters(network: Any) -> int:
    looked_up, layer = network.get_input_embeddings().weight, network.get_output_embeddings()
    total: int = network.num_parameters()
    return total if layer is None or layer.weight is looked_up else total - looked_up.numel()


def _some(names: set[str]) -> str:
    first, *others = sorted(names)
    return f"{first} and {len(others)} more" if others else first
