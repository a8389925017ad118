"""Third stage of a divided ranking: which records are in a part, in which order, with which ranks?"""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from ...records.columns import Part
from ...records.sorting.keys import ordered_keys
from ...records.sorting.runs import RunReader, SortedFile
from ...records.spool import PART, parts_of
from ...settings.streams import Unit
from ...statistics.correlation import Segment, SegmentCorrelation
from ...statistics.quantile_grid import QuantileGrid
from ...stream.batch import Text
from ...stream.schema import Head, PartSection
from ...stream.writer import Writing
from ...terminal import Progress
from ..divided import sink_of_part
from .order import Order
from .quantiles import Quantiles, Sums
from .ranking import Placed, Ranked, lines, placed


@dataclass(frozen=True)
class Cell:
    """Records that are sorted in memory at once: consecutive ones of the ranking, all scored or all unscored.

    `stretches` are (file, run, first row, row after the last), int64 (n, 4), in input order. `values` are the
    numbers of the values that occur, rising, and `sums` those of each: before the cell, and of the whole.
    """

    stretches: np.ndarray
    values: np.ndarray
    sums: Sums
    is_scored: bool


@dataclass(frozen=True)
class MergeJob:
    """Write a part of the ranking: its cells, in the order of the file."""

    number: int  # from 1
    of: int
    cells: tuple[Cell, ...]
    output: str
    progress: int  # what the part is worth
    # Of a part of a dataset. None: it is a piece of one output.
    section: PartSection | None = None
    # The part is there: only what is known of the whole needs its records.
    is_made: bool = False

    @property
    def name(self) -> str:
        """The part, for messages."""
        return f"part {self.number} of {self.of}"


@dataclass(frozen=True)
class Merged:
    """A part that was written: what the facts about the whole are made of."""

    output: str
    lengths: Segment
    grid: QuantileGrid


@dataclass(frozen=True)
class MergeStage:
    """What all parts are made from.

    For each file `codes` have the path of the numbers of its values, empty without `within`, and `groups` the
    numbers of its groups among all `group_names`, -1 for those that are not counted, and last for no group.
    """

    order: Order
    head: Head
    writing: Writing
    files: tuple[SortedFile, ...]
    codes: tuple[str, ...]
    groups: tuple[np.ndarray, ...]
    group_names: list[str]
    verb: str = "rank"

    def open(self) -> "MergeWorker":
        """A worker."""
        return MergeWorker(self)


class MergeWorker:
    """Merges stretches of sorted runs into parts of the ranking."""

    def __init__(self, stage: MergeStage) -> None:
        self.stage = stage

    def do(self, job: MergeJob, progress: Progress) -> Merged:
        """Write a part, unless it is made."""
        order = self.stage.order
        correlation = SegmentCorrelation()
        grid = QuantileGrid(order.reverse, by_tokens=order.by == Unit.tokens)
        records = self._placed(job, correlation, grid, progress)
        if job.is_made:
            for _ in records:
                pass
        else:
            self._write(job, records)
        return Merged(job.output, correlation.segment(), grid)

    def _placed(
        self, job: MergeJob, correlation: SegmentCorrelation, grid: QuantileGrid, progress: Progress
    ) -> Iterator[Placed]:
        """All records of a part, in order."""
        for cell in job.cells:
            quantiles = Quantiles.part(self.stage.order, cell.sums)
            yield from placed(self._parts(cell), self.stage.order, quantiles, correlation, grid)
            progress.advance(job.progress / len(job.cells))

    def _write(self, job: MergeJob, records: Iterator[Placed]) -> None:
        stage = self.stage
        ranking = stage.head.rank
        assert ranking is not None  # it is the head of a ranking
        with sink_of_part(job.output, stage.head, stage.writing, job.section) as sink:
            for text in lines(Ranked(ranking, records, stage.group_names, {}), stage.order):
                sink.write_lines(text)
            if job.section:
                # A part may have few of the groups that are too many for a trailer.
                sink.count_groups(stage.group_names)

    def _parts(self, cell: Cell) -> Iterator[Part]:
        """The records of a cell in order, about a megabyte at a time."""
        tables: list[np.ndarray] = []
        blocks: list[Text] = []
        for number, stretches in groupby(cell.stretches.tolist(), key=lambda stretch: stretch[0]):
            with closing(_Reader(self.stage, number, cell.values)) as reader:
                for _, run, start, end in stretches:
                    for rows, text in reader.stretch(run, start, end):
                        rows["block"] = len(blocks)
                        tables.append(rows)
                        blocks.append(text)
        if not tables:
            return
        rows = np.concatenate(tables)
        # Stretches are in input order, and a stable sort keeps equal scores in it.
        order = np.argsort(ordered_keys(rows["key"]), kind="stable")
        if self.stage.order.reverse and cell.is_scored:
            order = order[::-1]
        yield from parts_of(rows, order, blocks, PART)


class _Reader:
    """Reads a file of sorted runs, and numbers its values and groups as all files together do."""

    def __init__(self, stage: MergeStage, number: int, values: np.ndarray) -> None:
        self.values = values
        self.codes = np.load(stage.codes[number], mmap_mode="r") if stage.codes[number] else None
        self.groups = stage.groups[number]
        self.reader = RunReader(stage.files[number])

    def close(self) -> None:
        """Close the file."""
        self.reader.__exit__()

    def stretch(self, run: int, start: int, end: int) -> Iterator[tuple[np.ndarray, Text]]:
        for rows, text in self.reader.stretch(run, start, end):
            rows["group"] = self.groups[rows["group"]]
            if self.codes is not None:
                # Only the values that occur have sums here: their places among them are the new numbers.
                rows["within"] = np.searchsorted(self.values, self.codes[rows["within"]])
            yield rows, text
