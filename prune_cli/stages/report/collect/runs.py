"""How did a training run go? Its curves from metrics.jsonl, its settings and counts from train.json."""

import json
import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from ....errors import DataError, NoInputError
from ..content import Curve, RunFacts

METRICS, DESCRIPTION = "metrics.jsonl", "train.json"
CURVES = ("loss", "held_out_loss", "lr", "tokens_per_second")
STRETCHES = 400  # of a curve: each is drawn by its lowest and its highest value
SETTINGS = ("steps", "batch_tokens", "lr", "schedule", "warmup", "seed", "data_seed", "preset", "context")


def read_run(directory: str) -> RunFacts:
    """A run, finished or not. Raises NoInputError if there is none, DataError if its files are damaged."""
    folder = _folder(directory)
    lines = list(_lines(folder / METRICS))
    description = _description(folder / DESCRIPTION)
    steps = np.array([line["step"] for line in lines], dtype=np.int64)
    curves = {name: _curve(lines, steps, name) for name in CURVES}
    return RunFacts(
        name=directory.rstrip("/"),
        curves={name: curve for name, curve in curves.items() if curve.steps},
        settings=_settings(description),
        counts={name: value for name, value in description.get("summary", {}).items() if _is_number(value)},
        last={name: value for name, value in _last(lines).items() if _is_number(value)},
    )


def _folder(directory: str) -> Path:
    # A run that is going on, or was stopped, works in DIR.partial.
    for folder in (Path(directory), Path(f"{directory.rstrip('/')}.partial")):
        if (folder / METRICS).is_file():
            return folder
    raise NoInputError(
        f"no {METRICS}", place=directory, remedy="name the directory that `prune-cli train -o` made"
    )


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        try:
            values = json.loads(line)
            int(values["step"])
        except (ValueError, LookupError, TypeError):
            raise DataError(
                "is no line of metrics that `train` wrote",
                place=f"{path}:{number}",
                remedy="remove the line, or leave out this run",
            ) from None
        yield values


def _description(path: Path) -> dict[str, Any]:
    """train.json; empty if there is none."""
    try:
        description: dict[str, Any] = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        raise DataError("is damaged", place=str(path), remedy="leave out this run") from None
    return description


def _settings(description: dict[str, Any]) -> dict[str, str]:
    """Settings with their origin, as train.json has them."""
    chosen = description.get("chosen", {})
    return {name: f"{chosen[name]['value']} ({chosen[name]['from']})" for name in SETTINGS if name in chosen}


def _last(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The last value of each quantity: a held-out loss is not in every line."""
    last: dict[str, Any] = {}
    for line in lines:
        last |= line
    return last


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _curve(lines: Sequence[dict[str, Any]], steps: np.ndarray, name: str) -> Curve:
    has_value = [number for number, line in enumerate(lines) if _is_number(line.get(name))]
    values = np.array([lines[number][name] for number in has_value], dtype=float)
    chosen = thinned(values)
    return Curve(steps[has_value][chosen].tolist(), [float(f"{value:.6g}") for value in values[chosen]])


def thinned(values: np.ndarray, stretches: int = STRETCHES) -> np.ndarray:
    """Indexes of the lowest and the highest value of each stretch, rising: a spike of one step stays."""
    count = len(values)
    if count <= 2 * stretches:
        return np.arange(count)
    chosen = [0, count - 1]
    bounds = np.linspace(0, count, stretches + 1).astype(int).tolist()
    for start, stop in pairwise(bounds):
        chosen += [start + int(values[start:stop].argmin()), start + int(values[start:stop].argmax())]
    return np.unique(chosen)
