"""Second stage of a divided ranking: how many records lie before each boundary?

Counts and sums before a boundary are sums over all files, so that the ranks and quantiles behind it are exact
wherever it lies.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...records.sorting.keys import UNSCORED
from ...records.sorting.runs import RunReader, SortedFile
from ...statistics.key_histogram import Histogram
from ...terminal import Progress
from .sorting import amounts_of


@dataclass(frozen=True)
class RefineJob:
    """Count keys without their last `finer` bits, where they begin with `prefixes` (without `shift` bits)."""

    file: SortedFile
    prefixes: np.ndarray
    shift: int
    finer: int

    @property
    def name(self) -> str:
        """The file, for messages."""
        return self.file.path


@dataclass(frozen=True)
class RefineStage:
    """Refines histograms."""

    verb: str = "rank"

    def open(self) -> "RefineWorker":
        """A worker."""
        return RefineWorker()


class RefineWorker:
    """Counts keys by more bits than the first histogram."""

    def do(self, job: RefineJob, progress: Progress) -> Histogram:
        """The histogram of one file."""
        with RunReader(job.file) as reader:
            return Histogram.sum([_refined(reader, run, job) for run in range(len(job.file.runs))])


def _refined(reader: RunReader, run: int, job: RefineJob) -> Histogram:
    columns = reader.columns(run)
    wanted = np.isin(columns.keys >> np.uint64(job.shift), job.prefixes)
    return Histogram.of(columns.keys[wanted], amounts_of(columns)[wanted], job.finer)


@dataclass(frozen=True)
class Cells:
    """Scored records and tokens by cell and value, where there are any: a row for each such pair, in order.

    A cell is what lies between two boundaries. All columns are int64 (n).
    """

    cell: np.ndarray
    value: np.ndarray
    n: np.ndarray
    tokens: np.ndarray

    @classmethod
    def sum(cls, parts: Sequence["Cells"]) -> "Cells":
        """The counts of all parts."""
        names = ("cell", "value", "n", "tokens")
        columns = {
            name: np.concatenate([getattr(part, name) for part in parts] or [np.zeros(0, np.int64)])
            for name in names
        }
        order = np.lexsort((columns["value"], columns["cell"]))
        columns = {name: column[order] for name, column in columns.items()}
        cell, value = columns["cell"], columns["value"]
        if not len(cell):
            return cls(**columns)
        is_new = np.concatenate(([True], (cell[1:] != cell[:-1]) | (value[1:] != value[:-1])))
        starts = np.flatnonzero(is_new)
        sums = (np.add.reduceat(columns[name], starts) for name in ("n", "tokens"))
        return cls(cell[starts], value[starts], *sums)

    def of(self, cell: int) -> slice:
        """The rows of a cell."""
        start, end = np.searchsorted(self.cell, (cell, cell + 1))
        return slice(int(start), int(end))


@dataclass(frozen=True)
class PositionJob:
    """Find boundaries in a file: `keys`, and how many records of that very key go before.

    `codes` is the file that has the number of each value of `within` among all values; empty without one.
    """

    file: SortedFile
    keys: np.ndarray
    ordinals: np.ndarray
    codes: str

    @property
    def name(self) -> str:
        """The file, for messages."""
        return self.file.path


@dataclass(frozen=True)
class Positions:
    """Where boundaries are in the runs of a file: int64 (runs, boundaries + 2), ends included; and counts."""

    rows: np.ndarray
    cells: Cells


@dataclass(frozen=True)
class PositionStage:
    """Finds boundaries."""

    verb: str = "rank"

    def open(self) -> "PositionWorker":
        """A worker."""
        return PositionWorker()


class PositionWorker:
    """Finds boundaries in sorted files, and counts what lies between them."""

    def do(self, job: PositionJob, progress: Progress) -> Positions:
        """The boundaries in one file."""
        codes = np.load(job.codes, mmap_mode="r") if job.codes else None
        before = np.zeros(len(job.keys), np.int64)  # records of the very key in the runs so far
        rows = np.zeros((len(job.file.runs), len(job.keys) + 2), np.int64)
        cells: list[Cells] = []
        with RunReader(job.file) as reader:
            for run in range(len(job.file.runs)):
                columns = reader.columns(run)
                first, last = (np.searchsorted(columns.keys, job.keys, side) for side in ("left", "right"))
                # Input order breaks ties, and runs are in input order.
                rows[run, 1:-1] = first + np.clip(job.ordinals - before, 0, last - first)
                rows[run, -1] = len(columns.keys)
                before += last - first
                values = None if codes is None else codes[columns.within]
                scored = int(np.searchsorted(columns.keys, np.uint64(UNSCORED)))
                edges = np.minimum(rows[run], scored)
                cells.append(_cells(edges, columns.tokens, values))
        return Positions(rows, Cells.sum(cells))


def _cells(edges: np.ndarray, tokens: np.ndarray, values: np.ndarray | None) -> Cells:
    """Counts of the rows between the edges, by value."""
    sizes = np.diff(edges)
    if values is None:
        sums = np.concatenate(([0], np.cumsum(tokens)))[edges]
        cell = np.flatnonzero(sizes)
        return Cells(cell, np.zeros_like(cell), sizes[cell], np.diff(sums)[cell])
    scored = int(edges[-1])
    columns = np.repeat(np.arange(len(sizes)), sizes), values[:scored].astype(np.int64)
    return Cells.sum([Cells(*columns, np.ones(scored, np.int64), tokens[:scored])])
