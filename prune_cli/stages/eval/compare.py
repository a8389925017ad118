"""Is a model, or a recipe trained with several seeds, better than a baseline, and how sure is that?

Two models are compared on the very same documents: the interval is a paired percentile bootstrap, and p is
that of a permutation test that swaps the models' results. Two groups of seeds are compared by Student's t
with the variance between the seeds (Welch 1947), so that the interval covers training noise, too.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from ...errors import DataError
from ...statistics.bootstrap import Floats, Sampling, cluster_sums, finite_or_none
from ...statistics.differences import difference, of_groups, of_pair
from . import comparability
from .likelihood import Result, Warnings, cluster_numbers, exp, is_clustered, likelihoods
from .results import Measured


def evaluate(
    models: Iterable[Measured],
    baselines: Iterable[Measured] = (),
    sampling: Sampling = Sampling(),
    *,
    grouped: bool = False,
    paired: bool = False,
) -> Iterator[Result]:
    """The likelihoods of all baselines, then those of all models, each followed by its comparisons.

    Each model is compared with each baseline, on the same documents. With `grouped` the models are seeds of
    one recipe and the baselines seeds of another, `paired` in their order: then the two recipes are
    compared, at the end. Documents without a scored token are left out. Raises DataError if a baseline was
    not measured on the documents of a model.
    """
    warnings = Warnings()
    measured_baselines: list[Measured] = []
    measured_models: list[Measured] = []
    for baseline in baselines:
        measured_baselines.append(baseline)
        yield from likelihoods(baseline, sampling, warnings)
    for model in models:
        measured_models.append(model)
        yield from likelihoods(model, sampling, warnings)
        for baseline in [] if grouped else _on_same_data(model, measured_baselines):
            yield _comparison([model], [baseline], sampling, warnings)
    # A recipe is compared when all of its seeds are measured: their numbers are in memory, no model is.
    for model in measured_models if grouped else []:
        group = _on_same_data(model, measured_models)
        # One comparison for each test set: at the first model on it.
        if group[0] is model:
            baselines_of_group = _on_same_data(model, measured_baselines)
            yield _comparison(group, baselines_of_group, sampling, warnings, paired=paired)


def _on_same_data(measured: Measured, others: Sequence[Measured]) -> list[Measured]:
    """The others' measurements on the same documents. Raises DataError if one of their models has none."""
    data = measured.provenance["data"]
    same = [other for other in others if other.provenance["data"] == data]
    models = {other.model for other in same}
    missing = [other.model for other in others if other.model not in models]
    if missing:
        raise DataError(
            f"there are no results of {missing[0]} on these documents",
            place=measured.data,
            remedy="evaluate it on them, too",
        )
    return same


def _comparison(
    models: Sequence[Measured],
    baselines: Sequence[Measured],
    sampling: Sampling,
    warnings: Warnings,
    *,
    paired: bool = False,
) -> Result:
    """One comparison of both sides on the same documents.

    A negative difference means that the models are better than the baselines.
    """
    both = [*models, *baselines]
    _check_same_documents(both)
    _warn(models, baselines, paired, warnings)
    # Tokens of different tokenizers are of different size; bytes are not.
    per_token = len({measured.provenance["tokenizer"] for measured in both}) == 1
    documents, rows = _rows(both, per_token)
    count = len(models)
    # Two runs say nothing about the noise between runs of one recipe; more do.
    statistics = of_pair([rows], sampling) if len(both) == 2 else of_groups([rows], count, paired, sampling)
    return {
        **_sides(models, baselines),
        "documents": len(documents),
        "clusters": len(rows) if any(map(is_clustered, both)) else None,
        "unit": "nats per token" if per_token else "bits per byte",
        **_effects(statistics.pop("delta"), statistics.pop("interval"), per_token),
        "improved": float(np.mean(difference(documents, count) < 0)) if len(documents) else None,
        **statistics,
        "resamples": sampling.resamples,
        "seed": sampling.seed,
        "provenance": {
            "model": [measured.provenance for measured in models],
            "against": [measured.provenance for measured in baselines],
        },
    }


def _sides(models: Sequence[Measured], baselines: Sequence[Measured]) -> Result:
    """What is compared: two names, or two lists of names, and the test set."""
    is_pair = len(models) == len(baselines) == 1
    return {
        "result": "comparison",
        "model": models[0].model if is_pair else [measured.model for measured in models],
        "against": baselines[0].model if is_pair else [measured.model for measured in baselines],
        "data": models[0].data,
    }


def _check_same_documents(measured: Sequence[Measured]) -> None:
    # The test set is the same, by its hash, but `jq` may have selected documents from a result file.
    first = measured[0]
    numbers = [item.document for item in first.items]
    for other in measured:
        if [item.document for item in other.items] != numbers:
            raise DataError(
                f"the results of {other.model} are not of the same documents as those of {first.model}",
                place=other.data,
                remedy="select the same documents of both",
            )


def _warn(
    models: Sequence[Measured], baselines: Sequence[Measured], paired: bool, warnings: Warnings
) -> None:
    for warning in comparability.warnings(_named(models), _named(baselines), paired):
        warnings.log(warning)
    data = models[0].data
    tokenizers = {measured.provenance["tokenizer"] for measured in (*models, *baselines)}
    # Token ids have no words: where these are unknown, a model has read ids.
    if len(tokenizers) > 1 and np.isnan(models[0].numbers[:, 3]).any():
        fault = "token ids mean different texts to different tokenizers"
        warnings.log(f"{data}: {fault}: the models do not read the same documents")
    if len(models) == len(baselines) == 1:
        warnings.log("each side is one training run: the intervals do not cover training noise")


def _named(group: Sequence[Measured]) -> list[comparability.Named]:
    return [(measured.model, measured.provenance) for measured in group]


def _rows(measured: Sequence[Measured], per_token: bool) -> tuple[Floats, Floats]:
    """Nats and units of every measurement, side by side, for each document and summed for each cluster.

    The shapes are (documents, 2 · measurements) and (clusters, 2 · measurements). Units are tokens, or bytes.
    Documents that some model could not score are left out.
    """
    unit = 1 if per_token else 2
    pairs = np.stack([each.numbers[:, [0, unit]] for each in measured], axis=1)
    is_scored = np.all([each.tokens > 0 for each in measured], axis=0)
    chosen = is_scored & ~np.isnan(pairs).any((1, 2))
    documents = pairs[chosen].reshape(-1, 2 * len(measured))
    return documents, cluster_sums(documents, cluster_numbers(measured)[chosen])


def _effects(delta: float, ends: list[float] | None, per_token: bool) -> Result:
    """The difference in its unit, and the relative change of the perplexity (per token, or per byte)."""
    # Likelihoods are in nats, the logarithm of the perplexity; results per byte are customarily in bits.
    scale = 1.0 if per_token else 1 / math.log(2)
    return {
        "delta": finite_or_none(delta * scale),
        "delta_interval": ends and [end * scale for end in ends],
        "effect": finite_or_none(exp(delta) - 1),
        "effect_interval": ends and [float(exp(end)) - 1 for end in ends],
    }
