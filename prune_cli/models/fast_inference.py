"""How a network is made fast for scoring: layers are replaced by faster ones that compute the same function.

On an x86 CPU, the matrices of the families below are laid out once as oneDNN reads them, and the activation
that follows a product is computed in the same pass. GPT-2 124M on 2 × 2.6 GHz with AMX, in bfloat16, takes
127 µs a token through the trunk at 8 × 512, and 189 µs without: its GELU alone took as long as a third of the
products.

The operations are private functions of torch, and the layers belong to transformers, so a new version of
either may change them. The replaced network is therefore compared with the plain one when it is loaded. Where
it differs, it is put back as it was.
"""

import logging
import platform
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation, GELUTanh, NewGELUActivation, SiLUActivation
from transformers.pytorch_utils import Conv1D

from .description import context_length
from .library_errors import first_line

log = logging.getLogger(__name__)
Put = Callable[[nn.Module, str, nn.Module], None]

# Families whose matrices are only ever called, never read: the name of a product, and of the activation that
# follows it.
FAMILIES = {
    "gpt2": ("c_fc", "act"),
    "gpt_neox": ("dense_h_to_4h", "act"),
    "llama": ("gate_proj", "act_fn"),
    "mistral": ("gate_proj", "act_fn"),
    "qwen2": ("gate_proj", "act_fn"),
    "qwen3": ("gate_proj", "act_fn"),
}
LAYOUT_ROWS = (
    2048  # rows of a product for which oneDNN chooses the layout; any other number works as well, if slower
)
PROBE_SHAPE = (2, 8)  # sequences and tokens: enough to go through every layer
# By how much the last hidden states may differ, relative to their norm. For GPT-2 124M, the reference model
# and smaller ones of three families, roundings make up to 1.3e-6 in float32 and 0.013 in bfloat16; an
# activation that is left out makes 0.28 to 0.86.
TOLERANCES = {torch.float32: 1e-4, torch.bfloat16: 0.05}


def make_fast(network: Any) -> None:
    """Replace the layers that have a faster form, in place, unless their results differ from the plain ones:
    then warn.
    """
    if not (_can_pack(network) or any(isinstance(module, NewGELUActivation) for module in network.modules())):
        return
    # The first block stands for all: its layers can be put back, while the originals of all blocks would be a
    # second copy of the model.
    block = _first_block(network)
    replaced = _Replaced()
    expected = probe_states(network)
    try:
        _replace_layers(network, block, replaced)
        fault = disagreement(probe_states(network), expected)
    except Exception as error:  # whatever a changed function raises
        fault = first_line(error)
    if fault:
        replaced.restore()
        log.warning(
            "scoring without the faster layers: with this version of torch or transformers, %s", fault
        )
        return
    _replace_layers(network, network, None)


def _first_block(network: Any) -> nn.Module:
    """The first transformer block; the whole network if its blocks are not in a list."""
    lists = (module for module in network.modules() if isinstance(module, nn.ModuleList) and len(module))
    blocks = next(lists, None)
    return network if blocks is None else blocks[0]


def probe_states(network: Any) -> Tensor:
    """The last hidden states (B, T, D) of a few fixed tokens."""
    config = network.config.get_text_config()
    sequences, tokens = PROBE_SHAPE
    # A model may have fewer positions; some name none.
    tokens = min(tokens, context_length(config) or tokens)
    ids = torch.linspace(0, config.vocab_size - 1, sequences * tokens, device=network.device).long()
    with torch.inference_mode():
        states: Tensor = network.base_model(input_ids=ids.view(sequences, tokens), use_cache=False)[0]
    return states


def disagreement(actual: Tensor, expected: Tensor) -> str:
    """What is wrong with results that should be equal but for roundings; empty if nothing is.

    A model whose plain results are not finite cannot be compared; the error that scoring it raises says more.
    """
    if not expected.isfinite().all():
        return ""
    difference = float((actual.double() - expected.double()).norm() / expected.double().norm())
    if difference <= TOLERANCES.get(expected.dtype, TOLERANCES[torch.float32]):
        return ""
    return f"they differ from the plain ones by {difference:.1%}"  # NaN comes here, too


