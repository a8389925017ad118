"""What a training run is told, and where each value comes from: the user, the paper, a preset or file, or our defaults."""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigurationError, NoInputError, UsageError

DESCRIPTION = "train.json"  # in a run: what it was trained with
SHAPE = ("layers", "width", "heads", "context")
PRESETS: Mapping[str, Mapping[str, float]] = {
    "tiny": {"layers": 4, "width": 256, "heads": 4, "context": 512, "lr": 2e-3, "batch_tokens": 16 << 10},
    "124m": {
        "layers": 12,
        "width": 768,
        "heads": 12,
        "context": 2048,
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
PAPER: Mapping[str, Mapping[str, float]] = {  # Marion et al. 2023: 2048 and 512 blocks a batch
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
BUDGETS = ("steps", "tokens", "epochs")
POINT = re.compile(r"(\d+)|(\d*\.?\d+)(ep|%)")
FLOOR = 0.1  # of the learning rate, where the schedule ends
COOLDOWN = 0.2  # of the steps, in which wsd falls: Hägele et al. 2024 gain nothing by more


@dataclass(frozen=True)
class Settings:
    """The options of `train` by their names; None is not given. Lengths are tokens; `save_at` is as in "250,0.55ep,100%"."""

    preset: str | None = None
    config: Path | None = None
    init_from: Path | None = None
    tokenizer: Path | None = None
    train_tokenizer: int | None = None
    steps: int | None = None
    tokens: int | None = None
    epochs: float | None = None
    batch_tokens: int | None = None
    lr: float | None = None
    schedule: str | None = None
    warmup: int | None = None
    seed: int | None = None
    data_seed: int | None = None
    save_at: str | None = None
    save_every: int | None = None
    keep: int | None = None
    eval_every: int | None = None
    protocol: str | None = None
    checkpoint_activations: bool | None = None
    dtype: str | None = None
    device: str = "auto"


@dataclass(frozen=True)
class Choice:
    """A value and who chose it: given, paper, preset, file or default."""

    value: Any
    origin: str


Recipe = dict[str, Choice]


def choose(settings: Settings) -> Recipe:
    """Every value that is known before the data is: what is given wins over the paper's number, that over the preset's or file's.

    Raises UsageError where the options do not make a run, ConfigurationError where the configuration file does not.
    """
    _check_model(settings)
    _check_values(settings)
    shape, origin = (
        (PRESETS[settings.preset], "preset") if settings.preset else (read_shape(settings.config), "file")
    )
    given = {
        name: value for name, value in asdict(settings).items() if value is not None and name != "device"
    }
    paper = PROTOCOLS[settings.protocol][settings.preset or ""] if settings.protocol else {}
    if any(name in given for name in BUDGETS):
        paper = {name: value for name, value in paper.items() if name != "steps"}
    layers = ((DEFAULTS, "default"), (shape, origin), (paper, settings.protocol or ""), (given, "given"))
    recipe = {name: Choice(value, origin) for values, origin in layers for name, value in values.items()}
    if sum(name in recipe for name in BUDGETS) != 1:
        raise UsageError("a run needs one budget", remedy="give one of --steps, --tokens and --epochs")
    return recipe


def _check_model(settings: Settings) -> None:
    if sum(each is not None for each in (settings.preset, settings.config, settings.init_from)) != 1:
        raise UsageError("a run needs a model", remedy="give one of --preset, --config and --init-from")
    if settings.init_from and settings.train_tokenizer:
        raise UsageError("a checkpoint has a tokenizer", remedy="leave out --train-tokenizer or --init-from")
    if not settings.init_from and (settings.tokenizer is None) == (settings.train_tokenizer is None):
        raise UsageError(
            "a run needs a tokenizer", remedy="give --tokenizer or --train-tokenizer, one of them"
        )


def _check_values(settings: Settings) -> None:
    _one_of("preset", settings.preset, PRESETS)
    _one_of("protocol", settings.protocol, PROTOCOLS)
    _one_of("schedule", settings.schedule, SCHEDULES)
    if settings.protocol and settings.preset not in (known := PROTOCOLS[settings.protocol]):
        raise UsageError(
            f"--protocol {settings.protocol} has no such model", remedy=f"take --preset {' or '.join(known)}"
        )
    for name in (*BUDGETS, "batch_tokens", "lr", "save_every", "eval_every"):
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise UsageError(f"--{name.replace('_', '-')} {value} is not above zero")
    for name in ("warmup", "keep"):
        value = getattr(settings, name)
        if value is not None and value < 0:
            raise UsageError(f"--{name} {value} is below zero")
    if settings.keep is not None and settings.save_every is None:
        raise UsageError(
            "--keep is about the checkpoints of --save-every", remedy="give that, too, or leave it out"
        )
    _points(settings.save_at)


def _one_of(option: str, value: str | None, known: Mapping[str, Any] | tuple[str, ...]) -> None:
    if value is not None and value not in known:
        raise UsageError(f"--{option} {value} is unknown", remedy=f"take one of {', '.join(known)}")


def read_shape(path: Path | None) -> dict[str, float]:
    """The keys of a preset from a TOML file: layers, width, heads, context, and vocabulary, lr, batch_tokens where they are set.

    Nothing at all for another kind of file, which is transformers' own config.json.
    """
    if path is None or path.suffix != ".toml":
        return {}
    try:
        values = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise NoInputError("does not exist", place=str(path)) from None
    except ValueError as error:
        raise ConfigurationError(f"is not TOML ({error})", place=str(path)) from None
    known = PRESETS["124m"]
    if wrong := [name for name in values if name not in known]:
        raise ConfigurationError(
            f"has an unknown key, {wrong[0]}", place=str(path), remedy=f"its keys are {', '.join(known)}"
        )
    if wrong := [name for name in SHAPE if name not in values]:
        raise ConfigurationError(
            f"lacks the key {wrong[0]}", place=str(path), remedy=f"it needs {', '.join(SHAPE)}"
        )
    for name, value in values.items():
        if type(value) not in ((int, float) if name == "lr" else (int,)) or not 0 < value < math.inf:
            raise ConfigurationError(f"its {name} is not a number above zero", place=str(path))
    return values


# What hangs on the data


@dataclass(frozen=True)
class Plan:
    """A run in numbers: `batch` blocks of `context` tokens a step; checkpoints after the steps in `saves`.

    Of those that are not `lasting` the last `keep` stay, or all. Every `eval_every` steps there is a held-out loss.
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


HARMLESS = ("saves", "lasting", "keep", "eval_every")  # of a plan: they change none of a run's numbers


def plan(recipe: Recipe, context: int, blocks: int) -> Plan:
    """The run over data of so many blocks. A budget of tokens or passes is rounded up to whole steps."""
    batch = recipe["batch_tokens"].value // context
    if not batch:
        raise UsageError(
            f"a batch of {recipe['batch_tokens'].value} tokens holds no block of {context}",
            remedy="raise --batch-tokens",
        )
    if "epochs" in recipe:
        steps = math.ceil(round(recipe["epochs"].value * blocks / batch, 6))
    elif "tokens" in recipe:
        steps = math.ceil(recipe["tokens"].value / (batch * context))
    else:
        steps = recipe["steps"].value
    optional = {
        name: recipe[name].value if name in recipe else None
        for name in ("warmup", "save_at", "save_every", "keep", "eval_every")
    }
    warmup = min(2000, steps // 20) if optional["warmup"] is None else optional["warmup"]
    lasting, every = _lasting(optional["save_at"], steps, blocks / batch), optional["save_every"]
    saves = lasting.union(range(every, steps + 1, every) if every else ())
    shape = (steps, batch, context, warmup, recipe["lr"].value, recipe["schedule"].value)
    return Plan(*shape, saves, lasting, optional["keep"], optional["eval_every"])


def _lasting(save_at: str | None, steps: int, steps_a_pass: float) -> frozenset[int]:
    units = {"": 1.0, "ep": steps_a_pass, "%": steps / 100}
    found = set()
    for number, unit in _points(save_at):
        step = max(1, round(number * units[unit]))
        if step > steps:
            raise UsageError(
                f"--save-at {number:g}{unit} is step {step}, past the end at {steps}",
                remedy="leave it out, or train longer",
            )
        found.add(step)
    return frozenset(found)


def _points(text: str | None) -> list[tuple[float, str]]:
    """The numbers in "250,0.55ep,100%" with their units."""
    found = []
    for part in text.split(",") if text else []:
        if not (match := POINT.fullmatch(part.strip())):
            raise UsageError(
                f"--save-at {part} is not a step, a number of passes or a share",
                remedy="write 250, 0.55ep or 14%",
            )
        found.append((float(match[1] or match[2]), match[3] or ""))
    return found


def learning_rate(plan: Plan, step: int) -> float:
    """For a step, the first being 0: straight up to `lr`, then down to a tenth at the last step, or level.

    `wsd` (warm-up, stable, decay: Hu et al. 2024) is level until the last fifth and falls there as 1 − √x (Hägele et al. 2024).
    """
    if step < plan.warmup:
        return plan.lr * (step + 1) / plan.warmup
    if plan.schedule == "constant":
        return plan.lr
    start = (
        max(plan.warmup, plan.steps - math.ceil(COOLDOWN * plan.steps) - 1)
        if plan.schedule == "wsd"
        else plan.warmup
    )
    done = max(0, step - start) / max(1, plan.steps - 1 - start)
    left = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "wsd": 1 - math.sqrt(done)}[
        plan.schedule
    ]
    return plan.lr * (FLOOR + (1 - FLOOR) * left)
