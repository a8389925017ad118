"""What do results of `eval` say? Likelihoods, and comparisons of texts and of tasks, each a line of JSON."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .... import storage
from ....errors import DataError
from ..content import ComparisonFacts, LikelihoodFacts, TaskFacts

READ = 1 << 20  # bytes at a time
Result = dict[str, Any]


@dataclass
class Results:
    """What is shown of the results in some files."""

    likelihoods: list[LikelihoodFacts] = field(default_factory=list)
    comparisons: list[ComparisonFacts] = field(default_factory=list)
    tasks: list[TaskFacts] = field(default_factory=list)


def read_results(paths: Iterable[str]) -> Results:
    """The results in files, in order. Lines of other kinds are passed over.

    Raises DataError for a line that is no JSON object, and for a file without a result.
    """
    results = Results()
    for path in paths:
        if not _read(path, results):
            remedy = "name the output of prune-cli eval --against, or of eval --samples --against-samples"
            raise DataError("holds no result of `eval`", place=path, remedy=remedy)
    return results


def _read(path: str, results: Results) -> int:
    """Add what a file holds, and return the number of its results."""
    count = 0
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        result = _parsed(line, f"{path}:{number}")
        try:
            count += _take(result, results)
        except (TypeError, ValueError, LookupError):
            raise _no_result(f"{path}:{number}") from None
    return count


def _take(result: Result, results: Results) -> bool:
    """Add a result, if it is of a kind that is shown."""
    kind = result.get("result")
    if kind == "likelihood":
        results.likelihoods.append(_likelihood(result))
    elif kind == "comparison":
        results.comparisons.append(_comparison(result))
    elif kind in ("task comparison", "average comparison"):
        results.tasks.append(_task(result, is_average=kind == "average comparison"))
    else:
        return False
    return True


def _text(path: str) -> bytes:
    [file] = storage.operands([path])
    with file.open() as opened:
        return b"".join(iter(lambda: opened.read(READ), b""))


def _parsed(line: bytes, place: str) -> Result:
    try:
        result = json.loads(line)
    except ValueError:
        result = None
    if not isinstance(result, dict):
        raise _no_result(place)
    return result


def _no_result(place: str) -> DataError:
    return DataError("is no result of `eval`", place=place, remedy="name the output of prune-cli eval")


def _likelihood(result: Result) -> LikelihoodFacts:
    return LikelihoodFacts(
        model=str(result.get("model")),
        data=str(result.get("data")),
        group=result.get("group"),
        documents=int(result.get("documents") or 0),
        perplexity=result.get("perplexity"),
        interval=_pair(result.get("perplexity_interval")),
        bits_per_byte=result.get("bits_per_byte"),
    )


def _comparison(result: Result) -> ComparisonFacts:
    return ComparisonFacts(
        model=_listed(result.get("model")),
        against=_listed(result.get("against")),
        data=str(result.get("data")),
        documents=int(result.get("documents") or 0),
        effect=result.get("effect"),
        interval=_pair(result.get("effect_interval")),
        p=result.get("p"),
        includes_training_noise=bool(result.get("includes_training_noise")),
    )


def _task(result: Result, *, is_average: bool) -> TaskFacts:
    # The exact test where there is one.
    p = result.get("p_mcnemar")
    return TaskFacts(
        model=_listed(result.get("model")),
        against=_listed(result.get("against")),
        task=_average(result) if is_average else _name(result),
        is_average=is_average,
        # An average is one of shares of which more is better.
        higher_is_better=is_average or bool(result["higher_is_better"]),
        documents=int(result.get("documents") or 0),
        value=result.get("value"),
        against_value=result.get("against_value"),
        delta=result.get("delta"),
        interval=_pair(result.get("delta_interval")),
        p=result.get("p") if p is None else p,
        includes_training_noise=bool(result.get("includes_training_noise")),
    )


def _average(result: Result) -> str:
    count = len(result["tasks"])
    return f"average of {count} tasks" if count > 1 else "average of 1 task"


def _name(result: Result) -> str:
    """A task with its metric, and with the filter of its answers if it has one."""
    filtered = "" if result.get("filter") in (None, "none") else f", {result['filter']}"
    return f"{result['task']} ({result['metric']}{filtered})"


def _pair(ends: Any) -> tuple[float, float] | None:
    return (float(ends[0]), float(ends[1])) if ends else None


def _listed(names: Any) -> str:
    """One name, or those of several seeds as a shell would write them: run-{1,2,3}."""
    if not isinstance(names, list):
        return str(names)
    texts = [str(name) for name in names]
    start = texts[0] if texts else ""
    while not all(text.startswith(start) for text in texts):
        start = start[:-1]
    if len(texts) < 2 or not start:
        return ", ".join(texts)
    return f"{start}{{{','.join(text.removeprefix(start) for text in texts)}}}"
