"""How a model is made fast for training: layers keep their function, and get our own operations on a CPU, or
are compiled on a GPU.

As in models/fast_inference.py, private functions of torch and layers of transformers are involved. On a CPU
the result is therefore compared with the plain model before it is used: the hidden states and the gradients
of a few tokens. A compiled model is torch's own affair.
"""

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

from .cpu_kernels import causal_attention, linear
from .fast_inference import PROBE_SHAPE, disagreement, has_packed_products
from .library_errors import first_line
from .memory import keep_freed_memory

log = logging.getLogger(__name__)


def make_fast(model: PreTrainedModel, dtype: torch.dtype, *, compiled: bool = True) -> None:
    """Do what pays on the model's device for products in `dtype`. Call it before the model is wrapped or
    trained.

    On a GPU the model is compiled, unless `compiled` is False: nobody has tried compiling a model whose
    weights are sharded.
    """
    if model.device.type == "cuda" and compiled:
        if has_compiler():
            compile_layers(model)
        else:
            log.warning("training is slower: torch.compile needs Triton and a C compiler, such as gcc")
    if model.device.type == "cpu":
        keep_freed_memory()
        # In float32 torch's own operations are as fast; other architectures have not been tried.
        if dtype == torch.bfloat16 and model.config.model_type == "gpt2" and has_packed_products(dtype):
            _use_cpu_kernels(model)


def has_compiler() -> bool:
    """Whether torch.compile can generate code for a GPU. Where it cannot, it would only fail in the first
    step.
    """
    return find_spec("triton") is not None and any(map(shutil.which, ("cc", "gcc", "clang")))


def compile_layers(model: PreTrainedModel, backend: str = "inductor") -> None:
    """Compile the trunk for each shape that it meets: a whole micro-batch, and a last, smaller one. Names of
    weights do not change.
    """
    model.base_model.compile(backend=backend, dynamic=False)


def _use_cpu_kernels(model: PreTrainedModel) -> None:
    """Replace the forward methods of GPT-2's layers, unless their results differ from the plain ones: then
    warn.
    """
    expected = _probe(model)
    # From here on nothing is lost if a function has changed: the methods of the classes are still there.
    try:
        _replace_forwards(model)
        faults = [disagreement(*pair) for pair in zip(_probe(model), expected, strict=True)]
    except Exception as error:  # whatever a changed function raises
        faults = [first_line(error)]
    if any(faults):
        _restore_forwards(model)
        fault = next(filter(None, faults))
        log.warning(
            "training without the faster layers: with this version of torch or transformers, %s", fault
        )


def _probe(model: PreTrainedModel) -> tuple[Tensor, Tensor]:
    """Hidden states of a few fixed tokens, and the gradients of the weights of the first and the last block
    as one vector, both in bfloat16.
    """
    ids = (
        torch.linspace(0, model.config.vocab_size - 1, PROBE_SHAPE[0] * PROBE_SHAPE[1])
        .long()
        .view(PROBE_SHAPE)
    )
    # Gradients pass through all blocks, but those of two are enough: of all they would take more memory than
    # the training itself.
    last = model.config.num_hidden_layers - 1
    weights = [
        weight
        for name, weight in model.base_model.named_parameters()
        if name.startswith(("h.0.", f"h.{last}."))
    ]
    with torch.enable_grad(), torch.autocast("cpu", torch.bfloat16):
        states = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
    # Any fixed direction will do but a constant one, which the last layer norm takes away.
    direction = torch.linspace(-1, 1, states.numel()).view(states.shape).sin()
    gradients = torch.autograd.grad((states.float() * direction).sum(), weights)
    return states.detach().bfloat16(), torch.cat([gradient.flatten() for gradient in gradients]).bfloat16()


def _replace_forwards(model: PreTrainedModel) -> None:
    for layer in model.modules():
        if isinstance(layer, GPT2Attention):
            # On the layer itself, so that names of weights and the class stay as they are.
            layer.forward = MethodType(_attention, layer)  # type: ignore[method-assign]
        if isinstance(layer, Conv1D):
            layer.forward = MethodType(_linear, layer)  # type: ignore[method-assign]


def _restore_forwards(model: PreTrainedModel) -> None:
    """Remove the methods that were set on the layers, so that those of their classes show again."""
    for layer in model.modules():
        if isinstance(layer, GPT2Attention | Conv1D):
            vars(layer).pop("forward", None)


def _attention(layer: GPT2Attention, inputs: Tensor, **more: Any) -> tuple[Tensor, None]:
    """GPT2Attention's forward without dropout, cache or mask, none of which training uses."""
    attended = causal_attention(layer.c_attn(inputs), layer.num_heads, layer.scaling)
    return layer.c_proj(attended), None


def _linear(layer: Conv1D, inputs: Tensor) -> Tensor:
    return linear(inputs, layer.weight, layer.bias)
