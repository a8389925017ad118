"""How does a verb make a dataset of all its inputs together, and only what is missing when it runs again?

Its plan is written before anything is read, without parts; these follow once the inputs say how many.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .. import storage
from ..errors import DataError, UsageError
from ..storage.base import Input, is_an_input
from ..storage.os_errors import display
from ..stream import dataset, index
from ..stream.dataset import DatasetManifest, DatasetPlan, PlannedInput, PlannedPart
from ..stream.lease import lease
from ..stream.schema import PartSection
from . import input_digests

SHOWN = 3  # names of parts in a message

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Making:
    """A dataset that this run alone makes. A finished one, whose `manifest` is there, needs no work.

    `begins_again`: what is there is made anew; `replaced` are the names of the parts that were there.
    """

    directory: str
    plan: DatasetPlan
    manifest: DatasetManifest | None
    begins_again: bool = False
    replaced: Sequence[str] = ()

    def with_parts(self, names: Sequence[str], inputs: Sequence[Input]) -> "Making":
        """The same with these parts in its plan. Raises CannotCreateError if one is also an input."""
        # By place, once for each: thousands of parts against thousands of inputs are too many pairs.
        places = {storage.location(file.path) for file in inputs}
        for name in names:
            if storage.location(self.path(name)) in places:
                raise is_an_input(self.path(name))
            storage.check_target(self.path(name), force=True)
        # Each is made of all inputs.
        parts = [PlannedPart(name, "", part=number, parts=len(names)) for number, name in enumerate(names, 1)]
        return replace(self, plan=dataset.make_plan(self.directory, self.plan.with_parts(parts)))

    def path(self, name: str) -> str:
        """The path of a part."""
        return os.path.join(self.directory, name)

    def section(self, number: int) -> PartSection:
        """The section of the head of a part, whose number counts from 1."""
        return PartSection(self._digest, number, len(self.plan.parts))

    @cached_property
    def _digest(self) -> str:
        # That of a plan of 30,000 parts takes 30 ms, and each part asks for it.
        return self.plan.digest

    def is_made(self, number: int) -> bool:
        """Whether a part is there, whole, and of this plan: one of another plan may have the same name."""
        path = self.path(self.plan.parts[number - 1].name)
        if self.begins_again or not storage.exists(path):
            return False
        table = index.read_table(storage.input_at(path))
        return table is not None and table.head.part == self.section(number)

    def finish(self, facts: dict[str, Any]) -> None:
        """Write the manifest, with what was measured of the whole."""
        dataset.write_manifest(self.directory, self.plan, facts)
        warn_of_leftovers(self.directory, self.replaced, self.plan)


@dataclass(frozen=True)
class NothingToDo:
    """The report of a run whose dataset is finished."""

    skipped: int = 0

    @classmethod
    def because(cls, manifest: DatasetManifest) -> "NothingToDo":
        """The report, after a message for who asks for more of them."""
        log.info("all %d parts were already finished", len(manifest.parts))
        return cls()

    def closing(self) -> list[str]:
        """No lines."""
        return []


@contextmanager
def making(directory: str, plan: DatasetPlan, inputs: Sequence[Input], *, force: bool) -> Iterator[Making]:
    """The dataset in a folder or at a URL, which is made unless it is there. `plan` has no parts.

    Raises ConfigurationError for a folder with another plan, DataError for an input that has changed, and
    TryAgainError while another run makes it.
    """
    storage.make_directory(directory)
    _refuse_itself(directory, inputs)
    with lease(directory, "run"):
        replaced = planned_names(directory) if force else []
        # A plan of which nothing was made, by a run that failed, binds nobody: this is the only run.
        made = dataset.make_plan(directory, plan, force=force or dataset.is_unused(directory, plan.verb))
        manifest = None if force else dataset.read_manifest(directory)
        is_whole = manifest is not None and manifest.plan == made.digest and not dataset.missing(directory)
        yield Making(directory, made, manifest if is_whole else None, begins_again=force, replaced=replaced)


def planned_names(directory: str) -> list[str]:
    """The names of the parts of the dataset that is there; none if its plan is damaged."""
    with suppress(DataError):
        if existing := dataset.read_plan(directory):
            return [part.name for part in existing.parts]
    return []


def warn_of_leftovers(directory: str, replaced: Sequence[str], plan: DatasetPlan) -> None:
    """Log which parts of a dataset that was begun again are still there, and are no part of the new one.

    No reader of the dataset sees them, but a pattern such as `out/*.zst` does.
    """
    old = {*replaced} - {part.name for part in plan.parts}
    left = sorted(storage.existing([os.path.join(directory, name) for name in old]))
    if left:
        listed = ", ".join(map(os.path.basename, left[:SHOWN])) + (", ..." if len(left) > SHOWN else "")
        fault = "left from the dataset that was replaced, and no part of this one"
        log.warning("%s: %s: %s", display(directory), fault, listed)


def planned_inputs(inputs: Sequence[Input]) -> list[PlannedInput]:
    """The inputs, as a plan names them. Raises UsageError for a pipe."""
    for file in inputs:
        if file.identity is None:
            remedy = "name files, or write one output with -o FILE"
            raise UsageError(f"{file.name} cannot be read again, as a dataset needs", remedy=remedy)
    return [PlannedInput(file.path, input_digests.version(file)) for file in inputs]


def _refuse_itself(directory: str, inputs: Sequence[Input]) -> None:
    """Raise CannotCreateError if the inputs are parts of the dataset in this very folder."""
    existing = dataset.read_plan(directory)
    parts = existing.parts if existing else []
    places = {storage.location(os.path.join(directory, part.name)) for part in parts}
    for file in inputs:
        if storage.location(file.path) in places:
            raise is_an_input(directory)
