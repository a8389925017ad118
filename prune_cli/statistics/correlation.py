"""Whether a cut by score is a cut by length: Spearman's rank correlation of the two, over a stream that is
sorted by score.
"""

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
