"""One optimizer step: gradients of a batch, accumulated over micro-batches, clipped and given to AdamW."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigurationError, OutOfMemoryError
from ..models.memory import halve_until_it_fits
from . import distributed
from .distributed import SINGLE, Processes
from .model import PretrainedConfig, PreTrainedModel, summed_loss
from .passes.adaptive import AdaptivePasses

# The hyperparameters of GPT-3 (Brown et al. 2020).
BETAS = (0.9, 0.95)
EPSILON = 1e-8
WEIGHT_DECAY = 0.1
MAX_NORM = 1.0  # gradients with a larger norm are scaled down to it

CPU_TOKENS = 4096  # in a micro-batch: from 2,048 to 16,384 the speed is the same, the memory is not
GPU_TOKENS = 64 << 10  # at most in a micro-batch, however large the memory
ACTIVATIONS = 34  # bytes per position, unit of width and layer in 16 bits (Korthikanti et al. 2022)
MEMORY_USED = 0.8  # the fraction of a GPU's memory to plan with: fragments and buffers need the rest


@dataclass
class TrainState:
    """The state that a step changes: the weights, the optimizer's moments and the number of steps so far.

    Matrix products are computed in `dtype`; `micro_batch` is the number of blocks in one pass through the
    model. `wrapped` is the model's loss, wrapped by `Processes.wrap`, or None in a single process. `passes`
    is None without --adapt.
    """

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    dtype: torch.dtype
    micro_batch: int
    step: int = 0
    processes: Processes = SINGLE
    wrapped: torch.nn.Module | None = None
    passes: AdaptivePasses | None = None


class MicroBatch(NamedTuple):
    """Blocks (B, T) that go through the model at once, the scale of their summed loss, and the weight of each
    block in it; None if all weights are 1.
    """

    blocks: Tensor
    scale: float
    weights: Tensor | None = None


class StepResult(NamedTuple):
    """The loss of a step in nats per token, the norm of its gradient before clipping, and the mean loss of
    each block of the batch, on the CPU. Weights of blocks change only the gradient.
    """

    loss: float
    norm: float
    block_losses: Tensor


class Loss(torch.nn.Module):
    """A model and its loss in one module: DDP and FSDP act when the forward pass of a module is called."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, blocks: Tensor, dtype: torch.dtype, scale: float, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As `summed_loss`."""
        return summed_loss(self.model, blocks, dtype, scale, weights)


def loss(state: TrainState, part: MicroBatch) -> tuple[Tensor, Tensor]:
    """The scaled and weighted sum of the losses of a micro-batch, and the mean loss of each of its blocks.

    Of several processes all have to call this.
    """
    if state.wrapped is None:
        return summed_loss(state.model, part.blocks, state.dtype, part.scale, part.weights)
    values: tuple[Tensor, Tensor] = state.wrapped(part.blocks, state.dtype, part.scale, part.weights)
    return values


def adamw(
    model: torch.nn.Module, betas: tuple[float, float] = BETAS, decay: float = WEIGHT_DECAY
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), with weight decay on matrices only, not on biases and norms."""
    matrices = [parameter for parameter in model.parameters() if parameter.ndim >= 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=betas, eps=EPSILON, fused=True)


def train_step(
    state: TrainState,
    batch: Tensor,
    rate: float,
    batch_size: int | None = None,
    weights: Tensor | None = None,
) -> StepResult:
    """Take one optimizer step on a batch of blocks (B, T) with the learning rate `rate`.

    In the gradient, the loss of each block counts as many times as `weights` (B) says. With several processes
    `batch` is this rank's part of `batch_size` blocks; the results are those of all of them.

    Raises ConfigurationError if the loss or the norm is not finite; the weights are then unchanged. Raises
    OutOfMemoryError if not even one block fits in memory.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = rate
    block_losses = accumulate_gradients(state, batch, batch_size or len(batch), weights)
    # The mean over all predicted tokens, as every block has the same number of them.
    loss = block_losses.double().mean().item()
    norm = distributed.scalar(torch.nn.utils.clip_grad_norm_(state.model.parameters(), MAX_NORM))
    if not math.isfinite(loss) or not math.isfinite(norm):
        fault = f"step {state.step + 1} has a loss of {loss} and a gradient of norm {norm}"
        raise ConfigurationError(fault, remedy="lower --lr, or raise --warmup")
    state.optimizer.step()
    state.optimizer.zero_grad()
    state.step += 1
    return StepResult(loss, norm, block_losses)


