"""First stage: the keys by which records are cut, from the input into files."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import reduce
from hashlib import blake2b
from typing import Any

import numpy as np

from ....records.reader import Source
from ....records.sorting.key_files import KeyFile, append_run
from ....records.sorting.keys import ordered_keys
from ....settings.streams import Reading
from ....storage.temporary import SharedFile
from ....terminal import Progress
from ...divided import InputPortion, ReadCounts
from ..selection import Request
from ..unranked import ScoreColumns, read_columns

RUN = 1 << 19  # records that a worker sorts at once, in some 60 MB


@dataclass(frozen=True)
class GroupTotals:
    """Scored records and their tokens by group: `groups` uint64, rising, `n` and `tokens` int64 (groups).

    A group is a hash of its value, the same in all files; without groups it is 0.
    """

    groups: np.ndarray
    n: np.ndarray
    tokens: np.ndarray

    @classmethod
    def of(cls, groups: np.ndarray, n: np.ndarray, tokens: np.ndarray) -> "GroupTotals":
        """The sums by group of counts that come in any order."""
        unique, places = np.unique(groups, return_inverse=True)
        sums = np.zeros((2, len(unique)), np.int64)
        np.add.at(sums[0], places, n)
        np.add.at(sums[1], places, tokens)
        return cls(unique, *sums)

    @classmethod
    def sum(cls, parts: Sequence["GroupTotals"]) -> "GroupTotals":
        """The counts of all parts."""
        return reduce(cls.plus, parts, NOTHING)

    def plus(self, other: "GroupTotals") -> "GroupTotals":
        """The counts of both."""
        pairs = zip((self.groups, self.n, self.tokens), (other.groups, other.n, other.tokens), strict=True)
        return GroupTotals.of(*(np.concatenate(pair) for pair in pairs))


NOTHING = GroupTotals(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))


@dataclass(frozen=True)
class ReadReport:
    """What was read of a portion.

    `keys` order the cut; where that is a random draw, `scores` are in the order of the scores. `values` are
    those of the groups, by hash.
    """

    keys: KeyFile
    scores: KeyFile | None
    totals: GroupTotals
    values: dict[int, Any]
    counts: ReadCounts


@dataclass(frozen=True)
class ReadJob:
    """Read the scores of a portion of the input into files whose names begin with `path`."""

    portion: InputPortion
    path: str

    @property
    def name(self) -> str:
        """The portion, for messages."""
        return self.portion.name


@dataclass(frozen=True)
class ReadStage:
    """How scores are read."""

    request: Request
    reading: Reading
    watched: tuple[str, ...]
    verb: str = "slice"

    def open(self) -> "ReadWorker":
        """A worker."""
        return ReadWorker(self)


class ReadWorker:
    """Reads scores, or draws random numbers."""

    def __init__(self, stage: ReadStage) -> None:
        self.stage = stage

    def do(self, job: ReadJob, progress: Progress) -> ReadReport:
        """Write the keys of a portion. Raises DataError for a record without a score."""
        request = self.stage.request
        totals = NOTHING
        values: dict[int, Any] = {}
        with ExitStack() as stack:
            source = stack.enter_context(
                closing(job.portion.open(self.stage.reading, self.stage.watched, progress))
            )
            files = [_Writer(f"{job.path}.keys", stack)]
            if measures_scores(request) and request.selection.is_random:
                files.append(_Writer(f"{job.path}.scores", stack))
            for columns, groups in _grouped(source, request, values):
                scored = ~np.isnan(columns.scores)
                files[0].add(groups, _keys(columns.sort_values(request)), columns.tokens, scored)
                for file in files[1:]:
                    file.add(groups, ordered_keys(columns.scores), columns.tokens, scored)
                of_groups = groups[scored], np.ones(int(scored.sum()), np.int64), columns.tokens[scored]
                totals = totals.plus(GroupTotals.of(*of_groups))
            keys, *scores = (file.finished() for file in files)
        return ReadReport(keys, scores[0] if scores else None, totals, values, ReadCounts.of(source))


class _Writer:
    """A file of keys that grows run by run."""

    def __init__(self, path: str, stack: ExitStack) -> None:
        self.file = stack.enter_context(SharedFile(path, write=True))
        self.finished_runs: list[Any] = []

    def add(self, groups: np.ndarray, keys: np.ndarray, tokens: np.ndarray, scored: np.ndarray) -> None:
        self.finished_runs.append(append_run(self.file, groups, keys, tokens, scored))

    def finished(self) -> KeyFile:
        return KeyFile(self.file.path, tuple(self.finished_runs))


def measures_scores(request: Request) -> bool:
    """Whether statistics of the scores are asked for: of a whole whose records have one."""
    return bool(request.slicing.key) and request.slicing.within is None


def _keys(values: np.ndarray) -> np.ndarray:
    """The keys of scores, or of random bits, which have their own order."""
    return values if values.dtype == np.uint64 else ordered_keys(values)


def _grouped(
    source: Source, request: Request, values: dict[int, Any]
) -> Iterator[tuple[ScoreColumns, np.ndarray]]:
    """The columns of each run, and the group of each record. `values` get those of the groups."""
    hashes: list[int] = []
    for columns in read_columns(source, request, RUN):
        if columns.within is None:
            yield columns, np.zeros(len(columns.scores), np.uint64)
            continue
        for name in columns.names[len(hashes) :]:
            hashes.append(_hash(name))
            values[hashes[-1]] = name
        yield columns, np.array(hashes, np.uint64)[columns.within]


def _hash(value: Any) -> int:
    # `repr` tells 1 from "1", and spells any string in ASCII.
    return int.from_bytes(blake2b(ascii(value).encode(), digest_size=8).digest())
