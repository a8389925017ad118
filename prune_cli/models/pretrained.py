"""Models and tokenizers made new, and kept as folders that Hugging Face's transformers (and what reads its format) loads."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GPT2Config
from transformers import PreTrainedTokenizerFast as PreTrainedTokenizerFast
from transformers.configuration_utils import PretrainedConfig as PretrainedConfig
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel as PreTrainedModel
from transformers.utils import logging

from ..errors import ConfigurationError, NoInputError, UsageError
from .cpu_kernels import head_loss
from .safety import check_directory
from .text_splits import PIECE, Cut, cutter

END = "<|endoftext|>"
SMALLEST = 257  # entries of a byte-level vocabulary: the bytes, and the end of a document
CHARACTERS = 1 << 20  # tokenized at a time: a token takes a hundred bytes until it is a number in an array

Ids = NDArray[np.int32]
NOTHING = np.empty(0, np.int32)

# Tokenizers


def load_tokenizer(path: Path, *, needs_end: bool = True) -> PreTrainedTokenizerFast:
    """The tokenizer in a folder: any that transformers has a fast one for, or GPT-2's bare vocab.json and merges.txt.

    Raises NoInputError, and ConfigurationError: also for one that names no end of a document, if it `needs_end`.
    """
    if not path.is_dir():
        raise NoInputError(
            "is not a directory", place=str(path), remedy="name the folder that holds the tokenizer"
        )
    try:
        bare = not (path / "tokenizer.json").exists() and (path / "merges.txt").exists()
        tokenizer = (
            _bare(path)
            if bare
            else AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)
        )
    except Exception as error:  # each format fails in a way of its own
        raise ConfigurationError(
            f"its tokenizer cannot be loaded ({_first_line(error)})", place=str(path)
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ConfigurationError(
            "its tokenizer is not a fast one", place=str(path), remedy="convert it to a tokenizer.json"
        )
    if needs_end and tokenizer.eos_token_id is None:
        raise ConfigurationError(
            "its tokenizer names no end of a document", place=str(path), remedy="set eos_token"
        )
    _take_all(tokenizer)
    return tokenizer


def tokenizer_of(checkpoint: Path, given: Path | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer to go on with from a checkpoint; ConfigurationError where the one that is given is not its own."""
    check_directory(checkpoint)
    own = load_tokenizer(checkpoint)
    if given and tokenizer_hash(load_tokenizer(given)) != tokenizer_hash(own):
        fault = f"was trained with another tokenizer than {given}"
        raise ConfigurationError(fault, place=str(checkpoint), remedy="leave out --tokenizer")
    return own


def _bare(path: Path) -> PreTrainedTokenizerFast:
    return _byte_level(models.BPE.from_file(str(path / "vocab.json"), str(path / "merges.txt")))


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE of `vocabulary` entries: the end of a document first, then the bytes, then merges; fewer if the texts run out."""
    if vocabulary < SMALLEST:
        raise UsageError(
            f"{vocabulary} entries do not hold the bytes and the end of a document",
            remedy=f"ask for {SMALLEST} or more",
        )
    learner = _byte_level(models.BPE()).backend_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=learner, bos_token=END, eos_token=END)


def _byte_level(model: Any) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)


def encode(tokenizer: Any, texts: Sequence[str], *, special: bool = False) -> list[Ids]:
    """Each text's token ids, by every core, with nothing added and nothing cut off.

    A special token that is spelled out in a text is text, unless `special` is set. Long texts go through in pieces, with the very
    ids of the whole, so that memory holds the ids of all texts and little more.
    """
    if not hasattr(tokenizer, "backend_tokenizer"):  # the few that are written in Python
        plain = tokenizer(
            list(texts), add_special_tokens=False, split_special_tokens=not special, verbose=False
        )["input_ids"]
        return [np.array(ids, np.int32) for ids in plain]
    found: list[list[Ids]] = [[] for _ in texts]
    for batch in _batches(tokenizer, texts, special):
        for (index, _), ids in zip(
            batch, _ids(tokenizer, [piece for _, piece in batch], special), strict=True
        ):
            found[index].append(ids)
    return [parts[0] if len(parts) == 1 else np.concatenate([NOTHING, *parts]) for parts in found]


def _batches(tokenizer: Any, texts: Sequence[str], special: bool) -> Iterator[list[tuple[int, str]]]:
    """The pieces of all texts, each with its text's index, about `CHARACTERS` of them at a time."""
    batch: list[tuple[int, str]] = []
    size = 0
    for index, text in enumerate(texts):
        for piece in [text] if len(text) <= PIECE else _cutter(tokenizer, special)(text):
            batch.append((index, piece))
            size += len(piece)
            if size >= CHARACTERS:
                yield batch
                batch, size = [], 0
    if batch:
        yield batch


