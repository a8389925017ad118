"""Into which pieces is the work on a set of inputs cut?"""

from collections.abc import Sequence
from dataclasses import dataclass

from ..storage.base import Identity


@dataclass(frozen=True)
class InputFile:
    """An input as a plan sees it: by value, without opening it."""

    path: str
    size: int | None  # bytes; None for a pipe
    identity: Identity | None  # changes when the content does; None for a pipe


@dataclass(frozen=True)
class Shard:
    """A piece of an input, and the output that its records go to.

    Picklable: it may be sent to another process, or to another machine that reaches the same paths.
    """

    number: int  # from 1
    of: int
    input: str
    start: int  # bytes
    end: int | None  # bytes; None is the end of the input
    identity: (
        Identity | None
    )  # of the input when the plan was made, so that a change in the meantime can be noticed
    output: str


def plan(inputs: Sequence[InputFile], outputs: Sequence[str]) -> list[Shard]:
    """One shard for each input, in order, with the output of the same index.

    The result depends on the arguments alone: a second run makes the same plan and finds what the first one
    finished. Raises ValueError if the two sequences differ in length.
    """
    return [
        Shard(
            number=number,
            of=len(inputs),
            input=file.path,
            start=0,
            end=file.size,
            identity=file.identity,
            output=output,
        )
        for number, (file, output) in enumerate(zip(inputs, outputs, strict=True), 1)
    ]
