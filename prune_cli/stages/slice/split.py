"""How is a batch of records split into kept and rejected ones, and what is counted on the way?"""

from dataclasses import dataclass, field

import numpy as np

from ...records.columns import Labels, counts, selected
from ...records.reader import Batch
from ...statistics.correlation import LengthCorrelation
from ...statistics.drift import DriftWatch
from ...stream.batch import Lines
from ...stream.writer import GROUPS
from .counts import CUT, KEPT, UNSCORED, FateCounts
from .cutting.whole import ScoredAmount
from .selection import Request, group_field, tokens_field
from .ties import SplitTies


@dataclass
class SliceStatistics:
    """Statistics that grow while a slice is made. The last five are complete after the last record."""

    counts: FateCounts = field(default_factory=FateCounts)
    ties: SplitTies = field(default_factory=SplitTies)
    lengths: LengthCorrelation = field(default_factory=LengthCorrelation)
    length_correlation: float | None = None
    shape: list[float] | None = None  # scores of the whole stream at equal steps: statistics/quantile_grid.py
    drift: DriftWatch | None = None  # of --drift
    unsliced: ScoredAmount | None = None  # before the first slice; None if that is not known, or the ranking
    quantiles: tuple[float, float] | None = None  # between which the cut lies, if only reading shows it

    def add_in_order(self, scores: np.ndarray, tokens: np.ndarray, inside: np.ndarray) -> None:
        """Records in the order of their scores, and whether each is inside the cut."""
        self.ties.add(scores, inside)
        self.lengths.add(scores, tokens)


@dataclass(frozen=True)
class Split:
    """Records in input order: those that are kept and those that are not; None if there are none."""

    kept: Lines | None
    rejected: Lines | None


@dataclass(frozen=True)
class Verdicts:
    """What was decided of each record of a batch. `ranks` are -1 for records without one."""

    inside: np.ndarray  # of the cut
    scored: np.ndarray
    ranks: np.ndarray
    tokens: np.ndarray


class Splitter:
    """Splits batches and counts every record."""

    def __init__(self, request: Request, counts: FateCounts, is_grouped: bool = True) -> None:
        self.request = request
        self.counts = counts
        # One label more than a trailer counts shows that there are too many; none if the file has no groups.
        self.groups = Labels(str, most=GROUPS + 1 if is_grouped else 0)

    def split(self, batch: Batch, verdicts: Verdicts) -> Split:
        """A batch by its verdicts."""
        scored = verdicts.scored
        kept = scored & (verdicts.inside != self.request.selection.invert)
        if self.request.selection.keep_unscored:
            kept |= ~scored
        fates = np.where(kept, KEPT, np.where(scored, CUT, UNSCORED))
        groups = self.groups.codes(batch[group_field(self.request)])
        self.counts.add(fates, groups, self.groups.names, verdicts.tokens)
        return Split(self._lines(batch, verdicts, groups, kept), self._lines(batch, verdicts, groups, ~kept))

    def _lines(self, batch: Batch, verdicts: Verdicts, groups: np.ndarray, mask: np.ndarray) -> Lines | None:
        if not mask.any():
            return None
        text, sizes = selected(batch.text, batch.ends, mask)
        return Lines(
            text=text,
            sizes=sizes,
            tokens=verdicts.tokens[mask],
            nulls=~verdicts.scored[mask],
            ranks=verdicts.ranks[mask],
            groups=groups[mask],
            names=self.groups.names,
        )


def tokens_of(batch: Batch, request: Request) -> np.ndarray:
    """The token counts of a batch, 0 for records without one."""
    return counts(batch[tokens_field(request)])
