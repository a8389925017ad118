"""Into which shards is the work on a set of inputs cut?

The plan depends on the inputs and on constants alone, never on the number of workers: a second run makes the
same one, and finds what the first has finished.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

from .. import formats
from ..formats import jsonl, parquet
from ..formats.base import START
from ..storage.base import Identity, Input
from ..stream import index
from ..stream.section import Grain, Shard

TARGET = 256 << 20  # bytes of text in a shard: one or two minutes of a GPU with a model of 124M parameters
# Files that are smaller than this part of a target are not even looked at: text is rarely compressed more.
SMALL = 8


@dataclass(frozen=True)
class InputFile:
    """An input as a plan sees it: by value, without its content.

    It may be cut at `offsets`, of which the first is where its data begins and the last where it ends;
    `texts` are the bytes of text between them. No offsets: anywhere between 0 and `size`, or nowhere.
    """

    path: str
    size: int | None  # bytes; None for a pipe
    identity: Identity | None  # changes when the content does; None for a pipe
    grain: Grain = Grain.whole
    offsets: Sequence[int] = ()
    texts: Sequence[int] = ()


def inspect(file: Input, target: int | None = None) -> InputFile:
    """An input, and where it can be cut. Reads a few kilobytes of a large one."""
    size = file.size
    identity = file.identity
    whole = InputFile(file.path, size, identity)
    if size is None or identity is None or size * SMALL <= (target or TARGET):
        return whole
    table = index.read_table(file)
    if table is not None:
        ends = accumulate(table.frames.size, initial=table.offsets[0] if table.offsets else 0)
        return InputFile(file.path, size, identity, Grain.frames, tuple(ends), tuple(table.frames.text))
    with file.duplicate().open() as opened:
        start = opened.read_at(0, START)
    detected = formats.detect(start)
    if detected is jsonl.FORMAT and jsonl.is_text(start):
        return InputFile(file.path, size, identity, Grain.lines)
    if detected is parquet.FORMAT and (groups := parquet.layout_of(file)):
        return InputFile(file.path, size, identity, Grain.groups, groups.offsets, groups.texts)
    return whole


def plan(inputs: Sequence[InputFile], target: int | None = None) -> list[Shard]:
    """The shards of the inputs, in order."""
    pieces = [(file, _bounds(file, target or TARGET)) for file in inputs]
    of = sum(len(bounds) - 1 for _, bounds in pieces)
    shards: list[Shard] = []
    for file, bounds in pieces:
        parts = len(bounds) - 1
        for part, (start, end) in enumerate(pairwise(bounds), 1):
            shard = Shard(len(shards) + 1, of, file.path, identity=file.identity)
            if parts > 1:
                shard = Shard(
                    shard.number,
                    of,
                    file.path,
                    grain=file.grain,
                    start=start,
                    end=end,
                    identity=file.identity,
                    part=part,
                    parts=parts,
                )
            shards.append(shard)
    return shards


def _bounds(file: InputFile, target: int) -> list[int]:
    """The offsets between which the shards of a file lie, at least two."""
    size = file.size or 0
    if file.grain is Grain.lines:
        parts = max(1, -(-size // target))
        return [size * part // parts for part in range(parts + 1)]
    if file.grain in (Grain.frames, Grain.groups) and file.texts:
        return _frame_bounds(file, target)
    return [0, size]


def _frame_bounds(file: InputFile, target: int) -> list[int]:
    """Offsets of frames, or row groups, that divide the text as evenly as these allow."""
    before = list(accumulate(file.texts, initial=0))
    parts = max(1, -(-before[-1] // target))
    cuts = [_nearest(before, before[-1] * part // parts) for part in range(1, parts)]
    # A frame that is larger than a shard leaves fewer cuts than parts.
    inner = sorted({cut for cut in cuts if 0 < cut < len(file.texts)})
    return [file.offsets[cut] for cut in (0, *inner, len(file.texts))]


def _nearest(values: Sequence[int], target: int) -> int:
    """The index of the value nearest to a target; the values ascend."""
    above = bisect_left(values, target)
    if above and target - values[above - 1] < values[above] - target:
        return above - 1
    return above
