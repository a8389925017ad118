"""What does a run record about itself? train.json: every setting with its origin, and the run's counts."""

import json
import logging
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ..errors import ConfigurationError, DataError
from ..models.device import dtype_name
from ..models.text.tokenizer import tokenizer_hash
from ..version import __version__
from .passes.plan import AdaptPlan
from .recipe import DESCRIPTION, HARMLESS
from .setup import TrainingRun
from .step import BETAS, EPSILON, MAX_NORM, WEIGHT_DECAY

MANY_EPOCHS = 4  # Muennighoff et al. 2023: up to here, repeated tokens are nearly as good as new ones
# Fields of the summary that are not in train.json: losses are unknown before the first step, and go into
# metrics.jsonl; the speed of the device is a measurement, not a setting.
NOT_IN_DESCRIPTION = ("peak_flops", "loss", "held_out_loss")

# Settings of --adapt, by their names in train.json.
ADAPT_OPTIONS = {"adapt_part": "--adapt", "adapt_share": "--adapt-frac", "adapt_start": "--adapt-from"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Summary:
    """The counts of a run and its last losses, in nats per token.

    `passes` is the number of epochs. `peak_flops` is the speed of the device in floating-point operations per
    second, or 0 if it is unknown.
    """

    steps: int
    tokens: int
    unique_tokens: int
    repeated_tokens: int
    passes: float
    parameters: int
    peak_flops: float = 0.0
    loss: float = math.nan
    held_out_loss: float = math.nan


def summarize(run: TrainingRun, parameters: int, peak_flops: float) -> Summary:
    """The summary before the first step. Warns if tokens are repeated often."""
    # Unique by position, not by text: a duplicate document counts as often as it occurs.
    unique = run.blocks.count * run.plan.context
    # Every step takes a full batch: an epoch that ends within it is followed by the next.
    tokens = run.plan.steps * run.plan.batch * run.plan.context
    epochs = tokens / unique
    if epochs > MANY_EPOCHS:
        log.warning(
            "%.1f epochs of %d tokens; beyond %d epochs a repeated token adds less and less",
            epochs,
            unique,
            MANY_EPOCHS,
        )
    return Summary(
        steps=run.plan.steps,
        tokens=tokens,
        unique_tokens=unique,
        repeated_tokens=max(0, tokens - unique),
        passes=epochs,
        parameters=parameters,
        peak_flops=peak_flops,
    )


def write_description(run: TrainingRun, summary: Summary) -> None:
    """Write train.json: every setting of the run with its origin, and the counts of its summary.

    `eval` (stages/eval/comparability.py) and resumed runs of later versions read its keys.
    """
    counts = {name: value for name, value in asdict(summary).items() if name not in NOT_IN_DESCRIPTION}
    origins = {name: {"value": choice.value, "from": choice.origin} for name, choice in run.recipe.items()}
    description = {
        "run": _identity(run),
        "chosen": origins,
        "protocol": {
            "optimizer": "AdamW",
            "betas": BETAS,
            "epsilon": EPSILON,
            "weight_decay": WEIGHT_DECAY,
            "clip": MAX_NORM,
        },
        "data": run.blocks.manifest.described(),
        "summary": counts,
        "machine": _machine(run),
    }
    text = json.dumps(description, indent=2, default=str) + "\n"
    # Renamed, because a run that is killed here has to find it whole.
    temporary = run.work / f".{DESCRIPTION}"
    temporary.write_text(text)
    temporary.replace(run.work / DESCRIPTION)


def check_same_run(run: TrainingRun) -> None:
    """Compare a resumed run with the train.json that it wrote at its start.

    Raises ConfigurationError if anything differs on which the losses depend, and DataError if train.json is
    damaged. A different machine is only a warning: the last digits of the losses may differ.
    """
    before = _description_before(run.work)
    if before is None:
        return
    for name, value in _identity(run).items():
        if (old := before["run"].get(name)) != value:
            shown = ADAPT_OPTIONS.get(name, name)
            raise ConfigurationError(
                f"was started with {shown} {old}, not {value}",
                place=str(run.work),
                remedy="resume with the same options, or start over with -f",
            )
    for name, value in _machine(run).items():
        if (old := before["machine"].get(name)) != value:
            log.warning("started with %s %s, resumed with %s: the last digits may differ", name, old, value)


def _description_before(work: Path) -> dict[str, Any] | None:
    """The train.json of the run that is resumed; None for a run that has just begun."""
    path = work / DESCRIPTION
    try:
        before = json.loads(path.read_bytes())
        is_whole = isinstance(before["run"], dict) and isinstance(before["machine"], dict)
    except FileNotFoundError:
        # It is written before the first step, so that a checkpoint without it is not all of a run.
        if not any(work.glob("step-*")):
            return None
        raise DataError("is missing", place=str(path), remedy="start over with -f") from None
    except (ValueError, LookupError, TypeError):
        is_whole = False
    if not is_whole:
        raise DataError("is damaged", place=str(path), remedy="start over with -f")
    description: dict[str, Any] = before
    return description


def _identity(run: TrainingRun) -> dict[str, Any]:
    """Everything on which the losses depend, except the machine."""
    plan = {name: value for name, value in asdict(run.plan).items() if name not in (*HARMLESS, "adapt")}
    # Under names of their own, so that a message names the setting that differs; all None without --adapt.
    adapt = {f"adapt_{field.name}": getattr(run.plan.adapt, field.name, None) for field in fields(AdaptPlan)}
    # None for an absent setting: a train.json of an earlier version, without the key, compares as equal.
    chosen = {
        name: run.recipe[name].value if name in run.recipe else None
        for name in ("seed", "data_seed", "train_tokenizer")
    }
    return {
        **plan,
        **adapt,
        **chosen,
        "dtype": dtype_name(run.dtype),
        "model": run.config_hash,
        "tokenizer": tokenizer_hash(run.tokenizer),
        "documents": run.blocks.manifest.content,
        "held_out": run.held_out.manifest.content if run.held_out else None,
        "init_from": run.parent_hash,
    }


def _machine(run: TrainingRun) -> dict[str, Any]:
    """Everything that decides in which order floats are added, and thus the last digits of the losses."""
    return {
        "device": str(run.device),
        "processes": run.processes.world,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "prune_cli": __version__,
    }
