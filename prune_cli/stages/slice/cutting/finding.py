"""Where is the cut in the order of all records? Two edges for each group show it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ....records.sorting.keys import ordered_keys
from ....statistics.cuts import interval
from ..selection import Request
from .cells import CountAtKeys, CutGroups
from .columns import GroupTotals
from .edges import Edge, Edges
from .order import CELL, KeyOrder, Looker


@dataclass(frozen=True)
class Bounds:
    """The edges at both sides of what is inside the cut, for each group: `groups` uint64, rising (n)."""

    groups: np.ndarray
    low: Edges
    high: Edges

    def of(self, groups: np.ndarray) -> "Bounds":
        """Those of some groups, which rise."""
        places = np.searchsorted(self.groups, groups)
        return Bounds(groups, self.low[places], self.high[places])


def between_scores(request: Request, groups: np.ndarray) -> Bounds:
    """The edges of a cut between two scores: the same for all groups."""
    low, high = ordered_keys(np.array([request.cut.least, request.cut.most])).tolist()
    # Both scores are inside: the upper edge is behind all records with its key.
    return Bounds(groups, *(Edges.of([Edge(key, 0)] * len(groups)) for key in (low, high + 1)))


def in_groups(looker: Looker, totals: GroupTotals, request: Request, by: str) -> Bounds:
    """The edges in each group. Small groups are looked at together, a large one by its cells."""
    questions: list[CutGroups] = []
    alone: list[int] = []
    for start, end in _batches(totals.n):
        if totals.n[start] > CELL:
            alone.append(start)
            continue
        first, last = (int(totals.groups[place]) for place in (start, end - 1))
        questions.append(CutGroups(first, last, request.cut, by))
    parts = [Bounds(*answer) for answer in looker.ask(questions)] if questions else []
    for place in alone:
        order = KeyOrder(looker, int(totals.groups[place]), int(totals.n[place]))
        order.measure()
        parts.append(in_order(order, request, by)[0])
    return _joined(parts)


def _batches(n: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of groups with at most CELL records together, or of one with more."""
    start = 0
    held = 0
    for place, records in enumerate(n.tolist()):
        if place > start and held + records > CELL:
            yield start, place
            start, held = place, 0
        held += records
    if len(n):
        yield start, len(n)


def _joined(parts: Sequence[Bounds]) -> Bounds:
    groups = np.concatenate([np.zeros(0, np.uint64), *(part.groups for part in parts)])
    order = np.argsort(groups)
    low, high = (Edges.joined([getattr(part, side) for part in parts]) for side in ("low", "high"))
    return Bounds(groups[order], low[order], high[order])


def in_order(order: KeyOrder, request: Request, by: str) -> tuple[Bounds, tuple[int, int]]:
    """The edges in the only group of an order that is measured, and the places of both."""
    places = interval(request.cut, order.n, order.tokens_before, by)
    edges = order.edges(places)
    low, high = (edges[np.array([side])] for side in (0, 1))
    return Bounds(np.array([order.group], np.uint64), low, high), places


# --- In each file ---


@dataclass(frozen=True)
class Ties:
    """Records that have the key of an edge, where the edge may be between some of them.

    `equal` is of each file and edge, int64 (files, edges); `places` are those of their groups.
    """

    places: np.ndarray
    equal: np.ndarray

    def before(self, number: int, groups: int) -> np.ndarray:
        """For each of all groups, those of the files before: int64 (groups)."""
        result = np.zeros(groups, np.int64)
        result[self.places] = self.equal[:number].sum(axis=0)
        return result


def ties(looker: Looker, groups: np.ndarray, edges: Edges) -> Ties:
    """Count the records that have the keys of edges."""
    places = np.flatnonzero(edges.splits())
    if not len(places):
        return Ties(places, np.zeros((len(looker.files), 0), np.int64))
    questions = [CountAtKeys(number, groups[places], edges.keys[places]) for number in looker.files]
    return Ties(places, np.array([equal for _, equal in looker.ask(questions)]))


def places_of(looker: Looker, groups: np.ndarray, edges: Edges) -> np.ndarray:
    """How many records are before edges that split no ties: int64 (groups)."""
    questions = [CountAtKeys(number, groups, edges.keys) for number in looker.files]
    result = np.zeros(len(groups), np.int64)
    for below, _ in looker.ask(questions):
        result += below
    return result
