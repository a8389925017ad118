"""Run `score`: from inputs and settings to jobs, one for each output, and to the summary of all of them.

`worker.py` does the jobs.
"""

import json
import logging
from dataclasses import dataclass, replace

from ... import storage
from ...engines.plan import InputFile, plan
from ...settings.model import EVERY_GPU
from ...settings.score import ScoreSettings
from ...storage import output_paths
from ...storage.base import Input
from .. import streams
from .job import ScoreJob
from .progress import ScoreReport
from .worker import VERB, ScoreWorker

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScoreWork:
    """Score `inputs` into one output, or each input into an output of its own."""

    inputs: tuple[str, ...]
    settings: ScoreSettings

    @property
    def verb(self) -> str:
        """The name that progress is shown under."""
        return VERB

    def jobs(self) -> list[ScoreJob]:
        """One job for each output. Raises UsageError, CannotCreateError or another PruneError."""
        results = self.settings.results
        ScoreWorker(self.settings)  # raises what is wrong with the settings
        results.check(self.settings.streams)
        # All inputs and outputs are checked before the first job begins: the last may be hours away.
        inputs = storage.operands(self.inputs)
        storage.warn_of_repeats(inputs)
        if results.summary and not self.settings.trial.dry_run and not results.output_directory:
            storage.check_distinct(self.settings.streams.output, results.summary)
        if results.summary and not storage.is_stream(results.summary):
            storage.check_target(results.summary, inputs, force=self.settings.streams.force)
        if results.output_directory is None or self.settings.trial.dry_run:
            return [ScoreJob(self.inputs, self.settings.streams.output, self.settings)]
        return self._job_for_each(inputs, results.output_directory)

    def _job_for_each(self, inputs: list[Input], directory: str) -> list[ScoreJob]:
        part = (self.settings.results.shard or "").replace("/", "-of-")
        plain = self.settings.streams.plain
        outputs = output_paths.in_directory(directory, inputs, plain=plain, part=part)
        files = [InputFile(file.path, file.size, file.identity) for file in inputs]
        jobs = [ScoreJob((shard.input,), shard.output, self.settings) for shard in plan(files, outputs)]
        # Outputs that exist come first: one of other input or settings ends the run at once, not after hours.
        return sorted(jobs, key=lambda job: not job.is_finished())

    def size(self) -> int | None:
        """Bytes of all inputs; None if one is a pipe."""
        return storage.total_size(storage.operands(self.inputs))

    def open(self) -> ScoreWorker:
        """A worker, which loads the models with the first job that needs them."""
        running = self.settings.running
        # Each worker sees a single GPU, which its engine chose.
        if running.device == EVERY_GPU:
            running = replace(running, device="cuda")
        return ScoreWorker(replace(self.settings, running=running))

    def finish(self, report: ScoreReport, seconds: float) -> ScoreReport:
        """Write the summary of the run, and log what a user may want to know."""
        # Seconds of workers that work at the same time are no longer than the run.
        report = replace(
            report,
            seconds=min(report.seconds, seconds),
            scoring_seconds=min(report.scoring_seconds, seconds),
        )
        summary = self.settings.results.summary
        if summary:
            with storage.create(summary, force=self.settings.streams.force) as output:
                output.write(json.dumps(report.summary()).encode() + b"\n")
        if report.finished:
            log.info("%d outputs were already finished", report.finished)
        ScoreWorker(self.settings).training.warn(report)
        streams.log_skipped(report.blank, report.skipped)
        return report
