"""How do several workers read the records of one file? Each reads portions as columns, which are joined."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace

import numpy as np

from ...engines.work import Engine, Places
from ...records.reader import Source
from ...settings.streams import Reading
from ...stream import index
from ...stream.writer import GROUPS
from ...terminal import Progress
from .. import streams
from ..divided import InputPortion, ReadCounts, portions, report_as
from .columns import Columns, RecordTable, checked, read_unchecked
from .scan import check_records


@dataclass(frozen=True)
class ColumnJob:
    """Read the columns of a portion of the input."""

    portion: InputPortion

    @property
    def name(self) -> str:
        """The portion, for messages."""
        return self.portion.name


@dataclass(frozen=True)
class ColumnStage:
    """How columns are read."""

    columns: Columns
    reading: Reading
    watched: tuple[str, ...]
    verb: str = "stat"

    def open(self) -> ColumnWorker:
        """A worker."""
        return ColumnWorker(self)


@dataclass(frozen=True)
class ColumnWorker:
    """Reads the columns of one portion after another."""

    stage: ColumnStage

    def do(self, job: ColumnJob, progress: Progress) -> tuple[RecordTable, ReadCounts]:
        """The columns of a portion. Raises DataError."""
        stage = self.stage
        with closing(job.portion.open(stage.reading, stage.watched, progress)) as source:
            table = read_unchecked(source, stage.columns)
        return table, ReadCounts.of(source)


def read_divided(engine: Engine, source: Source, columns: Columns, reading: Reading) -> RecordTable:
    """As `columns.read`, with the workers of an engine. Nothing more can be read of the source."""
    engine.check_places(Places([file.path for file in source.inputs], []))
    source.close()
    # The parent alone knows how many records there are in all.
    stage = ColumnStage(columns, replace(reading, expect_records=None), tuple(sorted(source.checks.watched)))
    jobs = [ColumnJob(portion) for portion in portions(source.inputs, engine.workers)]
    sizes = [job.portion.size for job in jobs]
    progress = streams.WorkerProgress(source, passes=1)
    read = engine.map(stage, jobs, progress, sizes)
    report_as(source, [counts for _, counts in read])
    table = checked(_joined([each for each, _ in read]), columns, source.name)
    trailers = [index.read_table(file) for file in source.inputs]
    if not source.skipped and all(trailers):
        check_records(len(table.tokens), sum(each.totals.records for each in trailers if each))
    return table


def _joined(parts: Sequence[RecordTable]) -> RecordTable:
    numbers: dict[str, int] = {}
    groups = []
    for part in parts:
        for name in part.group_names:
            # One more than a trailer counts shows that there are too many.
            if len(numbers) <= GROUPS:
                numbers.setdefault(name, len(numbers))
        codes = np.array([*(numbers.get(name, -1) for name in part.group_names), -1], np.int32)
        groups.append(codes[part.groups])
    digests = [part.digests for part in parts if part.digests is not None]
    return RecordTable(
        parts[0].names,
        np.concatenate([part.scores for part in parts], axis=-1),
        np.concatenate([part.tokens for part in parts]),
        np.concatenate(groups),
        list(numbers),
        [digest for each in digests for digest in each] if digests else None,
        size=sum(part.size for part in parts),
        absent=_absent(parts),
    )


def _absent(parts: Sequence[RecordTable]) -> Sequence[str]:
    """The fields that no record has: a part without records lacks none."""
    filled = [part.absent for part in parts if part.size]
    if not filled:
        return parts[0].absent
    return [name for name in filled[0] if all(name in absent for absent in filled)]
