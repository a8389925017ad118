"""Decides which records to keep, from the key files that the workers wrote, and counts what is kept.

The decisions are those of `unranked.decide`, which makes them in one process.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ....engines.work import Engine
from ....errors import DataError
from ....records.sorting.key_files import KeyFile, KeyReader
from ....records.sorting.keys import scores_of
from ....settings.streams import Unit
from ....statistics.quantile_grid import grid_at, grid_places
from ....terminal import Progress
from ..selection import Request
from ..split import SliceStatistics
from ..ties import Tie
from ..unranked import Decision, check_tokens, draws_picture
from .columns import GroupTotals, ReadReport, measures_scores
from .edges import Edge, Edges
from .finding import Bounds, Ties, between_scores, in_groups, in_order, places_of, ties
from .order import KeyOrder, Looker


@dataclass(frozen=True)
class FileCut:
    """The cut in one file of keys. `seen` are the records in the files before that tie with each edge."""

    file: KeyFile
    bounds: Bounds
    seen_low: np.ndarray
    seen_high: np.ndarray

    def decisions(self) -> Iterator[Decision]:
        """What was decided of the records of the file, run by run, in input order."""
        low = _Side(self.bounds.low, self.seen_low)
        high = _Side(self.bounds.high, self.seen_high)
        with KeyReader(self.file) as reader:
            for run, columns in reader.whole():
                codes = np.searchsorted(self.bounds.groups, columns.groups[: run.scored])
                keys = columns.keys[: run.scored]
                inside, scored = np.zeros((2, run.records), bool)
                tokens = np.zeros(run.records, np.int64)
                places = columns.places[: run.scored]
                inside[places] = high.below(keys, codes) & ~low.below(keys, codes)
                scored[places] = True
                tokens[columns.places] = columns.tokens
                yield Decision(inside, scored, tokens)


class _Side:
    """An edge for each group, and how many records that tie with it have been seen."""

    def __init__(self, edges: Edges, seen: np.ndarray) -> None:
        self.edges = edges
        self.seen = seen.copy()

    def below(self, keys: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Whether each record of a run is below the edge of its group: by group, key and input order."""
        bounds = self.edges.keys[codes]
        result: np.ndarray = keys < bounds
        tied = np.flatnonzero(keys == bounds)
        own = codes[tied]  # rises: those of a group stand together
        ordinals = np.arange(len(own)) - np.searchsorted(own, own) + self.seen[own]
        result[tied] = ordinals < self.edges.ordinals[own]
        np.add.at(self.seen, own, 1)
        return result


class Deciding:
    """Finds the cut, and measures the scores, with the workers of an engine."""

    def __init__(
        self, engine: Engine, request: Request, reports: Sequence[ReadReport], progress: Progress
    ) -> None:
        self.request = request
        self.reports = reports
        self.looker = Looker(engine, tuple(report.keys for report in reports), progress)
        self.totals = GroupTotals.sum([report.totals for report in reports])
        self.by = str(request.slicing.by or Unit.records)

    def cuts(self, statistics: SliceStatistics, place: str) -> list[FileCut]:
        """The cut in each file, in input order. Raises DataError as `unranked.decide` does."""
        request = self.request
        self._check_groups()
        if self.by == Unit.tokens and request.cut.divides_quantiles:
            check_tokens(self.totals.tokens, is_grouped=request.slicing.within is not None, place=place)
        bounds = self._measured(statistics) if request.slicing.within is None else self._grouped()
        sides = [ties(self.looker, bounds.groups, edges) for edges in (bounds.low, bounds.high)]
        if measures_scores(request) and not request.selection.is_random:
            statistics.ties.split += _split_ties(bounds, sides)
        return [self._cut(number, bounds, sides) for number in self.looker.files]

    def _check_groups(self) -> None:
        """Raise DataError if two values of `within` have one hash: a chance of values² / 2^65."""
        values: dict[int, Any] = {}
        for report in self.reports:
            for number, value in report.values.items():
                other = values.setdefault(number, value)
                if other != value:
                    fault = f"{other!r} and {value!r} of --within have the same hash"
                    raise DataError(fault, remedy="leave out --jobs")

    def _grouped(self) -> Bounds:
        if self.request.cut.keep == "scores":
            return between_scores(self.request, self.totals.groups)
        return in_groups(self.looker, self.totals, self.request, self.by)

    def _cut(self, number: int, bounds: Bounds, sides: Sequence[Ties]) -> FileCut:
        report = self.reports[number]
        groups = report.totals.groups
        own = np.searchsorted(bounds.groups, groups)
        seen = [side.before(number, len(bounds.groups))[own] for side in sides]
        return FileCut(report.keys, bounds.of(groups), *seen)

    # --- Without groups ---

    def _measured(self, statistics: SliceStatistics) -> Bounds:
        """The edges of the whole, and the statistics that need the order of all scores."""
        request = self.request
        n = int(self.totals.n.sum())
        measures = measures_scores(request)
        is_drawn = request.selection.is_random
        order = KeyOrder(self.looker, 0, n)
        order.measure(statistics.lengths if measures and not is_drawn else None)
        if request.cut.keep == "scores":
            bounds = between_scores(request, self.totals.groups)
            edges = Edges.joined([bounds.low, bounds.high])
            groups = np.concatenate([bounds.groups, bounds.groups])
            places = tuple(places_of(self.looker, groups, edges).tolist()) or (0, 0)
        else:
            bounds, places = in_order(order, request, self.by)
        if measures and is_drawn:
            order = KeyOrder(self._looker_at_scores(), 0, n)
            order.measure(statistics.lengths)
        if measures:
            statistics.length_correlation = statistics.lengths.value()
            if draws_picture(request):
                statistics.shape = _shape(order)
                is_empty = places[0] == places[1]
                if not is_drawn and not is_empty:
                    statistics.quantiles = places[0] / n, 1 - (n - places[1]) / n
        return bounds

    def _looker_at_scores(self) -> Looker:
        files = tuple(report.scores for report in self.reports if report.scores)
        return Looker(self.looker.engine, files, self.looker.progress)


def _shape(order: KeyOrder) -> list[float] | None:
    if not order.n:
        return None
    return grid_at(scores_of(order.edges(grid_places(order.n).tolist()).keys))


def _split_ties(bounds: Bounds, sides: Sequence[Ties]) -> list[Tie]:
    """The ties that the edges of the only group split, of rising scores."""
    found: dict[int, int] = {}  # the records of each key at which an edge is between ties
    for edges, side in zip((bounds.low, bounds.high), sides, strict=True):
        for place, records in zip(side.places, side.equal.sum(axis=0).tolist(), strict=True):
            found[int(edges.keys[place])] = records
    result = []
    for key, records in found.items():
        inside = _below(bounds.high.edge(0), key, records) - _below(bounds.low.edge(0), key, records)
        if 0 < inside < records:
            result.append(Tie(float(scores_of(np.array([key], np.uint64))[0]), records, inside))
    return result


def _below(edge: Edge, key: int, records: int) -> int:
    """How many of the records with a key are below an edge."""
    if edge.key == key:
        return min(edge.ordinal, records)
    return records if key < edge.key else 0
