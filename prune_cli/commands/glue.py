"""What `prune-cli eval --glue` says and does: fine-tuning instead of likelihoods."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from .. import terminal
from ..errors import NoInputError, UsageError
from ..settings.model import ModelSettings
from .options import Reading, option

if TYPE_CHECKING:
    from ..errors import DataError
    from ..models.load import LoadedModel
    from ..stages.eval.glue.tasks import Data
    from ..storage.base import Input

log = logging.getLogger(__name__)

SHOWN = 5  # bad lines that are told of one by one
Result = dict[str, Any]


@dataclass(frozen=True)
class Tuning:
    """Where GLUE's tasks lie, and how models are fine-tuned on them."""

    GROUP: ClassVar[str] = "GLUE"
    glue: Annotated[
        str | None,
        option(
            "--glue",
            metavar="DIR",
            help="Fine-tune on the tasks in DIR instead. A folder for each, as GLUE is distributed.",
        ),
    ] = None
    tasks: Annotated[
        str | None, option("--tasks", metavar="NAME,...", help="These alone, as in sst2,mrpc.")
    ] = None
    seeds: Annotated[int, option("--seeds", metavar="N", min=1, help="Runs of each task.")] = 5
    epochs: Annotated[int, option("--epochs", metavar="N", min=1, help="Passes over a task's examples.")] = 3
    lr: Annotated[float, option("--lr", metavar="X", min=0, help="The highest learning rate.")] = 1e-5
    batch: Annotated[int, option("--batch", metavar="N", min=1, help="Examples a step.")] = 32

    def run(
        self,
        models: Sequence[str],
        running: ModelSettings,
        reading: Reading,
        output: str | None,
        *,
        force: bool,
        resume: bool,
    ) -> None:
        """Write a result for each model, task and seed, one for each task and one for all of them."""
        from .. import storage
        from ..models import safety
        from ..records.splice import members
        from ..stages.eval.glue import result_cache

        reading.configure("eval")
        folders = self._folders()
        for model in models:
            safety.check(model)
        with ExitStack() as stack:
            known = stack.enter_context(result_cache.kept(output)) if resume else result_cache.Kept()
            out = stack.enter_context(storage.create(output, _files(folders), force=force))
            tasks, skipped = _read(folders, skip=reading.skip_bad)
            from ..stages.eval.glue import run as stage

            loaders = [(model, partial(_load, model, running)) for model in dict.fromkeys(models)]
            protocol = stage.Protocol(epochs=self.epochs, lr=self.lr, batch=self.batch)
            steps = (
                len(loaders)
                * self.seeds
                * sum(protocol.steps(len(data.train.texts)) for data in tasks.values())
            )
            bar = stack.enter_context(reading.bar("eval", steps, "steps"))

            def report(taken: int, text: str) -> None:
                bar.advance(taken)
                bar.describe(text)

            found = list[Result]()
            for result in stage.evaluate(
                loaders, tasks, self.seeds, protocol, known=known.find, report=report
            ):
                found.append(result)
                known.add(result)
                if not out.is_terminal():  # which gets a table at the end
                    out.write(b"{" + members(result) + b"}\n")
            is_watched = out.is_terminal()
        if is_watched:
            _show(found)
        if skipped:
            log.warning("%d bad lines were skipped", skipped)
            raise typer.Exit(3)

    def check(self, others: Mapping[str, object]) -> None:
        """Raise UsageError where options do not go together; `others` are those of likelihoods, by name."""
        if not self.glue and self.tasks:
            raise UsageError("--tasks names tasks of GLUE", remedy="say where they lie with --glue DIR")
        for name, value in others.items():
            if self.glue and value:
                raise UsageError(
                    f"--glue fine-tunes on data of its own, and has no use for {name}",
                    remedy="leave out one of them",
                )

    def _folders(self) -> dict[str, str]:
        """The folder of every task that is wanted."""
        from ..stages.eval.glue import tasks as glue

        found = glue.folders(self.glue or "")
        names = glue.named(self.tasks) if self.tasks else list(found)
        for name in names:
            if name not in found:
                raise NoInputError(
                    f"has no folder of {name}",
                    place=self.glue or "",
                    remedy=f"leave it out, or take of {','.join(found)}",
                )
        return {name: found[name] for name in names}


def _files(folders: Mapping[str, str]) -> "list[Input]":
    """What the output may not be."""
    from .. import storage

    return [
        storage.input_at(entry.path)
        for folder in folders.values()
        for entry in os.scandir(folder)
        if entry.is_file()
    ]


def _read(folders: Mapping[str, str], *, skip: bool) -> "tuple[dict[str, Data], int]":
    """The tasks' examples, and how many lines are none and were skipped."""
    from ..stages.eval.glue import tasks as glue

    skipped = 0

    def bad(error: "DataError") -> None:
        nonlocal skipped
        if not skip:
            raise error
        skipped += 1
        if skipped <= SHOWN:
            log.warning("%s: %s; line skipped", error.place, error.fault)

    return {name: glue.read(folder, name, bad) for name, folder in folders.items()}, skipped


def _load(model: str, running: ModelSettings) -> "LoadedModel":
    from ..models.load import load

    return load(model, running, trainable=True)


def _show(results: Sequence[Result]) -> None:
    """What all seeds together say, for a person."""
    rows = [
        (
            one["model"],
            one["task"],
            metric,
            *_spread(spread),
            f"{one['majority'][metric]:.3f}",
            f"{one['chance'][metric]:.3f}",
        )
        for one in results
        if one["result"] == "glue task"
        for metric, spread in one["metrics"].items()
    ]
    rows += [
        (one["model"], "average", "", *_spread(one["score"]), "", "")
        for one in results
        if one["result"] == "glue average"
    ]
    terminal.table(("model", "task", "metric", "mean", "deviation", "majority", "chance"), rows)


def _spread(values: Mapping[str, float | None]) -> tuple[str, str]:
    return f"{values['mean']:.3f}", "" if values["deviation"] is None else f"{values['deviation']:.3f}"
