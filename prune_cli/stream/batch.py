"""What does a verb hand to the writer? Records one by one, or many at once with their counts as arrays."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

Text = bytes | memoryview


# A Struct without garbage collection takes half the time of a NamedTuple to make, and there is one for each
# record.
class Record(msgspec.Struct, gc=False):
    """A record to write, without its line end, and what the trailer counts of it.

    `null`: it has no score. `rank` is None if it has none, `group` if its group field holds no string.
    """

    line: bytes
    tokens: int = 0
    null: bool = False
    rank: int | None = None
    group: str | None = None


@dataclass(frozen=True)
class Lines:
    """Many records to write: their lines in one text, and for each its size in bytes and what the trailer
    counts.

    `ranks` are -1 for records without a rank; `groups` are indexes into `names`, -1 for none.
    """

    text: Text
    sizes: np.ndarray
    tokens: np.ndarray
    nulls: np.ndarray
    ranks: np.ndarray
    groups: np.ndarray
    names: Sequence[str]