def accumulate_gradients(
    state: TrainState, batch: Tensor, batch_size: int, weights: Tensor | None = None
) -> Tensor:
    """Accumulate the gradients of the mean loss of a batch, in smaller micro-batches if memory runs out.

    Returns the mean losses of all `batch_size` blocks, on the CPU.
    """
    # One of several processes cannot try again: the others are waiting in a collective call that it takes
    # part in.
    smallest = state.micro_batch if state.wrapped else 1
    remedy = "--checkpoint-activations takes less, as does a smaller model or a shorter context"
    block_losses, state.micro_batch = halve_until_it_fits(
        lambda size: _accumulate(state, micro_batches(state.processes, batch, batch_size, size, weights)),
        state.micro_batch,
        unit="blocks",
        smallest=smallest,
        too_large=OutOfMemoryError(f"{smallest} blocks at a time do not fit in memory", remedy=remedy),
        undo=state.optimizer.zero_grad,
    )
    return _of_all_ranks(state.processes, block_losses[: len(batch)], batch_size)


def _accumulate(state: TrainState, parts: list[MicroBatch]) -> Tensor:
    """Add the gradients of all micro-batches; the mean losses of their blocks."""
    losses = []
    for number, part in enumerate(parts, 1):
        with state.processes.no_sync(state.wrapped, is_last=number == len(parts)):
            total, of_blocks = loss(state, part)
            total.backward()
        # Left on the device: to fetch them would wait for the GPU after every micro-batch.
        losses.append(of_blocks)
    return torch.cat(losses)


def _of_all_ranks(processes: Processes, losses: Tensor, batch_size: int) -> Tensor:
    """The losses of all `batch_size` blocks, on the CPU; each rank has those of its own part."""
    # Each rank adds its own to zeros, which is exact: all ranks get the same numbers.
    of_all = torch.zeros(batch_size, device=losses.device)
    of_all[processes.local_part(batch_size)] = losses
    return processes.all_reduce_sum(of_all).cpu()


def micro_batches(
    processes: Processes, batch: Tensor, batch_size: int, micro_batch: int, weights: Tensor | None = None
) -> list[MicroBatch]:
    """Split this rank's part of a batch into micro-batches, each with the scale of its summed loss.

    The scales make the mean over the ranks the mean over all predicted tokens of the batch, though the ranks'
    parts differ by a block. All ranks get the same number of micro-batches, because FSDP needs all of them
    for each layer: a rank without a block left repeats its first one with scale 0.
    """
    scale = processes.world / (batch_size * batch[0, 1:].numel())
    blocks = batch.split(micro_batch)
    of_blocks: Sequence[Tensor | None] = [None] * len(blocks)
    if weights is not None:
        of_blocks = weights.split(micro_batch)
    parts = [MicroBatch(each, scale, own) for each, own in zip(blocks, of_blocks, strict=True)]
    count = math.ceil(processes.largest_part(batch_size) / micro_batch)
    return parts + [MicroBatch(batch[:1], 0.0)] * (count - len(parts))


def fitting_tokens(
    memory: int,
    parameters: int,
    shards: int,
    config: PretrainedConfig,
    dtype: torch.dtype,
    checkpointed: bool,
) -> int:
    """Estimate how many tokens fit in a micro-batch on a GPU with `memory` bytes that holds one of `shards`
    shards.

    A layer keeps ACTIVATIONS for the backward pass (the attention matrix is not stored). With checkpointed
    activations it keeps only its input, in float32; the activations then exist for one layer at a time.
    """
    layers = config.num_hidden_layers
    width = config.hidden_size
    # Four times the figure of Korthikanti et al. in bfloat16: autocast keeps float32 copies, and the head
    # comes on top. Too small a micro-batch costs little time, one that does not fit ends a run of several
    # processes.
    layer_bytes = ACTIVATIONS * 2 * dtype.itemsize
    token_bytes = width * (4 * layers + layer_bytes if checkpointed else layer_bytes * layers)
    # 16 bytes a parameter for weight, gradient and two moments in float32, sharded; 2 for the copy in
    # bfloat16, not.
    fixed_bytes = (16 / shards + 2) * parameters
    return min(GPU_TOKENS, int((MEMORY_USED * memory - fixed_bytes) / token_bytes))
