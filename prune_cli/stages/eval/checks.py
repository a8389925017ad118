"""Which options do not go together, and which outcomes of a comparison fail the run?"""

from collections.abc import Sequence

from ... import storage
from ...errors import CheckFailed, DataError, UsageError
from ...settings.eval import DECISIVE, Comparison, Evaluation, FineTuning, PerDocument, Target, TaskSamples
from ...storage.base import Input
from . import journal
from .eval_tables import listed
from .likelihood import Result


def check_exclusive(
    evaluation: Evaluation, comparison: Comparison, keeping: PerDocument, tuning: FineTuning
) -> None:
    """Raise UsageError for options of likelihoods beside --glue."""
    # Those of --glue without it are in commands/conflicts.py, which knows what was typed.
    if not tuning.glue:
        return
    others = {
        "--data": evaluation.data,
        "--against": comparison.against,
        "--group-by": evaluation.group_by,
        "--cluster": evaluation.cluster,
        "--per-document": keeping.per_document,
        "--fail-if-worse": comparison.fail_if_worse is not None,
        "--paired-seeds": comparison.paired_seeds,
    }
    for name, value in others.items():
        if value:
            raise UsageError(f"--glue has its own data and cannot use {name}", remedy="leave out one of them")


def check_operands(models: Sequence[str], samples: TaskSamples) -> None:
    """Raise UsageError unless there are either models or folders of samples."""
    if samples.against_samples and not samples.samples:
        raise UsageError("--against-samples needs samples to compare", remedy="add --samples DIR")
    if models and samples.samples:
        raise UsageError(
            f"--samples takes the place of models, and {models[0]} is one", remedy="leave one out"
        )
    if not models and not samples.samples:
        raise UsageError("there is no model to evaluate", remedy="name one, or samples with --samples DIR")


def check_comparison(comparison: Comparison) -> None:
    """Raise UsageError for options of a comparison without a baseline."""
    given = {
        "--fail-if-worse": comparison.fail_if_worse is not None,
        "--paired-seeds": comparison.paired_seeds,
    }
    for name, is_given in given.items():
        if is_given and not comparison.against:
            raise UsageError(f"{name} needs a baseline to compare with", remedy="add --against MODEL")


def check_places(keeping: PerDocument, target: Target) -> None:
    """Raise UsageError if --resume has no file to resume, or if both outputs go to the same place."""
    # The results themselves are computed anew in a moment; it is the documents that take long.
    path = keeping.per_document
    if keeping.resume and path in (None, "-"):
        raise UsageError("--resume needs a regular output file", remedy="name one with --per-document FILE")
    if keeping.resume and (path or "").endswith(".jsonl"):
        # A run resumes after a whole zstd frame.
        raise UsageError("--resume needs compressed output", remedy="name a FILE.jsonl.zst")
    if path is not None and storage.location(path) == storage.location(target.output or "-"):
        raise UsageError(
            "the results and those of each document would go to the same place",
            remedy="name another file with -o FILE",
        )


def check_target(keeping: PerDocument, inputs: Sequence[Input], force: bool) -> None:
    """Raise CannotCreateError or PermissionDeniedError if the per-document file would be refused.

    It is opened only after the test sets were read, which may take a while.
    """
    path = keeping.per_document
    if path in (None, "-") or storage.is_stream(path):
        return
    # A finished file is compared with this run instead.
    if keeping.resume and journal.is_finished(path):
        return
    storage.check_target(path, inputs, force=force)


def check_outcome(results: Sequence[Result], models: Sequence[str], comparison: Comparison) -> None:
    """Raise CheckFailed if a model is worse than --fail-if-worse allows, DataError if that cannot be told.

    `models` are the operands that are no baselines. A model against itself is equal, whatever the documents.
    """
    if comparison.fail_if_worse is None:
        return
    comparisons = [result for result in results if result["result"] == "comparison"]
    # A check of nothing must not look like a success.
    if models and not comparisons:
        raise DataError("nothing was compared", remedy="name results of documents")
    undecided = []
    for result in comparisons:
        if doubt := _doubt(result):
            undecided.append(doubt)
        else:
            _check_interval(result, comparison.fail_if_worse)
    # Last, because one model that is worse for certain says more than another of which nothing is known.
    if undecided:
        raise undecided[0]


def _doubt(result: Result) -> DataError | None:
    """The reason why nobody can say whether the model of a comparison is worse; None if there is none."""
    provenance = result["provenance"]
    if provenance["model"] == provenance["against"]:
        return None
    unit = "documents" if result["clusters"] is None else "clusters"
    count = result["documents"] if result["clusters"] is None else result["clusters"]
    remedy = "evaluate on more, or leave out --fail-if-worse"
    if count < DECISIVE:
        fault = f"{count} {unit} with a score cannot tell; --fail-if-worse needs {DECISIVE}"
        return DataError(fault, place=_about(result), remedy=remedy)
    if result["effect_interval"] is None:
        return DataError("the difference is unknown", place=_about(result), remedy=remedy)
    return None


def _check_interval(result: Result, allowed: float) -> None:
    """Raise CheckFailed if even the better end of the interval is more than `allowed` % worse."""
    # Without an interval it is a model against itself, on documents that have no score.
    ends = result["effect_interval"] or (0.0, 0.0)
    # The lower end: a model fails only if it is worse beyond doubt.
    worse = 100 * ends[0]
    if worse > allowed:
        fault = f"at least {worse:.2f} % worse, and {allowed:g} % are allowed"
        raise CheckFailed(fault, place=_about(result))


def _about(result: Result) -> str:
    return f"{listed(result['model'])} against {listed(result['against'])} on {result['data']}"
