"""How a model and its tokenizer come into memory: which ones may be loaded, from where, on which device, with
which settings.
"""

import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import huggingface_hub
import torch
import transformers
from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError
from huggingface_hub.utils.tqdm import disable_progress_bars
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ..errors import ConfigurationError, OutOfMemoryError, UnavailableError, UsageError, ran_out_of_memory
from ..settings.model import Dtype, ModelSettings
from .description import context_length
from .device import dtype_name, resolve_device, resolve_dtype
from .fast_inference import make_fast
from .library_errors import first_line, remedy_of
from .safety import candidate_weights, check_directory, is_local
from .text.loading import load_tokenizer

log = logging.getLogger(__name__)

# The kinds of models that transformers can run as a causal language model, BERT and BART among them.
CAUSAL_KINDS = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.keys()
HUB_FILES = ["*.json", "*.safetensors", "*.model", "*.txt"]  # no pickles, no code

# Tokens in a batch, padding included. On a CPU no more than its cache holds between two layers; a GPU needs
# many to be busy.
BATCH_TOKENS = {"cpu": 4096, "cuda": 1 << 16}


@dataclass(frozen=True)
class ResolvedModel:
    """A model in the Hugging Face layout before its weights are read; `settings` has no `auto` or None."""

    directory: Path
    tokenizer: Any
    settings: ModelSettings


@dataclass(frozen=True)
class LoadedModel(ResolvedModel):
    """A model that is ready to run."""

    network: Any
    parameters: (
        int  # that take part in the products of every token: without an embedding that is only looked up
    )


def load(name: str, settings: ModelSettings = ModelSettings(), *, trainable: bool = False) -> LoadedModel:
    """Load a model and its tokenizer: from a directory, or from the hub if `name` is spelled like a hub's
    name.

    A `trainable` model has float32 weights that take gradients, whatever `settings.dtype` it computes in, and
    plain layers.

    Raises ConfigurationError if the model cannot be used, UnavailableError if the hub does not answer,
    OutOfMemoryError.
    """
    resolved = resolve(name, settings)
    dtype = torch.float32 if trainable else getattr(torch, resolved.settings.dtype)
    network = load_network(resolved.directory, dtype, resolved.settings.device, name)
    network.requires_grad_(trainable)
    parameters = _parameters(network)  # counted before layers are replaced, which hide their weights
    if not trainable:
        make_fast(network)
    return LoadedModel(resolved.directory, resolved.tokenizer, resolved.settings, network, parameters)


def resolve(name: str, settings: ModelSettings = ModelSettings()) -> ResolvedModel:
    """Find out everything about a model that does not need its weights. Raises as `load` does."""
    _silence_libraries()
    directory = Path(name) if is_local(name) else _fetch(name)
    check_directory(directory)
    with _loading(name):
        # A model of text and images keeps the configuration of its language model in a section of its own.
        config = transformers.AutoConfig.from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        ).get_text_config()
    _check_kind(config, name)
    # The tokenizer comes second: transformers reads config.json for it, too, and would blame the tokenizer.
    tokenizer = load_tokenizer(directory, needs_eos=False, must_be_fast=False)
    settings = _resolve_settings(settings, config, name)
    _check_vocabulary(tokenizer, config.vocab_size, name)
    return ResolvedModel(directory, tokenizer, settings)


def load_network(directory: Path, dtype: torch.dtype, device: str, name: str = "") -> Any:
    """Load the weights of a causal language model, in evaluation mode; `name` is what errors call it.

    Raises ConfigurationError if a weight is missing or the model is of an unknown kind, and OutOfMemoryError.
    """
    _silence_libraries()
    name = name or str(directory)
    loaded: Any  # the return type of from_pretrained does not know about output_loading_info
    with _loading(name):
        loaded = transformers.AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=dtype,
            use_safetensors=True,  # never a pickle
            local_files_only=True,  # the files are here, and nothing else may be fetched
            trust_remote_code=False,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are refused below, by name
        )
        network, report = loaded
        network = network.eval().to(device)
    _check_shapes(report["mismatched_keys"], name)
    _check_weights(report["missing_keys"], report["unexpected_keys"], name)
    _check_numbers(network, name)
    if len(weights := candidate_weights(directory)) > 1:
        log.warning("%s: of %s, only the first is used", name, " and ".join(weights))
    return network


def versions() -> dict[str, str]:
    """The versions of the libraries that decide the last digits of a score."""
    return {"torch": torch.__version__, "transformers": transformers.__version__}


def _silence_libraries() -> None:
    """Switch off the libraries' logs and progress bars: standard error is for our own messages."""
    transformers.utils.logging.set_verbosity(logging.CRITICAL)
    transformers.utils.logging.disable_progress_bar()
    disable_progress_bars()


def _fetch(name: str) -> Path:
    """Download a model from the hub, unless it is in the hub's cache. Returns its directory."""
    remedy = "begin a path with ./"
    try:
        # Subfolders hold weights in other formats, such as onnx/.
        directory = huggingface_hub.snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=["*/*"])
    except (RepositoryNotFoundError, HFValidationError):
        fault = "there is neither such a directory nor such a public model on the hub"
        raise ConfigurationError(fault, place=name, remedy=remedy) from None
    except OSError as error:
        fault = f"the hub cannot be reached ({first_line(error)})"
        raise UnavailableError(fault, place=name, remedy=remedy) from None
    return Path(directory)


