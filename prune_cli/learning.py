"""One step of training: gradients of a batch that goes through in as many pieces as memory asks for, AdamW on top."""

import logging
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from . import pretrained
from .errors import ConfigurationError, OutOfMemoryError
from .pretrained import PreTrainedModel

BETAS, EPSILON, DECAY, CLIP = (0.9, 0.95), 1e-8, 0.1, 1.0

log = logging.getLogger(__name__)


@dataclass
class Learner:
    """What changes with every step; products are computed in `dtype`, `rows` blocks go through the model at a time."""

    model: PreTrainedModel
    optimizer: torch.optim.Optimizer
    dtype: torch.dtype
    rows: int
    step: int = 0


def adamw(model: PreTrainedModel) -> torch.optim.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), its decay on matrices alone."""
    parameters = list(model.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": DECAY},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=BETAS, eps=EPSILON, fused=True)


def learn(learner: Learner, batch: Tensor, rate: float) -> tuple[float, float]:
    """Take one step on a batch of blocks, (B, T); its loss in nats a token, and the norm of its gradient before clipping.

    Raises ConfigurationError where either is not finite, and the weights are then what they were; OutOfMemoryError where not
    even one block goes through.
    """
    for group in learner.optimizer.param_groups:
        group["lr"] = rate
    loss = _gradients(learner, batch)
    norm = torch.nn.utils.clip_grad_norm_(learner.model.parameters(), CLIP).item()
    if not math.isfinite(loss) or not math.isfinite(norm):
        fault = f"step {learner.step + 1} has a loss of {loss} and a gradient of norm {norm}"
        raise ConfigurationError(fault, remedy="lower --lr, or raise --warmup")
    learner.optimizer.step()
    learner.optimizer.zero_grad()
    learner.step += 1
    return loss, norm


def _gradients(learner: Learner, batch: Tensor) -> float:
    """Add up the gradients of the mean loss over a batch, fewer rows at a time where memory runs out."""
    while True:
        try:
            return _accumulate(learner, batch)
        except (RuntimeError, MemoryError) as error:  # torch's own is a RuntimeError, and on a CPU nothing more
            if not isinstance(error, (torch.OutOfMemoryError, MemoryError)) and "allocate memory" not in str(error):
                raise
            if learner.rows == 1:
                raise OutOfMemoryError("one block does not fit in memory", remedy="take a smaller model or a shorter context") from None
        learner.rows //= 2
        learner.optimizer.zero_grad()
        log.warning("out of memory: going on with %d blocks at a time", learner.rows)


def _accumulate(learner: Learner, batch: Tensor) -> float:
    total = torch.zeros((), device=batch.device)
    for blocks in batch.split(learner.rows):
        loss = pretrained.loss(learner.model, blocks, learner.dtype, 1 / batch[:, 1:].numel())
        loss.backward()
        total += loss.detach()
    return total.item()
