"""Whether a cut by score is a cut by length: Spearman's rank correlation of the two, over a stream that is
sorted by score.
"""

from dataclasses import dataclass

import numpy as np

# Lengths below EXACT have a bin each. Longer ones share one with all that have the same first eleven bits.
EXACT = 1 << 16
BINS = EXACT + 47 * 1024  # 1,024 for each power of two from 2¹⁶ to 2⁶²


class LengthCorrelation:
    """Takes records in the order of their scores, and holds three numbers for each length, however many
    records there are.

    Equal scores share the middle of their ranks, as equal lengths do (Kendall 1948). A length is 0 or more.
    """

    def __init__(self) -> None:
        self.n = 0  # records whose rank is settled
        self.counts = np.zeros(BINS, np.int64)  # of those, by length
        self.ranks = np.zeros(BINS)  # of their scores, summed by length
        self.ties = 0.0  # Σ t³ − t over the groups of t equal scores
        # The last score may go on in the next batch: until another one comes, the rank of its records is
        # open.
        self.open_score = np.nan
        self.open_counts = np.zeros(BINS, np.int64)
        self.open_bins: list[np.ndarray] = []  # where `open_counts` is not 0

    def add(self, scores: np.ndarray, lengths: np.ndarray) -> None:
        """Add records that follow those before: scores in order, (n), and as many lengths."""
        bins = _bins(lengths)
        is_first = np.concatenate((scores[:1] != self.open_score, scores[1:] != scores[:-1]))
        starts = np.flatnonzero(is_first)  # of each group of equal scores
        self._keep_open(bins[: starts[0]] if len(starts) else bins)
        if len(starts):
            self._settle_open()
            self._settle(bins[starts[0] : starts[-1]], np.diff(starts))
            self._keep_open(bins[starts[-1] :])
            self.open_score = scores[-1]

    def _keep_open(self, bins: np.ndarray) -> None:
        """Add records with a score of which more may come."""
        np.add.at(self.open_counts, bins, 1)
        self.open_bins.append(np.unique(bins))
        if len(self.open_bins) > 100:  # a tie over millions of records would fill memory
            self.open_bins = [np.unique(np.concatenate(self.open_bins))]

    def _settle(self, bins: np.ndarray, sizes: np.ndarray) -> None:
        """Add groups of equal scores of which no more will come."""
        middles = self.n + np.cumsum(sizes) - (sizes + 1) / 2
        np.add.at(self.ranks, bins, np.repeat(middles, sizes))
        np.add.at(self.counts, bins, 1)
        self.ties += float((sizes.astype(float) ** 3 - sizes).sum())
        self.n += len(bins)

    def _settle_open(self) -> None:
        """No more records have the open score: settle those that have."""
        bins = np.unique(np.concatenate([*self.open_bins, np.zeros(0, np.int64)]))
        self.open_bins = []
        if not len(bins):
            return
        counts = self.open_counts[bins]
        size = int(counts.sum())
        self.ranks[bins] += counts * (self.n + (size - 1) / 2)
        self.counts[bins] += counts
        self.ties += float(size) ** 3 - size
        self.n += size
        self.open_counts[bins] = 0

    def value(self) -> float | None:
        """The correlation, from -1 to 1; None if all scores or all lengths are equal."""
        self._settle_open()
        n = float(self.n)
        length_ranks = np.cumsum(self.counts) - (self.counts + 1) / 2
        squared_mean = n * ((n - 1) / 2) ** 2  # of ranks 0 to n − 1, ties or not
        # Sums of squared deviations; ties take (t³ − t) / 12 from that of the scores.
        of_scores = (n**3 - n - self.ties) / 12
        of_lengths = float((self.counts * length_ranks**2).sum()) - squared_mean
        of_both = float((length_ranks * self.ranks).sum()) - squared_mean
        if min(of_scores, of_lengths) <= 1e-9 * n**3:  # 0, but for rounding
            return None
        return float(of_both / (of_scores * of_lengths) ** 0.5)

    # --- The whole from its parts ---

    def add_segment(self, segment: "Segment") -> None:
        """Add the records of a segment, which follow those before."""
        self._add_tied(segment.first)
        if segment.last is None:
            return
        self._settle_open()
        self.open_score = np.nan
        # The ranks of a segment count from the end of its first tie, which is now at `n`.
        self.ranks[segment.bins] += segment.ranks + segment.counts * float(self.n)
        self.counts[segment.bins] += segment.counts
        self.ties += segment.ties
        self.n += int(segment.counts.sum())
        self._add_tied(segment.last)

    def _add_tied(self, tied: "TiedLengths | None") -> None:
        """Add records of one score, of which more may come, and some may have come."""
        if tied is None:
            return
        if tied.score != self.open_score:
            self._settle_open()
            self.open_score = tied.score
        self.open_counts[tied.bins] += tied.counts
        self.open_bins.append(tied.bins)

    def _open_tie(self) -> "TiedLengths | None":
        """The records with the open score."""
        bins = np.unique(np.concatenate([*self.open_bins, np.zeros(0, np.int64)]))
        return TiedLengths(float(self.open_score), bins, self.open_counts[bins]) if len(bins) else None


@dataclass(frozen=True)
class TiedLengths:
    """Records with one score: how many have a length of each bin, int64 (bins)."""

    score: float
    bins: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Segment:
    """Consecutive records of a stream in the order of its scores: as much as the correlation of all needs.

    The scores at its ends may go on in the segments beside it, so the ranks of these records are open. If
    there is a `last` one, then it is not the `first`, and `bins` are of the records between the two: their
    number `counts`, and their `ranks` counted from the end of the first.
    """

    first: TiedLengths | None
    last: TiedLengths | None
    bins: np.ndarray
    counts: np.ndarray
    ranks: np.ndarray
    ties: float


class SegmentCorrelation(LengthCorrelation):
    """Takes the records of a segment, as a LengthCorrelation takes those of the whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first: TiedLengths | None = None
        self.is_begun = False

    def add(self, scores: np.ndarray, lengths: np.ndarray) -> None:
        # Alone, so that the first tie is open when the next score comes.
        same = 0
        if not self.is_begun and len(scores):
            self.is_begun = True
            same = len(scores) if (scores == scores[0]).all() else int((scores != scores[0]).argmax())
            super().add(scores[:same], lengths[:same])
        if same < len(scores):
            super().add(scores[same:], lengths[same:])

    def _settle_open(self) -> None:
        if self.first is not None or not self.is_begun:
            super()._settle_open()
            return
        self.first = self._open_tie()
        # The records that follow count from 0: the whole adds what is before them.
        self.open_counts[:] = 0
        self.open_bins = []

    def segment(self) -> Segment:
        """All that was added."""
        bins = np.flatnonzero(self.counts)
        first, last = self.first, self._open_tie()
        if first is None:
            first, last = last, None
        return Segment(first, last, bins, self.counts[bins], self.ranks[bins], self.ties)


def _bins(lengths: np.ndarray) -> np.ndarray:
    """The bin of each length: the length itself below EXACT, else one of 1,024 a power of two."""
    is_long = lengths >= EXACT
    if not is_long.any():
        return lengths
    bins = lengths.copy()
    long = lengths[is_long]
    # 2**power <= length, unless the conversion to float rounded it up. Then `within` is -1: the last
    # bin of the power below, where the length belongs.
    powers = np.frexp(long.astype(float))[1] - 1
    within = (long >> (powers - 10)) - 1024
    bins[is_long] = EXACT + (powers - 16) * 1024 + within
    return bins
