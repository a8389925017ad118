"""The recipe of a training run: the value of every hyperparameter, its origin, and the plan that follows from
them.
"""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, NoInputError, UsageError
from ..settings.train import Adaptation, Training
from ..sizes import parse_fraction
from .passes.plan import AdaptPlan

DESCRIPTION = "train.json"  # in a run: the settings that it was trained with
SHAPE = ("layers", "width", "heads", "context")
PRESETS: Mapping[str, Mapping[str, float]] = {
    "tiny": {"layers": 4, "width": 256, "heads": 4, "context": 512, "lr": 2e-3, "batch_tokens": 16 << 10},
    "124m": {
        "layers": 12,
        "width": 768,
        "heads": 12,
        "context": 2048,
        # GPT-2's 50,257, rounded up to a multiple of 1,024: matrix products are faster in such sizes.
        "vocabulary": 51_200,
        "lr": 6e-4,
        "batch_tokens": 512 << 10,
    },
    "1.5b": {
        "layers": 48,
        "width": 1600,
        "heads": 25,
        "context": 2048,
        "vocabulary": 51_200,
        "lr": 2e-4,
        "batch_tokens": 1 << 20,
    },
}
# Marion et al. 2023; a batch there is 2,048 or 512 blocks of 2,048 tokens.
PAPER: Mapping[str, Mapping[str, float]] = {
    "124m": {"lr": 1.5e-4, "batch_tokens": 2048 * 2048, "steps": 8000},
    "1.5b": {"lr": 1.2e-4, "batch_tokens": 512 * 2048, "steps": 14_568},
}
PROTOCOLS = {"paper": PAPER}
SCHEDULES = ("cosine", "linear", "constant", "wsd")
DEFAULTS = {
    "lr": 6e-4,
    "batch_tokens": 512 << 10,
    "schedule": "cosine",
    "seed": 0,
    "data_seed": 0,
    "dtype": "auto",
}
ADAPT_DEFAULTS = {"adapt_frac": "0.5", "adapt_from": "1ep"}  # of a run with --adapt
BUDGETS = ("steps", "tokens", "epochs")
# Settings of where a run reads, writes and computes: no part of the recipe, and free to change on --resume.
NO_HYPERPARAMETERS = {"output", "force", "resume", "eval_data", "text_field", "device", "fsdp"}
POINT = re.compile(r"(\d+)|(\d*\.?\d+)(ep|%)")
FINAL_RATE = 0.1  # the learning rate after the last step, as a fraction of the peak
COOLDOWN = 0.2  # the fraction of the steps in which wsd decays; Hägele et al. 2024 gain nothing by more
WHOLE_SHARE = 8  # infobatch: the last step in 8 trains on all blocks, as in Qin et al. 2024 (delta = 0.875)
WARMUP_SHARE = 20  # by default one step in 20 is a warm-up step, ...
MAX_WARMUP = 2000  # ... and at most 2,000 are


@dataclass(frozen=True)
class Choice:
    """A value and its origin: given, paper, preset, file or default."""

    value: Any
    origin: str


Recipe = dict[str, Choice]


def choose(settings: Training) -> Recipe:
    """Choose the value of every setting that does not depend on the data.

    A given value takes precedence over the protocol's, that over the preset's or the file's, that over the
    default. Raises UsageError if the options do not make a run, and ConfigurationError if the configuration
    file is wrong.
    """
    _check_model(settings)
    _check_values(settings)
    given = _given(settings)
    shape = PRESETS[settings.preset] if settings.preset else read_shape(settings.config)
    # From the lowest precedence to the highest: a later layer replaces values of an earlier one.
    layers: tuple[tuple[Mapping[str, Any], str], ...] = (
        ({**DEFAULTS, **(ADAPT_DEFAULTS if settings.adapt else {})}, "default"),
        (shape, "preset" if settings.preset else "file"),
        (_protocol(settings, given), settings.protocol or ""),
        (given, "given"),
    )
    recipe = {name: Choice(value, origin) for values, origin in layers for name, value in values.items()}
    if sum(name in recipe for name in BUDGETS) != 1:
        raise UsageError("a run needs one budget", remedy="give one of --steps, --tokens and --epochs")
    return recipe


