"""What does a file's trailer say about it?

Nothing is read but the trailer and the frames in which thresholds lie.
"""

from bisect import bisect_right
from itertools import accumulate
from typing import Any

import numpy as np

from ...records.columns import counts
from ...records.lines import Block, line_ends
from ...records.reader import Batch, Count, Number, Source, Wanted
from ...stream.index import Table
from ...stream.schema import RankSection
from .thresholds import first_ranks


def describe(table: Table, source: Source, *, is_whole: bool = True) -> dict[str, Any]:
    """The statistics of a file or dataset by its trailers, and thresholds if it is ranked and `is_whole`.

    Thresholds within the values of a field are not in the order of the file, so a ranking `within` has none
    here.
    """
    totals = table.totals
    ranking = table.head.rank
    # No tokens at all among scored records: the records have no count of tokens, which is not the same as 0.
    is_counted = bool(totals.tokens) or totals.nulls == totals.records
    groups = {
        name: {"records": records, "tokens": tokens if is_counted else None}
        for name, (records, tokens) in totals.groups.items()
    }
    scores = {}
    if is_whole and ranking and not ranking.within:
        scores[ranking.key] = _thresholds(table, source, ranking)
    return {
        "records": totals.records,
        "nulls": totals.nulls,
        "tokens": totals.tokens if is_counted else None,
        "bytes": totals.text,
        "groups": groups,
        "scores": scores,
        "length_correlation": _length_correlation(table),
        "verified": False,
    }


def _thresholds(table: Table, source: Source, ranking: RankSection) -> dict[str, Any]:
    """The scores at which fractions of a ranked file begin."""
    totals = table.totals
    # A slice is not the ranking that its trailer may still describe, and version 0.1.0 wrote no thresholds.
    if table.head.verb == "rank" and totals.thresholds is not None:
        return {"records": totals.records - totals.nulls, "quantiles": totals.thresholds}
    return _RankedFrames(table, source, ranking).thresholds()


def _length_correlation(table: Table) -> float | None:
    # The trailer of a slice hands on the correlation of the whole ranking, which is not that of the slice.
    is_of_this_file = table.head.verb == "rank"
    return table.totals.length_correlation if is_of_this_file else None


class _RankedFrames:
    """The frames of a ranked file from the lowest score to the highest. Few of them are decompressed.

    `frames` are the numbers of the frames that have scored records, `sizes` their records or tokens (the unit
    of the ranking), `ends` the running sums of these.
    """

    def __init__(self, table: Table, source: Source, ranking: RankSection) -> None:
        self.table = table
        self.source = source
        self.ranking = ranking
        self.by_tokens = ranking.unit == "tokens"
        self.decoded: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        pairs = zip(table.frames.records, table.frames.nulls, strict=True)
        self.scored: list[int] = [records - nulls for records, nulls in pairs]
        self.frames = [frame for frame, records in enumerate(self.scored) if records]
        if ranking.reverse:
            self.frames.reverse()
        self.sizes = [self._size(frame) for frame in self.frames]
        self.ends = list(accumulate(self.sizes))

    def thresholds(self) -> dict[str, Any]:
        """The scores at which fractions of the ranking begin."""
        n = sum(self.scored)
        quantiles = {fraction: self._threshold(fraction, rank) for fraction, rank in first_ranks(n).items()}
        return {"records": n, "quantiles": quantiles}

    def _size(self, frame: int) -> int:
        if not self.by_tokens:
            return self.scored[frame]
        # A trailer counts the tokens of unscored records, too. At most one frame is mixed: unscored records
        # come last.
        if self.table.frames.nulls[frame]:
            return int(self._decode(frame)[1].sum())
        return self.table.frames.tokens[frame]

    def _threshold(self, fraction: str, rank: int) -> float:
        """The score of the first record above a fraction of the tokens, or of the record at a rank."""
        target = float(fraction) * self.ends[-1] if self.by_tokens else rank
        place = min(bisect_right(self.ends, target), len(self.frames) - 1)
        scores, tokens = self._decode(self.frames[place])
        before = self.ends[place] - self.sizes[place]
        index = int(target - before)
        if self.by_tokens:
            middles = before + np.cumsum(tokens) - tokens / 2
            index = int(np.searchsorted(middles, target))
        # A target in the last half record of a frame belongs to the first record of the next frame.
        if index == len(scores) and place + 1 < len(self.frames):
            return float(self._decode(self.frames[place + 1])[0][0])
        return float(scores[min(index, len(scores) - 1)])

    def _decode(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        """The scores of a frame and the tokens of their records, the lowest score first."""
        if frame not in self.decoded:
            self.decoded[frame] = self._read(frame)
        return self.decoded[frame]

    def _read(self, frame: int) -> tuple[np.ndarray, np.ndarray]:
        key = self.ranking.key
        tokens_field = self.ranking.tokens_field or "n_scored"
        wanted = Wanted({key: Number, tokens_field: Count}, (tokens_field,))
        text = self.table.text(frame)
        block = Block(*self.table.place(frame), text, line_ends(text))
        parts = [_scored(batch, key, tokens_field) for batch in self.source.decoded([block], wanted)]
        scores, tokens = (np.concatenate(column) for column in zip(*parts, strict=True))
        return (scores[::-1], tokens[::-1]) if self.ranking.reverse else (scores, tokens)


def _scored(batch: Batch, key: str, tokens_field: str) -> tuple[np.ndarray, np.ndarray]:
    """The scores of a batch without its nulls, and the tokens of their records."""
    scores = np.array(batch[key], dtype=float)
    has_score = ~np.isnan(scores)
    return scores[has_score], counts(batch[tokens_field])[has_score]
