"""Which results does fine-tuning give, by seed, task and model, and what would guessing give?"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import numpy as np

from ....models.load import LoadedModel
from ....statistics import classification
from .classifier import Floats
from .fine_tuning import Experiment, Progress, Protocol, StartingPoint, experiment, fine_tune, starting_point
from .tasks import TASKS, Data

# GLUE's own metrics (Wang et al. 2019, table 1); accuracy for the tasks that are not listed.
METRICS: Mapping[str, tuple[str, ...]] = {
    "cola": ("matthews",),
    "mrpc": ("accuracy", "f1"),
    "stsb": ("pearson", "spearman"),
    "qqp": ("accuracy", "f1"),
}

Result = dict[str, Any]
# Returns an earlier result that has all of these fields, or None.
Find = Callable[[Result], Result | None]
# The name of a model, and the function that loads it for training.
Model = tuple[str, Callable[[], LoadedModel]]


def evaluate(
    models: Sequence[Model],
    tasks: Mapping[str, Data],
    seeds: int,
    protocol: Protocol = Protocol(),
    *,
    find: Find = lambda identity: None,
    progress: Progress = lambda steps, text: None,
) -> Iterator[Result]:
    """For each model: for each task a result per seed and one for all seeds, then one for all tasks.

    `find` looks up a seed's result by all that identifies it, so that a run that was stopped is not
    repeated. One model is in memory at a time. Raises ConfigurationError.
    """
    for name, load in models:
        yield from _of_model(starting_point(name, load()), tasks, seeds, protocol, find, progress)


def _of_model(
    start: StartingPoint,
    tasks: Mapping[str, Data],
    seeds: int,
    protocol: Protocol,
    find: Find,
    progress: Progress,
) -> Iterator[Result]:
    # By task, then by seed.
    scores: list[list[float]] = []
    for task, data in tasks.items():
        run = experiment(start, task, data, protocol)
        results: list[Result] = []
        for seed in range(seeds):
            result = _of_seed(run, seed, find, progress)
            results.append(result)
            yield result
        scores.append([result["score"] for result in results])
        yield _of_task(run, results)
    # GLUE averages over tasks. Here it does so for each seed, so that the average has a deviation, too.
    averages = [fmean(of_seed) for of_seed in zip(*scores, strict=True)]
    yield {
        "result": "glue average",
        "model": start.name,
        "tasks": list(tasks),
        "seeds": seeds,
        "score": _spread(averages),
    }


def _of_seed(run: Experiment, seed: int, find: Find, progress: Progress) -> Result:
    """The result of one seed, found or made."""
    identity = {"result": "glue", "task": run.task, "seed": seed, "provenance": run.provenance}
    # The provenance is part of it: another protocol, model or library is another result.
    earlier = find(identity)
    if earlier:
        progress(run.steps, f"{run.task}, seed {seed}: already done")
        # The same model may have had another name then. All but the metrics is made anew in a moment.
        about = {"model": run.start.name, "score": fmean(earlier["metrics"].values()), **_about(run)}
        return {**earlier, **about}
    predictions = fine_tune(run, seed, progress)
    metrics = _by_metric(
        run, lambda metric, part, labels: classification.METRICS[metric](labels, predictions[part])
    )
    # GLUE's score of a task with several metrics, or several held-out parts, is their mean.
    return {
        "result": "glue",
        "model": run.start.name,
        "task": run.task,
        "seed": seed,
        "score": fmean(metrics.values()),
        "metrics": metrics,
        **_about(run),
    }


def _of_task(run: Experiment, results: Sequence[Result]) -> Result:
    """Mean and deviation over the seeds of a task."""
    metrics = {
        name: _spread([result["metrics"][name] for result in results]) for name in results[0]["metrics"]
    }
    return {
        "result": "glue task",
        "model": run.start.name,
        "task": run.task,
        "seeds": len(results),
        "score": _spread([result["score"] for result in results]),
        "metrics": metrics,
        **_about(run),
    }


def _spread(values: Sequence[float]) -> Result:
    """Mean and sample standard deviation over seeds; a single seed has no deviation."""
    return {"mean": fmean(values), "deviation": stdev(values) if len(values) > 1 else None}


def _about(run: Experiment) -> Result:
    """Baselines, sizes and provenance.

    Baselines: majority class (mean, for regression) and random guessing. The majority is that of the training
    examples: a classifier cannot know that of the held-out ones.
    """
    labels = run.data.train.labels
    classes = len(TASKS[run.task].labels)
    # Labels of classes are their indices; those of STS-B are scores from 0 to 5.
    usual = float(np.bincount(labels.astype(int)).argmax()) if classes else float(labels.mean())
    return {
        "majority": _by_metric(
            run, lambda metric, part, labels: classification.constant(metric, labels, usual)
        ),
        "chance": _by_metric(
            run, lambda metric, part, labels: classification.chance(metric, labels, classes)
        ),
        "examples": {part: len(ids) for part, ids in run.rows.items()},
        "provenance": run.provenance,
    }


def _by_metric(run: Experiment, value: Callable[[str, str, Floats], float]) -> dict[str, float]:
    """`value` of each metric, part and its labels.

    A task with one held-out part has {"accuracy": …}, MNLI {"accuracy_matched": …, "accuracy_mismatched": …}.
    """
    return {
        metric + part.removeprefix("dev"): value(metric, part, examples.labels)
        for part, examples in run.data.held_out.items()
        for metric in METRICS.get(run.task, ("accuracy",))
    }
