"""A number between 0 and 1 by chance (`--seed`), the lower bound for every other metric; it needs no model.

Records that are equal in id and text (or ids) go together, whatever their order and their other fields.
"""

from typing import Any

from ..records.splice import uniform

EASY = None


def random(seed: int, identity: Any, content: str | list[int]) -> float:
    """BLAKE2b-64 of seed, id and text or ids, as a float in [0, 1)."""
    return (uniform(seed, identity, content) >> 11) / (1 << 53)
