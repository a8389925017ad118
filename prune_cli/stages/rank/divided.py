"""How do several workers rank together? They sort parts of the input, count, and merge parts of the ranking.

The result is that of one process, byte for byte, whatever the number of workers: ranks and quantiles come
from exact sums over all sorted files, and the cuts between parts only decide who merges what.
"""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ... import sizes, storage
from ...engines.work import Engine, Places
from ...errors import DataError
from ...records.field_checks import LARGEST_SUM
from ...records.reader import Source
from ...records.sorting.keys import UNSCORED
from ...records.spool import ROW_BYTES
from ...settings.rank import Ranking
from ...settings.streams import Streams, Unit
from ...statistics.correlation import LengthCorrelation
from ...statistics.key_histogram import Histogram
from ...statistics.partition import Boundaries, boundaries, union
from ...statistics.quantile_grid import QuantileGrid
from ...storage.temporary import check_directories, check_room, room, shared_folders
from ...stream.schema import Head, RankSection
from ...stream.writer import GROUPS, Sink, Writing
from ...terminal import Progress
from .. import streams
from ..divided import portions, report_as
from ..joining import Joiner
from .counting import Cells, PositionJob, Positions, PositionStage, RefineJob, RefineStage
from .merging import Cell, Merged, MergeJob, MergeStage
from .order import Order, check_alike, settled
from .portions import FRAMES, WorkerShare, share_of, text_bytes
from .quantiles import Quantiles, Sums
from .ranking import facts_of, section
from .sorting import Sorted, SortJob, SortStage


