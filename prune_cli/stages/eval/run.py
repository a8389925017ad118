"""What does `prune-cli eval` do: compare likelihoods, with --samples tasks, or, with --glue, fine-tune?"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from ... import storage, terminal
from ...errors import UsageError
from ...records.documents import written
from ...settings.eval import Comparison, Evaluation, FineTuning, PerDocument, Target, TaskSamples
from ...settings.model import ModelSettings
from ...settings.streams import Reading, processors
from ...statistics.bootstrap import Sampling
from ...storage.base import Input, Output
from ...stream import dataset
from ...training.training_hashes import TrainingHashes
from .. import streams
from . import checks, eval_tables, held_out, operands
from . import journal as journals
from .compare import evaluate
from .glue.run import GlueJob
from .harness.run import SamplesJob
from .held_out import HeldOutSet
from .journal import Journal
from .likelihood import Result
from .operands import Operands
from .results import Measured, Measurement

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvalReport:
    """The number of likelihoods and comparisons that were written, and of bad records that were skipped."""

    likelihoods: int
    comparisons: int
    skipped: int

    def closing(self) -> list[str]:
        """No lines: the results themselves are on the terminal."""
        return []


@dataclass(frozen=True)
class EvalJob:
    """Measure models on test sets, and compare them with baselines."""

    models: tuple[str, ...]
    evaluation: Evaluation = Evaluation()
    comparison: Comparison = Comparison()
    keeping: PerDocument = PerDocument()
    target: Target = Target()
    model_settings: ModelSettings = ModelSettings()
    reading: Reading = Reading()

    def run(self) -> EvalReport:
        """Write the results.

        Raises PruneError; CheckFailed if a model is worse than --fail-if-worse allows, DataError if the
        documents cannot tell.
        """
        # Cheap checks come first: options, then paths, then test sets, and models last.
        checks.check_comparison(self.comparison)
        checks.check_places(self.keeping, self.target)
        sides = operands.sides(self.models, self.comparison)
        operands.check(sides, self.evaluation)
        inputs = self._inputs(sides)
        checks.check_target(self.keeping, inputs, self.target.force)
        with storage.create(self.target.output, inputs, force=self.target.force) as output:
            sets = held_out.read_all(self.evaluation, self.reading)
            results = _written(self.results(sets, inputs), output)
            if output.is_terminal():
                eval_tables.show(results)
        # The output is complete by now, so a check that fails keeps the results.
        checks.check_outcome(results, sides.models, self.comparison)
        return _report(results, sets)

    def _inputs(self, sides: Operands) -> list[Input]:
        """The files to read, each checked."""
        paths = [*sides.read, *dict.fromkeys(self.evaluation.data or ())]
        # No operand at all would be standard input, which nobody asked for.
        inputs = dataset.expand(paths) if paths else []
        storage.warn_of_repeats(inputs)
        return inputs

    def results(self, sets: Sequence[HeldOutSet], inputs: Sequence[Input] = ()) -> Iterator[Result]:
        """Measure and compare; the per-document file grows meanwhile. Raises PruneError."""
        sides = operands.sides(self.models, self.comparison)
        _warn_of_training_documents(sides.loaded, sets)
        plan = _planned(sides, sets, self)
        grouped = plan.is_grouped(self.comparison)
        if plan.sides.baselines and not plan.sides.models:
            log.warning("every MODEL is a baseline as well: nothing is compared")
        with self._journal(plan, inputs) as journal, plan.bar(self.reading) as bar:
            # Nothing is measured yet: `evaluate` and its arguments are iterators.
            yield from evaluate(
                plan.measured(plan.sides.models, journal, bar.advance),
                plan.measured(plan.sides.baselines, journal, bar.advance),
                Sampling(self.evaluation.seed, threads=processors()),
                grouped=grouped,
                paired=self.comparison.paired_seeds,
            )

    @contextmanager
    def _journal(self, plan: "_Plan", inputs: Sequence[Input]) -> Iterator[Journal]:
        """The journal of the run: in memory, in a file that grows, or read from a file that is finished."""
        path = self.keeping.per_document
        force = self.target.force
        if path is None:
            yield Journal(plan.measurements)
        elif self.keeping.resume and journals.is_finished(path) and not force:
            strict = operands.strict(self.reading)
            # The run before finished, but its results (on standard output, say) are wanted again.
            with streams.open_source("eval", [path], strict, bar=False) as source:
                journal = journals.finished(source, plan.measurements)
            yield journal
        else:
            resumed = self.keeping.resume
            with journals.in_file(path, plan.measurements, inputs, force=force, resumed=resumed) as journal:
                yield journal


@dataclass(frozen=True)
class _Plan:
    """The measurements that are due, model by model, and those that result files already hold."""

    sides: Operands
    sets: Sequence[HeldOutSet]
    from_files: dict[str, list[Measured]]
    measurements: Sequence[Measurement]
    settings: ModelSettings

    def is_grouped(self, comparison: Comparison) -> bool:
        """Whether each side is a recipe with several seeds. Raises UsageError for seeds without a partner."""
        models = operands.count_models(self.sides.models, self.from_files)
        baselines = operands.count_models(self.sides.baselines, self.from_files)
        if comparison.paired_seeds and not 1 < models == baselines:
            raise UsageError(
                f"--paired-seeds cannot pair {models} models with {baselines} baselines",
                remedy="name as many of each, two or more",
            )
        return min(models, baselines) > 1

    def bar(self, reading: Reading) -> AbstractContextManager[terminal.Progress]:
        """A progress bar over the documents that models read."""
        documents = sum(len(measurement.items) for measurement in self.measurements)
        # Result files alone are read in a moment.
        if not documents:
            return terminal.progress("eval", None, wanted=False)
        return streams.VerbProgress("eval", reading).bar(documents, "documents")

    def measured(
        self, names: Iterable[str], journal: Journal, advance: Callable[[int], object]
    ) -> Iterator[Measured]:
        """The measurements of these operands, in order."""
        for name in names:
            if name in self.from_files:
                yield from self.from_files[name]
            else:
                yield from self._measure(name, journal, advance)

    def _measure(self, model: str, journal: Journal, advance: Callable[[int], object]) -> Iterator[Measured]:
        # Late for the same reason as in `_planned`, where it has been imported by now.
        from .measure import measure

        # Measurements are in the order of `loaded`, one for each test set.
        first = self.sides.loaded.index(model) * len(self.sets)
        return measure(model, first, self.sets, journal, self.settings, advance)


def _planned(sides: Operands, sets: Sequence[HeldOutSet], job: EvalJob) -> _Plan:
    """The plan of a run. Raises DataError or ConfigurationError if operands do not fit the test sets."""
    from_files = operands.read_results(sides, sets, job.evaluation, job.reading)
    measurements: list[Measurement] = []
    if sides.loaded:
        # Result files alone need no torch, which takes seconds to import.
        from .measure import measurements as measurements_of

        measurements = measurements_of(sides.loaded, sets, job.model_settings, job.evaluation)
    return _Plan(sides, sets, from_files, measurements, job.model_settings)


def _warn_of_training_documents(models: Iterable[str], sets: Iterable[HeldOutSet]) -> None:
    """Warn of test documents that a model was trained on, if it says so: models of others do not."""
    for model in models:
        trained = TrainingHashes([model])
        for each in sets:
            if count := trained.count(each.contents):
                log.warning("%s: %s", each.name, trained.warning(count, len(each.contents), ["perplexity"]))


def _written(results: Iterable[Result], output: Output) -> list[Result]:
    """The results, each written as it comes. A terminal gets tables at the end instead."""
    collected = []
    for result in results:
        collected.append(result)
        if not output.is_terminal():
            output.write(written(result) + b"\n")
    return collected


def _report(results: Sequence[Result], sets: Sequence[HeldOutSet]) -> EvalReport:
    # A file of results is strict, so that only test sets can have skipped records.
    kinds = [result["result"] for result in results]
    skipped = sum(held_out.skipped for held_out in sets)
    return EvalReport(kinds.count("likelihood"), kinds.count("comparison"), skipped)


def job(
    models: Sequence[str],
    evaluation: Evaluation,
    comparison: Comparison,
    keeping: PerDocument,
    samples: TaskSamples,
    tuning: FineTuning,
    target: Target,
    model_settings: ModelSettings,
    reading: Reading,
) -> EvalJob | GlueJob | SamplesJob:
    """The job that the options ask for. Raises UsageError for options that belong to another job."""
    checks.check_exclusive(evaluation, comparison, keeping, tuning)
    checks.check_operands(models, samples)
    # Samples are results already: no model is run.
    if samples.samples:
        return SamplesJob(samples, evaluation, comparison, keeping, target, reading)
    # Fine-tuning shares the models and the output with likelihoods, and nothing else.
    if tuning.glue:
        return GlueJob(tuple(models), tuning, target, keeping.resume, model_settings, reading)
    return EvalJob(tuple(models), evaluation, comparison, keeping, target, model_settings, reading)
