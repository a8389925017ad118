"""The loss on held-out documents: that which training lowers, on blocks that are packed as the training data are."""

import numpy as np
import torch

from . import token_file
from .step import Learner, loss


def mean_loss(learner: Learner, blocks: token_file.Blocks) -> float:
    """Nats a token over every token of all blocks but the first of each, which nothing in its block predicts.

    Of many processes each takes its share of the blocks, in as many pieces as every other (see `learning`).
    """
    processes, device = learner.processes, next(learner.model.parameters()).device
    ours, total = (
        range(blocks.count)[processes.share(blocks.count)],
        torch.zeros((), dtype=torch.float64, device=device),
    )
    with torch.no_grad():
        for start in range(0, processes.largest_share(blocks.count), learner.rows):
            some = ours[start : start + learner.rows]
            piece = torch.from_numpy(np.stack([blocks[index] for index in some or (0,)])).to(device)
            total += loss(learner, piece, 1.0 if some else 0.0)
    return processes.mean(total).item() * processes.world / (blocks.count * (blocks.context - 1))
