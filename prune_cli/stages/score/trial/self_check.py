"""Can the scores be trusted? Compared with those of single records in float32, before the run begins."""

import math
from collections.abc import Sequence
from typing import Any

from ....errors import CheckFailed, DataError
from ....records.documents import PromptedContent
from .estimate import Score

# Relative differences of a perplexity that are accepted: float32 differs by the order of the sums in a
# batch, bfloat16 by its 8 bits of precision.
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}


def largest_difference(
    contents: Sequence[PromptedContent], places: Sequence[str], score: Score, score_alone: Score, dtype: str
) -> float:
    """The largest relative difference between the perplexities of `score` and of `score_alone`.

    `score` gets all contents at once, `score_alone` one by one. Raises CheckFailed, which names the record,
    if the difference is more than the tolerance of `dtype`, and DataError if no record has a score.
    """
    scores = score(contents)
    # A check of nothing must not look like a success.
    if scores and not any(fields["n_scored"] for fields in scores):
        fault = f"none of the first {len(scores)} records has a score, so there is nothing to check"
        raise DataError(fault, place=places[0], remedy="raise --self-check, or leave it out")
    largest = 0.0
    largest_at = ""
    for content, place, fields in zip(contents, places, scores, strict=True):
        [alone] = score_alone([content])
        difference = _difference(fields, alone)
        # Negated, so that nan counts as larger than everything.
        if not difference <= largest:
            largest = difference
            largest_at = place
    if not largest <= TOLERANCES[dtype]:
        raise CheckFailed(
            f"its perplexity differs by {largest:.1e} from that of the record alone in float32, "
            f"more than {TOLERANCES[dtype]:.0e}",
            place=largest_at,
            remedy="try --dtype float32; if that differs as well, please report a bug",
        )
    return largest


def _difference(fields: dict[str, Any], alone: dict[str, Any]) -> float:
    """The relative difference of two perplexities; infinite if they are of different tokens."""
    if fields["n_scored"] != alone["n_scored"]:
        return math.inf
    # exp(a) / exp(b) - 1, without overflow and without loss of digits where a is close to b.
    return abs(math.expm1(_mean_nll(fields) - _mean_nll(alone)))


def _mean_nll(fields: dict[str, Any]) -> float:
    return float(fields["nll_sum"] / fields["n_scored"]) if fields["n_scored"] else 0.0
