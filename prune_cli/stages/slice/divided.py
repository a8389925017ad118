"""How do several workers slice an unranked stream together? They read its scores, then split its records.

Between the two passes one process decides on the scores of all records, so the records kept and the counts
do not depend on the number of workers.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace

from ...engines.work import Engine, Places
from ...records.reader import Source
from ...settings.streams import Reading, Streams
from ...stream.schema import Head, PartSection
from ...stream.writer import Writing
from ...terminal import Progress
from .. import streams
from ..divided import InputPortion, ReadCounts, portions, report_as, sink_of_part
from .counts import FateCounts
from .cutting.columns import GroupTotals, ReadJob, ReadStage
from .cutting.deciding import Deciding, FileCut
from .cutting.whole import ScoredAmount, before_slicing, of_all
from .selection import Request, group_field
from .split import SliceStatistics
from .unranked import split


@dataclass(frozen=True)
class FinishedPart:
    """Records that a worker has split: files of those that are kept, and of the others if wanted."""

    kept: str
    rejected: str | None


@dataclass(frozen=True)
class SliceWorkers:
    """Who divides the work, and the folder for the parts."""

    engine: Engine
    folder: str
    streams: Streams


@dataclass(frozen=True)
class SplitJob:
    """Split the records of the same portion as it was decided."""

    portion: InputPortion
    cut: FileCut
    output: FinishedPart
    section: PartSection | None = None  # of the output, if that is a part of a dataset
    is_made: bool = False  # the output is there: its records are only counted

    @property
    def name(self) -> str:
        """The portion, for messages."""
        return self.portion.name


@dataclass(frozen=True)
class SplitStage:
    """How records are split and written."""

    request: Request
    reading: Reading
    watched: tuple[str, ...]
    head: Head
    writing: Writing
    verb: str = "slice"

    def open(self) -> "SplitWorker":
        """A worker."""
        return SplitWorker(self)


class SplitWorker:
    """Splits records into those that are kept and the others."""

    def __init__(self, stage: SplitStage) -> None:
        self.stage = stage

    def do(self, job: SplitJob, progress: Progress) -> tuple[FinishedPart, FateCounts, ReadCounts]:
        """Write the outputs of a job. Raises InputOutputError if its inputs have changed."""
        stage = self.stage
        statistics = SliceStatistics()
        with ExitStack() as stack:
            source = stack.enter_context(closing(job.portion.open(stage.reading, stage.watched, progress)))
            # The first reading has warned of bad records.
            source.warn = lambda message: None
            sinks = [
                stack.enter_context(sink_of_part(path, stage.head, stage.writing, job.section))
                for path in (job.output.kept, job.output.rejected)
                if path and not job.is_made
            ]
            for part in split(source, job.cut.decisions(), stage.request, statistics):
                for sink, lines in zip(sinks, (part.kept, part.rejected), strict=False):
                    if lines:
                        sink.write_lines(lines)
        return job.output, statistics.counts, ReadCounts.of(source)


class DividedSlice:
    """A slice that workers make together."""

    def __init__(
        self, workers: SliceWorkers, source: Source, request: Request, statistics: SliceStatistics
    ) -> None:
        self.workers = workers
        self.source = source
        self.request = request
        self.statistics = statistics
        self.records = 0  # that were split
        self.portions = self._portions()
        # No worker sees all records: the parent counts them.
        self.reading = replace(workers.streams, expect_records=None)
        self.watched = tuple(sorted(source.checks.watched))
        self.progress = streams.WorkerProgress(source, passes=2)

    def parts(self) -> Iterator[FinishedPart]:
        """The parts, in input order, each as soon as it is made."""
        self.source.close()
        cuts = self._cuts()
        jobs = [
            self._job(number, SplitJob(portion, cut, self._output(number)))
            for number, (portion, cut) in enumerate(zip(self.portions, cuts, strict=True))
        ]
        stage = SplitStage(self.request, self.reading, self.watched, self._head(), self._writing())
        for part, counts, read in self.workers.engine.each(stage, jobs, self.progress):
            self.statistics.counts.add_all(counts)
            self.records += read.records
            # Bad records are counted once, by the first reading.
            report_as(self.source, [replace(read, records=0, blank=0, skipped=0)])
            yield part

    # A dataset has other portions and outputs.
    def _portions(self) -> list[InputPortion]:
        return portions(self.source.inputs, self.workers.engine.workers)

    def _job(self, number: int, job: SplitJob) -> SplitJob:
        return job

    def _head(self) -> Head:
        return Head.compose("slice", group_field(self.request))

    def _writing(self) -> Writing:
        options = self.workers.streams
        # What the parent decompresses again is compressed as fast as can be.
        return Writing(level=1 if options.plain or options.single_frame else options.level, threads=1)

    def _cuts(self) -> list[FileCut]:
        """What is decided of each portion of the inputs."""
        stage = ReadStage(self.request, self.reading, self.watched)
        jobs = [ReadJob(portion, self._path(number)) for number, portion in enumerate(self.portions)]
        paths = [file.path for file in self.source.inputs]
        self.workers.engine.check_places(Places(paths, [self.workers.folder]))
        sizes = [portion.size for portion in self.portions]
        reports = self.workers.engine.map(stage, jobs, self.progress, sizes)
        report_as(self.source, [report.counts for report in reports])
        totals = GroupTotals.sum([report.totals for report in reports])
        amount = ScoredAmount(int(totals.n.sum()), int(totals.tokens.sum()))
        self.statistics.unsliced = before_slicing(self.source, amount)
        request = of_all(self.request, self.source, amount)
        deciding = Deciding(self.workers.engine, request, reports, self.progress)
        return deciding.cuts(self.statistics, self.source.name)

    def _path(self, number: int) -> str:
        return os.path.join(self.workers.folder, f"{number:05d}")

    def _output(self, number: int) -> FinishedPart:
        path = self._path(number)
        rejected = f"{path}.rejected" if self.request.slicing.rejects else None
        return FinishedPart(f"{path}.kept", rejected)
