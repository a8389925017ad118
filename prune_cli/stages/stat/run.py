"""Run `stat`: from inputs and settings to one JSON object for each file or dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

from ... import storage, terminal
from ...engines.work import Engine, Places
from ...errors import UsageError
from ...settings.stat import Inspection
from ...settings.streams import Reading
from ...storage.base import Input, Output
from .. import streams
from .describing import Describer, Description, Subject, subjects

VERB = "stat"

if TYPE_CHECKING:  # their tokenizer needs transformers
    from ...texts.priors import TokenCounts


@dataclass(frozen=True)
class StatReport:
    """Files that were described, their records, and bad records that were skipped."""

    files: int = 0
    records: int = 0
    skipped: int = 0
    token_counts: TokenCounts | None = None
    charts: tuple[str, ...] = ()

    def closing(self) -> list[str]:
        """The distributions of the scores, if the records were read. All else is in the output."""
        return [*self.charts]


@dataclass(frozen=True)
class StatJob:
    """Describe each of the `inputs`."""

    inputs: tuple[str, ...]
    inspection: Inspection
    reading: Reading

    def run(self, engine: Engine | None = None) -> StatReport:
        """Write an object for each file, with the workers of an engine if there are several.

        Raises PruneError.
        """
        named = subjects(self.inputs)
        self._check_settings(named)
        paths = [path for subject in named for path in subject.paths]
        # No operand at all would be standard input.
        nothing = nullcontext[tuple[list[Input], terminal.Progress]](([], terminal.silent()))
        opened = streams.open_inputs(VERB, paths, self.reading) if paths else nothing
        with (
            opened as (inputs, progress),
            storage.create(self.inspection.output, inputs, force=self.inspection.force) as output,
        ):
            # A pipe is read by the process that has it.
            is_divisible = all(file.identity is not None for file in inputs) and not self.inspection.scores
            if engine and engine.workers > 1 and is_divisible and len(named) > 1:
                engine.check_places(Places([file.path for file in inputs], []))
                described = engine.each(StatStage(self.inspection, self.reading), _jobs(named), progress)
            else:
                # Workers share the reading of a single subject.
                sharing = engine if engine and engine.workers > 1 and is_divisible else None
                described = self._described(named, inputs, progress, sharing)
            report = _write(described, output)
            self._write_token_counts(report, inputs)
        return report

    def _write_token_counts(self, report: StatReport, inputs: list[Input]) -> None:
        path = self.inspection.token_counts
        if path is not None and report.token_counts is not None:
            with storage.create(path, inputs, force=self.inspection.force) as output:
                output.write(report.token_counts.to_json())

    def _check_token_counts(self, path: str) -> None:
        if self.inspection.tokenizer is None:
            raise UsageError("--token-counts needs --tokenizer", remedy="name a folder with a tokenizer.json")
        storage.check_distinct(self.inspection.output, path)
        if not storage.is_stream(path):
            storage.check_target(path, storage.operands(self.inputs), force=self.inspection.force)

    def _check_settings(self, named: Sequence[Subject]) -> None:
        """Raise UsageError for options that are wrong, or do not suit the inputs."""
        _ = self.inspection.compared, self.inspection.fractions  # which raise
        if self.inspection.token_counts is not None:
            self._check_token_counts(self.inspection.token_counts)
        scores = self.inspection.scores
        if scores is None:
            return
        if len(named) > 1:
            fault = f"--scores has the scores of one input, and {len(named)} are named"
            raise UsageError(fault, remedy="compare them one by one")
        if scores == "-" and "-" in (self.inputs or ("-",)):
            raise UsageError("standard input (-) is named twice", remedy="it can be read only once")

    def _described(
        self,
        named: Sequence[Subject],
        inputs: list[Input],
        progress: terminal.Progress,
        engine: Engine | None,
    ) -> Iterator[Description]:
        describer = Describer(self.inspection, self.reading, engine)
        ahead = iter(inputs) if self.inspection.reads_everything else storage.anticipated(inputs)
        for subject in named:
            yield describer.describe(subject, islice(ahead, len(subject.paths)), progress)


def _write(described: Iterator[Description], output: Output) -> StatReport:
    files = records = blank = skipped = 0
    charts: list[str] = []
    token_counts: TokenCounts | None = None
    for description in described:
        indent = 2 if output.is_terminal() else None
        output.write(json.dumps(description.content, indent=indent).encode() + b"\n")
        files += 1
        records += description.records
        blank += description.blank
        skipped += description.skipped
        charts += description.charts
        if counts := description.token_counts:
            token_counts = counts if token_counts is None else token_counts + counts
    streams.log_skipped(blank, skipped)
    return StatReport(files, records, skipped, token_counts, tuple(charts))


# --- With workers ---


@dataclass(frozen=True)
class OneStatJob:
    """Describe one subject in a worker."""

    subject: Subject

    @property
    def name(self) -> str:
        """The file or dataset."""
        return self.subject.name


def _jobs(named: Sequence[Subject]) -> list[OneStatJob]:
    return [OneStatJob(subject) for subject in named]


@dataclass(frozen=True)
class StatStage:
    """The settings of all jobs."""

    inspection: Inspection
    reading: Reading
    verb: str = VERB

    def open(self) -> StatWorker:
        """A worker."""
        return StatWorker(Describer(self.inspection, self.reading))


@dataclass(frozen=True)
class StatWorker:
    """Describes one subject after another."""

    describer: Describer

    def do(self, job: OneStatJob, progress: terminal.Progress) -> Description:
        """The description of a subject. Raises PruneError."""
        return self.describer.describe(job.subject, storage.operands(job.subject.paths), progress)


@dataclass(frozen=True)
class StatOnEngine:
    """A job and the engine whose workers do it."""

    job: StatJob
    engine: Engine

    def run(self) -> StatReport:
        """See `StatJob.run`."""
        return self.job.run(self.engine)
