"""Which operands are models to load, and which are results of models?"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ... import storage
from ...errors import UsageError
from ...models import safety
from ...settings.eval import Comparison, Evaluation
from ...settings.streams import Reading
from .. import streams
from . import results
from .held_out import HeldOutSet
from .results import Measured


@dataclass(frozen=True)
class Operands:
    """The operands on each side of a comparison, each once; those in `files` are result files."""

    models: Sequence[str]
    baselines: Sequence[str]
    files: frozenset[str]

    @property
    def all(self) -> list[str]:
        """Baselines and models, in the order in which they are measured."""
        # Baselines first: then every model can be compared as soon as it is measured.
        return [*self.baselines, *self.models]

    @property
    def loaded(self) -> list[str]:
        """The models that are not results in a file."""
        return [name for name in self.all if name not in self.files]

    @property
    def read(self) -> list[str]:
        """The result files."""
        return [name for name in self.all if name in self.files]


def sides(models: Sequence[str], comparison: Comparison) -> Operands:
    """The two sides; a model that is named as a baseline as well is a baseline."""
    # A name that is given twice is one model: a comparison with itself would say nothing.
    baselines = list(dict.fromkeys(comparison.against or ()))
    contenders = [model for model in dict.fromkeys(models) if model not in baselines]
    files = frozenset(name for name in (*baselines, *contenders) if _is_file(name))
    return Operands(contenders, baselines, files)


def check(operands: Operands, evaluation: Evaluation) -> None:
    """Raise UsageError if a model has no test set, ConfigurationError if it cannot be used."""
    if operands.loaded and not evaluation.data:
        raise UsageError("there is no test set to evaluate on", remedy="name one with --data FILE")
    # Looks at files alone: a model that cannot be loaded fails before a test set is read.
    for model in operands.loaded:
        safety.check(model)


def _is_file(name: str) -> bool:
    """Whether an operand is a result file. A model is a directory, or the name of one on the hub."""
    # A name that does not exist is no file: `safety.check` says that there is no such model.
    return name == "-" or storage.is_file(name)


def read_results(
    operands: Operands, sets: Sequence[HeldOutSet], evaluation: Evaluation, reading: Reading
) -> dict[str, list[Measured]]:
    """The measurements in each result file. Raises what `results.read` and `results.of_sets` raise."""
    measured = {}
    for name in operands.read:
        with streams.open_source("eval", [name], strict(reading), bar=False) as source:
            measured[name] = results.of_sets(results.read(source), name, sets, evaluation)
    return measured


def strict(reading: Reading) -> Reading:
    """How a result file is read: a record that was skipped would make a comparison wrong.

    --expect-records is about test sets.
    """
    return replace(reading, skip_bad=False, expect_records=None)


def count_models(names: Sequence[str], from_files: dict[str, list[Measured]]) -> int:
    """The number of models that operands stand for: a result file may hold several."""
    # By name and hash: a file may hold two models that had the same name in turn.
    return sum(
        len({(each.model, each.provenance["model"]) for each in from_files[name]})
        if name in from_files
        else 1
        for name in names
    )
