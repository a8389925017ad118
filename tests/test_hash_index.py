"""Which number has a hash? In the order of adding, however the table grows, and whatever the bits."""

import numpy as np

from prune_cli.texts.hash_index import SMALLEST, HashIndex


def numbered(*parts):
    index = HashIndex()
    for part in parts:
        index.add(np.array(part, np.uint64))
    return index


def test_numbers_are_in_the_order_of_adding_and_unknown_hashes_have_none():
    index = numbered([7, 5], [9])
    assert index.numbers(np.array([9, 7, 8, 5], np.uint64)).tolist() == [2, 0, -1, 1]
    assert len(index) == 3


def test_hashes_that_want_the_same_place_are_told_apart():
    high = [bits << 32 | 5 for bits in range(100)]
    index = numbered(high[:60])
    assert index.numbers(np.array(high, np.uint64)).tolist() == [*range(60), *[-1] * 40]


def test_a_table_wraps_around_at_its_end():
    last = [bits << 32 | SMALLEST - 1 for bits in range(3)]
    assert numbered(last).numbers(np.array(last, np.uint64)).tolist() == [0, 1, 2]


def test_a_table_that_grows_keeps_its_numbers():
    hashes = np.random.default_rng(1).integers(0, 1 << 64, 40_000, np.uint64)
    index = numbered(*np.array_split(hashes[:20_000], 7))
    assert index.numbers(hashes).tolist() == [*range(20_000), *[-1] * 20_000]


def test_hashes_of_equal_bits_are_numbered_too():
    # All ones is the entry of a free place.
    every = [0, (1 << 64) - 1]
    assert numbered([3]).numbers(np.array(every, np.uint64)).tolist() == [-1, -1]
    assert numbered(every).numbers(np.array([*every, 3], np.uint64)).tolist() == [0, 1, -1]


def test_no_hashes():
    assert numbered([]).numbers(np.array([], np.uint64)).tolist() == []
