"""In which order do documents fill blocks, and blocks fill a pass? In orders that are the same for ever."""

import numpy as np
from numpy.typing import NDArray

from ...storage.arrays import Integers
from ...texts import words

Words = NDArray[np.uint64]


def document_order(hashes: Words, seed: int) -> Integers:
    """A permutation that depends only on the hashes and the seed.

    Documents with equal content are told apart by a number, so that they are spread and not next to each
    other.
    """
    by_content = np.argsort(hashes, kind="stable")
    ordered = hashes[by_content]
    numbers = np.arange(len(hashes), dtype=np.uint64)
    is_first = np.ones(len(hashes), bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    # 0 for the first document of a content, 1 for its first repetition, ...
    repeat = numbers - np.maximum.accumulate(np.where(is_first, numbers, np.uint64(0)))
    return by_content[np.argsort(mixed(mixed(ordered, seed) + repeat), kind="stable")]


def block_order(count: int, seed: int, epoch: int) -> Integers:
    """A permutation of `count` blocks that depends only on the seed and the epoch."""
    return np.argsort(mixed(np.arange(count, dtype=np.uint64), seed, epoch), kind="stable")


def mixed(values: Words, *salts: int) -> Words:
    """64 well-mixed bits for each value: splitmix64 (Steele et al. 2014), once per salt.

    Not numpy's generators: they may change between versions, and resumed runs need the same order for ever.
    """
    for salt in (0, *salts):
        # uint64 wraps around, which is what the algorithm wants.
        values = words.mixed((values ^ np.uint64(salt % (1 << 64))) + np.uint64(0x9E3779B97F4A7C15))
    return values
