"""How do the parts of a run become one input? `plan.json` names those to come, `manifest.json` those made.

A part is whole once it has its final name; no other state is kept. The plan is written before the first part,
the manifest after the last one. Both are at a path or URL like the parts, through `storage` alone.
"""

import logging
import os
import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, TypeVar

import msgspec

from .. import storage
from ..errors import CannotCreateError, ConfigurationError, DataError, NoInputError, TryAgainError
from ..storage.base import Input
from ..storage.os_errors import display
from ..version import __version__
from . import index
from .resume import changed_settings
from .section import Shard

FORMAT = 1  # of plans and manifests; a reader of format 1 refuses all others
MANIFEST, PLAN = storage.DESCRIPTIONS
TAIL = 64 << 10  # bytes at the end of a part that its digest covers
REMEDY = "-f makes it again, another -O DIR keeps it"
PATIENCE = 30.0  # seconds that another run may take to write a plan
Form = TypeVar("Form", bound=msgspec.Struct)

log = logging.getLogger(__name__)


class PlannedPart(msgspec.Struct, frozen=True):
    """An output of a plan: its file name in the folder, and what it is made of."""

    name: str
    input: str  # as it was named when the plan was made
    start: int = 0
    end: int | None = None  # None: the whole input
    part: int = 1
    parts: int = 1

    @classmethod
    def of(cls, output: str, shard: Shard) -> "PlannedPart":
        """The entry of a shard whose output has this path."""
        return cls(os.path.basename(output), shard.input, shard.start, shard.end, shard.part, shard.parts)

    @property
    def bounds(self) -> tuple[int, int | None, int, int]:
        """The piece of the input, which files of other names or dates may hold as well."""
        return self.start, self.end, self.part, self.parts


class PlannedInput(msgspec.Struct, frozen=True):
    """An input that all parts are made of. Its `digest` changes when its content does."""

    name: str
    digest: str


class DatasetPlan(msgspec.Struct, frozen=True):
    """The parts that a run is to make, in order. `settings` are those that decide what is in them.

    `inputs` are those of a plan whose parts are made of all of them. Until these are read, it has no parts.
    """

    verb: str
    settings: dict[str, Any]
    parts: list[PlannedPart]
    inputs: list[PlannedInput] = []
    format: int = FORMAT
    version: str = __version__

    def with_parts(self, parts: list[PlannedPart]) -> "DatasetPlan":
        """The same plan with these parts."""
        return msgspec.structs.replace(self, parts=parts)

    @property
    def digest(self) -> str:
        """A name for the plan: the manifest of another one does not belong to it."""
        names: list[Any] = [self.verb, [(part.name, *part.bounds) for part in self.parts]]
        if self.inputs:
            # The names of such parts are the same for all inputs.
            names += [self.settings, [file.digest for file in self.inputs]]
        return blake2b(msgspec.json.encode(names), digest_size=8).hexdigest()


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    """A part that is whole. The counts are those of its trailer, None where it has none.

    `digest` is that of its last bytes, which hold the sizes and checksums of all others. It is the same for
    a copy elsewhere, unlike times and ETags.
    """

    name: str
    size: int
    digest: str
    records: int | None = None
    nulls: int | None = None
    tokens: int | None = None
    text: int | None = None
    first: int | None = None  # rank
    last: int | None = None


class DatasetManifest(msgspec.Struct, frozen=True):
    """The parts of a finished run, in order. `facts` are what the verb measured of the whole."""

    verb: str
    settings: dict[str, Any]
    plan: str  # the digest of the plan
    parts: list[Part]
    facts: dict[str, Any] = {}
    format: int = FORMAT
    version: str = __version__


# --- What a run writes ---