class DividedRanking:
    """A ranking that the workers of an engine make together, with files in `folders` that are removed."""

    def __init__(
        self,
        engine: Engine,
        source: Source,
        progress: Progress,
        *,
        ranking: Ranking,
        streams: Streams,
        folders: Sequence[str],
        share: WorkerShare,
    ) -> None:
        self.engine = engine
        self.source = source
        self.progress = progress
        self.ranking = ranking
        self.streams = streams
        self.folders = folders
        self.share = share
        self.order = settled(source, ranking)
        self.sorted: list[Sorted] = []
        self.codes: list[str] = []
        self.groups: list[np.ndarray] = []
        self.group_names: list[str] = []
        self.facts: dict[str, Any] = {}

    # --- Sorting ---

    def sort(self) -> RankSection:
        """Read and sort all inputs. Returns the section of the head. Raises DataError as `rank` does."""
        text = sum(map(text_bytes, self.source.inputs))
        stage = SortStage(
            order=self.order,
            reading=replace(self.streams, expect_records=None),
            watched=tuple(sorted(self.source.checks.watched)),
            size=self.share.size,
            frame=self._frame(text),
            compress=self._compresses(text),
        )
        jobs = [
            SortJob(portion, self._path(number, "runs"))
            for number, portion in enumerate(portions(self.source.inputs, self.engine.workers))
        ]
        self.source.close()
        self.engine.check_places(Places([file.path for file in self.source.inputs], self.folders))
        sizes = [job.portion.size for job in jobs]
        self.sorted = self.engine.map(stage, jobs, self.progress, sizes)
        self._check()
        self._number_groups()
        quantiles = self._number_values()
        return section(self.order, quantiles, sum(each.nulls for each in self.sorted))

    def _frame(self, text: int) -> int:
        """Bytes of a frame: a FRAMES-th of what a run and a cell share, about."""
        shared = self.share.cell * self.share.size / max(text, 1)
        return int(shared / FRAMES)

    def _compresses(self, text: int) -> bool:
        """Whether sorted files are compressed: not if the system can hold them in half of its memory.

        Compressing takes a fifth of all processor time here, and saves nothing where files are not read back
        from a disk. Raises what tells that the directories have no room.
        """
        check_directories(self.folders)
        read = storage.total_size(self.source.inputs) or 0
        compresses = text > min(sizes.memory() // 2, room(self.folders))
        # As much again for the parts that wait for the output, at most.
        check_room(self.folders, read if compresses else text)
        return compresses

    def _path(self, number: int, kind: str) -> str:
        # Several directories take turns.
        folder = self.folders[number % len(self.folders)]
        return os.path.join(folder, f"{number:05d}.{kind}")

    def _check(self) -> None:
        """Checks of the whole. Raises DataError as the reader of all records would."""
        first: Head | None = None
        for head, place in (pair for each in self.sorted for pair in each.heads):
            check_alike([first, head], place, self.order)
            first = first or (head if head and head.score else None)
        tokens = sum(int(each.tokens.sum()) for each in self.sorted)
        if tokens >= LARGEST_SUM:
            raise DataError(
                f"the sum of `{self.order.tokens_field}` is beyond 2^62",
                place=self.source.name,
                remedy="are these counts of tokens?",
            )
        report_as(self.source, [each.counts for each in self.sorted])

    def _number_groups(self) -> None:
        """One numbering for the groups of all files, in the order in which they first occur."""
        numbers: dict[str, int] = {}
        for each in self.sorted:
            for name in each.groups:
                # One more than a trailer counts shows that there are too many.
                if len(numbers) <= GROUPS:
                    numbers.setdefault(name, len(numbers))
            self.groups.append(np.array([*(numbers.get(name, -1) for name in each.groups), -1], np.int32))
        self.group_names = list(numbers)

    def _number_values(self) -> Quantiles:
        """One numbering for the values of `within`, and the counts of the whole."""
        numbers: dict[Any, int] = {}
        quantiles = Quantiles(self.order)
        for number, each in enumerate(self.sorted):
            codes = np.array([numbers.setdefault(name, len(numbers)) for name in each.values], np.int32)
            self.codes.append("")
            if self.order.within:
                self.codes[-1] = self._path(number, "npy")
                np.save(self.codes[-1], codes)
            quantiles.add(codes if self.order.within else np.zeros(1, np.int32), each.n, each.tokens)
        quantiles.start(list(numbers))
        self.whole = quantiles
        return quantiles

    # --- Counting ---

    def parts(self) -> list[tuple[Cell, ...]]:
        """The parts of the ranking, in the order of its file. They depend on the records alone."""
        histogram = Histogram.sum([each.histogram for each in self.sorted])
        by_text = boundaries(
            histogram, len(self.sorted), lambda amounts: amounts[:, 2], self.share.piece, self._refine
        )
        # Memory holds a row for each record, and its text.
        by_memory = boundaries(
            histogram,
            len(self.sorted),
            lambda amounts: amounts[:, 2] + ROW_BYTES * amounts[:, 0],
            self.share.cell,
            self._refine,
        )
        places = union(by_text, by_memory)
        positions = self._positions(places)
        return _in_parts(self._cells(places, positions), _starts(places, by_text))

    def _refine(self, prefixes: np.ndarray, shift: int, finer: int) -> list[Histogram]:
        jobs = [RefineJob(each.file, prefixes, shift, finer) for each in self.sorted]
        return self.engine.map(RefineStage(), jobs, self.progress)

    def _positions(self, places: Boundaries) -> list[Positions]:
        jobs = [
            PositionJob(each.file, places.keys, places.within(number), self.codes[number])
            for number, each in enumerate(self.sorted)
        ]
        return self.engine.map(PositionStage(), jobs, self.progress)

    def _cells(self, places: Boundaries, positions: list[Positions]) -> list[Cell]:
        """What lies between the boundaries, in the order of the keys, with sums in the order of the file."""
        counted = Cells.sum([each.cells for each in positions])
        stretches = _stretches([each.rows for each in positions])
        first_keys = [0, *places.keys.tolist()]
        scored = [number for number, key in enumerate(first_keys) if key != UNSCORED]
        before = (np.zeros_like(self.whole.n), np.zeros_like(self.whole.tokens))
        cells: dict[int, Cell] = {}
        for number in reversed(scored) if self.order.reverse else scored:
            rows = counted.of(number)
            values = counted.value[rows]
            sums = Sums(self.whole.n[values], self.whole.tokens[values], *(each[values] for each in before))
            cells[number] = Cell(stretches[number], values, sums, is_scored=True)
            # A value occurs once among those of a cell: no sum is lost.
            before[0][values] += counted.n[rows]
            before[1][values] += counted.tokens[rows]
        nothing = Sums(*[np.zeros(1, np.int64)] * 4)
        for number in range(len(scored), len(first_keys)):
            cells[number] = Cell(stretches[number], np.zeros(1, np.int64), nothing, is_scored=False)
        return [cells[number] for number in range(len(first_keys))]

    # --- Merging ---

    def merge(self, parts: list[tuple[Cell, ...]], head: Head, sink: Sink) -> None:
        """Have the parts made, and write them to the output in order."""
        joiner = Joiner(sink)
        for merged in self.merged(self.jobs(parts), head, Writing(level=self._level(), threads=1)):
            joiner.append(merged.output)
        sink.count_groups(self.group_names)
        sink.facts |= self.facts

    def jobs(self, parts: list[tuple[Cell, ...]]) -> list[MergeJob]:
        """The jobs that make the parts, in the order of the file, in the folders of this ranking."""
        if self.order.reverse:
            parts = _reversed(parts)
        read = storage.total_size(self.source.inputs) or 0
        return [
            MergeJob(number, len(parts), cells, self._path(number, "part"), read // len(parts))
            for number, cells in enumerate(parts, 1)
        ]

    def merged(self, jobs: Sequence[MergeJob], head: Head, writing: Writing) -> Iterator[Merged]:
        """Have the parts made. All `facts` of the whole are known after the last one."""
        stage = MergeStage(
            order=self.order,
            head=head,
            writing=writing,
            files=tuple(each.file for each in self.sorted),
            codes=tuple(self.codes),
            groups=tuple(self.groups),
            group_names=self.group_names,
        )
        correlation = LengthCorrelation()
        grid = QuantileGrid(self.order.reverse, by_tokens=self.order.by == Unit.tokens)
        for merged in self.engine.each(stage, jobs, self.progress):
            correlation.add_segment(merged.lengths)
            grid.extend(merged.grid)
            yield merged
        self.facts = facts_of(self.order, correlation, grid)

    def _level(self) -> int:
        # What the parent decompresses again is compressed as fast as can be.
        return 1 if self.streams.plain or self.streams.single_frame else self.streams.level


# --- The order of all records ---


def _stretches(rows: Sequence[np.ndarray]) -> list[np.ndarray]:
    """For each cell (file, run, first row, row after the last), where there are any: int64 (n, 4)."""
    runs = [(file, run) for file, positions in enumerate(rows) for run in range(len(positions))]
    edges = np.concatenate([np.zeros((0, rows[0].shape[1]), np.int64), *rows])
    names = np.array(runs, np.int64).reshape(-1, 2)
    cells = []
    for start, end in pairwise(edges.T):
        present = end > start
        cells.append(np.column_stack((names[present], start[present], end[present])))
    return cells


def _starts(places: Boundaries, coarse: Boundaries) -> set[int]:
    """The numbers of the cells with which parts begin."""
    begin = set(zip(coarse.keys.tolist(), coarse.ordinals.tolist(), strict=True))
    pairs = zip(places.keys.tolist(), places.ordinals.tolist(), strict=True)
    return {number for number, pair in enumerate(pairs, 1) if pair in begin}


def _in_parts(cells: list[Cell], starts: set[int]) -> list[tuple[Cell, ...]]:
    parts: list[list[Cell]] = [[]]
    for number, cell in enumerate(cells):
        if number in starts:
            parts.append([])
        parts[-1].append(cell)
    # Nothing lies between the beginning and the boundary of the unscored records where none has a score.
    filled = [tuple(part) for part in parts if any(len(cell.stretches) for cell in part)]
    return filled or [tuple(parts[0])]


def _reversed(parts: list[tuple[Cell, ...]]) -> list[tuple[Cell, ...]]:
    """The parts of a file that begins with the highest score: unscored records come last all the same."""
    scored = [part[::-1] for part in parts if part[0].is_scored]
    return [*scored[::-1], *(part for part in parts if not part[0].is_scored)]


def temporary_folders(ranking: Ranking) -> AbstractContextManager[list[str]]:
    """New folders for the files of a divided ranking, in the directories of -T."""
    directories = ranking.temporary_directory or [tempfile.gettempdir()]
    check_directories(directories)
    return shared_folders(directories)


@dataclass(frozen=True)
class Divided:
    """A ranking that was made together: its order, the section of its head, and the facts of its trailer."""

    order: Order
    head: RankSection
    facts: dict[str, Any]
    skipped: int


def rank_divided(
    inputs: Sequence[str],
    ranking: Ranking,
    settings: Streams,
    engine: Engine,
    share: WorkerShare | None = None,
) -> Divided:
    """Rank with the workers of an engine into the output of the settings. Raises PruneError."""
    share = share or share_of(ranking, engine.workers)
    with (
        streams.open_divided("rank", inputs, settings, passes=2) as (source, output, progress),
        temporary_folders(ranking) as folders,
    ):
        whole = DividedRanking(
            engine,
            source,
            progress,
            ranking=ranking,
            streams=settings,
            folders=folders,
            share=share,
        )
        counts = whole.sort()
        parts = whole.parts()
        head = streams.head_after(source, "rank", whole.order.group_by, rank=counts)
        with streams.open_sink(settings, output, head) as sink:
            whole.merge(parts, head, sink)
    return Divided(whole.order, counts, whole.facts, source.skipped)
