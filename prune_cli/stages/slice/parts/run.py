"""Run `slice` with an engine: into one output, or into a dataset whose parts are those of its inputs."""

import json
import tempfile
from dataclasses import dataclass, replace
from typing import Any

from .... import storage
from ....engines.work import Engine
from ....errors import UsageError
from ....records.reader import Source
from ....settings.streams import Streams
from ....storage.temporary import shared_folders
from ....stream import dataset
from ....stream.dataset import DatasetManifest, DatasetPlan
from ... import streams
from ...datasets import Making, NothingToDo, making, planned_inputs
from ..divided import SliceWorkers
from ..plan import by_frames, copyable_table, reads_twice
from ..report import SliceReport
from ..run import SliceJob as SliceJob
from ..run import report_of
from ..selection import Request, request
from ..split import SliceStatistics
from .copying import FrameParts
from .dividing import ShardParts, shard_parts, shards_of

VERB = "slice"


@dataclass(frozen=True)
class SliceOnEngine:
    """Slice with the workers of an engine."""

    job: SliceJob
    engine: Engine

    def run(self) -> SliceReport | NothingToDo:
        """As `SliceJob.run`: it writes the same records. Raises PruneError."""
        if self.job.slicing.output_directory is None:
            return self.job.run(self.engine)
        return SliceDataset(self.job, self.engine, self.job.slicing.output_directory).make()


@dataclass(frozen=True)
class SliceDataset:
    """The records that a job keeps, as a dataset."""

    job: SliceJob
    engine: Engine
    directory: str

    def make(self) -> SliceReport | NothingToDo:
        """Write what is missing of the dataset, and the summary. Raises PruneError."""
        job = self.job
        checked = request(job.selection, job.slicing)
        job.check_paths()
        statistics = SliceStatistics()
        with (
            streams.open_source(VERB, job.inputs, job.streams, replay=reads_twice(checked)) as source,
            shared_folders([tempfile.gettempdir()]) as [folder],
        ):
            # A finished dataset has its summary: there is nothing to refuse.
            if dataset.read_manifest(self.directory) is None:
                self.job.check_summary(source)
            # Pipes are refused first of all.
            inputs = planned_inputs(source.inputs)
            parts = self._parts(source, checked, statistics, folder)
            plan = DatasetPlan(VERB, self._settings(parts.planned.request), [], inputs)
            with making(self.directory, plan, source.inputs, force=job.streams.force) as made:
                if made.manifest:
                    self._write_missing_summary(made.manifest, source)
                    return NothingToDo.because(made.manifest)
                self.job.check_summary(source)
                return self._make(parts, made, source, statistics)

    def _parts(
        self, source: Source, checked: Request, statistics: SliceStatistics, folder: str
    ) -> FrameParts | ShardParts:
        """How the parts are made. Raises UsageError for a cut that cannot be divided."""
        job = self.job
        table = copyable_table(source, checked, job.streams, dataset.manifest_of(job.inputs))
        if table:
            return FrameParts(by_frames(source, table, checked, statistics), table, source, self.engine)
        parts = None
        if reads_twice(checked):
            workers = SliceWorkers(self.engine, folder, job.streams)
            parts = shard_parts(workers, source, checked, statistics, shards_of(source.inputs))
        if parts is None:
            raise self._undivided()
        return parts

    def _undivided(self) -> UsageError:
        """The refusal of a cut that cannot be divided, which names the option that stands in the way."""
        job = self.job
        remedy = "write one output with -o FILE"
        if job.selection.cut is not None:
            return UsageError(
                "--cut reads the records once, one by one, which -O does not divide", remedy=remedy
            )
        if job.streams.level != Streams.level:
            fault = "-O copies frames of a ranking as they are, which --level would compress anew"
            return UsageError(fault, remedy=f"leave out --level, or {remedy}")
        fault = "-O divides a ranking whose frames can be copied, or a cut by -k, --tokens or at random"
        return UsageError(fault, remedy=remedy)

    def _settings(self, settled: Request) -> dict[str, Any]:
        """The settings that decide what is in the parts."""
        slicing = settled.slicing
        reading = self.job.streams
        settings = {
            **self.job.provenance(settled),
            "by": slicing.by,
            "tokens_field": slicing.tokens_field,
            "prefix": slicing.prefix,
            "text_field": slicing.text_field,  # random draws are of the texts
            "group_by": slicing.group_by,
            "skip_bad": reading.skip_bad,
            "strip_bom": reading.strip_bom,
            "columns": reading.columns,
        }
        # As a plan that is read again has them.
        plain: dict[str, Any] = json.loads(json.dumps(settings))
        return plain

    def _make(
        self, parts: FrameParts | ShardParts, made: Making, source: Source, statistics: SliceStatistics
    ) -> SliceReport:
        planned = parts.planned
        made = parts.make(made, self.job.head(planned))
        statistics.counts.check(planned.records())
        facts = self.job.facts(statistics)
        report = report_of(planned, statistics, planned.unit if self.job.is_by_ranking() else "records")
        summary = {**self.job.provenance(planned.request), "by": planned.unit, **report.summary()}
        self.job.write_summary(summary, source)
        made.finish({**facts, "summary": summary})
        report.warn(planned.request.cut.tokens)
        return replace(report, skipped=source.skipped)

    def _write_missing_summary(self, manifest: DatasetManifest, source: Source) -> None:
        """Write the summary of a finished dataset, unless an earlier run of the command has written it."""
        summary = manifest.facts.get("summary", {})
        if not _holds(self.job.slicing.summary, summary):
            self.job.check_summary(source)
            self.job.write_summary(summary, source)


def _holds(path: str | None, content: dict[str, Any]) -> bool:
    """Whether there is a file with this JSON object."""
    if not path or storage.is_stream(path) or not storage.exists(path):
        return False
    file = storage.input_at(path)
    with file.open():
        text = file.read_all()
    try:
        return bool(json.loads(text) == content)
    except ValueError:
        return False
