"""What did a grid find, in tables of Markdown, with a verdict on each hypothesis?

The tables need nothing but the records of results.jsonl, which `results.py` collects.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any

Record = dict[str, Any]
NOISE = "within noise"
# What a pair has to show, with the effect of the first arm against the second: the interval's lower and upper
# end, and the margin of `no worse` and `no better`.
CONFIRMED = {
    "worse": lambda low, high, margin: low > 0,
    "better": lambda low, high, margin: high < 0,
    "no worse": lambda low, high, margin: high < margin,
    "no better": lambda low, high, margin: low > -margin,
}
REFUTED = {
    "worse": lambda low, high, margin: high < 0,
    "better": lambda low, high, margin: low > 0,
    "no worse": lambda low, high, margin: low > 0,
    "no better": lambda low, high, margin: high < 0,
}


def markdown(records: Sequence[Record]) -> str:
    """All tables of a grid; what is not there yet is left out."""
    parts = [
        _arms_table(records),
        _hypotheses_table(records),
        _agreements_table(records),
        _cuts_table(records),
        _sweep_table(records),
        _glue_table(records),
        _hours_line(records),
    ]
    return "\n\n".join(part for part in parts if part)


def of_kind(records: Sequence[Record], kind: str) -> list[Record]:
    """The records of a kind."""
    return [record for record in records if record["kind"] == kind]


def _table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join([title, "", *(f"| {' | '.join(line)} |" for line in lines)]) if rows else ""


def _arms_table(records: Sequence[Record]) -> str:
    [about] = of_kind(records, "grid")
    head = ["arm", "M tokens", "passes", "seeds"]
    for test in about["tests"]:
        head += [f"{test}: perplexity", "effect in % (95 % interval)"]
    rows = []
    for name in about["arms"]:
        runs = [run for run in of_kind(records, "run") if run["arm"] == name]
        if runs:
            tokens, passes = (fmean(run[field] for run in runs) for field in ("unique_tokens", "passes"))
            row = [name, f"{tokens / 1e6:.2f}", f"{passes:.1f}", str(len(runs))]
            rows.append(row + [cell for test in about["tests"] for cell in _on_test(records, name, test)])
    baselines = "Effects are against the random arm of the same size; `all` is against the first random arm."
    title = f"{about['steps']:,} steps of {about['batch_tokens']:,.0f} tokens for every arm. {baselines}"
    return _table(title, head, rows)


def _on_test(records: Sequence[Record], name: str, test: str) -> Iterator[str]:
    found = [
        each["perplexity"]
        for each in of_kind(records, "likelihood")
        if (each["arm"], each["test"]) == (name, test)
    ]
    yield f"{fmean(found):.2f} ({min(found):.2f}–{max(found):.2f})"
    [about] = of_kind(records, "grid")
    yield effect(comparison(records, name, about["baselines"][name], test))


def comparison(records: Sequence[Record], one: str, other: str, test: str) -> Record | None:
    """The comparison of two arms on a test set, None if it is not there."""
    wanted = (one, other, test)
    found = [
        each
        for each in of_kind(records, "comparison")
        if (each["arm"], each["against"], each["test"]) == wanted
    ]
    return found[0] if found else None


def effect(result: Record | None) -> str:
    """An effect and its interval in per cent. An interval that contains 0 is said to be noise."""
    if not result or not result["effect_interval"]:
        return "–"
    low, high = result["effect_interval"]
    noise = f", {NOISE}" if low <= 0 <= high else ""
    return f"{100 * result['effect']:+.2f} ({100 * low:+.2f} to {100 * high:+.2f}){noise}"


def _hypotheses_table(records: Sequence[Record]) -> str:
    rows = []
    for hypothesis in of_kind(records, "hypothesis"):
        rows.append(
            [
                hypothesis["name"],
                hypothesis["claim"],
                _evidence(records, hypothesis),
                verdict(records, hypothesis),
            ]
        )
    return _table("Hypotheses", ["", "claim", "shown", "verdict"], rows)


def _evidence(records: Sequence[Record], hypothesis: Record) -> str:
    shown = [
        f"{one} against {other}: {effect(comparison(records, one, other, hypothesis['test']))}"
        for one, other in hypothesis.get("pairs", [])
    ]
    shown += [
        f"{score} and {against}: {found['spearman']:.3f}, same middle {found['overlap']['middle']:.2f}"
        for score, against in (rule["scores"] for rule in hypothesis.get("rankings", []))
        if (found := _agreement(records, score, against))
    ]
    return "; ".join(shown)


def verdict(records: Sequence[Record], hypothesis: Record) -> str:
    """`confirmed` if all parts of the hypothesis are, `refuted` if one of them is, else `undecided`.

    `not tested` if the runs of a part are missing.
    """
    parts = [*_pair_verdicts(records, hypothesis), *_ranking_verdicts(records, hypothesis)]
    for decisive in ("not tested", "refuted", "undecided"):
        if decisive in parts:
            return decisive
    return "confirmed"


def _pair_verdicts(records: Sequence[Record], hypothesis: Record) -> Iterator[str]:
    for at, (one, other) in enumerate(hypothesis.get("pairs", [])):
        relation = hypothesis.get("relation", "")
        if "as" in hypothesis:
            first, second = hypothesis["as"][at]
            relation = _sign(comparison(records, first, second, hypothesis["test"]))
        yield _decide(
            comparison(records, one, other, hypothesis["test"]), relation, hypothesis.get("margin", 0)
        )


def _sign(result: Record | None) -> str:
    """The relation that a comparison shows: worse, better, or none if its interval contains 0."""
    if not result or not result["effect_interval"]:
        return "unknown"
    low, high = result["effect_interval"]
    if low <= 0 <= high:
        return "none"
    return "worse" if low > 0 else "better"


def _decide(result: Record | None, relation: str, margin: float) -> str:
    if not result or not result["effect_interval"] or relation == "unknown":
        return "not tested"
    if relation == "none":
        return "undecided"
    low, high = result["effect_interval"]
    if CONFIRMED[relation](low, high, margin):
        return "confirmed"
    return "refuted" if REFUTED[relation](low, high, margin) else "undecided"


def _ranking_verdicts(records: Sequence[Record], hypothesis: Record) -> Iterator[str]:
    for rule in hypothesis.get("rankings", []):
        found = _agreement(records, *rule["scores"])
        if not found:
            yield "not tested"
            continue
        alike = found["spearman"] >= rule["spearman"] and found["overlap"]["middle"] >= rule["overlap"]
        yield "confirmed" if alike == rule["alike"] else "refuted"


def _agreement(records: Sequence[Record], score: str, against: str) -> Record | None:
    found = [
        each for each in of_kind(records, "agreement") if (each["score"], each["against"]) == (score, against)
    ]
    return found[0] if found else None


def _agreements_table(records: Sequence[Record]) -> str:
    parts = ("bottom", "middle", "top")
    rows = [
        [
            each["score"],
            each["against"],
            f"{each['spearman']:.3f}",
            *(f"{each['overlap'][part]:.2f}" for part in parts),
        ]
        for each in of_kind(records, "agreement")
    ]
    head = ["score", "against", "Spearman", *(f"same {part} half" for part in parts)]
    return _table("Agreement of rankings (two random halves share 0.50)", head, rows)


def _cuts_table(records: Sequence[Record]) -> str:
    cuts = of_kind(records, "cut")
    sources = sorted({name for cut in cuts for name in cut["groups"]})
    rows = []
    for cut in cuts:
        shares = [cut["groups"].get(name, [0, 0]) for name in sources]
        cells = [f"{100 * kept / total:.0f}" if total else "–" for kept, total in shares]
        rows.append([cut["arm"], f"{cut['kept']['records']:,}", *cells])
    return _table(
        "Composition: per cent of the tokens of each source that an arm keeps",
        ["arm", "documents", *sources],
        rows,
    )


def _sweep_table(records: Sequence[Record]) -> str:
    rows = [[f"{each['lr']:g}", f"{each['perplexity']:.2f}"] for each in of_kind(records, "sweep")]
    return _table("Sweep of the learning rate", ["peak learning rate", "perplexity"], rows)


def _glue_table(records: Sequence[Record]) -> str:
    scores: dict[tuple[str, str], list[Record]] = defaultdict(list)
    for each in of_kind(records, "glue"):
        scores[each["task"], each["arm"]].append(each)
    rows = [
        [
            task,
            name,
            f"{fmean(each['score'] for each in found):.3f}",
            f"{min(each['score'] for each in found):.3f}–{max(each['score'] for each in found):.3f}",
            f"{found[0]['majority']:.3f}",
        ]
        for (task, name), found in sorted(scores.items())
    ]
    return _table("GLUE", ["task", "arm", "score", "range over seeds", "majority class"], rows)


def _hours_line(records: Sequence[Record]) -> str:
    hours = of_kind(records, "hours")[0]["hours"]
    by_kind = ", ".join(f"{kind} {processor:.2f}" for kind, (_, processor) in hours.items())
    total, processors = (sum(times[at] for times in hours.values()) for at in (0, 1))
    return (
        f"Processor hours: {processors:.2f} ({by_kind}). The commands ran for {total:.1f} hours, one by one."
    )
