"""Is a difference between two models due to their data alone, or to their training or evaluation as well?"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from ...training.recipe import DESCRIPTION

# A comparison is about the documents, so those may differ. A held-out set was only watched, and the number of
# tokens of a new tokenizer says nothing that its hash does not say.
EXPECTED = ("documents", "held_out", "train_tokenizer")
SEEDS = ("seed", "data_seed")
PROTOCOL = ("bos", "context", "stride", "dtype")
HASH_LENGTH = 12  # characters of a value in a message: enough to tell two hashes apart

# A model's name and the provenance of its results, in which `training` is what `training` below returns.
Named = tuple[str, Mapping[str, Any]]


def training(path: Path) -> dict[str, Any] | None:
    """The settings that `prune-cli train` made the model at `path` with; None for a model from elsewhere.

    The description lies in the directory of the run; a checkpoint is its subdirectory step-N.
    """
    step = re.fullmatch(r"step-(\d+)", path.absolute().name)
    home = path.absolute().parent if step else path
    try:
        run = json.loads((home / DESCRIPTION).read_bytes())["run"]
        return {**run, **({"steps": int(step[1])} if step else {})}
    except (OSError, ValueError, LookupError, TypeError):
        return None


def warnings(models: Sequence[Named], baselines: Sequence[Named], paired: bool) -> Iterator[str]:
    """Reasons other than the data why two models, or two groups of seeds, may differ.

    Two single models should share their seeds, and so should pairs. Within a group of seeds it is the other
    way round: the seeds have to differ, or the group shows no training noise.
    """
    first, *others = [*baselines, *models]
    for other in others:
        yield from _differences(other, first, seeds=len(others) == 1)
    yield from _repeated_seeds(models)
    yield from _repeated_seeds(baselines)
    if paired:
        yield from _unlike_pairs(models, baselines)


def _differences(model: Named, baseline: Named, seeds: bool) -> Iterator[str]:
    name, provenance = model
    baseline_name, baseline_provenance = baseline
    if protocol := _unlike(provenance, baseline_provenance, PROTOCOL):
        yield f"{name} and {baseline_name} were evaluated differently: {protocol}"
    run = provenance.get("training")
    baseline_run = baseline_provenance.get("training")
    # Nothing is known about the training of a model from elsewhere.
    if run and baseline_run:
        ignored = (*EXPECTED, *(() if seeds else SEEDS))
        compared = [key for key in run | baseline_run if key not in ignored]
        if unlike := _unlike(run, baseline_run, compared):
            yield f"{name} and {baseline_name} differ in more than their data: {unlike}"


def _repeated_seeds(group: Sequence[Named]) -> Iterator[str]:
    for (name, provenance), (second_name, second_provenance) in combinations(group, 2):
        seeds = _seeds(provenance)
        same_seeds = seeds == _seeds(second_provenance) != (None, None)
        if same_seeds or provenance["model"] == second_provenance["model"]:
            yield f"{name} and {second_name} have the same seeds: they show no training noise"


def _unlike_pairs(models: Sequence[Named], baselines: Sequence[Named]) -> Iterator[str]:
    for (name, provenance), (baseline_name, baseline_provenance) in zip(models, baselines, strict=True):
        if _seeds(provenance) != _seeds(baseline_provenance):
            yield f"{name} and {baseline_name} are a pair, but have different seeds"


def _unlike(values: Mapping[str, Any], baseline: Mapping[str, Any], names: Sequence[str]) -> str:
    """The values of these names that differ, in words."""
    differences = [
        f"{name} {str(values.get(name))[:HASH_LENGTH]} and {str(baseline.get(name))[:HASH_LENGTH]}"
        for name in names
        if values.get(name) != baseline.get(name)
    ]
    return ", ".join(differences)


def _seeds(provenance: Mapping[str, Any]) -> tuple[Any, ...]:
    run = provenance.get("training") or {}
    return tuple(run.get(name) for name in SEEDS)
