"""Run `slice`: from inputs and settings to a part of a distribution, bytes and order unchanged."""

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

from ... import storage
from ...engines.work import Engine
from ...errors import UsageError
from ...records.reader import Source
from ...settings.slice import Selection, Slicing
from ...settings.streams import Streams
from ...storage.base import Output
from ...stream import dataset
from ...stream.schema import Head
from ...stream.writer import Sink
from .. import streams
from ..joining import Joiner
from .copied import SplitFrame, WholeFrame
from .counts import CUT, KEPT, UNSCORED, FateCounts
from .divided import FinishedPart
from .plan import SlicePlan, by_records, plan, reads_twice
from .report import SliceReport, histogram
from .selection import Request, group_field, request, without_percent
from .split import SliceStatistics, Split


@dataclass(frozen=True)
class SliceJob:
    """Slice the records of `inputs`."""

    inputs: tuple[str, ...]
    selection: Selection
    slicing: Slicing
    streams: Streams

    def run(self, engine: Engine | None = None) -> SliceReport:
        """Write the records that are kept, those that are not, and the summary. Raises PruneError.

        Several workers of an engine divide the work of an unranked stream among them.
        """
        checked = request(self.selection, self.slicing)
        self.check_paths()
        statistics = SliceStatistics()
        replay = reads_twice(checked)
        with (
            streams.open_streams("slice", self.inputs, self.streams, replay=replay) as (source, output),
            self.create(self.slicing.rejects, source) as rejects,
        ):
            self.check_summary(source)
            whole = dataset.manifest_of(self.inputs)
            with plan(source, checked, self.streams, statistics, engine, whole) as planned:
                self._write(planned, statistics, output, rejects)
                statistics.counts.check(planned.records())
                report = report_of(planned, statistics, planned.unit if self.is_by_ranking() else "records")
        # When the outputs have their names: only then have objects their ETags.
        made = storage.etags(output, rejects)
        content = {**self.provenance(checked), "by": planned.unit, **report.summary()}
        self.write_summary(content | ({"etags": made} if made else {}), source)
        report.warn(planned.request.cut.tokens)
        return replace(report, skipped=source.skipped + planned.skipped())

    def check_paths(self) -> None:
        """Raise UsageError if two outputs, or two inputs, are one."""
        if self.slicing.scores == "-" and "-" in (self.inputs or ("-",)):
            raise UsageError("standard input (-) is named twice", remedy="it can be read only once")
        files = [path for path in (self.slicing.rejects, self.slicing.summary) if path]
        if "-" in files:
            raise UsageError("--rejects and --summary need a file", remedy="/dev/stderr is one")
        storage.check_distinct(self.streams.output, *files)

    def check_summary(self, source: Source) -> None:
        """Raise what writing it at the end would raise."""
        summary = self.slicing.summary
        if summary and not storage.is_stream(summary):
            storage.check_target(summary, source.inputs, force=self.streams.force)

    def write_summary(self, content: dict[str, Any], source: Source) -> None:
        """Write the file of --summary, if there is to be one."""
        with self.create(self.slicing.summary, source) as output:
            if output:
                output.write(json.dumps(content, indent=2).encode() + b"\n")

    def create(self, path: str | None, source: Source) -> AbstractContextManager[Output | None]:
        """An output that an option names, if it does."""
        if not path:
            return nullcontext()
        return storage.create(path, source.inputs, force=self.streams.force)

    def _write(
        self, planned: SlicePlan, statistics: SliceStatistics, output: Output, rejects: Output | None
    ) -> None:
        head = self.head(planned)
        with (
            streams.open_sink(self.streams, output, head) as kept,
            self._rejects_sink(rejects, head) as rejected,
        ):
            _write_parts(planned, kept, rejected)
            _count_groups(statistics.counts, kept, rejected)
            kept.facts |= self.facts(statistics)

    def facts(self, statistics: SliceStatistics) -> dict[str, Any]:
        """What the slice hands on of the whole stream."""
        facts: dict[str, Any] = {}
        if statistics.unsliced:
            facts["unsliced"] = [statistics.unsliced.records, statistics.unsliced.tokens or 0]
        if statistics.length_correlation is not None:
            statistics.length_correlation = round(statistics.length_correlation, 6)
            facts["length_correlation"] = statistics.length_correlation
        # The shape of another score must not be handed on as that of the ranking.
        if statistics.shape is not None and self.is_by_ranking():
            facts["shape"] = statistics.shape
        return facts

    def _rejects_sink(self, output: Output | None, head: Head) -> AbstractContextManager[Sink | None]:
        if output is None:
            return nullcontext()
        return streams.open_sink(replace(self.streams, output=self.slicing.rejects), output, head)

    def is_by_ranking(self) -> bool:
        """Whether the score that is cut is the one that the stream was ranked by."""
        return (self.slicing.key, self.slicing.scores, self.selection.cut) == (None, None, None)

    def head(self, planned: SlicePlan) -> Head:
        # A file of scores may be a ranking; the corpus that is cut by it is none.
        kept = ("pack", "score") if self.slicing.scores is not None else ("pack", "score", "rank")
        return Head.compose(
            "slice",
            group_field(planned.request),
            previous=planned.head,
            keep=kept,
            slice=self.provenance(planned.request),
        )

    def provenance(self, checked: Request) -> dict[str, Any]:
        """The options of the cut that were given, for the head and the summary."""
        selection = self.selection
        options = {
            "keep": selection.keep,
            "frac": without_percent(selection.frac),
            "tokens": selection.tokens,
            "sample": selection.sample,
            "of_all": selection.of_all,
            "invert": selection.invert,
            "keep_unscored": selection.keep_unscored,
            "range": without_percent(selection.range_),
            "min": selection.least,
            "max": selection.most,
            "cut": checked.measured.to_json() if checked.measured else None,
            "key": self.slicing.key,
            "within": self.slicing.within,
            "scores": self.slicing.scores,
            "seed": selection.seed if selection.is_random else None,
        }
        # Not `in (None, False)`: a bound or a seed of 0 was given, and equals False.
        return {name: value for name, value in options.items() if value is not None and value is not False}


