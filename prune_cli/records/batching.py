"""How are items put together until they are large enough?

One loop, for everything that is tokenized in batches.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Item = TypeVar("Item")


def batched(items: Iterable[Item], size: Callable[[Item], int], enough: int) -> Iterator[list[Item]]:
    """Lists of consecutive items. A list ends with the item that brings the sum of sizes to `enough`.

    So an item that is larger than `enough` ends its list, and only the last list may be smaller. Sizes have
    to be over 0 where a list must not grow without bound.
    """
    batch: list[Item] = []
    total = 0
    for item in items:
        batch.append(item)
        total += size(item)
        if total >= enough:
            yield batch
            batch = []
            total = 0
    if batch:
        yield batch