@contextmanager
def _loading(name: str) -> Iterator[None]:
    """Turn every error of transformers into one of ours. Its warnings are ignored: what they warn of is
    checked below.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except Exception as error:  # each architecture fails in a way of its own
        if ran_out_of_memory(error):
            remedy = "use --dtype bfloat16 or a smaller model"
            raise OutOfMemoryError("no memory for the weights", place=name, remedy=remedy) from None
        fault = f"cannot be loaded ({first_line(error)})"
        remedy = remedy_of(error, "it must be a causal language model that transformers knows")
        raise ConfigurationError(fault, place=name, remedy=remedy) from error


def _resolve_settings(settings: ModelSettings, config: Any, name: str) -> ModelSettings:
    """Replace `auto` and None by values for this machine and this model."""
    device = resolve_device(settings.device)
    limit = context_length(config)  # some architectures have none
    context = settings.context or limit
    if context is None:
        fault = "its configuration does not say how long its context is"
        raise ConfigurationError(fault, place=name, remedy="give a length with --context")
    if limit and context > limit:
        fault = f"the model reads {limit} tokens at most"
        raise ConfigurationError(fault, place=name, remedy=f"use --context {limit} or less")
    stride = settings.stride or context
    if stride > context:
        fault = f"a stride of {stride} would skip tokens: the context is {context}"
        raise UsageError(fault, place="--stride")
    return replace(
        settings,
        device=str(device),
        dtype=Dtype(dtype_name(resolve_dtype(settings.dtype, device))),
        context=context,
        stride=stride,
        batch_tokens=settings.batch_tokens or BATCH_TOKENS[device.type],
    )


def _check_kind(config: Any, name: str) -> None:
    """Refuse what is no causal language model, before anything is said about its context or its weights."""
    if config.is_encoder_decoder or config.model_type not in CAUSAL_KINDS:
        kind = "an encoder-decoder" if config.is_encoder_decoder else "not one"
        fault = f"it must be a causal language model, and {config.model_type} is {kind}"
        raise ConfigurationError(fault, place=name, remedy="use another model")


def _check_vocabulary(tokenizer: Any, size: int, name: str) -> None:
    """Refuse a tokenizer with ids that the model has no embedding for."""
    # Often a padding token was added to the tokenizer alone. A text that spells it is an error of its own.
    unused = {number for number, token in tokenizer.added_tokens_decoder.items() if token.special}
    unused -= {tokenizer.bos_token_id, tokenizer.eos_token_id}
    largest = max((number for number in tokenizer.get_vocab().values() if number not in unused), default=-1)
    if largest >= size:
        fault = f"the tokenizer has ids up to {largest}, but the model's vocabulary has {size} entries"
        remedy = "use the tokenizer that the model was trained with"
        raise ConfigurationError(fault, place=name, remedy=remedy)


def _check_shapes(mismatched: Collection[tuple[str, Any, Any]], name: str) -> None:
    """Refuse weights of other shapes than the configuration asks for: name, shape there, shape here."""
    for weight, stored, asked in sorted(mismatched):
        shapes = f"{'×'.join(map(str, stored))} in the file, {'×'.join(map(str, asked))} by config.json"
        fault = f"{weight} has two shapes: {shapes}"
        raise ConfigurationError(fault, place=name, remedy="take the config.json that belongs to the weights")


def _check_weights(missing: set[str], unexpected: set[str], name: str) -> None:
    """Refuse a model with missing weights, which transformers would fill with random numbers, and warn of
    weights not used.
    """
    if missing:
        fault = f"the weights lack {_summary(missing)}"
        remedy = "config.json is of another model, or this is no language model"
        raise ConfigurationError(fault, place=name, remedy=remedy)
    if unexpected:
        log.warning("%s: the model does not use some of the weights: %s", name, _summary(unexpected))


@torch.inference_mode()
def _check_numbers(network: Any, name: str) -> None:
    """Refuse weights that are NaN or infinite: every score would be, too, or just those of some tokens."""
    for weight_name, weight in network.named_parameters():
        # The extremes of a tensor with a NaN are NaN. One pass over the weights takes no memory.
        if weight.numel() and not torch.isfinite(torch.stack(torch.aminmax(weight))).all():
            fault = f"the weights have NaN or infinite numbers ({weight_name})"
            remedy = "take an earlier checkpoint, or copy the weights again"
            raise ConfigurationError(fault, place=name, remedy=remedy)


def _parameters(network: Any) -> int:
    """How many weights take part in the products of every token; the embedding only does if it is the output
    layer, too.
    """
    embedding = network.get_input_embeddings().weight
    output = network.get_output_embeddings()
    total: int = network.num_parameters()
    is_tied = output is None or output.weight is embedding
    return total if is_tied else total - embedding.numel()


def _summary(names: set[str]) -> str:
    first, *more = sorted(names)
    return f"{first} and {len(more)} more" if more else first
