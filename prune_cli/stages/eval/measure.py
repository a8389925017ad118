"""Which likelihood does a model give to each document of the test sets?"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ...models.language_model import Content, LanguageModel, load
from ...models.language_model import provenance as model_provenance
from ...records.documents import check_tokenizer
from ...settings.eval import Evaluation
from ...settings.model import ModelSettings
from ...version import __version__
from ..score import windows
from . import comparability
from .held_out import HeldOutSet
from .journal import Journal, Numbers
from .results import Measured, Measurement


def measurements(
    models: Sequence[str], sets: Sequence[HeldOutSet], settings: ModelSettings, evaluation: Evaluation
) -> list[Measurement]:
    """Every model on every test set, model by model. No weights are loaded.

    Raises ConfigurationError for a model that cannot be used, or for blocks that another tokenizer packed.
    """
    # A result file answers only what it was made for: later runs look these fields up.
    fields = {"group_by": evaluation.group_by, "cluster": evaluation.cluster}
    planned = []
    for model in models:
        provenance = _provenance(model, settings, sets)
        planned += [
            Measurement(model, held_out.name, {**provenance, "data": held_out.hash, **fields}, held_out.items)
            for held_out in sets
        ]
    return planned


def _provenance(model: str, settings: ModelSettings, sets: Sequence[HeldOutSet]) -> dict[str, Any]:
    """Everything but the data that the numbers of a model depend on."""
    provenance = model_provenance(model, settings)
    # A block of ids means another text to another tokenizer; its head says which one packed it.
    for held_out in sets:
        check_tokenizer(held_out.heads, provenance["tokenizer"], held_out.name)
    provenance["versions"] |= {"prune_cli": __version__}
    return {**provenance, "training": comparability.training(Path(model))}


def measure(
    model: str,
    first: int,
    sets: Sequence[HeldOutSet],
    journal: Journal,
    settings: ModelSettings,
    advance: Callable[[int], object],
) -> Iterator[Measured]:
    """A model on all test sets; its measurements are those of the journal from number `first` on."""
    tasks = [(number, held_out.contents) for number, held_out in enumerate(sets, first)]
    return complete(partial(load, model, settings), tasks, journal, advance)


def complete(
    load: Callable[[], LanguageModel],
    tasks: Sequence[tuple[int, Sequence[Content]]],
    journal: Journal,
    advance: Callable[[int], object] = lambda documents: None,
) -> Iterator[Measured]:
    """The measurements of one model: `tasks` are their numbers in the journal, and the contents to score.

    What the journal lacks is scored and added to it.
    The model is loaded at the first document that is missing, and freed at the end: a
    comparison of large models has one of them in memory at a time. Raises what `windows.score` raises.
    """
    model = None
    for number, contents in tasks:
        done = len(journal.numbers[number])
        # A resumed run shows the earlier documents as done.
        advance(done)
        if done < len(contents):
            model = model or load()
            _score(model, number, contents, journal, advance)
        # Handed over at once: the numbers of a large test set are in memory only once.
        yield journal.measured(number)


def _score(
    model: LanguageModel,
    number: int,
    contents: Sequence[Content],
    journal: Journal,
    advance: Callable[[int], object],
) -> None:
    """Score the documents that the journal lacks, and add them to it window by window."""
    name = journal.measurements[number].data
    done = len(journal.numbers[number])
    missing = ((index, contents[index]) for index in range(done, len(contents)))
    # Without a metric `score` returns the sums alone, in the very windows of `prune-cli score`.
    scoring = windows.Scoring((), [model])
    for window in windows.score(missing, scoring, place=lambda index: f"{name}: document {index + 1}"):
        journal.add(number, [_numbers(fields, contents[index]) for index, fields in window])
        advance(len(window))


def _numbers(fields: dict[str, Any], content: Content) -> Numbers:
    """The numbers of a document; token ids have no words to count."""
    return {**fields, "words": len(content.split()) if isinstance(content, str) else None}
