"""How does `prune-cli eval --samples` run, from folders of samples to results?"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .... import storage
from ....records.documents import written
from ....settings.eval import Comparison, Evaluation, PerDocument, Target, TaskSamples
from ....settings.streams import Reading, processors
from ....statistics.bootstrap import Sampling
from ....statistics.differences import ratio
from ....storage.base import Input
from ....stream import writer
from ....stream.batch import Record
from ....stream.schema import Head
from .. import eval_tables
from ..checks import check_places, check_target
from ..likelihood import Result, Warnings
from . import checks, measured
from .compare import ComparedTask, Sides, average_comparison, compared_tasks, task_comparison, task_results
from .measured import SampledModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskReport:
    """The number of results that were written; no record is ever skipped."""

    results: int
    skipped: int = 0

    def closing(self) -> list[str]:
        """No lines: the results themselves are on the terminal."""
        return []


@dataclass(frozen=True)
class SamplesJob:
    """Compare models by the samples that lm-evaluation-harness wrote of them."""

    chosen: TaskSamples
    evaluation: Evaluation = Evaluation()
    comparison: Comparison = Comparison()
    keeping: PerDocument = PerDocument()
    target: Target = Target()
    reading: Reading = Reading()

    def run(self) -> TaskReport:
        """Write the results.

        Raises PruneError; CheckFailed if a model is worse than --fail-if-worse allows, DataError if the
        documents cannot tell.
        """
        checks.check_options(self.chosen, self.comparison)
        check_places(self.keeping, self.target)
        models, baselines = self._read()
        inputs = _inputs([*models, *baselines])
        check_target(self.keeping, inputs, self.target.force)
        with storage.create(self.target.output, inputs, force=self.target.force) as output:
            results = []
            for result in self._results(models, baselines):
                results.append(result)
                # A terminal gets a table at the end instead.
                if not output.is_terminal():
                    output.write(written(result) + b"\n")
            if output.is_terminal():
                eval_tables.show_tasks(results)
        # The output is complete by now, so a check that fails keeps the results.
        checks.check_outcome(results, self.comparison, compares=bool(models))
        return TaskReport(len(results))

    def _read(self) -> tuple[list[SampledModel], list[SampledModel]]:
        """The models and the baselines, each folder once; one that is named as both is a baseline."""
        warnings = Warnings()
        named = dict.fromkeys(self.chosen.against_samples or ())
        baselines = [measured.read(name, self.reading, warnings) for name in named]
        others = [name for name in dict.fromkeys(self.chosen.samples or ()) if name not in named]
        return [measured.read(name, self.reading, warnings) for name in others], baselines

    def _results(self, models: Sequence[SampledModel], baselines: Sequence[SampledModel]) -> Iterator[Result]:
        if baselines and not models:
            log.warning("every folder of --samples is a baseline as well: nothing is compared")
        sampling = Sampling(self.evaluation.seed, threads=processors())
        warnings = Warnings()
        paired = self.comparison.paired_seeds
        # Paired before anything is written: samples that do not fit are reported at once.
        compared = [
            (sides, compared_tasks(sides, warnings))
            for sides in checks.sides(models, baselines, paired=paired)
        ]
        for model in (*baselines, *models):
            yield from task_results(model, sampling)
        for sides, tasks in compared:
            yield from (task_comparison(task, sides, sampling) for task in tasks)
            if average := average_comparison(tasks, sides, sampling, warnings):
                yield average
        self._keep_documents(compared, models, baselines)

    def _keep_documents(
        self,
        compared: Sequence[tuple[Sides, Sequence[ComparedTask]]],
        models: Sequence[SampledModel],
        baselines: Sequence[SampledModel],
    ) -> None:
        """Write the values of each document that was compared to the file of --per-document."""
        path = self.keeping.per_document
        if path is None:
            return
        everyone = [*models, *baselines]
        names = [model.name for model in everyone]
        with (
            storage.create(path, _inputs(everyone), force=self.target.force) as output,
            writer.open_sink(
                output,
                Head.compose("eval", "task", eval={"models": names}),
                writer.Writing(plain=path.endswith(".jsonl") or output.is_terminal(), threads=processors()),
            ) as sink,
        ):
            sink.write(_record(record) for sides, tasks in compared for record in documents(sides, tasks))


def documents(sides: Sides, tasks: Iterable[ComparedTask]) -> Iterator[dict[str, Any]]:
    """A record for each metric, task and document: the values of both sides, a list for several seeds."""
    for task in tasks:
        pairs = task.rows.reshape(len(task.rows), -1, 2)
        values = task.measure.of_ratio(ratio(pairs[..., 0], pairs[..., 1]))
        for document, row in zip(task.documents, values.tolist(), strict=True):
            own, others = row[: sides.count], row[sides.count :]
            yield {
                **sides.names,
                **task.names,
                "document": document.number,
                "doc_hash": document.hash,
                "value": own[0] if sides.is_pair else own,
                "against_value": others[0] if sides.is_pair else others,
            }


def _record(fields: dict[str, Any]) -> Record:
    return Record(written(fields), group=fields["task"])


def _inputs(models: Iterable[SampledModel]) -> list[Input]:
    """Every file of samples: no output may be one of them."""
    return [storage.input_at(scored.file.path) for model in models for scored in model.tasks.values()]