def slice_source(source: Source, selection: Selection, slicing: Slicing) -> Iterator[Split]:
    """The records of a source that is no file, split into kept and rejected ones.

    Raises PruneError; logs what the command would. Where `reads_twice`, the source must be replayable.
    """
    statistics = SliceStatistics()
    planned = by_records(source, request(selection, slicing), statistics)
    for part in planned.parts:
        assert isinstance(part, Split)  # only a file has frames that are copied whole
        yield part
    statistics.counts.check(planned.records())
    report_of(planned, statistics, planned.unit).warn(planned.request.cut.tokens)


def report_of(planned: SlicePlan, statistics: SliceStatistics, unit: str) -> SliceReport:
    return SliceReport(
        total=statistics.counts.total(),
        groups=statistics.counts.by_group(),
        ties=statistics.ties.ties(),
        length_correlation=statistics.length_correlation,
        histogram=histogram(planned.request, statistics, planned.key, unit),
        drift=statistics.drift.total() if statistics.drift else None,
    )


def _count_groups(counts: FateCounts, kept: Sink, rejected: Sink | None) -> None:
    """Have the trailers leave out groups that are too many, which a part of the records need not show."""
    kept.count_groups(counts.names_among([KEPT]))
    if rejected:
        rejected.count_groups(counts.names_among([CUT, UNSCORED]))


def _write_parts(planned: SlicePlan, kept: Sink, rejected: Sink | None) -> None:
    """Write each part to its sink; whole frames are copied without being decompressed."""
    joiner = Joiner(kept)
    rejected_joiner = Joiner(rejected) if rejected else None
    for part in planned.parts:
        if isinstance(part, WholeFrame):
            sink = kept if part.is_kept else rejected
            if sink and planned.table:
                sink.copy_frame(planned.table, part.index)
        elif isinstance(part, FinishedPart):
            joiner.append(part.kept)
            if part.rejected and rejected_joiner:
                rejected_joiner.append(part.rejected)
        else:
            for split in part.splits if isinstance(part, SplitFrame) else (part,):
                _write_split(split, kept, rejected)


def _write_split(split: Split, kept: Sink, rejected: Sink | None) -> None:
    if split.kept:
        kept.write_lines(split.kept)
    if split.rejected and rejected:
        rejected.write_lines(split.rejected)
