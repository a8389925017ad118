"""What did a model score on each task, and what do these numbers depend on?"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ....errors import DataError
from ....settings.streams import Reading
from .. import comparability
from ..likelihood import Warnings
from . import folders, measures, samples
from .folders import SampleFile
from .measures import DocumentScores
from .samples import FilteredSamples

log = logging.getLogger(__name__)

# What the harness says of a whole run that its numbers depend on.
OF_RUN = ("lm_eval_version", "transformers_version", "chat_template_sha", "system_instruction_sha")
# Sections of the results that say something of each task, and the names that these have here.
OF_TASK = {"version": "versions", "n_shot": "n-shot", "task_hash": "task_hashes"}


class MetricKey(NamedTuple):
    """A metric of a task, and the filter that the answers went through."""

    metric: str
    filter: str


@dataclass(frozen=True)
class TaskScores:
    """The scores of a model on a task, by metric in the harness's order."""

    file: SampleFile
    filters: Mapping[str, FilteredSamples]
    scores: Mapping[MetricKey, DocumentScores]

    @property
    def provenance(self) -> dict[str, Any]:
        """The file, and what the harness says of the task that its numbers depend on."""
        of_task = {name: self.file.of_task(section) for name, section in OF_TASK.items()}
        return {"file": self.file.path, **of_task}


@dataclass(frozen=True)
class SampledModel:
    """The samples of a model, named like their folder."""

    name: str
    tasks: Mapping[str, TaskScores]

    @property
    def provenance(self) -> dict[str, Any]:
        """The model that the harness loaded, how it was trained, and the versions that evaluated it."""
        results: Mapping[str, Any] = next(iter(self.tasks.values())).file.results
        model = results.get("model_name")
        training = comparability.training(Path(model)) if isinstance(model, str) else None
        # Without results the folder stands for the model.
        return {
            "model": model or self.name,
            **{name: results.get(name) for name in OF_RUN},
            "training": training,
        }


def read(directory: str, reading: Reading, warnings: Warnings) -> SampledModel:
    """The samples in a folder. Raises NoInputError, UsageError or DataError."""
    tasks = {}
    for task, file in folders.find(directory).items():
        filters = samples.read(file.path, reading)
        _check_whole(file, filters)
        tasks[task] = TaskScores(file, filters, _scores(file, filters, warnings))
    return SampledModel(directory, tasks)


def _check_whole(file: SampleFile, filters: Mapping[str, FilteredSamples]) -> None:
    """Raise DataError if the file has fewer documents than the harness counted."""
    counts = file.of_task("n-samples")
    expected = counts.get("effective") if isinstance(counts, dict) else None
    for filtered in filters.values():
        if isinstance(expected, int) and len(filtered.documents) < expected:
            fault = f"holds {len(filtered.documents):,} of {expected:,} documents"
            raise DataError(fault, place=file.path, remedy="the file was cut: evaluate again")


def _scores(
    file: SampleFile, filters: Mapping[str, FilteredSamples], warnings: Warnings
) -> dict[MetricKey, DocumentScores]:
    """The metrics that samples give. The others are left out with a warning."""
    computed = {}
    for name, filtered in filters.items():
        for metric in filtered.values:
            scored = measures.scores(
                metric, filtered.column(metric), _entry(file, "higher_is_better", metric)
            )
            reported = _entry(file, "results", f"{metric},{name}")
            if scored is None:
                warnings.log(f"{file.task}: {metric} cannot be computed from its samples, and is left out")
            elif not measures.agrees(scored.value, reported):
                # The task adds up its documents by a function of its own.
                both = f"{scored.value:.5g} by its samples and {reported:.5g} by its results"
                warnings.log(f"{file.task}: {metric} is {both}, and is left out")
            else:
                computed[MetricKey(metric, name)] = scored
                _warn_of_missing(file, MetricKey(metric, name), scored, warnings)
    return computed


def _warn_of_missing(file: SampleFile, key: MetricKey, scored: DocumentScores, warnings: Warnings) -> None:
    """Warn of documents whose value is null or NaN: the harness may have failed to measure them."""
    missing = int((~scored.is_present).sum())
    if missing:
        of_all = f"{missing:,} of {len(scored.rows):,} documents"
        warnings.log(f"{file.path}: {of_all} have no value of {','.join(key)}, and are left out")


def _entry(file: SampleFile, section: str, name: str) -> Any:
    """What a section of the results says of a metric of the task."""
    entries = file.of_task(section)
    return entries.get(name) if isinstance(entries, dict) else None
