"""Second stage: what do workers find out about the order of all records? They look into files of keys."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ....records.sorting.key_files import KeyColumns, KeyFile, KeyReader, KeyRun
from ....records.sorting.keys import scores_of
from ....statistics.correlation import Segment, SegmentCorrelation
from ....statistics.cuts import Cut, interval
from ....statistics.key_histogram import Histogram
from ....terminal import Progress
from .edges import BEHIND_ALL, Edge, Edges


class KeyQuestion(Protocol):
    """What a worker is asked: a job without a place in the input."""

    def answer(self, files: "Files") -> object:
        """The report."""


Files = tuple[KeyFile, ...]


@dataclass(frozen=True)
class LookJob:
    """Answer a question."""

    question: KeyQuestion
    name: str = "keys of scores"


@dataclass(frozen=True)
class LookStage:
    """Questions about these files, which are in the order of the input."""

    files: Files
    verb: str = "slice"

    def open(self) -> "LookWorker":
        """A worker."""
        return LookWorker(self.files)


@dataclass(frozen=True)
class LookWorker:
    """Answers questions. It keeps nothing between them."""

    files: Files

    def do(self, job: LookJob, progress: Progress) -> object:
        """The answer to a question."""
        return job.question.answer(self.files)


# --- Counts ---


@dataclass(frozen=True)
class CountByKey:
    """How many records of a group have keys that begin with `prefixes` (without `shift` bits)?

    Counted without the last `finer` bits. No prefixes: all keys.
    """

    number: int  # of the file
    group: int
    prefixes: np.ndarray | None
    shift: int
    finer: int

    def answer(self, files: Files) -> Histogram:
        """The histogram of one file."""
        with KeyReader(files[self.number]) as reader:
            parts = [
                Histogram.of(columns.keys, _amounts(columns.tokens), self.finer)
                for run in reader.keys.runs
                for columns in self._columns(reader, run)
            ]
        return Histogram.sum(parts)

    def _columns(self, reader: KeyReader, run: KeyRun) -> Iterator[KeyColumns]:
        rows = reader.group(run, self.group, self.group)
        if self.prefixes is None:
            yield reader.columns(run, *rows)
            return
        for prefix in self.prefixes.tolist():
            start, _ = reader.key(run, prefix << self.shift, rows)
            _, end = reader.key(run, ((prefix + 1) << self.shift) - 1, rows)
            yield reader.columns(run, start, end)


def _amounts(tokens: np.ndarray) -> np.ndarray:
    """As a histogram adds them up: records, tokens, and no bytes."""
    return np.stack((np.ones_like(tokens), tokens, np.zeros_like(tokens)), axis=-1)


@dataclass(frozen=True)
class CountAtKeys:
    """How many records of each of these groups have a lower key, and how many have the very key?"""

    number: int  # of the file
    groups: np.ndarray
    keys: np.ndarray

    def answer(self, files: Files) -> tuple[np.ndarray, np.ndarray]:
        """Those with lower keys, and with the same: int64 (groups) each."""
        below, equal = np.zeros((2, len(self.keys)), np.int64)
        pairs = list(zip(self.groups.tolist(), self.keys.tolist(), strict=True))
        with KeyReader(files[self.number]) as reader:
            for run in reader.keys.runs:
                for number, (group, key) in enumerate(pairs):
                    rows = reader.group(run, group, group)
                    start, end = reader.key(run, key, rows)
                    below[number] += start - rows[0]
                    equal[number] += end - start
        return below, equal


# --- Cells ---


@dataclass(frozen=True)
class KeyCell:
    """Consecutive records of a group, in the order of their keys: few enough to be sorted in memory."""

    group: int
    low: Edge
    high: Edge

    def columns(self, files: Files) -> KeyColumns:
        """The records in order."""
        with ExitStack() as stack:
            readers = [stack.enter_context(KeyReader(file)) for file in files]
            return KeyColumns.joined([*self._stretches(readers)]).in_order()

    def _stretches(self, readers: Sequence[KeyReader]) -> Iterator[KeyColumns]:
        # How many records with the key of an edge have been seen: input order breaks ties.
        seen = [0, 0]
        for reader in readers:
            for run in reader.keys.runs:
                rows = reader.group(run, self.group, self.group)
                bounds = []
                for side, edge in enumerate((self.low, self.high)):
                    first, last = reader.key(run, edge.key, rows)
                    bounds.append(first + min(max(edge.ordinal - seen[side], 0), last - first))
                    seen[side] += last - first
                yield reader.columns(run, *bounds)


@dataclass(frozen=True)
class CellTotals:
    """Records and tokens of a cell, and its part of the correlation with length if that was asked for."""

    n: int
    tokens: int
    lengths: Segment | None


@dataclass(frozen=True)
class Measure:
    """How many records does a cell have, with how many tokens?"""

    cell: KeyCell
    correlates: bool

    def answer(self, files: Files) -> CellTotals:
        """The totals."""
        columns = self.cell.columns(files)
        lengths = None
        if self.correlates:
            correlation = SegmentCorrelation()
            correlation.add(scores_of(columns.keys), columns.tokens)
            lengths = correlation.segment()
        return CellTotals(len(columns.keys), int(columns.tokens.sum()), lengths)


@dataclass(frozen=True)
class TokensBefore:
    """How many tokens of a cell are before each of its places?"""

    cell: KeyCell

    def answer(self, files: Files) -> np.ndarray:
        """The sums, int64 (records + 1)."""
        return np.concatenate((np.zeros(1, np.int64), np.cumsum(self.cell.columns(files).tokens)))


@dataclass(frozen=True)
class EdgesAt:
    """Which edges are at these places of a cell?"""

    cell: KeyCell
    places: tuple[int, ...]

    def answer(self, files: Files) -> Edges:
        """The edges."""
        return edges_at(self.cell.columns(files).keys, np.array(self.places, np.int64), self.cell.low)


def edges_at(keys: np.ndarray, places: np.ndarray, low: Edge) -> Edges:
    """The edges at places among rising keys; some records of the first may be before them, as `low` says."""
    found = keys[places]
    ordinals = places - np.searchsorted(keys, found)
    return Edges(found, ordinals + np.where(found == np.uint64(low.key), low.ordinal, 0))


# --- Groups ---


@dataclass(frozen=True)
class CutGroups:
    """Where are the edges of the cut in each of the groups from `first` to `last`?"""

    first: int
    last: int
    cut: Cut
    by: str

    def answer(self, files: Files) -> tuple[np.ndarray, Edges, Edges]:
        """The groups, uint64, and the edges at both sides of what is inside."""
        columns = self._columns(files)
        groups, starts = np.unique(columns.groups, return_index=True)
        ends = np.append(starts[1:], len(columns.groups))
        bounds = [
            _edges_of_group(columns.keys[start:end], columns.tokens[start:end], self.cut, self.by)
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
        ]
        return groups, Edges.of([low for low, _ in bounds]), Edges.of([high for _, high in bounds])

    def _columns(self, files: Files) -> KeyColumns:
        parts = []
        for file in files:
            with KeyReader(file) as reader:
                parts += [reader.columns(run, *reader.group(run, self.first, self.last)) for run in file.runs]
        return KeyColumns.joined(parts).in_order()


def _edges_of_group(keys: np.ndarray, tokens: np.ndarray, cut: Cut, by: str) -> tuple[Edge, Edge]:
    before = np.concatenate((np.zeros(1, np.int64), np.cumsum(tokens)))
    low, high = interval(cut, len(keys), lambda place: int(before[place]), by)
    return _edge(keys, low), _edge(keys, high)


def _edge(keys: np.ndarray, place: int) -> Edge:
    if place == len(keys):
        return BEHIND_ALL
    key = int(keys[place])
    return Edge(key, place - int(np.searchsorted(keys, np.uint64(key))))