def _given(settings: Training) -> dict[str, Any]:
    """The hyperparameters that the user gave. `--dtype auto` is no --dtype, and False is no switch."""
    return {
        name: value
        for name, value in asdict(settings).items()
        if name not in NO_HYPERPARAMETERS and value not in (None, "auto") and value is not False
    }


def _protocol(settings: Training, given: Mapping[str, Any]) -> Mapping[str, float]:
    """The hyperparameters of the protocol, without its number of steps if the user gave a budget."""
    if not settings.protocol:
        return {}
    values = PROTOCOLS[settings.protocol][settings.preset or ""]
    if any(name in given for name in BUDGETS):
        return {name: value for name, value in values.items() if name != "steps"}
    return values


def _check_model(settings: Training) -> None:
    models = (settings.preset, settings.config, settings.init_from)
    if sum(model is not None for model in models) != 1:
        raise UsageError("a run needs a model", remedy="give one of --preset, --config and --init-from")
    if settings.init_from and settings.train_tokenizer:
        fault = "--init-from comes with a tokenizer, so none can be trained"
        raise UsageError(fault, remedy="leave out --train-tokenizer or --init-from")
    if not settings.init_from and (settings.tokenizer is None) == (settings.train_tokenizer is None):
        raise UsageError("a run needs a tokenizer", remedy="give one of --tokenizer and --train-tokenizer")


def _check_values(settings: Training) -> None:
    _check_choice("preset", settings.preset, PRESETS)
    _check_choice("protocol", settings.protocol, PROTOCOLS)
    _check_choice("schedule", settings.schedule, SCHEDULES)
    if settings.protocol and settings.preset not in PROTOCOLS[settings.protocol]:
        fault = f"--protocol {settings.protocol} has no such model"
        presets = " or ".join(PROTOCOLS[settings.protocol])
        raise UsageError(fault, remedy=f"use --preset {presets}")
    for name in (*BUDGETS, "batch_tokens", "lr", "save_every", "eval_every"):
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name.replace('_', '-')} {value} is not above zero")
    for name in ("warmup", "keep"):
        value = getattr(settings, name)
        if value is not None and value < 0:
            raise UsageError(f"--{name} {value} is below zero")
    if settings.keep is not None and settings.save_every is None:
        raise UsageError("--keep needs --save-every", remedy="give --save-every, or leave out --keep")
    _points("save_at", settings.save_at)
    _check_adaptation(settings)
    # A budget of tokens or epochs is known in steps only when the data has been read: see `plan`.
    _check_warmup(settings.warmup, settings.steps)


def _check_adaptation(settings: Training) -> None:
    _check_choice("adapt", settings.adapt, tuple(Adaptation))
    for name in ADAPT_DEFAULTS:
        if getattr(settings, name) is not None and not settings.adapt:
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} needs --adapt", remedy=f"add --adapt PART, or leave out {option}")
    share = settings.adapt_frac
    if share is not None and not 0 < parse_fraction(share) < 1:
        fault = f"invalid --adapt-frac '{share}': expected a number between 0 and 1, such as 0.5"
        raise UsageError(fault, remedy="a pass must keep some blocks, and leave out others")
    if settings.adapt_from is not None and len(_points("adapt_from", settings.adapt_from)) != 1:
        raise UsageError("--adapt-from takes one point", remedy="write 2ep, 1000 or 50%")


def _check_choice(option: str, value: str | None, choices: Mapping[str, Any] | tuple[str, ...]) -> None:
    if value is not None and value not in choices:
        raise UsageError(f"--{option} {value} is unknown", remedy=f"use one of {', '.join(choices)}")