def make_plan(directory: str, plan: DatasetPlan, *, force: bool = False) -> DatasetPlan:
    """Write the plan before any part, or hold it to the one that is there. Returns that of the folder.

    A folder may grow: parts of inputs that are new are added to the plan. Raises ConfigurationError if it has
    other settings, or cuts an input in another way.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return _make_plan(directory, plan, force=force)
        except (CannotCreateError, TryAgainError) as error:
            # Another run has made it, or is just writing it: look again.
            is_there = isinstance(error, TryAgainError) or storage.exists(_path(directory, PLAN))
            if force or not is_there or time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _make_plan(directory: str, plan: DatasetPlan, *, force: bool) -> DatasetPlan:
    path = _path(directory, PLAN)
    existing = None if force else read_plan(directory)
    if existing is None:
        _write(path, plan, force=force)
        return plan
    if _united(directory, existing, plan) == existing:
        return existing
    with storage.create(path, force=True) as output:
        # Again, now that no other run can write it.
        existing = read_plan(directory) or plan
        united = _united(directory, existing, plan)
        output.write(_encoded(united))
    return united


def _united(directory: str, existing: DatasetPlan, plan: DatasetPlan) -> DatasetPlan:
    """The existing plan with the parts of another one that it lacks. Raises ConfigurationError."""
    before = {"verb": existing.verb, **existing.settings}
    now = {"verb": plan.verb, **plan.settings}
    if before != now:
        # A part is what the user knows; it may be one that this run would have skipped.
        named = next((part.name for part in plan.parts if storage.exists(_path(directory, part.name))), PLAN)
        fault = f"was made with {changed_settings(before, now)}"
        raise ConfigurationError(fault, place=display(_path(directory, named)), remedy=REMEDY)
    _check_inputs(directory, existing, plan)
    names = {part.name: part for part in existing.parts}
    for part in plan.parts:
        if part.name in names and names[part.name].bounds != part.bounds:
            fault = f"was made of another piece of {display(part.input)}, which has changed"
            raise ConfigurationError(fault, place=display(_path(directory, part.name)), remedy=REMEDY)
    if existing.inputs and existing.parts and plan.parts and len(plan.parts) != len(existing.parts):
        fault = f"has {len(existing.parts)} parts, not the {len(plan.parts)} that its inputs make"
        raise ConfigurationError(fault, place=display(_path(directory, PLAN)), remedy=REMEDY)
    counts = {_stem(part): part.parts for part in existing.parts}
    for part in plan.parts:
        if counts.get(_stem(part), part.parts) != part.parts:
            fault = f"cuts {display(part.input)} into {counts[_stem(part)]} parts, not {part.parts}"
            raise ConfigurationError(fault, place=display(_path(directory, PLAN)), remedy=REMEDY)
    added = [part for part in plan.parts if part.name not in names]
    return msgspec.structs.replace(existing, parts=[*existing.parts, *added]) if added else existing


def _check_inputs(directory: str, existing: DatasetPlan, plan: DatasetPlan) -> None:
    """Raise ConfigurationError for other inputs than those of the plan, DataError for one that changed."""
    before = [file.digest for file in existing.inputs]
    if before == [file.digest for file in plan.inputs]:
        return
    if [file.name for file in existing.inputs] != [file.name for file in plan.inputs]:
        raise ConfigurationError(
            "was made of other inputs", place=display(_path(directory, PLAN)), remedy=REMEDY
        )
    pairs = zip(existing.inputs, plan.inputs, strict=True)
    changed = next(now.name for old, now in pairs if old.digest != now.digest)
    fault = f"changed since the run that began {display(directory)}"
    raise DataError(fault, place=display(changed), remedy=REMEDY)


def _stem(part: PlannedPart) -> str:
    """The name that the parts of one input have in common."""
    return part.name.replace(f".{part.part:05}-of-{part.parts:05}", "") if part.parts > 1 else part.name


def write_manifest(
    directory: str, plan: DatasetPlan, facts: dict[str, Any] | None = None
) -> DatasetManifest | None:
    """Write the manifest if every part of the plan is there; else return None.

    It is made of the parts as they are now, whoever wrote them. One that says the same is left alone.
    """
    paths = [_path(directory, part.name) for part in plan.parts]
    if len(storage.existing(paths)) < len(set(paths)):
        return None
    parts = [part_of(file) for file in storage.operands(paths)] if paths else []
    manifest = DatasetManifest(plan.verb, plan.settings, plan.digest, parts, facts or {})
    deadline = time.monotonic() + PATIENCE
    while read_manifest(directory) != manifest:
        try:
            _write(_path(directory, MANIFEST), manifest, force=True)
        except TryAgainError:
            # The run of another shard, which ended at the same moment, is just writing it.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    return manifest


def part_of(file: Input) -> Part:
    """The entry of a part that is whole, from its trailer."""
    size, digest = file.size or 0, digest_of(file)
    name = os.path.basename(file.path)
    table = index.read_table(file)
    if table is None:
        return Part(name, size, digest)
    frames = table.frames
    totals = table.totals
    first = next((rank for rank in frames.first if rank is not None), None)
    last = next((rank for rank in reversed(frames.last) if rank is not None), None)
    counts = (totals.records, totals.nulls, totals.tokens, totals.text)
    return Part(name, size, digest, *counts, first, last)


def digest_of(file: Input) -> str:
    """The digest of the last bytes of a part."""
    size = file.size or 0
    with file.duplicate().open() as opened:
        tail = opened.read_at(max(0, size - TAIL), TAIL)
    return blake2b(tail, digest_size=16).hexdigest()


# --- What a reader sees ---


def read_plan(directory: str) -> DatasetPlan | None:
    """The plan of a folder; None if there is none. Raises DataError if it cannot be read."""
    return _read(_path(directory, PLAN), DatasetPlan)


def read_manifest(directory: str) -> DatasetManifest | None:
    """The manifest of a folder; None if there is none. Raises DataError if it cannot be read."""
    return _read(_path(directory, MANIFEST), DatasetManifest)


def directory_of(operand: str) -> str | None:
    """The folder of the dataset that an operand names, by its folder or its manifest; None if it is a file.

    A folder without a plan or a manifest is no dataset.
    """
    if os.path.basename(operand) == MANIFEST and storage.is_file(operand):
        return os.path.dirname(operand) or "."
    if operand in ("", "-"):
        return None
    # A URL without a slash at its end names an object: nothing is asked of the server.
    is_folder = operand.endswith("/") or (storage.has_folders(operand) and not storage.is_file(operand))
    if is_folder and any(storage.exists(_path(operand, name)) for name in (MANIFEST, PLAN)):
        return operand
    return None


def parts_there(directory: str) -> tuple[list[str], int]:
    """The paths of the parts that are finished, and how many there are to be; none without a plan."""
    plan = read_plan(directory)
    paths = [_path(directory, part.name) for part in plan.parts] if plan else []
    present = storage.existing(paths)
    return [path for path in paths if path in present], len(paths)


def is_unused(directory: str, verb: str) -> bool:
    """Whether a folder has a plan for this verb, and nothing was made by it."""
    plan = read_plan(directory)
    if plan is None or plan.verb != verb or read_manifest(directory) is not None:
        return False
    return not storage.existing([_path(directory, part.name) for part in plan.parts])


def finished(directory: str) -> DatasetManifest:
    """The manifest of a dataset. Raises DataError for one that is not finished, with its progress."""
    manifest = read_manifest(directory)
    if manifest is not None:
        return manifest
    there, of = parts_there(directory)
    fault = f"unfinished, {len(there)} of {of} parts"
    raise DataError(fault, place=display(directory), remedy="run the command that makes it again")


def missing(directory: str) -> list[str]:
    """The names of the parts that a finished dataset has lost, or that are not those of its manifest."""
    return [
        part.name for part in finished(directory).parts if not _is_there(_path(directory, part.name), part)
    ]


def _is_there(path: str, part: Part) -> bool:
    if not storage.exists(path):
        return False
    file = storage.input_at(path)
    return file.size == part.size and digest_of(file) == part.digest


def expand(operands: Sequence[str]) -> list[Input]:
    """The inputs that the operands name, with the parts of a dataset in its place. All are checked.

    Raises what `storage.operands` raises, and DataError for an unfinished dataset, and for a part that is
    missing or not the one that the manifest names.
    """
    paths: list[str] = []
    expected: dict[str, Part] = {}
    for operand in operands:
        directory = directory_of(operand)
        if directory is None:
            paths.append(operand)
            continue
        parts = {_path(directory, part.name): part for part in finished(directory).parts}
        paths += parts
        expected |= parts
    if operands and not paths:
        raise DataError("the dataset has no parts", place=display(operands[0]))
    try:
        inputs = storage.operands(paths)
    except NoInputError as error:
        lost = next((path for path in expected if storage.input_at(path).name == error.place), None)
        if lost is None:
            raise
        raise _wrong(lost, "is missing from its dataset") from None
    for file in storage.anticipated([file for file in inputs if file.path in expected]):
        _check(file, expected[file.path])
    return inputs


def manifest_of(operands: Sequence[str]) -> DatasetManifest | None:
    """The manifest of a finished dataset, if the operands name one and nothing else."""
    directory = directory_of(operands[0]) if len(operands) == 1 else None
    return read_manifest(directory) if directory is not None else None


def _check(file: Input, part: Part) -> None:
    """Raise DataError unless a file is the part that a manifest names."""
    if file.size != part.size:
        raise _wrong(file.path, f"has {file.size} bytes, not the {part.size} of its manifest")
    if digest_of(file) != part.digest:
        raise _wrong(file.path, "is not the part that its manifest names")


def _wrong(path: str, fault: str) -> DataError:
    remedy = "the command that made the dataset makes it again; -f begins anew"
    return DataError(fault, place=display(path), remedy=remedy)


# --- Files ---


def _path(directory: str, name: str) -> str:
    return os.path.join(directory, name)


def _encoded(content: msgspec.Struct) -> bytes:
    return msgspec.json.format(msgspec.json.encode(content), indent=1) + b"\n"


def _write(path: str, content: msgspec.Struct, *, force: bool) -> None:
    with storage.create(path, force=force) as output:
        output.write(_encoded(content))


def _read(path: str, form: type[Form]) -> Form | None:
    if not storage.exists(path):
        return None
    with storage.input_at(path).open() as file:
        data = file.read_all()
    try:
        content = msgspec.json.decode(data)
        if isinstance(content, dict) and content.get("format") != FORMAT:
            fault = f"is of format {content.get('format')}; this version reads {FORMAT}"
            raise DataError(fault, place=display(path), remedy="upgrade prune-cli")
        return msgspec.convert(content, form)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        remedy = "run the command that made the dataset again with -f"
        raise DataError(f"is damaged ({error})", place=display(path), remedy=remedy) from None
