"""Is a model better than a baseline on tasks, and how sure is that?

Models are compared on the same documents, as for likelihoods (see `statistics/differences.py`): a paired
bootstrap, sign flips, and Student's t for several seeds of two recipes. Right and wrong answers of two models
are compared by McNemar's exact test, too.

The average over tasks gives each task the same weight, whatever its number of documents, and resamples each
task for itself. A task counts with the first of its metrics.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np

from ....errors import DataError
from ....statistics.bootstrap import Floats, Sampling, finite_or_none, interval, resampled_sums
from ....statistics.differences import difference, mcnemar, of_groups, of_pair, per_unit, ratio
from .. import comparability
from ..likelihood import FEW, Result, Warnings, exp
from . import pairs
from .measured import MetricKey, SampledModel
from .measures import DocumentScores, MetricScale
from .samples import SampleDocument

NAMED_TASKS = 5  # in a warning


@dataclass(frozen=True)
class Sides:
    """The models on both sides, the first `count` of which are no baselines."""

    models: Sequence[SampledModel]
    count: int
    paired: bool = False

    @property
    def names(self) -> Result:
        """Two names, or two lists of names."""
        names = [model.name for model in self.models]
        if len(names) == 2:
            return {"model": names[0], "against": names[1]}
        return {"model": names[: self.count], "against": names[self.count :]}

    @property
    def is_pair(self) -> bool:
        """Whether there is one model on each side."""
        return len(self.models) == 2


@dataclass(frozen=True)
class ComparedTask:
    """A metric of a task on the documents that all models have.

    `rows` are sums and units of each model side by side, (documents, 2 · models).
    """

    task: str
    key: MetricKey
    measure: MetricScale
    documents: Sequence[SampleDocument]
    rows: Floats
    pairs: pairs.Pairs
    is_share: bool
    is_right_or_wrong: bool

    @property
    def names(self) -> Result:
        """The task, and which of its numbers this is."""
        return {
            "task": self.task,
            "metric": self.key.metric,
            "filter": self.key.filter,
            "higher_is_better": self.measure.higher_is_better,
        }


def compared_tasks(sides: Sides, warnings: Warnings) -> list[ComparedTask]:
    """Every metric that all models have, task by task.

    Raises DataError if there is none, or if a task has no document that all models have.
    """
    for warning in comparability.warnings(*_named(sides), sides.paired):
        warnings.log(warning)
    if sides.is_pair:
        warnings.log("each side is one training run: the intervals do not cover training noise")
    tasks = [task for task in sides.models[0].tasks if all(task in model.tasks for model in sides.models)]
    everything = set().union(*(model.tasks for model in sides.models))
    if lacking := sorted(everything.difference(tasks)):
        warnings.log(f"tasks without samples of every model are left out: {_listed(lacking)}")
    compared = _with_values([each for task in tasks for each in _metrics(task, sides)], warnings)
    if not compared:
        models = " and ".join(model.name for model in sides.models)
        fault = f"{models} have no metric of a task in common"
        raise DataError(fault, remedy="evaluate them on the same tasks")
    _warn(compared, warnings)
    return compared


def _named(sides: Sides) -> tuple[list[comparability.Named], list[comparability.Named]]:
    named: list[comparability.Named] = [(model.name, model.provenance) for model in sides.models]
    return named[: sides.count], named[sides.count :]


def _metrics(task: str, sides: Sides) -> Iterator[ComparedTask]:
    """The metrics of a task that all models have, in the harness's order. Raises DataError."""
    scored = [model.tasks[task] for model in sides.models]
    keys = [key for key in scored[0].scores if all(key in each.scores for each in scored)]
    for filtered, of_filter in groupby(keys, lambda key: key.filter):
        found = pairs.pair([each.filters[filtered] for each in scored])
        if not found.documents:
            fault = "the models have no document in common"
            raise DataError(fault, place=task, remedy="evaluate them on the same version of the task")
        for key in of_filter:
            yield _compared(task, key, found, [each.scores[key] for each in scored])


def _with_values(compared: Sequence[ComparedTask], warnings: Warnings) -> list[ComparedTask]:
    """The metrics that all models have of at least one document. The others are left out with a warning."""
    if empty := [f"{each.task} {each.key.metric}" for each in compared if not each.documents]:
        warnings.log(f"no document has a value of every model, so these are left out: {_listed(empty)}")
    return [each for each in compared if each.documents]


def _compared(
    task: str, key: MetricKey, found: pairs.Pairs, scores: Sequence[DocumentScores]
) -> ComparedTask:
    rows = np.hstack([each.rows[places] for each, places in zip(scores, found.places, strict=True)])
    # A task may measure a metric of some documents alone.
    present = ~np.isnan(rows).any(1)
    return ComparedTask(
        task,
        key,
        scores[0].measure,
        [document for document, chosen in zip(found.documents, present, strict=True) if chosen],
        rows[present],
        found,
        is_share=all(each.is_share for each in scores),
        is_right_or_wrong=all(each.is_right_or_wrong for each in scores),
    )


def _warn(compared: Sequence[ComparedTask], warnings: Warnings) -> None:
    """Warn of documents that are left out or not quite the same: once for all tasks, which may be dozens."""
    found = {each.task: each.pairs for each in reversed(compared)}
    notes: dict[str, Callable[[pairs.Pairs], int]] = {
        "samples repeat a document, which counts once": lambda each: each.repeated,
        "documents are not in the samples of every model, and are left out": lambda each: each.unpaired,
        "documents have different prompts": lambda each: each.prompts,
        "documents have different right answers": lambda each: each.targets,
    }
    for note, count in notes.items():
        if tasks := [task for task in sorted(found) if count(found[task])]:
            total = sum(count(found[task]) for task in tasks)
            warnings.log(f"{total:,} {note}: {_listed(tasks)}")
    if few := sorted({each.task for each in compared if len(each.documents) < FEW}):
        warnings.log(f"intervals from fewer than {FEW} documents are too narrow: {_listed(few)}")


