"""Which blocks does a step train on, if each pass chooses its blocks by their losses (--adapt)?

Passes are whole steps: the last batch of a pass is filled with the first blocks of the pass. A pass has its
blocks in the order in which a pass of all blocks would have them. The first pass always trains on all blocks,
so that each has a loss when the second begins.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...storage.arrays import Integers
from ..token_file import Blocks
from . import selection
from .plan import AdaptPlan
from .selection import Losses, Weights


class StepBlocks(NamedTuple):
    """The blocks of a step, by their indices, and the weights of their losses; None if all weights are 1."""

    indices: Integers
    weights: Weights | None = None


@dataclass(frozen=True)
class Pass:
    """A pass: its number, the first being 1, the steps before it, and the weights of all blocks in it."""

    number: int
    start: int
    weights: Weights

    @property
    def is_whole(self) -> bool:
        """Whether it trains on all blocks alike."""
        return bool((self.weights == 1).all())

    @property
    def kept(self) -> int:
        """The number of blocks that it trains on."""
        return int(np.count_nonzero(self.weights))


class AdaptivePasses:
    """The passes of a run with --adapt, and the last loss of each block, recorded while it was trained on.

    All ranks have the same numbers here, so that all make the same choices.
    """

    def __init__(self, blocks: Blocks, plan: AdaptPlan, batch_size: int) -> None:
        self._blocks = blocks
        self._plan = plan
        self._batch_size = batch_size
        self._losses: Losses = np.full(blocks.count, np.nan, np.float32)
        # The first pass begins with the first step, if the run does not resume.
        self._pass = Pass(0, 0, np.ones(0, np.float32))
        self._end = 0
        self._order: Integers = np.empty(0, np.int64)
        self._description: Mapping[str, float] = {}

    def batch(self, step: int) -> StepBlocks:
        """The blocks of a step, the first step being 0. Steps are asked for in turn."""
        if step == self._end:
            self._begin(self._next_pass(step))
        first = (step - self._pass.start) * self._batch_size
        places = np.arange(first, first + self._batch_size) % len(self._order)
        indices = self._order[places]
        weights = self._pass.weights[indices]
        return StepBlocks(indices, None if (weights == 1).all() else weights)

    def record(self, indices: Integers, losses: Tensor) -> None:
        """Keep the mean losses of these blocks, in nats per token."""
        self._losses[indices] = losses.numpy()

    def description(self, step: int) -> Mapping[str, float]:
        """What a pass that begins with this step keeps, for metrics.jsonl; empty within a pass."""
        return self._description if step == self._pass.start else {}

    def _next_pass(self, step: int) -> Pass:
        number = self._pass.number + 1
        if not self._plan.applies(step):
            return Pass(number, step, np.ones(self._blocks.count, np.float32))
        return Pass(number, step, selection.weights(self._losses, self._plan, self._blocks.seed, number))

    def _begin(self, begun: Pass) -> None:
        order = self._blocks.order(begun.number - 1)
        self._pass = begun
        self._order = order[begun.weights[order] > 0]
        self._end = begun.start + math.ceil(len(self._order) / self._batch_size)
        # Only an adapted pass is cut short there: a whole one is what the last steps need.
        if self._plan.until is not None and not begun.is_whole:
            self._end = min(self._end, self._plan.until)
        self._description = self._described()

    def _described(self) -> dict[str, float]:
        weights = self._pass.weights
        described: dict[str, float] = {"pass": self._pass.number, "kept_blocks": self._pass.kept}
        if not self._pass.is_whole:
            kept = self._losses[weights > 0]
            described |= {"kept_min_loss": float(kept.min()), "kept_max_loss": float(kept.max())}
            described["rescaled_blocks"] = int(np.count_nonzero(weights > 1))
        return described

    def tensors(self) -> dict[str, Tensor]:
        """Everything that a checkpoint needs to resume with these passes."""
        place = np.array([self._pass.number, self._pass.start])
        values = {"losses": self._losses, "weights": self._pass.weights, "place": place}
        return {name: torch.from_numpy(value) for name, value in values.items()}

    def restore(self, read: Callable[[str], Tensor]) -> None:
        """Continue with `tensors`, read by their names."""
        number, start = read("place").tolist()
        self._losses = read("losses").numpy()
        self._begin(Pass(number, start, read("weights").numpy()))
