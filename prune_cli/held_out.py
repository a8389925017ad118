"""The loss on held-out documents: that which training lowers, on blocks that are packed as the training data are."""

import numpy as np
import torch

from . import pretrained
from .io import tokens
from .learning import Learner


def mean_loss(learner: Learner, blocks: tokens.Blocks) -> float:
    """Nats a token over every token of all blocks but the first of each, which nothing in its block predicts."""
    device, total = next(learner.model.parameters()).device, 0.0
    with torch.no_grad():
        for start in range(0, blocks.count, learner.rows):
            some = np.stack([blocks[index] for index in range(start, min(start + learner.rows, blocks.count))])
            total += pretrained.loss(learner.model, torch.from_numpy(some).to(device), learner.dtype, 1.0).item()
    return total / (blocks.count * (blocks.context - 1))
