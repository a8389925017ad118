"""How does `prune-cli eval --glue` run, from directories of tasks to results?"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from .... import storage, terminal
from ....errors import DataError, NoInputError
from ....models import safety
from ....records.documents import written
from ....settings.eval import FineTuning, Target
from ....settings.model import ModelSettings
from ....settings.streams import Reading
from ....storage.base import Input
from ... import streams
from .. import eval_tables
from . import result_cache
from . import tasks as glue
from .result_cache import ResultCache
from .tasks import Data

log = logging.getLogger(__name__)

REPORTED = 5  # bad lines that get a warning; a file in a different format has thousands

Result = result_cache.Result


@dataclass(frozen=True)
class GlueReport:
    """The number of results that were written, and of bad lines that were skipped."""

    results: int
    skipped: int

    def closing(self) -> list[str]:
        """No lines: the results themselves are on the terminal."""
        return []


@dataclass(frozen=True)
class GlueJob:
    """Fine-tune models on GLUE tasks. `resume` keeps finished results beside the output."""

    models: tuple[str, ...]
    tuning: FineTuning
    target: Target = Target()
    resume: bool = False
    model_settings: ModelSettings = ModelSettings()
    reading: Reading = Reading()

    def run(self) -> GlueReport:
        """Write the results of each seed, then of each task, then of all tasks. Raises PruneError."""
        # Cheap checks first: a wrong name must not be noticed after an hour of fine-tuning.
        folders = _folders(self.tuning)
        for model in self.models:
            safety.check(model)
        inputs = _files(folders)
        # The cache is the outer context: it is removed only after the output is complete.
        with (
            self._cache() as cache,
            storage.create(self.target.output, inputs, force=self.target.force) as output,
        ):
            tasks, skipped = _read(folders, skip=self.reading.skip_bad)
            results = []
            for result in self._results(tasks, cache):
                results.append(result)
                cache.add(result)
                # A terminal gets a table at the end instead.
                if not output.is_terminal():
                    output.write(written(result) + b"\n")
            is_terminal = output.is_terminal()
        if is_terminal:
            eval_tables.show_glue(results)
        if skipped:
            log.warning("%d bad lines were skipped", skipped)
        return GlueReport(len(results), skipped)

    def _cache(self) -> AbstractContextManager[ResultCache]:
        return result_cache.beside(self.target.output) if self.resume else nullcontext(ResultCache())

    def _results(self, tasks: Mapping[str, Data], cache: ResultCache) -> Iterator[Result]:
        # torch takes seconds to import: by now everything cheap has been checked.
        from ....models.load import load
        from .evaluate import evaluate
        from .fine_tuning import Protocol

        settings = self.model_settings
        # dict.fromkeys: a model that is named twice is fine-tuned once.
        models = [
            (model, partial(load, model, settings, trainable=True)) for model in dict.fromkeys(self.models)
        ]
        protocol = Protocol(epochs=self.tuning.epochs, lr=self.tuning.lr, batch=self.tuning.batch)
        # The bar counts optimizer steps: they take nearly all of the time, and are known beforehand.
        examples = [len(data.train.texts) for data in tasks.values()]
        steps = len(models) * self.tuning.seeds * sum(map(protocol.steps, examples))
        with streams.VerbProgress("eval", self.reading).bar(steps, "steps") as bar:
            yield from evaluate(
                models,
                tasks,
                self.tuning.seeds,
                protocol,
                find=cache.find,
                progress=partial(_advance, bar),
            )


def _advance(bar: terminal.Progress, steps: int, text: str) -> None:
    bar.advance(steps)
    bar.describe(text)


def _folders(tuning: FineTuning) -> dict[str, str]:
    """The folder of each selected task: by default, of every task that is there.

    Raises NoInputError for a missing folder and UsageError for a task that is not in GLUE.
    """
    directory = tuning.glue or ""
    present = glue.folders(directory)
    names = glue.named(tuning.tasks) if tuning.tasks else list(present)
    for name in names:
        if name not in present:
            raise NoInputError(
                f"has no folder for {name}",
                place=directory,
                remedy=f"leave it out, or choose from {','.join(present)}",
            )
    return {name: present[name] for name in names}


def _files(folders: Mapping[str, str]) -> list[Input]:
    """Every file of the tasks: the output must not be one of them."""
    return [
        storage.input_at(entry.path)
        for folder in folders.values()
        for entry in os.scandir(folder)
        if entry.is_file()
    ]


def _read(folders: Mapping[str, str], *, skip: bool) -> tuple[dict[str, Data], int]:
    """The examples of each task, and the number of bad lines that were skipped.

    Raises DataError at the first bad line unless `skip`.
    """
    skipped = 0

    def handle(error: DataError) -> None:
        nonlocal skipped
        if not skip:
            raise error
        skipped += 1
        if skipped <= REPORTED:
            log.warning("%s: %s; line skipped", error.place, error.fault)

    # Files of GLUE have neither checksums nor counts: only a malformed line shows damage.
    return {name: glue.read(folder, name, handle) for name, folder in folders.items()}, skipped
