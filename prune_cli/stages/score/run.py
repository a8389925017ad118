"""Run `score`: from inputs and settings to jobs, one for each output, and to the summary of all of them.

`worker.py` does the jobs.
"""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from ... import storage
from ...engines.local import Serial
from ...engines.plan import InputFile, inspect, plan
from ...engines.work import Engine, Places
from ...settings.model import EVERY_GPU
from ...settings.score import ScoreSettings
from ...storage import output_paths
from ...storage.base import Input
from ...stream import dataset
from ...stream.lease import lease
from ...terminal import Progress
from .. import datasets, streams
from . import joined
from .job import ScoreJob, read_by
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

    @property
    def device(self) -> str | None:
        """The device of each worker: a GPU is for models, unless --device names one. May raise UsageError."""
        device = self.settings.running.device
        return None if device == "auto" and not ScoreWorker(self.settings).model_names else device

    def jobs(self, workers: int) -> list[ScoreJob]:
        """The jobs for so many workers. Raises UsageError, CannotCreateError or another PruneError."""
        results = self.settings.results
        ScoreWorker(self.settings)  # raises what is wrong with the settings
        results.check(self.settings.streams)
        # All inputs and outputs are checked before the first job begins: the last may be hours away.
        inputs = dataset.expand(self.inputs)
        storage.warn_of_repeats(inputs)
        if results.summary and not self.settings.trial.dry_run and not results.output_directory:
            storage.check_distinct(self.settings.streams.output, results.summary)
        # A finished dataset has its summary: there is nothing to refuse.
        if results.output_directory is None or dataset.read_manifest(results.output_directory) is None:
            self._check_summary(inputs)
        if results.output_directory is None or self.settings.trial.dry_run:
            paths = tuple(file.path for file in inputs)
            job = ScoreJob(paths, self.settings.streams.output, self.settings)
            return joined.divided(job, inputs) if workers > 1 else [job]
        jobs = self._jobs_of_directory(inputs, results.output_directory)
        if workers > 1:
            # The largest first, so that none is left for the end.
            sizes = {file.path: file.size or 0 for file in inputs}
            jobs.sort(key=lambda job: -_bytes(job, sizes))
        finished = _finished(jobs)
        jobs = [replace(job, was_absent=job.output not in finished) for job in jobs]
        if any(job.was_absent for job in jobs):
            self._check_summary(inputs)
        # Outputs that exist come first: one of other input or settings ends the run at once, not after hours.
        return sorted(jobs, key=lambda job: job.was_absent)

    def _check_summary(self, inputs: Sequence[Input]) -> None:
        """Raise what writing it at the end would raise."""
        summary = self.settings.results.summary
        if summary and not storage.is_stream(summary):
            storage.check_target(summary, inputs, force=self.settings.streams.force)

    def _jobs_of_directory(self, inputs: list[Input], directory: str) -> list[ScoreJob]:
        results = self.settings.results
        streams = self.settings.streams
        if results.shard_of is not None and (dealt := self._dealt_outputs(inputs, directory)):
            return [
                ScoreJob((file.path,), output, self.settings)
                for file, output in zip(inputs, dealt, strict=True)
            ]
        outputs = output_paths.in_directory(directory, inputs, plain=streams.plain)
        # One whose whole output exists, or was begun, is not cut any more.
        begun = set() if streams.force else _begun(outputs)
        shards = plan(
            [
                InputFile(file.path, file.size, file.identity) if output in begun else inspect(file)
                for file, output in zip(inputs, outputs, strict=True)
            ]
        )
        of_input = {file.path: output for file, output in zip(inputs, outputs, strict=True)}
        paths = [output_paths.of_part(of_input[each.input], each.part, each.parts) for each in shards]
        planned = dataset.DatasetPlan(
            VERB,
            ScoreWorker(self.settings).settings_of_scores({}),
            [dataset.PlannedPart.of(*pair) for pair in zip(paths, shards, strict=True)],
        )
        replaced = datasets.planned_names(directory) if streams.force else []
        made = dataset.make_plan(directory, planned, force=streams.force)
        datasets.warn_of_leftovers(directory, replaced, made)
        jobs = [
            ScoreJob((shard.input,), path, self.settings, shard)
            for shard, path in zip(shards, paths, strict=True)
        ]
        number, of = results.shard_of or (1, 1)
        return jobs[number - 1 :: of]

    def _dealt_outputs(self, inputs: list[Input], directory: str) -> list[str] | None:
        """The outputs of --shard I/N as version 0.1.0 made them, if the directory has one; else None.

        It dealt the records of each input, instead of the shards of a plan.
        """
        part = (self.settings.results.shard or "").replace("/", "-of-")
        plain = self.settings.streams.plain
        outputs = output_paths.in_directory(directory, inputs, plain=plain, part=part)
        return outputs if _begun(outputs) else None

    def perform(self, jobs: Sequence[ScoreJob], engine: Engine, progress: Progress) -> Sequence[ScoreReport]:
        """Have the engine do the jobs. With one output, it is made of theirs."""
        directory = self.settings.results.output_directory
        if directory is not None and not self.settings.trial.dry_run:
            with lease(directory, f"run-{_digest(jobs)}"):
                engine.check_places(Places(read_by(jobs), [directory]))
                return engine.map(self, jobs, progress)
        if len(jobs) == 1:
            # In this process: a worker has not its pipes, and could not read them again if it died.
            return Serial(engine.watch).map(self, jobs, progress)
        paths = tuple(dict.fromkeys(path for job in jobs for path in job.inputs))
        original = ScoreJob(paths, self.settings.streams.output, self.settings)
        return [joined.perform(self, jobs, original, engine, progress)]

    def size(self, jobs: Sequence[ScoreJob]) -> int | None:
        """Bytes of the inputs of these jobs; None if one is a pipe."""
        return storage.total_size([file for job in jobs for file in job.open_inputs()])

    def open(self) -> ScoreWorker:
        """A worker, which loads the models with the first job that needs them."""
        running = self.settings.running
        # Each worker sees a single GPU, which its engine chose.
        if running.device == EVERY_GPU:
            running = replace(running, device="cuda")
        return ScoreWorker(replace(self.settings, running=running))

    def finish(self, reports: Sequence[ScoreReport], seconds: float) -> ScoreReport:
        """Write the manifest and the summary of the run, and log what a user may want to know."""
        report = sum(reports, ScoreReport())
        directory = self.settings.results.output_directory
        if directory is not None and (made := dataset.read_plan(directory)):
            dataset.write_manifest(directory, made)
        # Seconds of workers that work at the same time are no longer than the run.
        report = replace(
            report,
            seconds=min(report.seconds, seconds),
            scoring_seconds=min(report.scoring_seconds, seconds),
        )
        summary = self.settings.results.summary
        found_nothing = report.finished and not report.outputs
        if summary and not (found_nothing and storage.exists(summary)):
            with storage.create(summary, force=self.settings.streams.force) as output:
                output.write(json.dumps(report.summary()).encode() + b"\n")
        if report.finished:
            log.info("%d outputs were already finished", report.finished)
        ScoreWorker(self.settings).training.warn(report)
        streams.log_skipped(report.blank, report.skipped)
        return report


def _begun(outputs: Sequence[str]) -> set[str]:
    """The outputs that exist, or of which there is a part that --resume left."""
    partial = {f"{output}.partial": output for output in outputs}
    present = storage.existing([*outputs, *partial])
    return {partial.get(name, name) for name in present}


def _finished(jobs: Sequence[ScoreJob]) -> set[str | None]:
    """The outputs of those jobs that are finished, as `ScoreJob.is_finished` says."""
    outputs = [job.output for job in jobs if job.output is not None and job.skips_finished]
    return set(storage.existing(outputs))


def _bytes(job: ScoreJob, sizes: Mapping[str, int]) -> int:
    """The bytes of the inputs of a job, or of its piece of one."""
    if job.piece is not None and job.piece.end is not None:
        return job.piece.end - job.piece.start
    return sum(sizes[path] for path in job.inputs)


def _digest(jobs: Sequence[ScoreJob]) -> str:
    """A name for a run: runs on other inputs, and other shards of a plan, may work in the same folder."""
    names = "\n".join(sorted(job.output or "" for job in jobs))
    return blake2b(os.fsencode(names), digest_size=6).hexdigest()
