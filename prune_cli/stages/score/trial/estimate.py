"""What would scoring a corpus take? Estimated from a sample of its records."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ....records.documents import PromptedContent

# `windows.score` for some scoring: contents → the new fields of each.
Score = Callable[[Sequence[PromptedContent]], list[dict[str, Any]]]

SCORED_TOKENS = 1 << 13  # tokens of the sample that are scored, to measure the rate
CHARACTERS_PER_TOKEN = 4  # of English text, roughly: it only decides how much of the sample is scored
# The dense bfloat16 rate of an H100, in FLOPs per second, as in models/device.py, which would load torch.
H100 = 989e12
UTILISATION = 0.4  # of that rate, which a model of 124 M parameters reaches


@dataclass(frozen=True)
class Sample:
    """Records from the start of a corpus."""

    contents: Sequence[PromptedContent]
    share: float  # of the corpus, by the bytes of its files; 1 if these are all records
    bytes: int  # of the compressed records with their scores


@dataclass(frozen=True)
class Estimate:
    """What --dry-run prints, for the whole corpus."""

    records: int
    tokens: int
    flops: float
    hours_here: float
    gpu_hours: float  # of an H100
    bytes: int  # of the output
    sampled_records: int
    sampled_share: float


def estimate(sample: Sample, score: Score, flops_per_token: float, flops_per_continuation: float) -> Estimate:
    """Extrapolate from a sample, some of which is scored to measure the rate."""
    contents = _enough(sample.contents)
    seconds, tokens = _timed(contents, score)
    # Tokens per character (or per id, of blocks) of the scored part, times the characters of the corpus.
    scored_size = max(1, sum(map(len, contents)))
    all_tokens = round(tokens / scored_size * sum(map(len, sample.contents)) / sample.share)
    records = round(len(sample.contents) / sample.share)
    flops = all_tokens * flops_per_token + records * flops_per_continuation
    return Estimate(
        records=records,
        tokens=all_tokens,
        flops=flops,
        hours_here=all_tokens * seconds / tokens / 3600 if tokens else 0.0,
        gpu_hours=flops / (UTILISATION * H100) / 3600,
        bytes=round(sample.bytes / sample.share),
        sampled_records=len(sample.contents),
        sampled_share=sample.share,
    )


def _enough(contents: Sequence[PromptedContent]) -> list[PromptedContent]:
    """The first contents that hold about SCORED_TOKENS tokens."""
    chosen: list[PromptedContent] = []
    size = 0
    for content in contents:
        chosen.append(content)
        size += len(content)
        if size > CHARACTERS_PER_TOKEN * SCORED_TOKENS:
            break
    return chosen


def _timed(contents: Sequence[PromptedContent], score: Score) -> tuple[float, int]:
    """Seconds that scoring takes, and the tokens that were scored."""
    # The first batch compiles kernels and allocates memory; a long run does that once.
    score(contents[:1])
    start = time.perf_counter()
    tokens = sum(fields.get("n_scored", 0) for fields in score(contents))
    return time.perf_counter() - start, tokens
