"""Random number between 0 and 1 (`--seed`), the baseline that every other metric has to beat. Needs no model.

Records with the same id and text (or ids) get the same number, whatever their order and their other fields.
"""

from typing import Any

from ..records.splice import uniform

EASY = None
BITS = 53  # that a float holds: of the hash's 64, the highest


def random(seed: int, identity: Any, content: str | list[int]) -> float:
    """BLAKE2b-64 of seed, id and text or ids, as a float in [0, 1)."""
    return (uniform(seed, identity, content) >> (64 - BITS)) / (1 << BITS)
