"""Evaluate models on held-out text: likelihoods with intervals, and paired comparisons.

A document is what is sampled: the intervals are 95 % percentile bootstraps over documents (Efron & Tibshirani 1993), the p value
is a permutation test that swaps the two models' results within a document.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..model import Content, LanguageModel

RESAMPLES = 10_000
LEVEL = 95.0

Floats = NDArray[np.float64]
Result = dict[str, Any]
Loader = Callable[[], LanguageModel]
# stages/score.py's `score` of a single model and no metric, handed over by the command.
Scorer = Callable[..., Iterator[list[tuple[int, dict[str, Any]]]]]


class Item(NamedTuple):
    """A held-out document and the value of its group field."""

    group: Hashable
    content: Content


@dataclass(frozen=True)
class Likelihoods:
    """One model's results on one data set, a number a document, in its order; NaN bytes or words: not known."""

    tokenizer: str
    nll: Floats
    tokens: Floats
    bytes: Floats
    words: Floats


def evaluate(
    models: Sequence[tuple[str, Loader]],
    data: Sequence[tuple[str, Sequence[Item]]],
    score: Scorer,
    *,
    against: Sequence[tuple[str, Loader]] = (),
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Iterator[Result]:
    """One result a model, data set and group (the whole first, its group None), then one a model, baseline and data set.

    One model is in memory at a time. Documents in which nothing can be scored are left out.
    """
    baselines: dict[tuple[str, str], Likelihoods] = {}
    for baseline, loader in against:
        for name, items, found in _run(loader, data, score):
            baselines[baseline, name] = found
            yield from _results(baseline, name, items, found, seed, resamples)
    for model, loader in models:
        for name, items, found in _run(loader, data, score):
            yield from _results(model, name, items, found, seed, resamples)
            for baseline, _ in against:
                yield _comparison((model, found), (baseline, baselines[baseline, name]), name, seed, resamples)


def _run(loader: Loader, data: Sequence[tuple[str, Sequence[Item]]], score: Scorer) -> Iterator[tuple[str, Sequence[Item], Likelihoods]]:
    model = loader()
    for name, items in data:
        yield name, items, _likelihoods(model, name, items, score)


def _likelihoods(model: LanguageModel, name: str, items: Sequence[Item], score: Scorer) -> Likelihoods:
    numbered = ((index, item.content) for index, item in enumerate(items))
    scored = score(numbered, model, place=lambda index: f"{name}: document {index + 1}")
    fields = [new for window in scored for _, new in window]

    def column(field: str) -> Floats:
        return np.array([new[field] for new in fields], dtype=np.float64)  # None becomes NaN

    return Likelihoods(model.tokenizer_hash, column("nll_sum"), column("n_scored"), column("n_bytes"), _words(items))


def _words(items: Iterable[Item]) -> Floats:
    """Words between white space; a block has none that could be counted."""
    return np.array([len(item.content.split()) if isinstance(item.content, str) else math.nan for item in items])


# --- one model ----------------------------------------------------------------------------------------------------------------


def _results(model: str, name: str, items: Sequence[Item], found: Likelihoods, seed: int, resamples: int) -> Iterator[Result]:
    groups = list(dict.fromkeys(item.group for item in items))
    for group in [None, *(group for group in groups if group is not None)]:
        chosen = np.array([group is None or item.group == group for item in items], dtype=bool) & (found.tokens > 0)
        yield {"result": "likelihood", "model": model, "data": name, "group": group, **_likelihood(found, chosen, seed, resamples)}


def _likelihood(found: Likelihoods, chosen: NDArray[np.bool_], seed: int, resamples: int) -> Result:
    """Pooled over all tokens (bytes, words) of the chosen documents, not averaged over documents."""
    columns = np.stack([found.nll, found.tokens, found.bytes, found.words], axis=1)[chosen]
    nll, tokens, n_bytes, words = columns.sum(0)
    resampled = resampled_sums(columns, seed, resamples)
    return {
        "documents": len(columns),
        "tokens": int(tokens),
        "bytes": None if math.isnan(n_bytes) else int(n_bytes),
        "perplexity": _number(_exp(_ratio(nll, tokens))),
        "perplexity_interval": _interval(_exp(_ratio(resampled[:, 0], resampled[:, 1]))),
        "bits_per_byte": _number(_ratio(nll, n_bytes) / math.log(2)),
        "bits_per_byte_interval": _interval(_ratio(resampled[:, 0], resampled[:, 2]) / math.log(2)),
        "word_perplexity": _number(_exp(_ratio(nll, words))),
        "resamples": resamples,
        "seed": seed,
    }


def resampled_sums(columns: Floats, seed: int, resamples: int) -> Floats:
    """Column sums of `resamples` samples of the rows, drawn with replacement: (n, k) → (resamples, k), in memory for one sample."""
    random = np.random.default_rng(seed)
    n = len(columns)
    draws = (np.bincount(random.integers(n, size=n), minlength=n) for _ in range(resamples if n else 0))
    return np.array([counts @ columns for counts in draws]).reshape(-1, columns.shape[1])


# --- two models ---------------------------------------------------------------------------------------------------------------


def _comparison(ours: tuple[str, Likelihoods], theirs: tuple[str, Likelihoods], name: str, seed: int, resamples: int) -> Result:
    """The same documents, and the same resampled documents, for both; below 0 is better than the baseline.

    Per token where the tokenizers are the same, else per byte: tokens of unlike size do not compare.
    """
    (model, a), (baseline, b) = ours, theirs
    unit = "token" if a.tokenizer == b.tokenizer else "byte"
    pair = [(each.nll, each.tokens if unit == "token" else each.bytes) for each in (a, b)]
    chosen = (a.tokens > 0) & (b.tokens > 0) & ~np.isnan(pair[0][1] + pair[1][1])
    left, right = (np.stack(columns, axis=1)[chosen] for columns in pair)
    resampled = resampled_sums(np.hstack([left, right]), seed, resamples)
    deltas = _delta(resampled[:, :2], resampled[:, 2:])
    delta = _delta(left.sum(0), right.sum(0))
    scale = 1.0 if unit == "token" else 1 / math.log(2)
    return {
        "result": "comparison",
        "model": model,
        "against": baseline,
        "data": name,
        "documents": len(left),
        "unit": "nats per token" if unit == "token" else "bits per byte",
        "delta": _number(delta * scale),
        "delta_interval": _interval(deltas * scale),
        "effect": _number(_exp(delta) - 1),
        "effect_interval": _interval(_exp(deltas) - 1),
        "improved": float(np.mean(_ratio(left[:, 0], left[:, 1]) < _ratio(right[:, 0], right[:, 1]))) if len(left) else None,
        "p": permutation_p(left, right, seed, resamples) if len(left) else None,
        "includes_training_noise": False,  # one run of each: another seed of the same recipe would move delta, too
        "resamples": resamples,
        "seed": seed,
    }


def _delta(left: Floats, right: Floats) -> Any:
    """Difference in nats a unit of sums whose last axis is (nats, units)."""
    return _ratio(left[..., 0], left[..., 1]) - _ratio(right[..., 0], right[..., 1])


def permutation_p(left: Floats, right: Floats, seed: int, resamples: int) -> float:
    """Share of random swaps of the two models within documents that move delta as far from 0 as it is: (b + 1) / (B + 1).

    With the same units on both sides a swap flips the sign of a document's difference.
    """
    random = np.random.default_rng([seed, 1])
    swap, total_left, total_right = right - left, left.sum(0), right.sum(0)
    moved = np.array([random.integers(2, size=len(swap)) @ swap for _ in range(resamples)])
    observed = abs(_delta(total_left, total_right)) * (1 - 1e-9)  # equal but for rounding is equal
    as_far = int(np.count_nonzero(np.abs(_delta(total_left + moved, total_right - moved)) >= observed))
    return (as_far + 1) / (resamples + 1)


# --- numbers ------------------------------------------------------------------------------------------------------------------


def _ratio(above: Any, below: Any) -> Any:
    """NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(below) > 0, np.divide(above, below), np.nan)


def _exp(values: Any) -> Any:
    """Infinity where the result is too large, which `_number` and `_interval` make None."""
    with np.errstate(over="ignore"):
        return np.exp(values)


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _interval(values: Floats) -> list[float] | None:
    if not len(values) or not np.isfinite(values).all():
        return None
    tail = (100 - LEVEL) / 2
    return [float(end) for end in np.percentile(values, [tail, 100 - tail])]