def _listed(tasks: Sequence[str]) -> str:
    listed = ", ".join(tasks[:NAMED_TASKS])
    more = len(tasks) - NAMED_TASKS
    return f"{listed} and {more} more tasks" if more > 0 else listed


# --- One model ---


def task_results(model: SampledModel, sampling: Sampling) -> Iterator[Result]:
    """The value of each metric of each task, over all samples as the harness counts them."""
    for task, scored in model.tasks.items():
        for key, scores in scored.scores.items():
            rows = scores.rows[scores.is_present]
            drawn = resampled_sums(rows, sampling)
            values = scores.measure.of_ratio(ratio(drawn[:, 0], drawn[:, 1]))
            yield {
                "result": "task",
                "model": model.name,
                "task": task,
                "metric": key.metric,
                "filter": key.filter,
                "higher_is_better": scores.measure.higher_is_better,
                "documents": len(rows),
                "value": finite_or_none(scores.value),
                "value_interval": interval(values),
                "resamples": sampling.resamples,
                "seed": sampling.seed,
                "provenance": {**model.provenance, "task": scored.provenance},
            }


# --- Two models, or two recipes ---


def task_comparison(task: ComparedTask, sides: Sides, sampling: Sampling) -> Result:
    """The difference on one metric of a task. Above 0 the models' value is larger, which may be worse."""
    return {
        "result": "task comparison",
        **sides.names,
        **task.names,
        "documents": len(task.documents),
        "repeated": task.pairs.repeated,
        "unpaired": task.pairs.unpaired,
        **_differences([task], sides, sampling),
        "provenance": _provenance(sides, [task]),
    }


def average_comparison(
    compared: Sequence[ComparedTask], sides: Sides, sampling: Sampling, warnings: Warnings
) -> Result | None:
    """The difference of the average over tasks; None if no task has a value between 0 and 1 as its first."""
    first: dict[str, ComparedTask] = {}
    for each in compared:
        first.setdefault(each.task, each)
    chosen = [each for each in first.values() if each.is_share]
    if not chosen:
        return None
    if left_out := [each.task for each in first.values() if not each.is_share]:
        fault = "their first metric is no share between 0 and 1"
        warnings.log(f"the average is without {_listed(left_out)}: {fault}")
    return {
        "result": "average comparison",
        **sides.names,
        "tasks": {each.task: ",".join(each.key) for each in chosen},
        "documents": sum(len(each.documents) for each in chosen),
        **_differences(chosen, sides, sampling),
        "provenance": _provenance(sides, chosen),
    }


def _provenance(sides: Sides, tasks: Sequence[ComparedTask]) -> Result:
    entries = [
        {**model.provenance, "tasks": {each.task: model.tasks[each.task].provenance for each in tasks}}
        for model in sides.models
    ]
    return {"model": entries[: sides.count], "against": entries[sides.count :]}


def _differences(tasks: Sequence[ComparedTask], sides: Sides, sampling: Sampling) -> Result:
    """Values, their difference, and p values, on one task or on the average of several."""
    strata = [task.rows for task in tasks]
    measure = tasks[0].measure
    values = measure.of_ratio(np.mean([per_unit(rows.sum(0)) for rows in strata], axis=0))
    if sides.is_pair:
        found = of_pair(strata, sampling)
    else:
        found = of_groups(strata, sides.count, sides.paired, sampling)
    delta = found.pop("delta")
    p = found.pop("p")
    return {
        "value": finite_or_none(values[: sides.count].mean()),
        "against_value": finite_or_none(values[sides.count :].mean()),
        "unit": measure.unit,
        **_effects(delta, found.pop("interval"), measure),
        # A log-likelihood of minus infinity leaves nothing to be compared.
        "p": p if math.isfinite(delta) else None,
        **_outcomes(tasks, sides),
        **found,
        "resamples": sampling.resamples,
        "seed": sampling.seed,
    }


def _effects(delta: float, ends: list[float] | None, measure: MetricScale) -> Result:
    """The difference in its unit, and for likelihoods the relative change of the perplexity."""
    result: Result = {
        "delta": finite_or_none(delta * measure.scale),
        "delta_interval": ends and [end * measure.scale for end in ends],
    }
    if measure.is_likelihood:
        result["effect"] = finite_or_none(exp(delta) - 1)
        result["effect_interval"] = ends and [float(exp(end)) - 1 for end in ends]
    return result


def _outcomes(tasks: Sequence[ComparedTask], sides: Sides) -> dict[str, Any]:
    """On which fraction of the documents the models are better, on which worse, and McNemar's p value.

    McNemar's test is about two models, and about answers that are right or wrong.
    """
    gains = np.concatenate([_gains(task, sides) for task in tasks])
    better = int(np.count_nonzero(gains > 0))
    worse = int(np.count_nonzero(gains < 0))
    applies = sides.is_pair and all(task.is_right_or_wrong for task in tasks)
    return {
        "p_mcnemar": mcnemar(better, worse) if applies else None,
        "improved": better / len(gains) if len(gains) else None,
        "worsened": worse / len(gains) if len(gains) else None,
    }


def _gains(task: ComparedTask, sides: Sides) -> Floats:
    """For each document how much better the models are than the baselines, (documents,)."""
    delta = difference(task.rows, sides.count)
    return delta if task.measure.higher_is_better else -delta