class _Replaced:
    """The layers that were replaced, so that they can be put back."""

    def __init__(self) -> None:
        self.originals: list[tuple[nn.Module, str, nn.Module]] = []

    def put(self, module: nn.Module, name: str, layer: nn.Module) -> None:
        """Replace the layer with that name in a module."""
        self.originals.append((module, name, getattr(module, name)))
        setattr(module, name, layer)

    def restore(self) -> None:
        """Put all layers back, the last first: a layer may have been replaced twice."""
        for module, name, layer in reversed(self.originals):
            setattr(module, name, layer)


def _can_pack(network: Any) -> bool:
    if network.device.type != "cpu" or network.config.model_type not in FAMILIES:
        return False
    return has_packed_products(network.dtype)


def has_packed_products(dtype: torch.dtype) -> bool:
    """Whether this version of torch and this CPU can lay out matrices of this dtype beforehand."""
    operations = torch.ops.mkldnn
    names = ("_linear_pointwise", "_reorder_linear_weight", "_is_mkldnn_bf16_supported")
    if not all(hasattr(operations, name) for name in names):
        return False
    if dtype == torch.bfloat16 and not operations._is_mkldnn_bf16_supported():
        return False
    # On ARM torch sends products to another library, which does not know these layouts.
    return torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")


def _replace_layers(network: Any, part: nn.Module, replaced: _Replaced | None) -> None:
    """Replace the layers of a part of the network; `replaced` keeps the originals, if they may come back."""
    put = replaced.put if replaced else setattr
    # The output layer is not packed: models/head.py reads its weight.
    trunk: Any = network.base_model if part is network else part
    if _can_pack(network):
        product, activation = FAMILIES[network.config.model_type]
        for module in list(trunk.modules()):  # a list, because the layers change meanwhile
            _fuse(module, product, activation, put)
            for name, layer in list(module.named_children()):
                if isinstance(layer, nn.Linear | Conv1D):
                    put(module, name, Packed(layer))
    for module in list(part.modules()):
        for name, layer in list(module.named_children()):
            if isinstance(layer, NewGELUActivation):  # written out in eight operations; torch has it as one
                put(module, name, nn.GELU(approximate="tanh"))


def _fuse(module: nn.Module, product: str, activation: str, put: Put) -> None:
    """Compute an activation in the same pass as the product before it, if the module has both."""
    layer = getattr(module, product, None)
    operation = _fused_operation(getattr(module, activation, None))
    if isinstance(layer, nn.Linear | Conv1D) and operation:
        put(module, product, Packed(layer, *operation))
        put(module, activation, nn.Identity())


def _fused_operation(activation: object) -> tuple[str, str] | None:
    """What oneDNN calls an activation among its post-operations, and the algorithm; None if it has no such
    operation.
    """
    if isinstance(activation, NewGELUActivation | GELUTanh):
        return "gelu", "tanh"
    if isinstance(activation, nn.GELU):
        return "gelu", activation.approximate
    if isinstance(activation, GELUActivation):
        return "gelu", "none"
    if isinstance(activation, SiLUActivation | nn.SiLU):
        return "swish", ""
    return None


class Packed(nn.Module):
    """A linear layer, (..., in) → (..., out), and perhaps an activation. Only oneDNN can read its weight."""

    def __init__(self, layer: nn.Linear | Conv1D, activation: str = "none", algorithm: str = "") -> None:
        super().__init__()
        # Conv1D, GPT-2's linear layer, keeps its weight transposed.
        weight = layer.weight if isinstance(layer, nn.Linear) else layer.weight.t()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), LAYOUT_ROWS)
        self.bias = layer.bias
        self.activation = activation
        self.algorithm = algorithm

    def forward(self, inputs: Tensor) -> Tensor:
        """The layer's output."""
        # The empty list would hold parameters of the activation, which these have none of.
        product: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs, self.weight, self.bias, self.activation, [], self.algorithm
        )
        return product
