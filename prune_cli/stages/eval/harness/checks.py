"""Which options of `eval --samples` need others, and which outcomes of a comparison fail the run?"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from ....errors import CheckFailed, DataError, UsageError
from ....settings.eval import DECISIVE, Comparison, TaskSamples
from ..eval_tables import listed
from ..likelihood import Result
from .compare import Sides
from .measured import SampledModel


def check_options(chosen: TaskSamples, comparison: Comparison) -> None:
    """Raise UsageError for a folder named twice, and for options of a comparison without a baseline."""
    _check_distinct("--samples", chosen.samples or ())
    _check_distinct("--against-samples", chosen.against_samples or ())
    given = {
        "--fail-if-worse": comparison.fail_if_worse is not None,
        "--paired-seeds": comparison.paired_seeds,
    }
    for name, is_given in given.items():
        if is_given and not chosen.against_samples:
            raise UsageError(f"{name} needs a baseline to compare with", remedy="add --against-samples DIR")


def _check_distinct(option: str, folders: Sequence[str]) -> None:
    """Raise UsageError if two folders are the same one: seeds of a recipe are different runs."""
    seen: set[Path] = set()
    for folder in folders:
        place = Path(folder).resolve()
        if place in seen:
            raise UsageError(f"{option} names {folder} twice", remedy="name each folder once")
        seen.add(place)


def sides(
    models: Sequence[SampledModel], baselines: Sequence[SampledModel], *, paired: bool
) -> Iterator[Sides]:
    """What is compared: each model with each baseline, or two recipes if there are several seeds of both.

    Raises UsageError for seeds without a partner.
    """
    if paired and not 1 < len(models) == len(baselines):
        raise UsageError(
            f"--paired-seeds cannot pair {len(models)} models with {len(baselines)} baselines",
            remedy="name as many of each, two or more",
        )
    if min(len(models), len(baselines)) > 1:
        yield Sides([*models, *baselines], len(models), paired)
        return
    for model in models:
        yield from (Sides([model, baseline], 1) for baseline in baselines)


def check_outcome(results: Sequence[Result], comparison: Comparison, *, compares: bool) -> None:
    """Raise CheckFailed if the average over tasks is worse than --fail-if-worse allows, DataError if that
    cannot be told.

    The average alone: of forty tasks one is worse than its interval says by chance.
    """
    if comparison.fail_if_worse is None:
        return
    averages = [result for result in results if result["result"] == "average comparison"]
    # A check of nothing must not look like a success.
    if compares and not averages:
        raise DataError("no task has an average to check", remedy="leave out --fail-if-worse")
    undecided = [result for result in averages if result["documents"] < DECISIVE]
    for result in averages:
        if result not in undecided:
            _check_interval(result, comparison.fail_if_worse)
    # Last, because one model that is worse for certain says more than another of which nothing is known.
    for result in undecided:
        fault = f"{result['documents']} documents cannot tell; --fail-if-worse needs {DECISIVE}"
        raise DataError(fault, place=_about(result), remedy="evaluate on more, or leave out --fail-if-worse")


def _check_interval(result: Result, allowed: float) -> None:
    """Raise CheckFailed if even the better end of the interval is more than `allowed` points worse."""
    # Values of an average lie between 0 and 1, and more is better.
    worse = -100 * result["delta_interval"][1]
    if worse > allowed:
        fault = f"at least {worse:.2f} points worse, and {allowed:g} are allowed"
        raise CheckFailed(fault, place=_about(result))


def _about(result: Result) -> str:
    return f"{listed(result['model'])} against {listed(result['against'])} on the average over tasks"
