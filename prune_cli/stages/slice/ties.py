"""Which equal scores does a cut tear apart? There, input order decides, and a user should know."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tie:
    """Records with one score, of which the cut keeps some and not all."""

    score: float
    records: int
    inside: int  # of these records, inside the cut


class SplitTies:
    """Finds the ties that a cut splits, from records in the order of their scores, in constant memory.

    The last run of equal scores stays open until a different score comes, because a batch can end inside a
    run.
    """

    def __init__(self) -> None:
        self.split: list[Tie] = []
        # The open run: NaN is different from every score, also from itself.
        self.score = np.nan
        self.records = 0
        self.inside = 0

    def add(self, scores: np.ndarray, inside: np.ndarray) -> None:
        """The next records in the order of their scores, and whether each is inside the cut."""
        starts = np.flatnonzero(np.concatenate((scores[:1] != self.score, scores[1:] != scores[:-1])))
        first = int(starts[0]) if len(starts) else len(scores)
        self.records += first
        self.inside += int(inside[:first].sum())
        if not len(starts):
            return
        self._close(self.score, self.records, self.inside)
        sizes = np.diff(np.append(starts, len(scores)))
        counts = np.add.reduceat(inside, starts, dtype=np.int64)
        # A cut splits one or two runs of a batch, so this loop is short whatever the number of runs.
        for run in np.flatnonzero((counts > 0) & (counts < sizes)).tolist():
            if run < len(starts) - 1:
                self._close(scores[starts[run]], int(sizes[run]), int(counts[run]))
        self.score = scores[-1]
        self.records = int(sizes[-1])
        self.inside = int(counts[-1])

    def _close(self, score: float, records: int, inside: int) -> None:
        if 0 < inside < records:
            # Adding zero turns -0.0 into 0.0, which ties with it.
            self.split.append(Tie(float(score) + 0.0, records, inside))

    def ties(self) -> tuple[Tie, ...]:
        """The split ties of all records that were added, which ends the open run."""
        self._close(self.score, self.records, self.inside)
        self.records = 0
        self.inside = 0
        return tuple(self.split)
