"""Spearman's rank correlation of score with length: where it is high, a cut by score is a cut by length."""

import numpy as np

EXACT = 1 << 16  # lengths below this are told apart, longer ones only by their first eleven bits
BINS = EXACT + 47 * 1024


class LengthCorrelation:
    """Takes records in the order of their scores and holds, whatever their number, three numbers for each length.

    Equal scores share their middle rank, as equal lengths do (Kendall 1948); a length is 0 or more.
    """

    def __init__(self) -> None:
        self.counts, self.open = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        self.ranks = np.zeros(BINS)  # of the scores, summed over the records of a length
        self.touched: list[np.ndarray] = []  # which of `open` are not 0
        self.n, self.ties, self.score = 0, 0.0, np.nan

    def add(self, scores: np.ndarray, lengths: np.ndarray) -> None:
        """Records that follow those before: scores in order, and as many lengths."""
        bins = _bins(lengths)
        starts = np.flatnonzero(np.concatenate((scores[:1] != self.score, scores[1:] != scores[:-1])))
        self._keep_open(bins[: starts[0]] if len(starts) else bins)
        if len(starts):
            self._close()
            self._add_closed(bins[starts[0] : starts[-1]], np.diff(starts))
            self._keep_open(bins[starts[-1] :])
            self.score = scores[-1]

    def _keep_open(self, bins: np.ndarray) -> None:
        """Records with a score of which more may come."""
        np.add.at(self.open, bins, 1)
        self.touched.append(np.unique(bins))
        if len(self.touched) > 100:
            self.touched = [np.unique(np.concatenate(self.touched))]

    def _add_closed(self, bins: np.ndarray, sizes: np.ndarray) -> None:
        """Runs of equal scores of which no more will come."""
        middles = self.n + np.cumsum(sizes) - (sizes + 1) / 2
        np.add.at(self.ranks, bins, np.repeat(middles, sizes))
        np.add.at(self.counts, bins, 1)
        self.ties += float((sizes.astype(float) ** 3 - sizes).sum())
        self.n += len(bins)

    def _close(self) -> None:
        bins = np.unique(np.concatenate([*self.touched, np.zeros(0, np.int64)]))
        if len(bins):
            counts, size = self.open[bins], int(self.open[bins].sum())
            self.ranks[bins] += counts * (self.n + (size - 1) / 2)
            self.counts[bins] += counts
            self.ties += float(size) ** 3 - size
            self.n += size
            self.open[bins] = 0
        self.touched = []

    def value(self) -> float | None:
        """The correlation, from -1 to 1; None where all scores or all lengths are equal."""
        self._close()
        n, lengths = float(self.n), np.cumsum(self.counts) - (self.counts + 1) / 2
        squared_mean = n * ((n - 1) / 2) ** 2
        of_scores = (n**3 - n - self.ties) / 12
        of_lengths = float((self.counts * lengths**2).sum()) - squared_mean
        together = float((lengths * self.ranks).sum()) - squared_mean
        return (
            together / (of_scores * of_lengths) ** 0.5 if min(of_scores, of_lengths) > 1e-9 * n**3 else None
        )


def _bins(lengths: np.ndarray) -> np.ndarray:
    long = lengths >= EXACT
    if not long.any():
        return lengths
    bins = lengths.copy()
    powers = np.frexp(lengths[long].astype(float))[1] - 1  # 2**power <= length, or rounded up to it
    bins[long] = EXACT + (powers - 16) * 1024 + np.minimum((lengths[long] >> (powers - 10)) - 1024, 1023)
    return bins
