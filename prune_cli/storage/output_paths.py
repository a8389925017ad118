"""One output for each input: what they are called, and which are done."""

import os
from collections.abc import Sequence

from ..errors import UsageError
from . import check_target, make_directory
from .base import Input
from .os_errors import display

COMPRESSED = (".zst", ".zstd", ".gz")


def in_directory(
    directory: str, inputs: Sequence[Input], *, plain: bool = False, part: str = ""
) -> list[str]:
    """The path of each input's output: `web.jsonl.gz` makes `web.jsonl.zst`, of which `part` 1-of-2 is `web.1-of-2.jsonl.zst`.

    The directory is made. Raises UsageError for standard input and for two outputs of one name, CannotCreateError where one cannot be.
    """
    paths = [os.path.join(directory, _name(one, plain, part)) for one in inputs]
    owners: dict[str, Input] = {}
    for path, one in zip(paths, inputs, strict=True):
        other = owners.setdefault(path, one)
        if other is not one:
            remedy = "write them to directories of their own"
            raise UsageError(f"{other.name} and {one.name} would both become {display(path)}", remedy=remedy)
    make_directory(directory)
    for path in paths:
        check_target(path, inputs, force=True)
    return paths


def _name(one: Input, plain: bool, part: str) -> str:
    if one.path == "-":
        raise UsageError(
            "standard input has no name that an output could have",
            remedy="name files, or one output with -o FILE",
        )
    name = os.path.basename(one.path)
    name = next((name.removesuffix(suffix) for suffix in COMPRESSED if name.endswith(suffix)), name)
    if part:
        stem, suffix = os.path.splitext(name)
        name = f"{stem}.{part}{suffix}"
    return name if plain else f"{name}.zst"
