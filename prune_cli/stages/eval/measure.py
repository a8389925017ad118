"""Evaluate models on held-out text: likelihoods with intervals, and comparisons that say whether a difference is real.

What is sampled is a document, or a cluster of documents that hang together: intervals are 95 % percentile bootstraps over them, the p
value of two models is that of a permutation test which swaps their results. Where each recipe was trained with several seeds, the
interval is Welch's: it holds the noise of training, too.
"""

import logging
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError
from ...statistics.bootstrap import (
    Floats,
    Sampling,
    Spread,
    clustered,
    flipped,
    interval,
    number,
    of_mean,
    resampled,
    share_as_far,
    t_quantile,
    t_tail,
    together,
)
from . import comparability
from .journal import Journal, Numbers
from .results import Run

if TYPE_CHECKING:  # results that are read from files need no torch
    from ...models.language_model import Content, LanguageModel

FEW = 50  # clusters: from fewer a bootstrap makes intervals that are too narrow

log = logging.getLogger(__name__)

Result = dict[str, Any]
# stages/score.py's `score` of a single model and no metric, handed over by the command.
Scorer = Callable[..., Iterator[list[tuple[int, dict[str, Any]]]]]


def measure(
    load: "Callable[[], LanguageModel]",
    tasks: "Sequence[tuple[int, Sequence[Content]]]",
    journal: Journal,
    score: Scorer,
    advance: Callable[[int], object] = lambda documents: None,
) -> Iterator[Run]:
    """The runs of one model: of each of its tasks, by their numbers in the journal, what is not there yet is scored and added.

    The model is loaded when the first is missing.
    """
    model = None
    for task, contents in tasks:
        done = len(journal.found[task])
        advance(done)
        if done < len(contents):
            model = model or load()
            name = journal.tasks[task].data
            numbered = ((at, contents[at]) for at in range(done, len(contents)))
            for window in score(numbered, model, place=lambda at, name=name: f"{name}: document {at + 1}"):
                journal.add(task, [_numbers(new, contents[at]) for at, new in window])
                advance(len(window))
        yield journal.run(task)


def _numbers(scored: dict[str, Any], content: "Content") -> Numbers:
    """What is kept of a document; a block has no words that could be counted."""
    return {**scored, "words": len(content.split()) if isinstance(content, str) else None}


def evaluate(
    ours: Iterable[Run],
    theirs: Iterable[Run] = (),
    sampling: Sampling = Sampling(),
    *,
    arms: bool = False,
    paired: bool = False,
) -> Iterator[Result]:
    """One result a run and group (the whole first, its group None), the baselines' first, and comparisons with the baselines.

    Each of our models is compared with each of theirs on the same documents; with `arms` all of ours, seeds of one recipe, with all of
    theirs, those of another, `paired` in their order. Documents in which nothing can be scored are left out. Raises DataError where a
    baseline has no results on the documents of a run.
    """
    baselines, contenders, said = list[Run](), list[Run](), Said()
    for run in theirs:
        baselines.append(run)
        yield from _likelihoods(run, sampling, said)
    for run in ours:
        contenders.append(run)
        yield from _likelihoods(run, sampling, said)
        for baseline in _on_data_of(run, baselines) if not arms else ():
            yield _comparison([run], [baseline], sampling, said)
    for first in contenders if arms else ():
        side = _on_data_of(first, contenders)
        if side[0] is first:
            yield _comparison(side, _on_data_of(first, baselines), sampling, said, paired=paired)


def _on_data_of(run: Run, others: Sequence[Run]) -> list[Run]:
    """The others' runs on the same documents, one a model."""
    found = [other for other in others if other.provenance["data"] == run.provenance["data"]]
    names = {other.model for other in found}
    if missing := next((other.model for other in others if other.model not in names), None):
        raise DataError(
            f"there are no results of {missing} on these documents",
            place=run.data,
            remedy="evaluate it on them, too",
        )
    return found


class Said(set[str]):
    """Warnings, each said once."""

    def warn(self, message: str) -> None:
        if message not in self:
            log.warning("%s", message)
            self.add(message)


# --- one model ----------------------------------------------------------------------------------------------------------------


