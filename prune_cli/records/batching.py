"""How are items put together until they are large enough?

One loop, for everything that is tokenized or scored in batches.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(frozen=True)
class Bound(Generic[Item]):
    """A limit on the sum of the sizes of a batch's items."""

    size: Callable[[Item], int]
    limit: int


def batched(
    items: Iterable[Item], *enough: Bound[Item], most: Bound[Item] | None = None
) -> Iterator[list[Item]]:
    """Lists of consecutive items. A list ends with the item that brings one of its sums to `enough`.

    It also ends before an item that would bring its sum over `most`. Only an item that is itself larger
    than `most` makes a list that is, alone. Sizes have to be over 0 where a list must not grow without bound.
    """
    batch: list[Item] = []
    sums = [0] * len(enough)
    total = 0
    for item in items:
        size = most.size(item) if most else 0
        if batch and most and total + size > most.limit:
            yield batch
            batch, sums, total = [], [0] * len(enough), 0
        batch.append(item)
        total += size
        is_enough = False
        for at, bound in enumerate(enough):
            sums[at] += bound.size(item)
            is_enough |= sums[at] >= bound.limit
        if is_enough:
            yield batch
            batch, sums, total = [], [0] * len(enough), 0
    if batch:
        yield batch
