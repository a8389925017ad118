"""How do results look on a terminal? As tables of 80 columns; the records have more fields."""

from collections.abc import Mapping, Sequence
from typing import Any

from ... import terminal

Result = Mapping[str, Any]

CAPTION = (
    "effect: relative change of the perplexity, per token, or per byte if the tokenizers differ; "
    "below 0 is better than the baseline"
)

TASK_CAPTION = "p: McNemar's exact test where answers are right or wrong, else random sign flips"


def show(results: Sequence[Result]) -> None:
    """Print likelihoods, then comparisons."""
    # Two tables: a comparison has none of the columns of a likelihood.
    _show_likelihoods([result for result in results if result["result"] == "likelihood"])
    comparisons = [result for result in results if result["result"] == "comparison"]
    if comparisons:
        _show_comparisons(comparisons)


def _show_likelihoods(likelihoods: Sequence[Result]) -> None:
    # Most runs have no groups: then the column would be empty.
    has_groups = any(result["group"] is not None for result in likelihoods)
    names = ["model", "data", *(["group"] if has_groups else [])]
    rows = [
        [
            *(_text(result[name]) for name in names),
            f"{result['documents']:,}",
            _formatted(result["perplexity"], "{:.5g}"),
            _interval(result["perplexity_interval"], "{:.5g}"),
            # Without its interval, for which 80 columns have no room.
            _formatted(result["bits_per_byte"], "{:.4f}"),
        ]
        for result in likelihoods
    ]
    terminal.table((*names, "documents", "perplexity", "95 %", "bits/byte"), rows)


def _show_comparisons(comparisons: Sequence[Result]) -> None:
    rows = [
        [
            *(listed(result[name]) for name in ("model", "against", "data")),
            _formatted(result["effect"], "{:+.2%}"),
            _interval(result["effect_interval"], "{:+.2%}"),
            _formatted(result["p"], "{:.4f}"),
            _formatted(result["improved"], "{:.1%}"),
        ]
        for result in comparisons
    ]
    terminal.table(("model", "against", "data", "effect", "95 %", "p", "improved"), rows, CAPTION)


def show_tasks(results: Sequence[Result]) -> None:
    """Print the values of tasks, or, if there are any, the comparisons and the average."""
    comparisons = [result for result in results if result["result"] != "task"]
    if comparisons:
        _show_task_comparisons(comparisons)
    else:
        _show_task_values(results)


def _show_task_values(results: Sequence[Result]) -> None:
    rows = [
        [
            *(result["model"], _metric(result)),
            f"{result['documents']:,}",
            _formatted(result["value"], "{:.4g}"),
            _interval(result["value_interval"], "{:.4g}"),
        ]
        for result in results
    ]
    terminal.table(("model", "task", "documents", "value", "95 %"), rows)


def _show_task_comparisons(comparisons: Sequence[Result]) -> None:
    pairs = list(dict.fromkeys((listed(each["model"]), listed(each["against"])) for each in comparisons))
    for pair in pairs:
        # A table for each pair: 80 columns have no room for names in every row.
        own = [each for each in comparisons if (listed(each["model"]), listed(each["against"])) == pair]
        names = ("task", "value", "against", "delta", "95 %", "p")
        terminal.table(
            names, [_task_row(each) for each in own], f"{pair[0]} against {pair[1]}; {TASK_CAPTION}"
        )


def _task_row(result: Result) -> list[str]:
    is_average = result["result"] == "average comparison"
    # The exact test where there is one; the records have both.
    p = result["p"] if result["p_mcnemar"] is None else result["p_mcnemar"]
    return [
        f"average of {len(result['tasks'])}" if is_average else _metric(result),
        _formatted(result["value"], "{:.4g}"),
        _formatted(result["against_value"], "{:.4g}"),
        _formatted(result["delta"], "{:+.3g}"),
        _interval(result["delta_interval"], "{:+.3g}"),
        _formatted(p, "{:.4f}"),
    ]


def _metric(result: Result) -> str:
    """A metric of a task, and its filter unless it is the one that does nothing."""
    metric = f"{result['task']} {result['metric']}"
    return metric if result["filter"] == "none" else f"{metric}, {result['filter']}"


def show_glue(results: Sequence[Result]) -> None:
    """Print the mean over seeds of each metric of each task, beside its baselines, and the averages."""
    # Seeds are in the records alone: a person compares their means.
    rows = [
        (
            result["model"],
            result["task"],
            metric,
            *_spread(spread),
            f"{result['majority'][metric]:.3f}",
            f"{result['chance'][metric]:.3f}",
        )
        for result in results
        if result["result"] == "glue task"
        for metric, spread in result["metrics"].items()
    ]
    rows += [
        (result["model"], "average", "", *_spread(result["score"]), "", "")
        for result in results
        if result["result"] == "glue average"
    ]
    terminal.table(("model", "task", "metric", "mean", "deviation", "majority", "chance"), rows)


def listed(names: str | Sequence[str]) -> str:
    """One name, or those of a group of seeds."""
    return names if isinstance(names, str) else ", ".join(names)


def _text(value: object) -> str:
    return "" if value is None else str(value)


def _formatted(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _interval(ends: Sequence[float] | None, form: str) -> str:
    # An ellipsis, because a dash could be taken for a minus.
    return "" if ends is None else "…".join(map(form.format, ends))


def _spread(values: Mapping[str, float | None]) -> tuple[str, str]:
    """Mean and deviation; a single seed has no deviation."""
    return f"{values['mean']:.3f}", _formatted(values["deviation"], "{:.3f}")