def _likelihoods(run: Run, sampling: Sampling, said: Said) -> Iterator[Result]:
    clusters = _clusters([run])
    groups: list[Hashable] = list(dict.fromkeys(item.group for item in run.items))
    few = []
    for group in [None, *(group for group in groups if group is not None)]:
        chosen = np.array([group is None or item.group == group for item in run.items], dtype=bool) & (
            run.tokens > 0
        )
        rows = clustered(run.numbers[chosen], clusters[chosen])
        counts = {"documents": int(chosen.sum()), "clusters": len(rows) if _is_clustered(run) else None}
        about = {"result": "likelihood", "model": run.model, "data": run.data, "group": group, **counts}
        yield {**about, **_likelihood(rows, sampling), "provenance": run.provenance}
        few += [str(group)] if group is not None and len(rows) < FEW else []
        if group is None:
            _warn_of_few(rows, run, said)
    if few:
        some = ", ".join(few[:3]) + (f" and {len(few) - 3} more groups" if len(few) > 3 else "")
        said.warn(f"{run.data}: under {FEW} {_noun(run)} in {some}: intervals from so few are too narrow")


def _warn_of_few(rows: Floats, run: Run, said: Said) -> None:
    if len(rows) < FEW:
        said.warn(f"{run.data}: {len(rows)} {_noun(run)}: intervals from fewer than {FEW} are too narrow")


def _noun(run: Run) -> str:
    return "clusters" if _is_clustered(run) else "documents"


def _is_clustered(run: Run) -> bool:
    return any(item.cluster is not None for item in run.items)


def _clusters(runs: Sequence[Run]) -> NDArray[np.int64]:
    """A number for each document's cluster, by the first run that knows clusters; a document without one stands for itself."""
    run = next(filter(_is_clustered, runs), runs[0])
    codes: dict[Any, int] = {}
    found = [
        codes.setdefault((at,) if item.cluster is None else item.cluster, len(codes))
        for at, item in enumerate(run.items)
    ]
    return np.array(found, dtype=np.int64)


def _likelihood(rows: Floats, sampling: Sampling) -> Result:
    """Pooled over all tokens (bytes, words) of the rows, not averaged over documents."""
    sums, some = rows.sum(0), resampled(rows, sampling)
    found: Result = {"tokens": int(sums[1]), "bytes": None if math.isnan(sums[2]) else int(sums[2])}
    for name, unit, of in (
        ("perplexity", 1, _exp),
        ("bits_per_byte", 2, _bits),
        ("word_perplexity", 3, _exp),
    ):
        found[name] = number(of(_ratio(sums[0], sums[unit])))
        found[f"{name}_interval"] = interval(of(_ratio(some[:, 0], some[:, unit])))
    return {**found, "resamples": sampling.resamples, "seed": sampling.seed}


# --- two models, or two arms of several seeds ---------------------------------------------------------------------------------


def _comparison(
    ours: Sequence[Run], theirs: Sequence[Run], sampling: Sampling, said: Said, *, paired: bool = False
) -> Result:
    """The same documents, and the same resampled documents, for all; below 0 is better than the baseline.

    Per token where the tokenizers are the same, else per byte: tokens of unlike size do not compare.
    """
    runs = [*ours, *theirs]
    _check_same_documents(runs)
    _warn(ours, theirs, paired, said)
    per_token = len({run.provenance["tokenizer"] for run in runs}) == 1
    pairs = np.stack(
        [run.numbers[:, [0, 1 if per_token else 2]] for run in runs], axis=1
    )  # (documents, runs, nats and units)
    chosen = np.all([run.tokens > 0 for run in runs], axis=0) & ~np.isnan(pairs).any((1, 2))
    documents = pairs[chosen].reshape(-1, 2 * len(runs))
    rows = clustered(documents, _clusters(runs)[chosen])
    about = {
        "result": "comparison",
        "model": ours[0].model if len(runs) == 2 else [run.model for run in ours],
        "against": theirs[0].model if len(runs) == 2 else [run.model for run in theirs],
        "data": ours[0].data,
        "documents": len(documents),
        "clusters": len(rows) if any(map(_is_clustered, runs)) else None,
        "unit": "nats per token" if per_token else "bits per byte",
    }
    found = _of_pair(rows, sampling) if len(runs) == 2 else _of_arms(rows, len(ours), paired, sampling)
    scale = 1.0 if per_token else 1 / math.log(2)
    delta, ends = found.pop("delta"), found.pop("interval")
    return {
        **about,
        "delta": number(delta * scale),
        "delta_interval": ends and [end * scale for end in ends],
        "effect": number(_exp(delta) - 1),
        "effect_interval": ends and [float(_exp(end)) - 1 for end in ends],
        "improved": float(np.mean(_delta(documents, len(ours)) < 0)) if len(documents) else None,
        **found,
        "resamples": sampling.resamples,
        "seed": sampling.seed,
        "provenance": {
            "model": [run.provenance for run in ours],
            "against": [run.provenance for run in theirs],
        },
    }


