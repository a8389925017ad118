#!/usr/bin/env python3
"""Say what the demo did.

    demo-report.py DIRECTORY           what each cut kept, how the scores lie, what the models reach
    demo-report.py --quick DIRECTORY   what the cut of `demo --quick` kept
    demo-report.py --read              documents to read, shortened

The first and the last read ranked records as plain JSON Lines from standard input.
"""

import json
import math
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

ARMS = ("random", "bottom", "middle", "top")
SEEDS = (1, 2, 3)
SOURCES = ("topics", "docstrings", "comments", "licences", "code", "tables")
PROSE = SOURCES[:3]
TESTS = ("mixed", "prose")
ROWS = 24
WIDTH = 50
READ = 2  # documents of a place
LINES = 4  # of a document

CLOSING = """\
Effects are in per cent of the perplexity against the random halves; below 0 is better. The intervals (95 %)
contain the noise of training: three seeds an arm, each random half drawn anew. An effect whose interval
contains 0 is within noise. What this shows: each part trains a different model, because it holds different
text (see the first table). The reference read prose alone, so a low score means `like prose`, and the test of
prose rewards the arms that keep it. What it does not show: a gain like the paper's one per cent, for which
models of half a million parameters are far too small."""

NEXT = """\
Next, on a corpus of yours (JSON Lines with a `text`, compressed or not):

    prune-cli score CORPUS.jsonl.zst | prune-cli rank --by tokens > ranked.jsonl.zst
    prune-cli slice --range 0.74:0.76 --plain ranked.jsonl.zst | less     # read what lies at the cut
    prune-cli slice --keep middle --frac 0.5 ranked.jsonl.zst > half.jsonl.zst

The shipped model is small: score with a model of yours (`--model`) before you train on the result. See
`man prune-cli`; shell/paper-grid compares arms at any size."""

Record = dict[str, Any]


def main() -> None:
    """Print what the arguments ask for."""
    if sys.argv[1] == "--read":
        print(excerpts(records(sys.stdin.read())))
    elif sys.argv[1] == "--quick":
        print(f"\n{quick(json.loads(read(Path(sys.argv[2]) / 'cut.json')))}\n\n{NEXT}")
    else:
        print(report(Path(sys.argv[1]), records(sys.stdin.read())))


def read(path: Path) -> str:
    """A file's text."""
    return path.read_text(encoding="utf-8")


def records(text: str) -> list[Record]:
    """One record a line."""
    return [json.loads(line) for line in text.split("\n")[:-1]]


# --- The quick demo ---


def excerpts(documents: list[Record]) -> str:
    """The beginnings of the first documents, each under its score."""
    parts = []
    for document in documents[:READ]:
        lines = [line[: WIDTH * 2] for line in document["text"].split("\n") if line.strip()]
        about = f"quantile {document['quantile']:.3f}, perplexity {document['perplexity']:.0f}"
        parts += [
            f"  {about}, {document['source']} {document['id']}",
            *(f"      {line}" for line in lines[:LINES]),
        ]
    return "\n".join(parts)


def quick(summary: Record) -> str:
    """How much of each source the cut of the quick demo keeps."""
    lines = ["The middle half keeps, in per cent of the tokens of each source:"]
    for source in SOURCES:
        if fates := summary["groups"].get(source):
            kept, total = fates["kept"]["tokens"], sum(fate["tokens"] for fate in fates.values())
            lines.append(f"  {source:12}{100 * kept / total:4.0f}")
    return "\n".join(lines)


# --- The whole demo ---


def report(directory: Path, pool: list[Record]) -> str:
    """The tables and the histogram of the whole demo."""
    kept = {arm: records(read(directory / f"{arm}.jsonl")) for arm in ("random-1", *ARMS[1:])}
    kept["random"] = kept.pop("random-1")
    runs = {arm: json.loads(read(directory / f"run-{arm}-1" / "train.json"))["summary"] for arm in ARMS}
    parts = [
        cuts(pool, {arm: kept[arm] for arm in ARMS}, {arm: run["passes"] for arm, run in runs.items()}),
        histogram(pool, kept["middle"]),
        outcome(directory, runs["random"]),
        [CLOSING],
        [NEXT],
    ]
    return "\n\n".join("\n".join(part) for part in parts)


