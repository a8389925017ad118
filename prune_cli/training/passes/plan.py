"""Which passes of a run choose their blocks (--adapt), and by which rule?"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class AdaptPlan:
    """The rule of a run with --adapt.

    A pass that begins after `start` steps or more, and before `until`, chooses its blocks as `part` says: a
    `share` of all, or of those below the mean.
    """

    part: str
    share: float
    start: int
    until: int | None = None

    def applies(self, step: int) -> bool:
        """Whether a pass that begins after this number of steps chooses its blocks."""
        return self.start <= step and (self.until is None or step < self.until)

    def first_choice(self, length: int, steps: int) -> int | None:
        """The number of steps before the first pass that chooses its blocks; None if no pass of a run does.

        The passes before it train on all blocks, in `length` steps each.
        """
        step = length * max(1, math.ceil(self.start / length))
        return step if step < steps and self.applies(step) else None