def _ids(tokenizer: Any, texts: list[str], special: bool) -> Iterator[Ids]:
    _take_all(tokenizer)
    backend = tokenizer.backend_tokenizer
    if backend.encode_special_tokens == special:
        backend.encode_special_tokens = not special
    for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
        yield np.array(encoding.ids, np.int32)


def _take_all(tokenizer: Any) -> None:
    """Take off truncation and padding, which a tokenizer.json may ask for; nothing is touched that is as it should be."""
    backend = tokenizer.backend_tokenizer
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()


@lru_cache(maxsize=8)  # for a large vocabulary it takes half a second
def _cutter(tokenizer: Any, special: bool) -> Cut:
    return cutter(specification(tokenizer), special=special)


def vocabulary(tokenizer: PreTrainedTokenizerFast) -> int:
    """One more than the highest id (a tokenizer's length is less where its ids have holes)."""
    return max(tokenizer.get_vocab().values()) + 1


def unknown_token(tokenizer: PreTrainedTokenizerFast) -> int | None:
    """The token of text that the vocabulary cannot spell; GPT-2 names one, and means its end of text."""
    found: int | None = tokenizer.unk_token_id
    return None if found in (tokenizer.bos_token_id, tokenizer.eos_token_id) else found


def specification(tokenizer: Any) -> dict[str, Any]:
    """What its tokenizer.json says; of the few tokenizers that have none, the vocabulary."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    found: dict[str, Any] = (
        json.loads(backend.to_str()) if backend else {"model": {"vocab": tokenizer.get_vocab()}}
    )
    return found


def tokenizer_hash(tokenizer: Any) -> str:
    """The same for two tokenizers that turn every text into the same ids, however they are stored: SHA-256 in hexadecimal."""
    found = specification(tokenizer)
    parts = {name: found.get(name) for name in ("normalizer", "pre_tokenizer")}
    parts["added_tokens"] = [
        {**token, "normalized": token["normalized"] and bool(parts["normalizer"])}
        for token in found.get("added_tokens", ())
    ]
    parts["model"] = {
        name: value for name, value in found["model"].items() if value not in (None, "")
    }  # an affix of "" is none
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def fingerprint(config: PretrainedConfig) -> str:
    """A hash of what decides the shape of a model."""
    values = {name: value for name, value in config.to_dict().items() if name != "transformers_version"}
    return _hash(json.dumps(values, sort_keys=True, default=str))


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


# Models


def gpt2(
    tokenizer: PreTrainedTokenizerFast, *, layers: int, width: int, heads: int, context: int, entries: int
) -> PretrainedConfig:
    """A GPT-2 of this shape, without dropout; its activation is GPT-2's own `gelu_new` under the name of the faster code."""
    return GPT2Config(
        vocab_size=max(entries, vocabulary(tokenizer)),
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
    """A model's config.json, told the special tokens of `tokenizer`; ConfigurationError where they do not fit together."""
    try:
        values = json.loads(path.read_bytes())
        config: PretrainedConfig = AutoConfig.for_model(values.pop("model_type"), **values)
    except FileNotFoundError:
        raise NoInputError("does not exist", place=str(path)) from None
    except Exception as error:  # each architecture checks its values in a way of its own
        raise ConfigurationError(
            f"is not the config.json of a model ({_first_line(error)})", place=str(path)
        ) from error
    if config.vocab_size < vocabulary(tokenizer):
        fault = f"vocab_size {config.vocab_size} is less than the tokenizer's {vocabulary(tokenizer)}"
        raise ConfigurationError(fault, place=str(path), remedy="raise it")
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    return config


def new_model(config: PretrainedConfig, seed: int) -> PreTrainedModel:
    """A causal model in float32 as its architecture starts it: for GPT-2 N(0, 0.02), what writes to the residual / √(2 layers).

    It is in evaluation mode and is trained so: no dropout, whatever its configuration says.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: PreTrainedModel = AutoModelForCausalLM.from_config(
                config, dtype=torch.float32, trust_remote_code=False
            ).eval()
        except (ValueError, RuntimeError) as error:
            raise ConfigurationError(
                f"no model can be made of this configuration ({_first_line(error)})"
            ) from error
    return _with_plain_head(model)


def load_model(directory: Path) -> PreTrainedModel:
    """A causal model in the Hugging Face layout, in float32, to train on; ConfigurationError for one that cannot be."""
    logging.disable_progress_bar()
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    loaded: Any
    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            directory, dtype=torch.float32, output_loading_info=True, **options
        )
    except Exception as error:  # each architecture fails in a way of its own
        raise ConfigurationError(f"cannot be loaded ({_first_line(error)})", place=str(directory)) from error
    model, report = loaded
    if missing := sorted(report["missing_keys"]):
        raise ConfigurationError(
            f"its weights lack {missing[0]}", place=str(directory), remedy="config.json is of another model"
        )
    return _with_plain_head(model.eval())


def _with_plain_head(model: PreTrainedModel) -> PreTrainedModel:
    """Refuse a model whose loss is not trunk, matrix, softmax (a bias, a scale, a cap): we would train another one than we save."""
    ids = torch.arange(8)[None] % model.config.vocab_size
    with torch.no_grad():
        ours = model.base_model(input_ids=ids, use_cache=False).last_hidden_state @ head(model).T
        if not torch.allclose(ours, model(input_ids=ids, use_cache=False).logits, rtol=1e-3, atol=1e-5):
            fault = f"{type(model).__name__} does more in its head than a matrix product"
            raise ConfigurationError(fault, remedy="take another architecture")
    return model


def head(model: PreTrainedModel) -> Tensor:
    """The matrix (V, D) from the trunk's last state to logits."""
    weight: Tensor = model.get_output_embeddings().weight
    return weight


def layers(model: PreTrainedModel) -> list[torch.nn.Module]:
    """The blocks that a model is a stack of."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Have each layer keep no more than what goes into it, and compute the rest once more in the backward pass."""
    if not (known := layers(model)):
        raise ConfigurationError(
            f"the layers of a {type(model).__name__} are not known",
            remedy="leave out --checkpoint-activations",
        )
    for layer in known:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)


