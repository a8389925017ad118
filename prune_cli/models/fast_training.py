"""A model made fast to train, in place, each layer the same function as before: our own operations on a CPU, compiled on a card."""

import logging
import shutil
from importlib.util import find_spec
from types import MethodType
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel
from transformers.models.gpt2.modeling_gpt2 import GPT2Attention
from transformers.pytorch_utils import Conv1D

from .cpu_kernels import causal_attention, keep_freed_memory, product
from .fast_inference import has_packed_products

log = logging.getLogger(__name__)


def make_fast(model: PreTrainedModel, dtype: torch.dtype, *, compiled: bool = True) -> None:
    """Do what is known to pay on the model's device for products in `dtype`; to be called before the model is wrapped or trained.

    On a card it is compiled, unless that is not wanted: whether the two go together where the model is sharded is not known.
    """
    if model.device.type == "cuda" and compiled:
        if not has_compiler():
            log.warning(
                "the model is not compiled, which makes it slower: torch.compile needs Triton and a C compiler, such as gcc"
            )
        else:
            compile_layers(model)
    if model.device.type == "cpu":
        keep_freed_memory()
        if dtype == torch.bfloat16 and model.config.model_type == "gpt2" and has_packed_products(dtype):
            _use_our_operations(model)


def has_compiler() -> bool:
    """Whether torch.compile can make code for a card: it fails in the first step where it cannot."""
    return find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Compile the trunk, for each of the shapes it will see (a whole piece of a batch, and a last shorter one); names stay as they are."""
    model.base_model.compile(backend=backend, dynamic=False)


def _use_our_operations(model: PreTrainedModel) -> None:
    for layer in model.modules():
        if isinstance(layer, GPT2Attention):
            layer.forward = MethodType(_attention, layer)  # type: ignore[method-assign]
        if isinstance(layer, Conv1D):
            layer.forward = MethodType(_product, layer)  # type: ignore[method-assign]


def _attention(layer: GPT2Attention, inputs: Tensor, **more: Any) -> tuple[Tensor, None]:
    attended = causal_attention(layer.c_attn(inputs), layer.num_heads, layer.scaling)
    return layer.c_proj(attended), None


def _product(layer: Conv1D, inputs: Tensor) -> Tensor:
    return product(inputs, layer.weight, layer.bias)