def read_shape(path: Path | None) -> dict[str, float]:
    """Read the keys of a preset from a TOML file: SHAPE, and optionally vocabulary, lr, batch_tokens.

    The result is empty for a file of another type, which `setup.model_config` reads as a config.json of
    transformers. Raises NoInputError if the file does not exist, and ConfigurationError if its contents are
    wrong.
    """
    if path is None or path.suffix != ".toml":
        return {}
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise NoInputError("does not exist", place=str(path)) from None
    except ValueError as error:
        raise ConfigurationError(f"is not TOML ({error})", place=str(path)) from None
    _check_shape(values, str(path))
    return values


def _check_shape(values: Mapping[str, Any], place: str) -> None:
    keys = PRESETS["124m"]  # which has all of them
    if unknown := [name for name in values if name not in keys]:
        fault = f"has an unknown key, {unknown[0]}"
        raise ConfigurationError(fault, place=place, remedy=f"its keys are {', '.join(keys)}")
    if missing := [name for name in SHAPE if name not in values]:
        fault = f"lacks the key {missing[0]}"
        raise ConfigurationError(fault, place=place, remedy=f"it needs {', '.join(SHAPE)}")
    for name, value in values.items():
        # `type`, not `isinstance`: true is an int, but no number of layers.
        is_number = type(value) is int or (name == "lr" and type(value) is float)
        if not is_number or not 0 < value < math.inf:
            raise ConfigurationError(f"its {name} is not a number above zero", place=place)


# The plan: it depends on the data, too.


@dataclass(frozen=True)
class Plan:
    """A run in numbers: `batch` blocks of `context` tokens per step, and checkpoints after the steps in
    `saves`.

    `lasting` checkpoints are all kept; of the others the last `keep`, or all if `keep` is None. The held-out
    loss is computed every `eval_every` steps.
    """

    steps: int
    batch: int
    context: int
    warmup: int
    lr: float
    schedule: str
    saves: frozenset[int]
    lasting: frozenset[int] = frozenset()
    keep: int | None = None
    eval_every: int | None = None
    adapt: AdaptPlan | None = None


HARMLESS = ("saves", "lasting", "keep", "eval_every")  # fields of a plan that change no loss of a run


