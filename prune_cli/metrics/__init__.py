"""The metrics: one a file, the file's name is the metric's name. Listing them imports none."""

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING

from ..errors import UsageError

if TYPE_CHECKING:
    from ..model import Document, TokenStatistics


@dataclass(frozen=True)
class Metric:
    """`score` gives a record's number, None where it has none; `easy` is the end of the scale where easy records lie, if any."""

    name: str
    description: str
    easy: str | None
    score: "Callable[[Document, TokenStatistics], float | None]"


def names() -> list[str]:
    """All there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def load(name: str) -> Metric:
    """The metric of that name. Raises UsageError, which lists the choices."""
    if name not in names():
        near = get_close_matches(name, names(), 1)
        remedy = f"did you mean {near[0]}?" if near else ""
        raise UsageError(f"no metric is named {name!r}: there are {', '.join(names())}", place="--metric", remedy=remedy)
    module = import_module(f"{__name__}.{name}")
    return Metric(name, (module.__doc__ or "").partition("\n")[0], module.EASY, getattr(module, name))
