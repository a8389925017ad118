"""The output paths of -O DIR: one output for each input."""

import os
import re
from collections.abc import Sequence

from ..errors import UsageError
from . import check_target, existing, input_at, make_directory
from .base import Identity, Input
from .os_errors import display

COMPRESSED = (".zst", ".zstd", ".gz")
PARQUET = ".parquet"
# Names of descriptors, such as the /dev/fd/63 of `<(command)`: the next command gets the same one.
DESCRIPTOR = re.compile(r"/dev/(fd/\d+|stdin)|/proc/(self|\d+)/fd/\d+")


def in_directory(
    directory: str, inputs: Sequence[Input], *, plain: bool = False, part: str = ""
) -> list[str]:
    """The path of each input's output; the directory is made.

    `web.jsonl.gz` becomes `web.jsonl.zst`, as does `web.parquet`; the `part` 1-of-2 of it is
    `web.1-of-2.jsonl.zst`; with `plain` the name has no .zst. Raises UsageError for inputs without a name
    and for two outputs of one name, and what `check_target` raises.
    """
    paths = [os.path.join(directory, name) for name in names(inputs, plain=plain, part=part)]
    make_directory(directory)
    by_identity: dict[Identity | None, list[Input]] = {}
    for file in inputs:
        by_identity.setdefault(file.identity, []).append(file)
    # With force: an output that exists may be one that an earlier run finished, which the caller checks.
    present = {path: input_at(path) for path in existing(paths)}
    # All at a time: each may be a request to a server.
    for output in present.values():
        output.prepare()
    for path in paths:
        # Only an input of the same identity can be the same file, by whatever name. To hold each output to
        # each input would take hours for 30,000 that exist.
        same = by_identity.get(present[path].identity, []) if path in present else []
        check_target(path, same, force=True)
    return paths


def names(inputs: Sequence[Input], *, plain: bool = False, part: str = "") -> list[str]:
    """The file name of each input's output, as in `in_directory`. Raises UsageError."""
    made = [_name(file, plain, part) for file in inputs]
    _check_distinct(made, inputs)
    return made


def of_part(path: str, part: int, parts: int) -> str:
    """The path of a part of an output: web.jsonl.zst becomes web.00001-of-00004.jsonl.zst; alone it stays."""
    if parts == 1:
        return path
    stem, compressed = (path.removesuffix(".zst"), ".zst") if path.endswith(".zst") else (path, "")
    # In front of the suffix, by which other programs know the format.
    stem, suffix = os.path.splitext(stem)
    return f"{stem}.{part:05}-of-{parts:05}{suffix}{compressed}"


def _check_distinct(paths: Sequence[str], inputs: Sequence[Input]) -> None:
    """Raise UsageError if two inputs, such as a/x.jsonl and b/x.jsonl, have one output."""
    owners: dict[str, Input] = {}
    for path, file in zip(paths, inputs, strict=True):
        owner = owners.setdefault(path, file)
        if owner is not file:
            fault = f"{owner.name} and {file.name} would both become {display(path)}"
            raise UsageError(fault, remedy="write them to directories of their own")


def _name(file: Input, plain: bool, part: str) -> str:
    if file.path == "-" or DESCRIPTOR.fullmatch(file.path):
        name = "standard input" if file.path == "-" else f"the pipe or descriptor {file.name}"
        raise UsageError(
            f"{name} has no name to give to its output",
            remedy="name files, or one output with -o FILE",
        )
    name = os.path.basename(file.path)
    # So `web.jsonl` and `web.jsonl.gz` have one output: `_check_distinct` refuses them.
    name = next((name.removesuffix(suffix) for suffix in COMPRESSED if name.endswith(suffix)), name)
    if name.endswith(PARQUET):
        # Its rows are written as lines of JSON.
        name = f"{name.removesuffix(PARQUET)}.jsonl"
    if part:
        # In front of the suffix, by which other programs know the format.
        stem, suffix = os.path.splitext(name)
        name = f"{stem}.{part}{suffix}"
    return name if plain else f"{name}.zst"
