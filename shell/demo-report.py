#!/usr/bin/env python3
"""Say what the demo did: `demo-report.py DIRECTORY`, the ranked pool as plain JSON Lines on standard input.

It prints what each cut kept, how the scores lie and where they were cut, how far the shipped reference model
agrees, and what the models reach on both tests.
"""

import json
import math
import sys
from collections import Counter
from pathlib import Path
from statistics import correlation, median
from typing import Any

ARMS = ("all", "random", "bottom", "middle", "top")
SOURCES = ("topics", "docstrings", "comments", "licences", "code", "tables")
PROSE = SOURCES[:3]
TESTS = ("mixed", "prose")
SCORES = {"ours": "perplexity", "shipped": "shipped_perplexity"}
ROWS = 24
WIDTH = 50
CLOSING = """\
The intervals (95 %) show how far the choice of test documents could mislead, not how results vary with the
seed. One seed of a model this small shows the content of each cut and its cost; it cannot show the paper's
1 %, which is less than seeds differ by. The reference model learned from prose, so a low score means
`like prose`, and the prose test rewards that."""

Record = dict[str, Any]


def main() -> None:
    """Print the report."""
    directory = Path(sys.argv[1])
    pool = records(sys.stdin.read())
    kept = {arm: pool if arm == "all" else records(read(directory / f"{arm}.jsonl")) for arm in ARMS}
    passes = {
        arm: json.loads(read(directory / f"run-{arm}" / "train.json"))["summary"]["passes"] for arm in ARMS
    }
    results = records(read(directory / "results.jsonl"))
    parts = [
        cuts(kept, passes),
        histogram(pool, kept["middle"]),
        agreement(pool),
        outcome(results),
        [CLOSING],
    ]
    print("\n\n".join("\n".join(part) for part in parts))


def read(path: Path) -> str:
    """A file's text."""
    return path.read_text(encoding="utf-8")


def records(text: str) -> list[Record]:
    """One record a line, without the document's text."""
    return [
        {key: value for key, value in json.loads(line).items() if key != "text"}
        for line in text.split("\n")[:-1]
    ]


def cuts(kept: dict[str, list[Record]], passes: dict[str, float]) -> list[str]:
    """What each arm kept: its size, how often training went over it, and the share of each source's
    tokens.
    """
    whole = tokens_by_source(kept["all"])
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


def agreement(pool: list[Record]) -> list[str]:
    """Where each source lies for our reference model and for the shipped one, and the correlation of their
    rankings.
    """
    scored = [
        record
        for record in pool
        if record["perplexity"] is not None and record["shipped_perplexity"] is not None
    ]
    found = {name: ranks([record[field] for record in scored]) for name, field in SCORES.items()}
    lines = [
        "Where each source lies for the model trained above and for the shipped one: median rank, 0 the "
        "lowest perplexity, 1 the highest"
    ]
    lines += [f"{'model':8}" + "".join(f"{source:>11}" for source in SOURCES)]
    for name, places in found.items():
        of_source = {
            source: [place for place, r in zip(places, scored, strict=True) if r["source"] == source]
            for source in SOURCES
        }
        lines.append(
            f"{name:8}"
            + "".join(
                f"{median(of_source[one]):11.2f}" if of_source[one] else f"{'-':>11}" for one in SOURCES
            )
        )
    return [
        *lines,
        f"Spearman's correlation of the two rankings is {correlation(found['ours'], found['shipped']):.2f}.",
    ]


def ranks(scores: list[float]) -> list[float]:
    """Each score's place among all, between 0 and 1."""
    places = [0.0] * len(scores)
    for place, index in enumerate(sorted(range(len(scores)), key=scores.__getitem__)):
        places[index] = (place + 0.5) / len(scores)
    return places


def outcome(results: list[Record]) -> list[str]:
    """Perplexity of every arm on both tests, and the effect against the random half with its interval."""
    lines = [
        "Perplexity of the models trained on them, and the effect against `random` in per cent: below 0 "
        "is better"
    ]
    lines += [f"{'arm':8}" + "".join(f"{test:>9}{'effect (95 % interval)':>28}" for test in TESTS)]
    for arm in ARMS:
        cells = ""
        for test in TESTS:
            cells += f"{perplexity(results, arm, test):9.2f}{effect(results, arm, test):>28}"
        lines.append(f"{arm:8}{cells}")
    return lines


def perplexity(results: list[Record], arm: str, test: str) -> float:
    """One model on one test."""
    return next(
        float(result["perplexity"]) for result in results if is_about(result, "likelihood", arm, test)
    )


def effect(results: list[Record], arm: str, test: str) -> str:
    """The paired comparison with the random half; it has none with itself."""
    for result in results:
        if is_about(result, "comparison", arm, test):
            low, high = result["effect_interval"]
            return f"{100 * result['effect']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
    return "-"


def is_about(result: Record, kind: str, arm: str, test: str) -> bool:
    """Whether a result is of this kind, for this model on this whole test."""
    whole = result["result"] == kind and result.get("group") is None
    return whole and Path(result["model"]).name == f"run-{arm}" and Path(result["data"]).stem == test


if __name__ == "__main__":
    main()
