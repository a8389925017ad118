"""How do several workers score into one output? Each writes temporary streams, which are joined in order."""

import logging
import os
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

from ... import storage, terminal
from ...engines.plan import inspect, plan
from ...engines.work import Engine, Places, Stage
from ...errors import UsageError
from ...records.reader import Source, check_expected
from ...storage.base import Input, Output
from ...storage.temporary import shared_folders
from ...stream import resume
from ...stream.schema import Head, Totals
from ...stream.section import Shard
from .. import streams
from ..joining import Joiner, temporary_directory
from .job import ScoreJob, read_by
from .progress import ScoreReport
from .worker import ScoreWorker

# Bytes of text in a piece. Smaller than the parts of a dataset, which a user sees: while the last pieces are
# done, other workers have nothing to do. It is the same for any number of workers, as batches of models are.
PIECE = 64 << 20

log = logging.getLogger(__name__)


def divided(job: ScoreJob, inputs: list[Input]) -> list[ScoreJob]:
    """The jobs of the shards of a job with one output; the job itself if it cannot be divided.

    Raises UsageError for options that need one process.
    """
    results = job.settings.results
    if job.settings.trial.dry_run:
        return [job]
    for name, is_given in (("--resume", results.resume), ("--shard", results.shard)):
        if is_given:
            remedy = "write a dataset with -O DIR, or leave out --jobs"
            raise UsageError(f"{name} with one output needs one process", remedy=remedy)
    if any(file.identity is None for file in inputs):
        log.warning("a pipe is read by one process: --jobs has no effect")
        return [job]
    shards = plan([inspect(file, PIECE) for file in inputs], PIECE)
    if len(shards) == 1:
        return [job]
    group = _group(job, inputs)
    return [_part(job, shard, group) for shard in shards]


def _part(job: ScoreJob, shard: Shard, group: str) -> ScoreJob:
    # Counted over all parts. What is to be decompressed again is compressed as fast as can be.
    settings = replace(job.streams, expect_records=None, plain=False, single_frame=False, threads=None)
    if streams.is_plain_by_name(job.streams) or job.streams.single_frame:
        settings = replace(settings, level=1)
    return replace(
        job,
        inputs=(shard.input,),
        settings=replace(job.settings, streams=settings),
        piece=shard,
        group=group,
    )


def _group(job: ScoreJob, inputs: list[Input]) -> str:
    with closing(_first(job, inputs)) as source:
        return streams.group_field_of(source, job.settings.scores.group_by)


def _first(job: ScoreJob, inputs: list[Input]) -> Source:
    return streams.source_of(inputs[:1], job.streams, terminal.silent())


def perform(
    stage: Stage[ScoreJob, ScoreReport],
    jobs: Sequence[ScoreJob],
    original: ScoreJob,
    engine: Engine,
    progress: terminal.Progress,
) -> ScoreReport:
    """Have the engine score the parts of `original`, and write them to its output. Raises PruneError."""
    inputs = storage.operands(original.inputs)
    path = original.output
    with (
        resume.afresh(path, inputs, force=original.streams.force) as output,
        streams.failing_visibly(output, original.streams),
        shared_folders([temporary_directory(path)]) as [folder],
    ):
        parts = [
            replace(job, output=os.path.join(folder, f"{number}.zst")) for number, job in enumerate(jobs)
        ]
        engine.check_places(Places(read_by(jobs), [folder]))
        report = _join(original, parts, engine.each(stage, parts, progress), output)
        # Before the output takes its name.
        check_expected(report.records + report.skipped, original.streams.expect_records)
    # Those of the parts are of temporary files.
    return replace(report, outputs=1, etags=storage.etags(output))


def _join(
    original: ScoreJob, parts: Sequence[ScoreJob], reports: Iterable[ScoreReport], output: Output
) -> ScoreReport:
    """Write the parts in order, each as soon as it and all before it are there."""
    reports = iter(reports)
    # The head needs to know the models, which only a worker has loaded.
    total = next(reports)
    head = _head(original, total.provenance, group=parts[0].group or "")

    def trailer(totals: Totals) -> dict[str, Any]:
        if not ScoreWorker(original.settings).layout.counts_tokens:
            return {}
        return {"work": {"tokens": totals.tokens, "flops": total.flops}}

    with streams.open_sink(original.streams, output, head, trailer) as sink:
        joiner = Joiner(sink)
        joiner.append(parts[0].output or "")
        for part, report in zip(parts[1:], reports, strict=True):
            joiner.append(part.output or "")
            total += report
        sink.drops_groups = total.dropped_groups > 0
    return total


def _head(job: ScoreJob, provenance: dict[str, Any], group: str) -> Head:
    with closing(_first(job, storage.operands(job.inputs))) as source:
        return streams.head_after(source, "score", group, keeps=(), score=provenance)
