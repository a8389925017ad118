"""Which blocks does a pass keep, and with which weight, by their losses in earlier passes?"""

from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from ...settings.train import Adaptation
from ...statistics.cuts import fraction
from .orders import mixed
from .plan import AdaptPlan

Losses = NDArray[np.float32]  # of each block, in nats per token
Weights = NDArray[np.float32]  # of each block's loss; 0 leaves the block out

# Makes the bits that drop blocks independent of those that order them (`block_order`).
DROPS = 1


def weights(losses: Losses, plan: AdaptPlan, seed: int, number: int) -> Weights:
    """The weight of each block in the pass with this number. Equal arguments give equal weights for ever."""
    if plan.part == Adaptation.infobatch:
        return _infobatch(losses, plan.share, seed, number)
    return _part(losses, plan.part, plan.share)


def _part(losses: Losses, part: str, share: float) -> Weights:
    """1 for the blocks that `slice --keep PART --frac SHARE` would keep, by their losses."""
    count = len(losses)
    # By way of text: Decimal(0.29) would have all the digits of a float that is not 0.29.
    first, last = fraction(part, Decimal(str(share))).ranks(count)
    chosen = np.zeros(count, np.float32)
    # A pass keeps at least one block.
    first = min(first, count - 1)
    # Stable: of equal losses those of earlier blocks come first.
    chosen[np.argsort(losses, kind="stable")[first : max(last, first + 1)]] = 1
    return chosen


def _infobatch(losses: Losses, share: float, seed: int, number: int) -> Weights:
    """1 from the mean loss on; below it 1 / `share` with this probability, else 0 (Qin et al. 2024).

    The expected gradient is that of all blocks. `share` is 1 − r of the paper.
    """
    is_below = losses < losses.mean(dtype=np.float64)
    bits = mixed(np.arange(len(losses), dtype=np.uint64), seed, number, DROPS)
    is_drawn = bits / 2.0**64 < share
    below = np.where(is_drawn, 1 / share, 0)
    return np.where(is_below, below, 1).astype(np.float32)
