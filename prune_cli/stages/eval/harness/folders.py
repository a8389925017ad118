"""Which files of lm-evaluation-harness hold the samples of a model, and what do its results say of them?

With `--output_path OUT --log_samples` the harness writes OUT/MODEL/samples_TASK_DATE.jsonl for each task and
OUT/MODEL/results_DATE.json for all of a run.
"""

import glob
import json
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ....errors import DataError, NoInputError, UsageError

log = logging.getLogger(__name__)

# A task's name may have underscores of its own; the date is 2026-11-29T10-13-46.885242.
NAME = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.-]+)\.jsonl")


@dataclass(frozen=True)
class SampleFile:
    """The samples of one task, and the results of the run that wrote them; without a file these are empty."""

    task: str
    path: str
    results: Mapping[str, Any]

    def of_task(self, section: str) -> Any:
        """What a section of the results says of the task; None if it says nothing."""
        entries = self.results.get(section)
        return entries.get(self.task) if isinstance(entries, dict) else None


def find(directory: str) -> dict[str, SampleFile]:
    """The samples of each task in a folder, the newest where there are several.

    The folder is that of a model, or one with a single such folder in it. Raises NoInputError if it has no
    samples, and UsageError if it has those of several models.
    """
    newest: dict[str, tuple[str, str]] = {}
    repeated: set[str] = set()
    for path in _files(directory):
        match = NAME.fullmatch(os.path.basename(path))
        if match is None:
            continue
        task = match["task"]
        if task in newest:
            repeated.add(task)
        # Dates are written so that they sort as text.
        newest[task] = max(newest.get(task, ("", "")), (match["date"], path))
    if not newest:
        remedy = "run lm_eval with --log_samples and --output_path"
        raise NoInputError("holds no samples_TASK_DATE.jsonl", place=directory, remedy=remedy)
    for task in sorted(repeated):
        log.warning(
            "%s: %s has samples of several dates; those of %s are read", directory, task, newest[task][0]
        )
    return {
        task: SampleFile(task, path, _results(path, date)) for task, (date, path) in sorted(newest.items())
    }


def _files(directory: str) -> list[str]:
    """The files named like samples in a folder, or else in its only subfolder that has some."""
    if not os.path.isdir(directory):
        remedy = "name the folder that lm_eval --output_path wrote"
        raise NoInputError("is not a folder", place=directory, remedy=remedy)
    own = glob.glob("samples_*.jsonl", root_dir=directory)
    names = own or glob.glob("*/samples_*.jsonl", root_dir=directory)
    folders = sorted({os.path.dirname(name) for name in names})
    if len(folders) > 1:
        fault = f"holds samples of {len(folders)} models: {', '.join(folders)}"
        raise UsageError(fault, place=directory, remedy="name the folder of one")
    return [os.path.join(directory, name) for name in names]


def _results(samples: str, date: str) -> dict[str, Any]:
    """What the run of this date says about itself; nothing if its results lie elsewhere."""
    path = Path(samples).with_name(f"results_{date}.json")
    try:
        # Python's own parser: the harness writes a metric that is no number as NaN.
        results = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError:
        results = None
    if not isinstance(results, dict):
        raise DataError("not a JSON object", place=str(path), remedy="evaluate again with lm_eval")
    return results
