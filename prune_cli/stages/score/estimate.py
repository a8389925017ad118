"""What scoring would take, and whether its numbers can be trusted: found out on a sample before the work begins."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ...errors import CheckFailed
from ...models.device import GPU_RATES
from ...models.language_model import Content

# stages/score.py's `score` for some scoring, handed over by the command: contents → the new fields of each.
Score = Callable[[Sequence[Content]], list[dict[str, Any]]]

SCORED = 1 << 13  # tokens of a sample that are scored, to measure the rate
CARD = (
    0.4 * GPU_RATES["H100"]
)  # FLOPs a second: two fifths of an H100's bfloat16 rate, which a model of 124 M parameters reaches
TOLERANCES = {"float32": 1e-4, "bfloat16": 5e-2}  # relative, of a perplexity


@dataclass(frozen=True)
class Sample:
    """Records from the start of a corpus; `share` of it they are, by the bytes of its files, 1 if they are all."""

    contents: Sequence[Content]
    share: float
    bytes: int  # of the output's compressed records


def dry_run(
    sample: Sample, score: Score, flops_per_token: float, flops_per_continuation: float
) -> dict[str, Any]:
    """What the whole corpus would take: records, tokens, FLOPs, hours here and on a card, bytes of the output."""
    some, seconds, scored = _timed(sample.contents, score)
    letters = sum(map(len, sample.contents))
    tokens = round(scored / max(1, sum(map(len, some))) * letters / sample.share)
    records = round(len(sample.contents) / sample.share)
    flops = tokens * flops_per_token + records * flops_per_continuation
    return {
        "records": records,
        "tokens": tokens,
        "flops": flops,
        "hours_here": tokens * seconds / scored / 3600 if scored else 0.0,
        "gpu_hours": flops / CARD / 3600,
        "bytes": round(sample.bytes / sample.share),
        "sampled_records": len(sample.contents),
        "sampled_share": sample.share,
    }


def _timed(contents: Sequence[Content], score: Score) -> tuple[Sequence[Content], float, int]:
    """As many of the first contents as hold SCORED tokens; how long they took, once the model was warm, and their tokens."""
    some: list[Content] = []
    size = 0
    for content in contents:
        some.append(content)
        size += len(content)
        if size > 4 * SCORED:
            break
    score(some[:1])
    start = time.perf_counter()
    tokens = sum(fields.get("n_scored", 0) for fields in score(some))
    return some, time.perf_counter() - start, tokens


def self_check(
    contents: Sequence[Content], places: Sequence[str], score: Score, alone: Score, dtype: str
) -> float:
    """The largest relative difference between a perplexity as it is computed and the same by `alone`, a record at a time in float32.

    Raises CheckFailed, with the record, where it is past the tolerance of `dtype`.
    """
    worst, where = 0.0, ""
    for content, place, fields in zip(contents, places, score(contents), strict=True):
        [again] = alone([content])
        difference = abs(math.expm1(_mean(fields) - _mean(again)))
        if fields["n_scored"] != again["n_scored"] or not difference <= worst:
            worst, where = math.inf if fields["n_scored"] != again["n_scored"] else difference, place
    if not worst <= TOLERANCES[dtype]:
        fault = (
            f"alone and in float32 its perplexity differs by {worst:.1e}, more than {TOLERANCES[dtype]:.0e}"
        )
        raise CheckFailed(
            fault, place=where, remedy="--dtype float32 may be nearer; if it is not, please report it"
        )
    return worst


def _mean(fields: dict[str, Any]) -> float:
    return float(fields["nll_sum"] / fields["n_scored"]) if fields["n_scored"] else 0.0
