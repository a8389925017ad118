"""Whether a comparison is one of the data alone: what runs of ours were trained with, and how models were evaluated."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from ...training.recipe import DESCRIPTION

TESTED = ("documents",)  # what a comparison is about
BESIDE = (
    "held_out",
    "train_tokenizer",
)  # what was only watched, and how a tokenizer came about, whose hash is there, too
SEEDS = ("seed", "data_seed")
PROTOCOL = ("bos", "context", "stride", "dtype")
SHOWN = 12  # characters of a hash

Named = tuple[
    str, Mapping[str, Any]
]  # a model's name and the provenance of its results; `training` is None or what `training` found


def training(path: Path) -> dict[str, Any] | None:
    """What a run of ours, or its checkpoint step-N, was trained with; None for a model from elsewhere."""
    step = re.fullmatch(r"step-(\d+)", path.absolute().name)
    home = path.absolute().parent if step else path
    try:
        run = json.loads((home / DESCRIPTION).read_bytes())["run"]
        return {**run, **({"steps": int(step[1])} if step else {})}
    except (OSError, ValueError, LookupError, TypeError):
        return None


def doubts(ours: Sequence[Named], theirs: Sequence[Named], paired: bool) -> Iterator[str]:
    """What beside the data may make the difference between two models, or two arms of several seeds, in words.

    A seed of one against another of the other side is no flaw, but the noise that arms are there for; a seed twice in an arm shows none
    of it. A single model on each side, and seeds that are said to be `paired`, should share them.
    """
    first, *others = [*theirs, *ours]
    alone = len(others) == 1
    for other in others:
        yield from _unlike(other, first, seeds=alone)
    for arm in (ours, theirs):
        for one, another in combinations(arm, 2):
            if _seeds(one) == _seeds(another) != (None, None) or one[1]["model"] == another[1]["model"]:
                yield f"{one[0]} and {another[0]} have the same seeds: what differs between them is no training noise"
    for one, another in zip(ours, theirs, strict=True) if paired else ():
        if _seeds(one) != _seeds(another):
            yield f"{one[0]} and {another[0]} are a pair, but have unlike seeds"


def _unlike(one: Named, another: Named, seeds: bool) -> Iterator[str]:
    (name, made), (other, other_made) = one, another
    if protocol := _differences(made, other_made, PROTOCOL):
        yield f"{name} and {other} were evaluated in unlike ways: {protocol}"
    run, other_run = made.get("training"), other_made.get("training")
    if run and other_run:
        passed_over = (*TESTED, *BESIDE, *(() if seeds else SEEDS))
        if trained := _differences(
            run, other_run, [key for key in run | other_run if key not in passed_over]
        ):
            yield f"{name} and {other} differ in more than their data: {trained}"


def _differences(one: Mapping[str, Any], another: Mapping[str, Any], names: Sequence[str]) -> str:
    unlike = [name for name in names if one.get(name) != another.get(name)]
    return ", ".join(
        f"{name} {str(one.get(name))[:SHOWN]} and {str(another.get(name))[:SHOWN]}" for name in unlike
    )


def _seeds(one: Named) -> tuple[Any, ...]:
    run = one[1].get("training") or {}
    return tuple(run.get(name) for name in SEEDS)