def plan(recipe: Recipe, context: int, blocks: int) -> Plan:
    """Plan a run over `blocks` blocks of `context` tokens. A budget of tokens or epochs is rounded up to
    whole steps.

    Raises UsageError if a batch is smaller than a block, or --warmup, --adapt-from or a point of --save-at
    lies beyond the last step.
    """
    batch = recipe["batch_tokens"].value // context
    if not batch:
        fault = f"a batch of {recipe['batch_tokens'].value} tokens is less than one block of {context}"
        raise UsageError(fault, remedy="raise --batch-tokens")
    steps = _steps(recipe, batch, context, blocks)
    lasting = _lasting(_value(recipe, "save_at"), steps, blocks / batch)
    every = _value(recipe, "save_every")
    warmup = _value(recipe, "warmup")
    _check_warmup(warmup, steps)
    return Plan(
        steps=steps,
        batch=batch,
        context=context,
        warmup=min(MAX_WARMUP, steps // WARMUP_SHARE) if warmup is None else warmup,
        lr=recipe["lr"].value,
        schedule=recipe["schedule"].value,
        saves=lasting.union(range(every, steps + 1, every) if every else ()),
        lasting=lasting,
        keep=_value(recipe, "keep"),
        eval_every=_value(recipe, "eval_every"),
        adapt=_adapt_plan(recipe, steps, blocks / batch),
    )


def _check_warmup(warmup: int | None, steps: int | None) -> None:
    if warmup is not None and steps is not None and warmup > steps:
        fault = f"--warmup {warmup} is longer than the run of {steps} steps: the peak --lr is never reached"
        raise UsageError(fault, remedy="lower --warmup, or train longer")


def _value(recipe: Recipe, name: str) -> Any:
    return recipe[name].value if name in recipe else None


def _steps(recipe: Recipe, batch: int, context: int, blocks: int) -> int:
    """The number of optimizer steps that the budget comes to."""
    steps: int
    if "epochs" in recipe:
        # Rounded first: the last bit of a float (4400.000000000001) must not cost another step.
        steps = math.ceil(round(recipe["epochs"].value * blocks / batch, 6))
    elif "tokens" in recipe:
        steps = math.ceil(recipe["tokens"].value / (batch * context))
    else:
        steps = recipe["steps"].value
    return steps


def _lasting(save_at: str | None, steps: int, steps_per_epoch: float) -> frozenset[int]:
    """The steps that the points of --save-at come to. Raises UsageError for one beyond the last step."""
    lasting = set()
    for number, unit in _points("save_at", save_at):
        step = max(1, round(number * _unit(unit, steps, steps_per_epoch)))
        if step > steps:
            fault = f"--save-at {number:g}{unit} is step {step}, beyond the last step, {steps}"
            raise UsageError(fault, remedy="leave it out, or train longer")
        lasting.add(step)
    return frozenset(lasting)


def _unit(unit: str, steps: int, steps_per_epoch: float) -> float:
    """The number of steps in a unit of a point."""
    return {"": 1.0, "ep": steps_per_epoch, "%": steps / 100}[unit]


def _adapt_plan(recipe: Recipe, steps: int, steps_per_epoch: float) -> AdaptPlan | None:
    """The rule of --adapt, if it was given. Raises UsageError for an --adapt-from beyond the last step."""
    if "adapt" not in recipe:
        return None
    chosen = recipe["adapt_from"]
    [(number, unit)] = _points("adapt_from", chosen.value)
    # Up to a whole step, because a pass must not begin before this point. Rounded first, as in `_steps`.
    start = math.ceil(round(number * _unit(unit, steps, steps_per_epoch), 6))
    if start >= steps and chosen.origin == "given":
        fault = f"--adapt-from {chosen.value} is after step {start}, and the last step is {steps}"
        raise UsageError(fault, remedy="leave it out, or train longer")
    part = str(recipe["adapt"].value)
    share = float(parse_fraction(recipe["adapt_frac"].value))
    until = steps - math.ceil(steps / WHOLE_SHARE) if part == Adaptation.infobatch else None
    return AdaptPlan(part, share, start, until)


def _points(name: str, text: str | None) -> list[tuple[float, str]]:
    """Parse "250,0.55ep,100%", the value of the setting `name`, into numbers and units. Raises UsageError."""
    option = f"--{name.replace('_', '-')}"
    points = []
    for part in text.split(",") if text else []:
        if not (match := POINT.fullmatch(part.strip())):
            fault = f"{option} {part} is not a number of steps or epochs, or a percentage"
            raise UsageError(fault, remedy="write 250, 0.55ep or 14%")
        number = float(match[1] or match[2])
        if not number:
            verb = name.split("_")[0]
            fault = f"{option} {part}: there is nothing to {verb} before the first step"
            raise UsageError(fault, remedy="leave it out; the first step is 1")
        points.append((number, match[3] or ""))
    return points


def learning_rate(plan: Plan, step: int) -> float:
    """The learning rate of a step, the first being 0: linear warm-up to `lr`, then the decay of the schedule.

    wsd (warm-up, stable, decay: Hu et al. 2024) is constant until the last fifth of the steps and decays
    there as 1 − √x (Hägele et al. 2024). The last step of every schedule but `constant` has FINAL_RATE times
    `lr`.
    """
    if step < plan.warmup:
        return plan.lr * (step + 1) / plan.warmup
    if plan.schedule == "constant":
        return plan.lr
    start = _decay_start(plan)
    done = max(0, step - start) / max(1, plan.steps - 1 - start)
    return plan.lr * (FINAL_RATE + (1 - FINAL_RATE) * _decay(plan.schedule, done))


def _decay_start(plan: Plan) -> int:
    """The first step after which the learning rate falls."""
    if plan.schedule == "wsd":
        return max(plan.warmup, plan.steps - math.ceil(COOLDOWN * plan.steps) - 1)
    return plan.warmup


def _decay(schedule: str, done: float) -> float:
    """From 1 to 0 while `done`, the finished fraction of the decay, goes from 0 to 1."""
    if schedule == "cosine":
        return (1 + math.cos(math.pi * done)) / 2
    return 1 - done if schedule == "linear" else 1 - math.sqrt(done)