def _check_same_documents(runs: Sequence[Run]) -> None:
    numbers = [[item.document for item in run.items] for run in runs]
    for run, others in zip(runs, numbers, strict=True):
        if others != numbers[0]:
            fault = f"the results of {run.model} are not of the same documents as those of {runs[0].model}"
            raise DataError(fault, place=run.data, remedy="choose the same documents of both")


def _warn(ours: Sequence[Run], theirs: Sequence[Run], paired: bool, said: Said) -> None:
    first, *others = [[(run.model, run.provenance) for run in side] for side in (ours, theirs)]
    for doubt in comparability.doubts(first, others[0], paired):
        said.warn(doubt)
    tokenizers = {run.provenance["tokenizer"] for run in (*ours, *theirs)}
    if len(tokenizers) > 1 and np.isnan(ours[0].numbers[:, 3]).any():
        said.warn(
            f"{ours[0].data}: token ids mean other texts to another tokenizer: the models do not read the same documents"
        )
    if len(ours) == len(theirs) == 1:
        said.warn("one training run a side: the noise of training is not in the intervals")


def _of_pair(rows: Floats, sampling: Sampling) -> Result:
    """Percentiles of resampled documents, and p: the share of random swaps of the two models within clusters that do as much.

    With the same units on both sides a swap flips the sign of a cluster's difference.
    """
    known: Result = {
        "includes_training_noise": False
    }  # another seed of the same recipe would move delta, too
    if not len(rows):
        return {"delta": math.nan, "interval": None, "p": None, **known}
    sums, swap = rows.sum(0), rows[:, 2:] - rows[:, :2]
    moved = flipped(swap, sampling)
    swapped = np.hstack([sums[:2] + moved, sums[2:] - moved])
    delta = float(_delta(sums, 1))
    return {
        "delta": delta,
        "interval": interval(_delta(resampled(rows, sampling), 1)),
        "p": share_as_far(_delta(swapped, 1), delta),
        **known,
    }


def _of_arms(rows: Floats, count: int, paired: bool, sampling: Sampling) -> Result:
    """Student's interval, and p, with the variance between runs of the same recipe and that of the documents (Welch 1947).

    `paired` runs have their seeds in common: then the differences within pairs vary, and the runs' own variances do not count.
    """
    known: Result = {"includes_training_noise": True, "paired_seeds": paired}
    if not len(rows):
        return {"delta": math.nan, "interval": None, "p": None, **known}
    values = _pooled(rows.sum(0))
    of_runs = (
        [of_mean(values[:count] - values[count:])]
        if paired
        else [of_mean(values[:count]), of_mean(values[count:])]
    )
    of_documents = Spread(float(_delta(resampled(rows, sampling), count).var(ddof=1)), max(1, len(rows) - 1))
    spread, delta = together(*of_runs, of_documents), float(values[:count].mean() - values[count:].mean())
    error = math.sqrt(spread.variance)
    reach = t_quantile(spread.freedom) * error if error else 0.0
    errors = {
        "runs": math.sqrt(math.fsum(one.variance for one in of_runs)),
        "documents": math.sqrt(of_documents.variance),
    }
    p = t_tail(delta / error, spread.freedom) if error else float(delta == 0)
    return {
        "delta": delta,
        "interval": [delta - reach, delta + reach],
        "p": p,
        "standard_errors": errors,
        "degrees_of_freedom": number(spread.freedom),
        **known,
    }


def _pooled(sums: Floats) -> Floats:
    """Nats a unit of each run: (..., nats and units of one run after the other) → (..., runs)."""
    pairs = sums.reshape(*sums.shape[:-1], -1, 2)
    found: Floats = _ratio(pairs[..., 0], pairs[..., 1])
    return found


def _delta(sums: Floats, count: int) -> Floats:
    """How much more the first `count` runs take a unit, in the mean, than the others: (..., nats and units) → (...)."""
    values = _pooled(sums)
    found: Floats = values[..., :count].mean(-1) - values[..., count:].mean(-1)
    return found


# --- numbers ------------------------------------------------------------------------------------------------------------------


def _ratio(above: Any, below: Any) -> Any:
    """NaN where there is nothing to divide by."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(np.asarray(below) > 0, np.divide(above, below), np.nan)


def _exp(values: Any) -> Any:
    """Infinity where the result is too large, which `number` and `interval` make None."""
    with np.errstate(over="ignore"):
        return np.exp(values)


def _bits(nats: Any) -> Any:
    return nats / math.log(2)
