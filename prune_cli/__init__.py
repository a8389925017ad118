"""prune-cli: prune pretraining corpora for language models, as Unix-style commands and as functions."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import PruneError, PruneWarning, eval, pack, rank, read, score, slice, stat, train, write

from .version import __version__ as __version__

__all__ = [
    "PruneError",
    "PruneWarning",
    "eval",
    "pack",
    "rank",
    "read",
    "score",
    "slice",
    "stat",
    "train",
    "write",
]


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def __getattr__(name: str) -> Any:
    """The functions, loaded when one of them is used: the command does without them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(".api", __name__), name)