def cuts(pool: list[Record], kept: dict[str, list[Record]], passes: dict[str, float]) -> list[str]:
    """What each arm kept: its size, how often training went over it, and the share of each source's
    tokens.
    """
    whole = tokens_by_source(pool)
    lines = ["What each cut keeps, in per cent of the tokens of each source"]
    lines += [
        f"{'arm':8}{'documents':>10}{'tokens':>10}{'passes':>8}  "
        + "".join(f"{source:>11}" for source in SOURCES)
    ]
    for arm, documents in kept.items():
        part = tokens_by_source(documents)
        shares = "".join(
            f"{100 * part[source] / whole[source]:11.0f}" if whole[source] else f"{'-':>11}"
            for source in SOURCES
        )
        lines.append(f"{arm:8}{len(documents):10,}{part.total():10,}{passes[arm]:8.2f}  {shares}")
    return lines


def tokens_by_source(documents: list[Record]) -> Counter[str]:
    """Scored tokens of each source."""
    tokens = Counter[str]()
    for record in documents:
        tokens[record["source"]] += record["n_scored"]
    return tokens


def histogram(pool: list[Record], middle: list[Record]) -> list[str]:
    """The pool's tokens over the logarithm of perplexity, prose and noise apart, the cuts marked."""
    scored = sorted(
        (math.log(r["perplexity"]), r["n_scored"], r["source"] in PROSE)
        for r in pool
        if r["perplexity"] is not None
    )
    low, high = quantile(scored, 0.001), quantile(scored, 0.999)
    bins = [Counter[bool]() for _ in range(ROWS)]
    for score, tokens, is_prose in scored:
        bins[bin_of(score, low, high)][is_prose] += tokens
    marks = [(bin_of(score, low, high), text) for score, text in borders(scored, middle)]
    tallest = max(b.total() for b in bins)
    lines = ["Log perplexity under the reference model, by tokens: █ prose, ░ code, tables and licences"]
    for row, counted in enumerate(bins):
        prose, both = (round(WIDTH * n / tallest) for n in (counted[True], counted.total()))
        bar = "█" * prose + "░" * (both - prose)
        cut = "".join(f"  ◄ {text}" for marked, text in marks if marked == row)
        lines.append(f"{low + (row + 0.5) * (high - low) / ROWS:6.2f} │{bar}{cut}")
    return lines


def borders(scored: list[tuple[float, int, bool]], middle: list[Record]) -> list[tuple[float, str]]:
    """The scores at which the halves are cut."""
    inside = [math.log(record["perplexity"]) for record in middle]
    return [
        (min(inside), "middle begins"),
        (quantile(scored, 0.5), "bottom ends, top begins"),
        (max(inside), "middle ends"),
    ]


def quantile(scored: list[tuple[float, int, bool]], share: float) -> float:
    """The score below which lies this share of the tokens; the list is sorted."""
    target, below = share * sum(tokens for _, tokens, _ in scored), 0
    for score, tokens, _ in scored:
        below += tokens
        if below >= target:
            return score
    return scored[-1][0]


def bin_of(score: float, low: float, high: float) -> int:
    """The row of a score; what lies outside goes to the first or the last."""
    return min(ROWS - 1, max(0, int((score - low) / (high - low) * ROWS)))


def outcome(directory: Path, run: Record) -> list[str]:
    """Perplexity of every arm on both tests, and the effect against the random halves with its interval."""
    size = f"{run['parameters'] / 1e6:.1f} M parameters and {run['tokens'] / 1e3:,.0f} thousand tokens"
    lines = [f"Perplexity of the models, of {size}: mean of {len(SEEDS)} seeds, effect (95 % interval)"]
    lines += [f"{'arm':8}" + "".join(f"{test:>9}{'effect':>38}" for test in TESTS)]
    for arm in ARMS:
        cells = ""
        for test in TESTS:
            cells += f"{perplexity(directory, arm, test):9.1f}{effect(directory, arm, test):>38}"
        lines.append(f"{arm:8}{cells}")
    return lines


def perplexity(directory: Path, arm: str, test: str) -> float:
    """The geometric mean over the seeds."""
    results = [each for each in records(read(directory / f"results-{arm}.jsonl")) if is_on(each, test)]
    return math.exp(fmean(math.log(each["perplexity"]) for each in results))


def effect(directory: Path, arm: str, test: str) -> str:
    """The comparison with the random halves, which have none with themselves. Noise is called noise."""
    path = directory / f"comparison-{arm}.jsonl"
    for result in records(read(path)) if path.exists() else []:
        if result["result"] == "comparison" and is_on(result, test):
            low, high = result["effect_interval"]
            noise = "within noise " if low <= 0 <= high else ""
            return f"{noise}{100 * result['effect']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return "-"


def is_on(result: Record, test: str) -> bool:
    """Whether a result is of this test."""
    return Path(result["data"]).stem == f"test-{test}"


if __name__ == "__main__":
    main()
