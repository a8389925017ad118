"""The model that is trained: its configuration, its first weights, its loss, and the Hugging Face directory
that it is saved to.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, GPT2Config
from transformers.configuration_utils import PretrainedConfig as PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel as PreTrainedModel
from transformers.utils import logging

from ..errors import ConfigurationError, NoInputError
from ..models import description
from ..models.cpu_kernels import head_loss
from ..models.library_errors import first_line, remedy_of
from ..models.load import load_network
from ..models.text.loading import PreTrainedTokenizerFast
from ..models.text.tokenizer import vocabulary_size

# --- configuration ---


def gpt2_config(
    tokenizer: PreTrainedTokenizerFast, *, layers: int, width: int, heads: int, context: int, entries: int
) -> PretrainedConfig:
    """A GPT-2 of this shape without dropout, with `entries` in its vocabulary or as many as the tokenizer
    needs.

    `gelu_pytorch_tanh` is the same function as GPT-2's own `gelu_new`, in one operation instead of eight.
    """
    return GPT2Config(
        vocab_size=max(entries, vocabulary_size(tokenizer)),
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )


def read_config(path: Path, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    """A model's config.json, with the special tokens of `tokenizer`.

    Raises NoInputError if there is no such file, and ConfigurationError if it is not the configuration of a
    causal language model that can be trained, or its vocabulary is too small.
    """
    if not path.exists():
        raise NoInputError("does not exist", place=str(path))
    values = description.read_json(path)
    description.refuse_encoder_decoder(path, values)
    # A model of plain numbers would be saved with a configuration that claims the opposite.
    description.refuse_quantization(path, values)
    try:
        config: PretrainedConfig = AutoConfig.for_model(values.pop("model_type"), **values)
    except Exception as error:  # each architecture checks its values in a way of its own
        fault = f"is not the config.json of a model ({first_line(error)})"
        remedy = remedy_of(error, "take that of a causal language model")
        raise ConfigurationError(fault, place=str(path), remedy=remedy) from error
    if description.context_length(config) is None:
        fault = "does not say how many tokens the model reads"
        raise ConfigurationError(fault, place=str(path), remedy="set max_position_embeddings")
    needed = vocabulary_size(tokenizer)
    if config.vocab_size < needed:
        fault = f"vocab_size {config.vocab_size} is less than the tokenizer's {needed}"
        raise ConfigurationError(fault, place=str(path), remedy="raise it")
    config.bos_token_id = tokenizer.bos_token_id
    config.eos_token_id = tokenizer.eos_token_id
    return config


def config_hash(config: PretrainedConfig) -> str:
    """BLAKE2b-128, in hexadecimal, of everything in a configuration but the version of transformers."""
    values = {name: value for name, value in config.to_dict().items() if name != "transformers_version"}
    text = json.dumps(values, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


# --- weights ---


def new_model(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """A causal model in float32, with the first weights of its architecture drawn from `seed`.

    For GPT-2 (Radford et al. 2019) they are N(0, 0.02²), divided by √(2 · layers) where they write to the
    residual stream. The model is in evaluation mode and is trained in it: there is no dropout, whatever the
    configuration says.

    Raises ConfigurationError if the configuration describes no causal model, or one whose head is not a
    matrix product.
    """
    with torch.random.fork_rng(devices=[]):  # the caller's random numbers stay as they were
        torch.manual_seed(seed)
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, trust_remote_code=False
            ).eval()
        except (ValueError, RuntimeError) as error:
            fault = f"no model can be made of this configuration ({first_line(error)})"
            raise ConfigurationError(fault) from error
    _check_head(model)
    return model


def load_model(directory: Path) -> PreTrainedModel:
    """Load a causal model in float32, to continue its training. Raises ConfigurationError as `load_network`
    and `new_model` do.
    """
    model: PreTrainedModel = load_network(directory, torch.float32, "cpu")
    _check_head(model)
    return model


def _check_head(model: PreTrainedModel) -> None:
    """Refuse a model whose logits are not its last hidden states times a matrix, because of a bias, a scale
    or a cap.

    `summed_loss` computes just that product, so such a model would be trained as another one than the one
    that is saved.
    """
    ids = torch.arange(8)[None] % model.config.vocab_size
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        logits = model(input_ids=ids, use_cache=False).logits
        if not torch.allclose(hidden @ output_weight(model).T, logits, rtol=1e-3, atol=1e-5):
            fault = f"{type(model).__name__} does more in its head than a matrix product"
            raise ConfigurationError(fault, remedy="take another architecture")


def output_weight(model: PreTrainedModel) -> Tensor:
    """The matrix (V, D) that turns the last hidden state into logits."""
    weight: Tensor = model.get_output_embeddings().weight
    return weight


def transformer_blocks(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The transformer blocks of a model, in order; empty for an architecture that transformers cannot
    checkpoint.
    """
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Make each block keep only its input, and compute its activations again in the backward pass (Chen et
    al. 2016).

    Raises ConfigurationError if the blocks of this architecture are not known.
    """
    blocks = transformer_blocks(model)
    if not blocks:
        fault = f"the layers of a {type(model).__name__} are not known"
        raise ConfigurationError(fault, remedy="leave out --checkpoint-activations")
    for block in blocks:
        # Nothing is random in evaluation mode, so the state of the generators need not be kept.
        block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)


def summed_loss(
    model: PreTrainedModel,
    blocks: Tensor,
    dtype: torch.dtype,
    scale: float,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """`scale` times the summed cross-entropy, in nats, of every token of `blocks` (B, T) but the first of
    each block, and the mean of each block (B), which has no gradient.

    In the sum, each block counts as many times as `weights` (B) says; once by default.
    """
    with torch.autocast(blocks.device.type, dtype, enabled=dtype != torch.float32):
        states = model.base_model(input_ids=blocks, use_cache=False).last_hidden_state
    hidden = states[:, :-1].flatten(0, 1).to(dtype)
    targets = blocks[:, 1:]
    row_weights = None if weights is None else weights[:, None].expand(targets.shape).flatten()
    total, losses = head_loss(hidden, output_weight(model), targets.flatten(), scale, row_weights)
    return total, losses.view(targets.shape).mean(1)


# --- directories ---


def save_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    directory: Path,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write config.json, generation_config.json, model.safetensors, tokenizer.json and tokenizer_config.json.

    `weights` are the model's own by name, for a model that is sharded over processes. Raises OSError if the
    disk is full.
    """
    logging.disable_progress_bar()
    with _os_errors(directory):
        model.save_pretrained(directory, state_dict=weights)
    for path in directory.glob("*.safetensors"):
        shutil.copymode(
            directory / "config.json", path
        )  # safetensors makes files that only their owner can read
    save_tokenizer(tokenizer, directory, description.context_length(model.config))


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: Path, context: int | None = None) -> None:
    """Write tokenizer.json and tokenizer_config.json, with `context` as the longest input. Raises OSError if
    the disk is full.
    """
    if context:
        tokenizer.model_max_length = context
    with _os_errors(directory):
        tokenizer.save_pretrained(directory)
    config = directory / "tokenizer_config.json"
    # transformers 4 does not know the class name that transformers 5 writes; both know the older name.
    config.write_text(config.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"'))


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    """Write a safetensors file. Raises OSError if the disk is full."""
    with _os_errors(path):
        save_file(tensors, path)


@contextmanager
def opened_tensors(path: Path, device: torch.device) -> Iterator[Callable[[str], Tensor]]:
    """A function that reads a tensor of a safetensors file by its name, for as long as the file is open."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        yield file.get_tensor


@contextmanager
def _os_errors(path: Path) -> Iterator[None]:
    """Turn errors of tokenizers and safetensors into OSError where the system refused to write.

    Both are written in Rust and raise exceptions of their own; only the text has the number: "(os error 28)"
    is a full disk.
    """
    try:
        yield
    except Exception as error:
        match = re.search(r"\(os error (\d+)\)", str(error))
        if not match:
            raise
        number = int(match[1])
        raise OSError(number, os.strerror(number), str(path)) from error
