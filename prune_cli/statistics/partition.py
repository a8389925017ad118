"""Where is a sorted whole cut into pieces of bounded size, if only histograms of its keys are at hand?

A boundary is a place in the order of all records: by key, equal keys in the order of the input. It is a key,
and the number of records with that very key that go before it. Boundaries depend on the records alone, not on
how they were spread over files or counted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..records.sorting.keys import UNSCORED
from .key_histogram import SHIFTS, Histogram

# The histograms of all inputs, in their order, by a finer shift, of the keys that begin with the prefixes:
# (prefixes, shift of the prefixes, shift of the histograms).
Refine = Callable[[np.ndarray, int, int], list[Histogram]]


@dataclass(frozen=True)
class Boundaries:
    """Places in the order of all records, rising: `keys` uint64 (n), `ordinals` int64 (n).

    `ties` says for each how many records with its key every input has, int64 (inputs, n): with them an input
    knows how many of its own records go before the boundary.
    """

    keys: np.ndarray
    ordinals: np.ndarray
    ties: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def within(self, number: int) -> np.ndarray:
        """For each boundary, the records of its key that go before it in input `number`: int64 (n)."""
        before = self.ties[:number].sum(axis=0)
        # Input order breaks ties: those of the inputs before take their part of the ordinal first.
        own: np.ndarray = np.clip(self.ordinals - before, 0, self.ties[number])
        return own


def boundaries(
    histogram: Histogram, inputs: int, weight: Callable[[np.ndarray], np.ndarray], most: int, refine: Refine
) -> Boundaries:
    """Cut the records into pieces of at most `most` by `weight` of their amounts, as few as a sweep gives.

    A single score that is heavier is cut by input order, into pieces of equal numbers of records. Unscored
    records, whose key is UNSCORED, are in pieces of their own.
    """
    atoms = _atoms(histogram, weight, most, refine)
    keys: list[int] = []
    ordinals: list[int] = []
    held = 0.0
    for atom in atoms:
        begins_unscored = atom.key == UNSCORED and not atom.ordinal
        if begins_unscored or (held and held + atom.weight > most):
            keys.append(atom.key)
            ordinals.append(atom.ordinal)
            held = 0.0
        held += atom.weight
    columns = np.array(keys, np.uint64), np.array(ordinals, np.int64)
    return Boundaries(*columns, _ties(*columns, inputs, refine))


@dataclass(frozen=True)
class _Atom:
    """Records that no boundary divides: from this place in the order to the next atom's."""

    key: int
    ordinal: int
    weight: float


def _atoms(
    histogram: Histogram, weight: Callable[[np.ndarray], np.ndarray], most: int, refine: Refine
) -> list[_Atom]:
    """Bins, refined until each weighs at most `most` or is a single score; heavy scores in pieces."""
    atoms: list[_Atom] = []
    for shift, finer in zip(SHIFTS, (*SHIFTS[1:], None), strict=True):
        weights = weight(histogram.amounts)
        heavy = weights > most
        for prefix, amount in zip(histogram.prefixes[~heavy].tolist(), weights[~heavy].tolist(), strict=True):
            atoms.append(_Atom(_first_key(prefix, shift), 0, amount))
        if not heavy.any():
            break
        if finer is not None:
            histogram = Histogram.sum(refine(histogram.prefixes[heavy], shift, finer))
            continue
        columns = histogram.prefixes[heavy], histogram.amounts[heavy, 0], weights[heavy]
        for key, records, amount in zip(*(column.tolist() for column in columns), strict=True):
            atoms += _pieces(key, records, amount, most)
    return sorted(atoms, key=lambda atom: (atom.key, atom.ordinal))


def _first_key(prefix: int, shift: int) -> int:
    """The first key of a bin. No score shares a bin with UNSCORED: it begins with that very key."""
    return UNSCORED if prefix == UNSCORED >> shift else prefix << shift


def _pieces(key: int, records: int, weight: float, most: int) -> list[_Atom]:
    # Half the weight each: records of one score may be longer in one input than in the next.
    pieces = min(records, -int(-2 * weight // most))
    return [_Atom(key, records * piece // pieces, weight / pieces) for piece in range(pieces)]


def _ties(keys: np.ndarray, ordinals: np.ndarray, inputs: int, refine: Refine) -> np.ndarray:
    """How many records of each boundary's key every input has; zeros where no tie is cut."""
    ties = np.zeros((inputs, len(keys)), np.int64)
    cut = np.unique(keys[ordinals > 0])
    if not len(cut):
        return ties
    for number, histogram in enumerate(refine(cut, 0, 0)):
        ties[number] = np.where(ordinals > 0, histogram.amounts_of(keys)[:, 0], 0)
    return ties


def union(*sets: Boundaries) -> Boundaries:
    """All boundaries of several sets, each once."""
    keys = np.concatenate([each.keys for each in sets])
    ordinals = np.concatenate([each.ordinals for each in sets])
    ties = np.concatenate([each.ties for each in sets], axis=1)
    order = np.lexsort((ordinals, keys))
    keys, ordinals, ties = keys[order], ordinals[order], ties[:, order]
    # A first comparison with nothing: the first boundary always stays.
    is_new = np.ones(len(keys), bool)
    is_new[1:] = (keys[1:] != keys[:-1]) | (ordinals[1:] != ordinals[:-1])
    return Boundaries(keys[is_new], ordinals[is_new], ties[:, is_new])
