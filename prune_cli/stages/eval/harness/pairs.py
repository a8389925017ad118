"""Which samples of several models are of the same document? Those with the same hash."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .samples import FilteredSamples, SampleDocument


@dataclass(frozen=True)
class Pairs:
    """The documents that all sides have, each once, and where each side has them.

    `places` is (sides, documents). `repeated` counts samples of a document that came before, `unpaired` the
    documents that some side lacks. `prompts` and `targets` count documents on which the sides differ in them.
    """

    documents: Sequence[SampleDocument]
    places: NDArray[np.int64]
    repeated: int
    unpaired: int
    prompts: int
    targets: int


def pair(sides: Sequence[FilteredSamples]) -> Pairs:
    """The documents that all sides have, in the order of the first."""
    firsts = [_firsts(side) for side in sides]
    common = [each for each in firsts[0] if all(each in first for first in firsts)]
    everything = set().union(*firsts)
    places = [[first[each] for each in common] for first in firsts]
    met = [[side.documents[place] for place in own] for side, own in zip(sides, places, strict=True)]
    return Pairs(
        documents=met[0],
        places=np.array(places, dtype=np.int64).reshape(len(sides), len(common)),
        repeated=max(len(side.documents) - len(first) for side, first in zip(sides, firsts, strict=True)),
        unpaired=len(everything) - len(common),
        prompts=_unlike([[document.prompt for document in side] for side in met]),
        targets=_unlike([[document.target for document in side] for side in met]),
    )


def _firsts(side: FilteredSamples) -> dict[str, int]:
    """The place of the first sample of each document."""
    first: dict[str, int] = {}
    for place, document in enumerate(side.documents):
        # A copy of a document is answered like the first: it is no evidence of its own.
        first.setdefault(document.hash, place)
    return first


def _unlike(sides: Sequence[Sequence[str | None]]) -> int:
    """The number of documents on which the sides have different values."""
    return sum(len(set(values)) > 1 for values in zip(*sides, strict=True))
