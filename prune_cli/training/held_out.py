"""The held-out loss: the loss of training on documents that are not trained on, packed into blocks in the
same way.
"""

import numpy as np
import torch

from . import token_file
from .step import MicroBatch, TrainState, loss


def mean_loss(state: TrainState, blocks: token_file.Blocks) -> float:
    """Mean negative log-likelihood in nats per token, over all tokens of `blocks` but the first of each
    block.

    Every rank computes its part of the blocks, and all ranks the same number of micro-batches (see `step`).
    """
    processes = state.processes
    device = next(state.model.parameters()).device
    local = range(blocks.count)[processes.local_part(blocks.count)]
    # Float64: the sum over a large held-out set would lose digits in float32.
    total = torch.zeros((), dtype=torch.float64, device=device)
    with torch.no_grad():
        for start in range(0, processes.largest_part(blocks.count), state.micro_batch):
            indices = local[start : start + state.micro_batch]
            # A rank that has run out of blocks takes part with one that counts for nothing.
            stacked = np.stack([blocks[index] for index in indices or (0,)])
            blocks_of_rank = torch.from_numpy(stacked).to(device)
            total += loss(state, MicroBatch(blocks_of_rank, 1.0 if indices else 0.0))[0]
    return processes.all_reduce_sum(total).item() / (blocks.count * (blocks.context - 1))
