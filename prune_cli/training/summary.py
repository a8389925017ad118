"""What a run says about itself: train.json, and the counts of its summary."""

import json
import logging
import math
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..errors import ConfigurationError
from ..models.device import dtype_name
from ..models.tokenizer import tokenizer_hash
from ..version import __version__
from .recipe import DESCRIPTION, HARMLESS
from .setup import TrainingRun
from .step import BETAS, EPSILON, MAX_NORM, WEIGHT_DECAY

MANY_EPOCHS = 4  # Muennighoff et al. 2023: up to here a repeated token is nearly as good as a new one
NOT_IN_DESCRIPTION = ("peak_flops", "loss", "held_out_loss")  # of a summary: unknown before the first step

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
    """The summary before the first step, with a warning if tokens are repeated often."""
    # Unique in position, not in text: duplicate documents count as often as they occur.
    unique = run.blocks.count * run.plan.context
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

    Its keys are read by `eval` (stages/eval/comparability.py) and by resumed runs, also of later versions.
    """
    # The losses come with metrics.jsonl; the speed of the device is a measurement, not a setting.
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
        "data": asdict(run.blocks.manifest),
        "summary": counts,
        "machine": _machine(run),
    }
    (run.work / DESCRIPTION).write_text(json.dumps(description, indent=2, default=str) + "\n")


def check_same_run(run: TrainingRun) -> None:
    """Compare a resumed run with the train.json that it wrote when it was started.

    Raises ConfigurationError if anything differs that the losses depend on. On a different machine the run
    resumes with a warning, because the last digits of its losses may differ.
    """
    # It is written before the first step, so without it there is no checkpoint either.
    if not (run.work / DESCRIPTION).exists():
        return
    before = json.loads((run.work / DESCRIPTION).read_text())
    for name, value in _identity(run).items():
        if (old := before["run"].get(name)) != value:
            raise ConfigurationError(
                f"was started with {name} {old}, not {value}",
                place=str(run.work),
                remedy="resume with the same options, or start over with -f",
            )
    for name, value in _machine(run).items():
        if (old := before["machine"].get(name)) != value:
            log.warning("started with %s %s, resumed with %s: the last digits may differ", name, old, value)


def _identity(run: TrainingRun) -> dict[str, Any]:
    """Everything that the losses of a run depend on, except the machine."""
    plan = {name: value for name, value in asdict(run.plan).items() if name not in HARMLESS}
    # None for a value that was not given: a train.json without the key reads the same.
    chosen = {
        name: run.recipe[name].value if name in run.recipe else None
        for name in ("seed", "data_seed", "train_tokenizer")
    }
    return {
        **plan,
        **chosen,
        "dtype": dtype_name(run.dtype),
        "model": run.config_hash,
        "tokenizer": tokenizer_hash(run.tokenizer),
        "documents": run.blocks.manifest.content,
        "held_out": run.held_out.manifest.content if run.held_out else None,
        "init_from": run.parent_hash,
    }


def _machine(run: TrainingRun) -> dict[str, Any]:
    """What the last digits of the losses depend on: the order in which floating-point numbers are added."""
    return {
        "device": str(run.device),
        "processes": run.processes.world,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "prune_cli": __version__,
    }
