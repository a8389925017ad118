"""One step of training: gradients of a batch that goes through in as many pieces as memory asks for, AdamW on top."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import ConfigurationError, OutOfMemoryError
from ..models.memory import halve_until_it_fits
from . import distributed
from .distributed import ALONE, Processes
from .model import PreTrainedModel, summed_loss

BETAS, EPSILON, DECAY, CLIP = (0.9, 0.95), 1e-8, 0.1, 1.0


@dataclass
class Learner:
    """What changes with every step; products are computed in `dtype`, `rows` blocks go through the model at a time."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    dtype: torch.dtype
    rows: int
    step: int = 0
    processes: Processes = ALONE
    shared: torch.nn.Module | None = None  # `Loss`, where many processes add up its gradients


class Loss(torch.nn.Module):
    """A model and its loss in one, which is what is wrapped for many processes."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, blocks: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
        return summed_loss(self.model, blocks, dtype, scale)


def loss(learner: Learner, blocks: Tensor, scale: float) -> Tensor:
    """As `summed_loss`, for the learner's model however it is divided; if it is, all processes have to ask."""
    if learner.shared is None:
        return summed_loss(learner.model, blocks, learner.dtype, scale)
    found: Tensor = learner.shared(blocks, learner.dtype, scale)
    return found


def adamw(
    model: torch.nn.Module, betas: tuple[float, float] = BETAS, decay: float = DECAY
) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), its decay on matrices alone."""
    parameters = list(model.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=betas, eps=EPSILON, fused=True)


def learn(learner: Learner, batch: Tensor, rate: float, size: int | None = None) -> tuple[float, float]:
    """Take one step on a batch of blocks, (B, T); its loss in nats a token, and the norm of its gradient before clipping.

    Of many processes each brings its share of a batch of `size` blocks, and the numbers are those of the whole batch.

    Raises ConfigurationError where either is not finite, and the weights are then what they were; OutOfMemoryError where not
    even one block goes through.
    """
    for group in learner.optimizer.param_groups:
        group["lr"] = rate
    loss = _gradients(learner, batch, size or len(batch))
    norm = distributed.number(torch.nn.utils.clip_grad_norm_(learner.model.parameters(), CLIP))
    if not math.isfinite(loss) or not math.isfinite(norm):
        fault = f"step {learner.step + 1} has a loss of {loss} and a gradient of norm {norm}"
        raise ConfigurationError(fault, remedy="lower --lr, or raise --warmup")
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    learner.step += 1
    return loss, norm


def _gradients(learner: Learner, batch: Tensor, size: int) -> float:
    """Add up the gradients of the mean loss over a batch, fewer rows at a time where memory runs out.

    One of many processes cannot try again: the others are in the middle of a sum that it takes part in.
    """
    smallest = learner.rows if learner.shared else 1
    remedy = "--checkpoint-activations takes less, as does a smaller model or a shorter context"
    loss, learner.rows = halve_until_it_fits(
        lambda rows: _accumulate(learner, batch, size, rows),
        learner.rows,
        unit="blocks",
        smallest=smallest,
        too_large=OutOfMemoryError(f"{smallest} blocks at a time do not fit in memory", remedy=remedy),
        undo=learner.optimizer.zero_grad,
    )
    return loss


def _accumulate(learner: Learner, batch: Tensor, size: int, rows: int) -> float:
    total = torch.zeros((), device=batch.device)
    pieces = _pieces(learner, batch, size, rows)
    for number, (blocks, scale) in enumerate(pieces, 1):
        with learner.processes.unsummed(learner.shared, more=number < len(pieces)):
            part = loss(learner, blocks, scale)
            part.backward()
        total += part.detach()
    return learner.processes.mean(total).item()


def _pieces(learner: Learner, batch: Tensor, size: int, rows: int) -> list[tuple[Tensor, float]]:
    """What goes through the model at a time, and the weight of its loss, so that the mean over all processes is the batch's.

    Sharded processes go through the layers in step, so that each has as many pieces, the last with no weight if need be.
    """
    scale = learner.processes.world / (size * batch[0, 1:].numel())
    pieces = [(blocks, scale) for blocks in batch.split(rows)]
    count = math.ceil(learner.processes.largest_share(size) / rows)
    return pieces + [(batch[:1], 0.0)] * (count - len(pieces))
