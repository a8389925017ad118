"""Which documents are worth reading? Those nearest to a place in the distribution, in each group."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappush, heapreplace
from typing import Any

import numpy as np
import orjson

from ....records.documents import IDS
from ....records.reader import Batch
from ..content import CutEnd, ShownDocument

GROUPS = 32  # that documents are kept of while it is unknown which groups are large
CHARACTERS = 8_000  # of a text that the page shows: 200 documents of 8 kB are 1.6 MB
Distance = Callable[
    [np.ndarray], np.ndarray
]  # from scores to distances; infinite for records of other places


@dataclass(frozen=True)
class Spot:
    """A place in the distribution of the score with the number `score`, and how far records are from it."""

    name: str
    distance: Distance
    score: int = 0


def end_places() -> list[Spot]:
    """The two ends of the first score."""
    return [Spot("lowest", lambda scores: scores), Spot("highest", lambda scores: -scores)]


def edge_places(edges: Sequence[CutEnd], number: int, label: str) -> Iterator[Spot]:
    """Both sides of each edge of a slice."""
    for edge in edges:
        side = "above" if edge.keeps == "above" else "below"
        outside = "below" if side == "above" else "above"
        inner = _inside(edge.score, side)
        yield Spot(f"just inside the cut at {edge.score:.4g}{label}", inner, number)
        yield Spot(f"just outside the cut at {edge.score:.4g}{label}", _outside(edge.score, outside), number)


def _inside(edge: float, side: str) -> Distance:
    sign = 1 if side == "above" else -1
    return lambda scores: np.where(sign * (scores - edge) >= 0, np.abs(scores - edge), np.inf)


def _outside(edge: float, side: str) -> Distance:
    sign = 1 if side == "above" else -1
    return lambda scores: np.where(sign * (scores - edge) > 0, np.abs(scores - edge), np.inf)


@dataclass(frozen=True)
class RecordFields:
    """What is taken from a record to be shown."""

    scores: tuple[str, ...]
    text_field: str
    group: str
    tokens: str

    def document(self, batch: Batch, index: int, place: str) -> ShownDocument:
        """The document of a record. It is parsed here: few records are."""
        record = orjson.loads(batch.lines[index])
        text = _text_of(record, self.text_field)
        group = record.get(self.group)
        return ShownDocument(
            place=place,
            group=group if isinstance(group, str) else None,
            name=str(record.get("id") or batch.place(index)),
            scores={name: record.get(name) for name in self.scores},
            tokens=int(record.get(self.tokens) or 0),
            length=len(text),
            text=text[:CHARACTERS],
        )


def _text_of(record: dict[str, Any], field: str) -> str:
    text = record.get(field)
    if isinstance(text, str):
        return text
    ids = record.get(IDS)
    return f"token ids {' '.join(map(str, ids))}" if isinstance(ids, list) else ""


class Picker:
    """Keeps the `most` documents nearest to each place, in each group."""

    def __init__(self, places: Sequence[Spot], reading: RecordFields, most: int) -> None:
        self.places = places
        self.reading = reading
        self.most = most
        self._taken = 0  # documents, which makes the entries of a heap comparable
        self._heaps: dict[tuple[int, int], list[tuple[float, int, ShownDocument]]] = {}

    def take(self, batch: Batch, scores: np.ndarray, groups: np.ndarray) -> None:
        """Look at the records of a batch: scores (fields, n), NaN for none; groups (n)."""
        if not self.most:
            return
        for number, place in enumerate(self.places):
            distances = place.distance(scores[place.score])
            distances = np.where(np.isnan(distances), np.inf, distances)
            for group in np.unique(groups[np.isfinite(distances) & (groups < GROUPS)]).tolist():
                own = np.flatnonzero((groups == group) & (distances < self._worst(number, group)))
                # No more than `most` of a batch can stay: in a ranked stream each record may be nearer than
                # all before.
                nearest = own[np.argsort(distances[own], kind="stable")[: self.most]]
                for index in nearest.tolist():
                    self._keep(number, group, float(distances[index]), batch, index)

    def _worst(self, place: int, group: int) -> float:
        heap = self._heaps.get((place, group), [])
        return -heap[0][0] if len(heap) == self.most else np.inf

    def _keep(self, place: int, group: int, distance: float, batch: Batch, index: int) -> None:
        heap = self._heaps.setdefault((place, group), [])
        self._taken += 1
        # The heap has the farthest document first. Of equal ones the first in the file stays.
        entry = (-distance, -self._taken, self.reading.document(batch, index, self.places[place].name))
        if len(heap) < self.most:
            heappush(heap, entry)
        else:
            heapreplace(heap, entry)

    def documents(self, groups: Sequence[int], total: int) -> list[ShownDocument]:
        """At most `total` documents of these groups, evenly from each place and group, the nearest first."""
        lists = [
            [document for _, _, document in sorted(self._heaps.get((place, group), []), reverse=True)]
            for place in range(len(self.places))
            for group in groups
        ]
        share = 0
        while sum(len(each[: share + 1]) for each in lists) <= total and share < self.most:
            share += 1
        return [document for each in lists for document in each[:share]]


class DocumentSample:
    """Some documents of all, each with the same chance: for places that are only known at the end."""

    def __init__(self, reading: RecordFields, seed: int, most: int = 400) -> None:
        self.reading = reading
        self.most = most
        self._random = np.random.default_rng(seed)
        self._entries: list[tuple[float, int, np.ndarray, ShownDocument]] = []
        self._taken = 0

    def take(self, batch: Batch, scores: np.ndarray, groups: np.ndarray) -> None:
        """Offer the records of a batch: scores (fields, n), groups (n)."""
        priorities = self._random.random(len(batch))
        limit = self._entries[0][0] if len(self._entries) == self.most else -1.0
        for index in np.flatnonzero((priorities > limit) & ~np.isnan(scores[0])).tolist():
            if len(self._entries) == self.most and priorities[index] <= self._entries[0][0]:
                continue
            self._taken += 1
            document = self.reading.document(batch, index, "")
            entry = (float(priorities[index]), self._taken, scores[:, index], document)
            push = heappush if len(self._entries) < self.most else heapreplace
            push(self._entries, entry)

    def between(self, low: float, high: float, place: str, most: int, groups: int) -> list[ShownDocument]:
        """Documents of the sample with a score in [low, high]: at most `most`, evenly from so many groups."""
        share = -(-most // max(groups, 1))
        taken: dict[str | None, int] = {}
        chosen = []
        middle = low / 2 + high / 2
        by_distance = sorted(self._entries, key=lambda entry: abs(entry[2][0] - middle))
        for _, _, scores, document in by_distance:
            if low <= scores[0] <= high and taken.get(document.group, 0) < share:
                taken[document.group] = taken.get(document.group, 0) + 1
                chosen.append(replace(document, place=place))
        return chosen[:most]