def loss(model: PreTrainedModel, blocks: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
    """`scale` times the summed cross-entropy of every token of `blocks` (B, T) but the first of each, computed in `dtype`."""
    with torch.autocast(blocks.device.type, dtype, enabled=dtype != torch.float32):
        states = model.base_model(input_ids=blocks, use_cache=False).last_hidden_state
    return head_loss(states[:, :-1].flatten(0, 1).to(dtype), head(model), blocks[:, 1:].flatten(), scale)


# Folders


def save(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    directory: Path,
    weights: dict[str, Tensor] | None = None,
) -> None:
    """Write config.json, generation_config.json, model.safetensors, tokenizer.json and tokenizer_config.json.

    `weights` are the model's own by their names where it does not hold them whole.
    """
    logging.disable_progress_bar()
    with _writing(directory):
        model.save_pretrained(directory, state_dict=weights)
    for path in directory.glob("*.safetensors"):
        shutil.copymode(directory / "config.json", path)  # safetensors lets the owner alone read
    save_tokenizer(tokenizer, directory, model.config.max_position_embeddings)


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, directory: Path, context: int | None = None) -> None:
    if context:
        tokenizer.model_max_length = context
    with _writing(directory):
        tokenizer.save_pretrained(directory)
    names = directory / "tokenizer_config.json"
    names.write_text(
        names.read_text().replace('"TokenizersBackend"', '"PreTrainedTokenizerFast"')
    )  # which transformers 4 knows, too


def save_tensors(tensors: dict[str, Tensor], path: Path) -> None:
    with _writing(path):
        save_file(tensors, path)


@contextmanager
def _writing(place: Path) -> Iterator[None]:
    """Have a full disk be an OSError; safetensors and tokenizers, which are written in Rust, say it in words alone."""
    try:
        yield
    except Exception as error:
        if not (found := re.search(r"\(os error (\d+)\)", str(error))):
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(place)) from error


@contextmanager
def tensors(path: Path, device: torch.device) -> Iterator[Callable[[str], Tensor]]:
    """A file's tensors by their names, each read when it is asked for."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        yield file.get_tensor


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
