"""What does the parent know of the order of all records of a group? Where its cells are, and who can look."""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from ....engines.work import Engine
from ....statistics.correlation import LengthCorrelation
from ....statistics.key_histogram import SHIFTS, Histogram
from ....statistics.partition import boundaries
from ....terminal import Progress
from .cells import CountByKey, EdgesAt, Files, KeyCell, KeyQuestion, LookJob, LookStage, Measure, TokensBefore
from .edges import BEFORE_ALL, BEHIND_ALL, Edge, Edges

CELL = 1 << 20  # records that are sorted at once: 32 MB, and as much again in order
CELLS_HELD = 4  # whose tokens the parent holds: 8 MB each


class Looker:
    """Has workers look into files of keys. Their answers come in the order of the questions."""

    def __init__(self, engine: Engine, files: Files, progress: Progress) -> None:
        self.engine = engine
        self.progress = progress
        self.stage = LookStage(files)  # one for all questions: workers get the list of files once

    @property
    def files(self) -> range:
        """The numbers of the files."""
        return range(len(self.stage.files))

    def ask(self, questions: Sequence[KeyQuestion]) -> Iterator[Any]:
        """The answers, each as soon as it and all before it are there."""
        return self.engine.each(self.stage, [LookJob(question) for question in questions], self.progress)


class KeyOrder:
    """The records of one group in the order of their keys.

    The parent holds where cells begin, and the tokens of a few of them: memory grows with the number of
    cells, not of records.
    """

    def __init__(self, looker: Looker, group: int, n: int) -> None:
        self.looker = looker
        self.group = group
        self.n = n
        self.cells = [KeyCell(group, *pair) for pair in pairwise(self._bounds())]
        self.records_before = np.zeros(1, np.int64)  # each cell, and all; known when it is measured
        self.tokens_before_cells = np.zeros(1, np.int64)
        self._tokens_in: Callable[[int], np.ndarray] = lru_cache(CELLS_HELD)(self._ask_tokens)

    def _bounds(self) -> list[Edge]:
        if self.n <= CELL:
            return [BEFORE_ALL, BEHIND_ALL]
        total = Histogram.empty()
        for part in self._histograms(None, 64, SHIFTS[0]):
            total = Histogram.sum([total, part])
        bounds = boundaries(
            total,
            len(self.looker.files),
            lambda amounts: amounts[:, 0],
            CELL,
            lambda *bits: list(self._histograms(*bits)),
        )
        inner = Edges(bounds.keys, bounds.ordinals)
        return [BEFORE_ALL, *map(inner.edge, range(len(bounds))), BEHIND_ALL]

    def _histograms(self, prefixes: np.ndarray | None, shift: int, finer: int) -> Iterator[Histogram]:
        return self.looker.ask(
            [CountByKey(number, self.group, prefixes, shift, finer) for number in self.looker.files]
        )

    def measure(self, lengths: LengthCorrelation | None = None) -> None:
        """Count the records and tokens of all cells, and correlate them with their lengths if asked to."""
        n, tokens = [0], [0]
        for totals in self.looker.ask([Measure(cell, lengths is not None) for cell in self.cells]):
            n.append(totals.n)
            tokens.append(totals.tokens)
            if lengths is not None:
                lengths.add_segment(totals.lengths)
        self.records_before = np.cumsum(n)
        self.tokens_before_cells = np.cumsum(tokens)

    def tokens_before(self, place: int) -> int:
        """The tokens of all records before a place, from 0 to n."""
        # The end of all is that of the last cell, and not the start of one that does not exist.
        cell = min(self._cells_of(np.array([place]))[0], len(self.cells) - 1)
        within = place - self.records_before[cell]
        # Sums before whole cells need no look into one.
        if not within:
            return int(self.tokens_before_cells[cell])
        return int(self.tokens_before_cells[cell] + self._tokens_in(cell)[within])

    def _cells_of(self, places: np.ndarray) -> list[int]:
        cells: list[int] = (np.searchsorted(self.records_before, places, side="right") - 1).tolist()
        return cells

    def _ask_tokens(self, cell: int) -> np.ndarray:
        [tokens] = self.looker.ask([TokensBefore(self.cells[cell])])
        result: np.ndarray = tokens
        return result

    def edges(self, places: Sequence[int]) -> Edges:
        """The edges at places that rise, from 0 to n."""
        inside = np.array([place for place in places if place < self.n], np.int64)
        wanted: dict[int, list[int]] = {}
        for cell, place in zip(self._cells_of(inside), inside.tolist(), strict=True):
            wanted.setdefault(cell, []).append(place - int(self.records_before[cell]))
        questions = [EdgesAt(self.cells[cell], tuple(within)) for cell, within in wanted.items()]
        behind = [BEHIND_ALL] * (len(places) - len(inside))
        return Edges.joined([*self.looker.ask(questions), Edges.of(behind)])
