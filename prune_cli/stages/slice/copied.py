"""Which frames of a ranked file can be copied as they are?

Only the frames at the edges of the cut are decompressed.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from ...errors import DataError
from ...records.lines import Block, line_ends
from ...records.reader import Batch, Source
from ...settings.streams import Unit
from ...stream.index import Table
from ...stream.schema import RankSection
from .counts import CUT, KEPT, UNSCORED, Amount
from .ranked import ABOVE, INSIDE, RankedReader, split_ranked
from .selection import Request
from .split import SliceStatistics, Split, Splitter


@dataclass(frozen=True)
class SplitFrame:
    """A frame whose records were looked at one by one."""

    index: int
    splits: tuple[Split, ...]

    @property
    def is_kept(self) -> bool:
        """Whether all of them are kept."""
        return not any(split.rejected for split in self.splits)


@dataclass(frozen=True)
class WholeFrame:
    """A frame of which every record is kept, or none."""

    index: int
    is_kept: bool


def is_copyable(table: Table, request: Request) -> bool:
    """Whether the file is one ranking, and its trailer says enough of frames that are not read."""
    ranking = table.head.rank
    slicing = request.slicing
    if not ranking or ranking.within or slicing.within or slicing.key is not None:
        return False
    pairs = (
        (slicing.by, ranking.unit),
        (slicing.prefix, ranking.prefix),
        (slicing.tokens_field, ranking.tokens_field),
        (slicing.group_by, table.head.group),
    )
    return all(wanted in (None, has) for wanted, has in pairs) and _is_in_order(table, ranking)


def _is_in_order(table: Table, ranking: RankSection) -> bool:
    """Whether the ranks at the edges of frames run in one direction, and frames without ranks come last."""
    frames = table.frames
    edges = [rank for pair in zip(frames.first, frames.last, strict=True) for rank in pair]
    ranks = [rank for rank in edges if rank is not None]
    if ranks != sorted(ranks, reverse=ranking.reverse) or None in edges[: len(ranks)]:
        return False
    scored = len(ranks) // 2
    return frames.records[scored:] == frames.nulls[scored:]


def copied(
    table: Table, source: Source, request: Request, statistics: SliceStatistics
) -> Iterator[SplitFrame | WholeFrame]:
    """The same records as `ranked`: whole frames if all records share a fate, else split ones."""
    ranking = table.head.rank
    assert ranking is not None  # is_copyable has checked it
    reader = RankedReader(request, ranking, Unit(ranking.unit))
    splitter = Splitter(request, statistics.counts, is_grouped=bool(table.totals.groups))
    frames = _Frames(table, source, reader)
    first_inside, first_above, mixed = frames.edges()
    for index in range(len(table.frames)):
        if index in mixed:
            splits = [split_ranked(batch, reader, splitter, statistics) for batch in frames.batches(index)]
            yield SplitFrame(index, tuple(splits))
            continue
        fate = _fate(request, index < frames.scored, first_inside <= index < first_above)
        amount = Amount(table.frames.records[index], table.frames.tokens[index])
        statistics.counts.add_frame(fate, amount, table.frames.groups[index])
        yield WholeFrame(index, is_kept=fate == KEPT)
    # Those of the ranking, as a slice hands them on; computing them would take all records.
    statistics.length_correlation = table.totals.length_correlation
    statistics.shape = table.totals.shape


def _fate(request: Request, is_scored: bool, is_inside: bool) -> int:
    if not is_scored:
        return KEPT if request.selection.keep_unscored else UNSCORED
    return KEPT if is_inside != request.selection.invert else CUT


class _Frames:
    """The frames of a ranked file, decompressed when they are asked for.

    `scored` is the number of frames that have scored records; they come first.
    """

    def __init__(self, table: Table, source: Source, reader: RankedReader) -> None:
        self.table = table
        self.source = source
        self.reader = reader
        self.scored = sum(rank is not None for rank in table.frames.first)
        self.decoded: dict[int, list[Batch]] = {}

    def batches(self, index: int) -> list[Batch]:
        """The records of a frame. They stay in memory: the search for the edges reads what is split later."""
        if index not in self.decoded:
            self.decoded[index] = self._decode(index)
        return self.decoded[index]

    def _decode(self, index: int) -> list[Batch]:
        text = self.table.text(index)
        block = Block(*self.table.place(index), text, line_ends(text))
        batches = list(self.source.decoded([block], self.reader.wanted()))
        if sum(map(len, batches)) != self.table.frames.records[index]:
            raise DataError("the trailer and the frames before it disagree", place=self.table.file.name)
        return batches

    def edges(self) -> tuple[int, int, set[int]]:
        """The first frame that begins inside the cut, the first that begins behind it, and all to be split.

        A binary search, because frames are in order: of 4 GB a few dozen frames are decompressed, and only
        where ranks do not say enough.
        """
        frames = range(self.scored)
        first_inside, first_behind = (bisect_left(frames, side, key=self._side) for side in (INSIDE, ABOVE))
        mixed = {index for index in frames if self.table.frames.nulls[index]}
        # The frame before the one that begins inside the cut, or behind it, can end there.
        for index, side in ((first_inside - 1, INSIDE), (first_behind - 1, ABOVE)):
            if index in frames:
                mixed.update(self._split_at(index, side))
        return first_inside, first_behind, mixed

    def _split_at(self, index: int, side: int) -> Iterable[int]:
        """The frames to split at the edge where `side` begins, in a frame or right behind it.

        If the edge divides records of one score, all frames that have it are among them, so that split ties
        are counted exactly.
        """
        if index + 1 == self.scored and self._ends_before(index, side):
            return ()
        scores, sides = self._scores_and_sides(index)
        before = int((sides < side).sum())
        if before == len(sides):
            is_tied = index + 1 < self.scored and self._are_tied(index)
            is_one_score = bool(scores[0] == scores[-1])
            return self._tied_with(index, is_tied_before=is_one_score) if is_tied else ()
        score = scores[before]
        # A score that is unknown (NaN) ties with none; and no cut at a score divides equal ones.
        if not before or scores[before - 1] != score or self.reader.cut.keep == "scores":
            return (index,)
        return self._tied_with(index, is_tied_before=bool(scores[0] == score))

    def _ends_before(self, index: int, side: int) -> bool:
        """Whether ranks alone show that no record of a frame has that side, nor one after it."""
        rank = self.table.frames.last[index]
        if rank is None or not self.reader.by_rank:
            return False
        last = self.reader.side_of_rank(rank)
        return (-last if self.reader.reverse else last) < side

    def _tied_with(self, index: int, *, is_tied_before: bool) -> range:
        """The frames around a frame that are joined to it by equal scores across their borders."""
        first = index
        last = index
        while is_tied_before and first > 0 and self._are_tied(first - 1):
            first -= 1
        while last + 1 < self.scored and self._are_tied(last):
            last += 1
        return range(first, last + 1)

    def _scores_and_sides(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Of each scored record of a frame the score, and the side in the order of the file."""
        columns = [self.reader.scored(batch) for batch in self.batches(index)]
        scores, sides = (np.concatenate(column) for column in zip(*columns, strict=True))
        return scores, -sides if self.reader.reverse else sides

    def _are_tied(self, index: int) -> bool:
        """Whether a frame ends with the score with which the next begins."""
        score = self._score(index + 1, 0)
        return score is not None and self._score(index, -1) == score

    def _side(self, index: int) -> int:
        """The side of a frame's first record in the order of the file.

        A reversed file begins above the cut.
        """
        rank = self.table.frames.first[index]
        assert rank is not None  # scored frames have ranks
        reader = self.reader
        side = reader.side_of_rank(rank) if reader.by_rank else reader.side_of_first(self.batches(index)[0])
        return -side if reader.reverse else side

    def _score(self, index: int, place: int) -> float | None:
        """The first (0) or last (-1) score of a frame; None if the records do not have the score."""
        key = self.reader.key
        if not key:
            return None
        scores = [score for batch in self.batches(index) for score in batch[key] if isinstance(score, float)]
        return scores[place] if scores else None
