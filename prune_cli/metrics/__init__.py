"""The metrics: one a file, the file's name is the metric's name. Listing them imports none.

A metric is a function of what is known of a record, named by its parameters, to one number, or None where it has none:

    nll, error_norm, entropy, rank   of each scored token, float32 (T,), T ≥ 1: see models/head.py for their formulas
    n_bytes                          UTF-8 bytes of the scored tokens, None where the tokenizer cannot say
    against_nll, against_n_bytes     the same of the second model (`--against`), over its own scored tokens
    tokens, n_prefix                 the record's token ids, int, after `n_prefix` (0 or 1) that were put in front
    continuation                     the ids that the model generates after the first 32, int (32,); None where the record is too short
    identity, content                the record's `id` (None if it has none), and its text or ids
    seed, top_k                      as the user set them

What no chosen metric names is not computed. `EASY` is the end of the scale where easy records lie, None if neither is. A file may
say in `over_models` how an ensemble's scores become one; otherwise it is their mean.
"""

import inspect
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from statistics import fmean
from typing import Any

from ..errors import UsageError

STATISTICS = ("nll", "error_norm", "entropy", "rank")
WITHOUT_MODEL = frozenset({"identity", "content", "seed"})


@dataclass(frozen=True)
class Metric:
    """`score` gives a record's number from its `needs`, None where it has none; `easy` is the end where easy records lie, if any."""

    name: str
    description: str
    easy: str | None
    score: Callable[..., float | None]
    over_models: Callable[[Sequence[float]], float] = fmean

    @property
    def needs(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.score).parameters)

    @property
    def needs_model(self) -> bool:
        return not self.needs <= WITHOUT_MODEL

    @property
    def needs_second_model(self) -> bool:
        return any(name.startswith("against_") for name in self.needs)

    def of(self, known: Mapping[str, Any]) -> float | None:
        """The score of a record of which at least its needs are known."""
        return self.score(**{name: known[name] for name in self.needs})


def names() -> list[str]:
    """All there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Metric:
    """The metric of that name. Raises UsageError, which lists the choices."""
    if name not in names():
        near = get_close_matches(name, names(), 1)
        remedy = f"did you mean {near[0]}?" if near else ""
        raise UsageError(
            f"no metric is named {name!r}: there are {', '.join(names())}", place="--metric", remedy=remedy
        )
    module = import_module(f"{__name__}.{name}")
    description = (module.__doc__ or "").partition("\n")[0]
    return Metric(
        name, description, module.EASY, getattr(module, name), getattr(module, "over_models", fmean)
    )
