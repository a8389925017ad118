"""What do results of `eval` say? Its likelihoods and comparisons, one JSON object a line."""

import json
from typing import Any

from .... import storage
from ....errors import DataError
from ..content import ComparisonFacts, LikelihoodFacts

READ = 1 << 20  # bytes at a time
Result = dict[str, Any]


def read_results(path: str) -> tuple[list[LikelihoodFacts], list[ComparisonFacts]]:
    """The results in a file. Lines of other kinds are passed over.

    Raises DataError for a line that is no JSON object, and if there is no result at all.
    """
    likelihoods: list[LikelihoodFacts] = []
    comparisons: list[ComparisonFacts] = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip():
            continue
        result = _parsed(line, f"{path}:{number}")
        kind = result.get("result")
        try:
            if kind == "likelihood":
                likelihoods.append(_likelihood(result))
            elif kind == "comparison":
                comparisons.append(_comparison(result))
        except (TypeError, ValueError, LookupError):
            raise _no_result(f"{path}:{number}") from None
    if not likelihoods and not comparisons:
        raise DataError(
            "holds no result of `eval`", place=path, remedy="name the output of prune-cli eval --against"
        )
    return likelihoods, comparisons


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
