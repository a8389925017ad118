"""Which records does a grid come to? `collect` makes those of results.jsonl from the files of its steps.

`python3 -m shell.paper_grid.results --agreement RANKED RANKED -o FILE` compares two rankings of one pool.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from .steps import Grid

Record = dict[str, Any]
# By step: how long it ran, and how long on a processor.
Seconds = Mapping[str, tuple[float, float]]


def read(path: Path) -> list[Record]:
    """The records of a file of JSON lines; none if it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def collect(grid: Grid, root: Path, seconds: Seconds) -> list[Record]:
    """The results of the steps in `seconds`, which are done and took so long."""
    return [
        {"kind": "grid", "parameters": grid.parameters(), **_settings(grid)},
        *({"kind": "hypothesis", **hypothesis} for hypothesis in grid.config.get("hypotheses", [])),
        *_sweep(grid, root, seconds),
        *_runs(grid, root, seconds),
        *_cuts(grid, root, seconds),
        *_comparisons(grid, root, seconds),
        *_agreements(grid, root, seconds),
        *_glue(grid, root, seconds),
        {"kind": "hours", "hours": _hours(seconds)},
    ]


def _settings(grid: Grid) -> Record:
    runs = grid.config["runs"]
    return {
        "steps": runs["steps"],
        "batch_tokens": grid.batch_tokens(),
        "tests": list(grid.config["tests"]),
        "arms": [each.name for each in grid.arms],
        "baselines": {each.name: grid.baseline(each.name) for each in grid.arms},
    }


def _sweep(grid: Grid, root: Path, seconds: Seconds) -> Iterator[Record]:
    for lr in grid.config.get("sweep", {}).get("lr", []):
        path = f"results/sweep-{lr:g}.jsonl"
        if path in seconds:
            [result] = [each for each in read(root / path) if each["result"] == "likelihood"]
            yield {"kind": "sweep", "lr": lr, "perplexity": result["perplexity"]}


def chosen_rate(paths: Sequence[Path]) -> str:
    """The learning rate whose run of the sweep has the lowest perplexity, as its file is called. The lower
    one of two equal ones; empty without a sweep.
    """
    found = {path.stem.removeprefix("sweep-"): read(path)[0]["perplexity"] for path in paths}
    return min(found, key=lambda lr: (found[lr], float(lr)), default="")


def _runs(grid: Grid, root: Path, seconds: Seconds) -> Iterator[Record]:
    names = {path: name for name, path in grid.config["tests"].items()}
    for each in grid.arms:
        for seed in range(1, grid.config["runs"]["seeds"] + 1):
            run = f"{each.name}-{seed}"
            if f"results/{run}.jsonl" not in seconds:
                continue
            described = json.loads((root / "runs" / run / "train.json").read_bytes())
            summary = {name: described["summary"][name] for name in ("unique_tokens", "passes", "parameters")}
            about = {"arm": each.name, "seed": seed, "lr": described["chosen"]["lr"]["value"]}
            yield {"kind": "run", **about, **summary}
            for result in read(root / "results" / f"{run}.jsonl"):
                test = {"test": names[result["data"]], "perplexity": result["perplexity"]}
                yield {"kind": "likelihood", **about, **test, "bits_per_byte": result["bits_per_byte"]}


def _cuts(grid: Grid, root: Path, seconds: Seconds) -> Iterator[Record]:
    for each in grid.arms:
        # The random parts of all seeds are alike: the first stands for them.
        path = f"cuts/{each.cut(1)}"
        if each.part and f"{path}.jsonl.zst" in seconds:
            summary = json.loads((root / f"{path}.json").read_bytes())
            groups = {
                name: [counts["kept"]["tokens"], sum(fate["tokens"] for fate in counts.values())]
                for name, counts in summary["groups"].items()
            }
            yield {
                "kind": "cut",
                "arm": each.name,
                "kept": summary["kept"],
                "groups": groups,
                "length_correlation": summary["length_correlation"],
            }


def _comparisons(grid: Grid, root: Path, seconds: Seconds) -> Iterator[Record]:
    names = {path: name for name, path in grid.config["tests"].items()}
    for one, other in grid.pairs():
        path = f"comparisons/{one}-vs-{other}.jsonl"
        for result in read(root / path) if path in seconds else []:
            if result["result"] == "comparison":
                yield {
                    "kind": "comparison",
                    "arm": one,
                    "against": other,
                    "test": names[result["data"]],
                    **compared(result),
                }


def compared(result: Record) -> Record:
    """What the table needs of a comparison of `eval`."""
    fields = ("effect", "effect_interval", "p", "standard_errors", "degrees_of_freedom", "documents")
    return {name: result.get(name) for name in fields}


def _agreements(grid: Grid, root: Path, seconds: Seconds) -> Iterator[Record]:
    for one, other in grid.config.get("agreements", []):
        path = f"agreements/{one}-{other}.json"
        if path in seconds:
            found = json.loads((root / path).read_bytes())
            yield {"kind": "agreement", "score": one, "against": other, **found}


def _glue(grid: Grid, root: Path, seconds: Seconds) -> Iterator[Record]:
    for path in sorted(path for path in seconds if path.startswith("glue/")):
        name, _, seed = Path(path).stem.rpartition("-")
        for result in read(root / path):
            if result["result"] == "glue task":
                about = {"arm": name, "seed": int(seed), "task": result["task"]}
                yield {
                    "kind": "glue",
                    **about,
                    "score": result["score"]["mean"],
                    "majority": fmean(result["majority"].values()),
                }


def _hours(seconds: Seconds) -> dict[str, list[float]]:
    hours: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, times in seconds.items():
        kind = name.partition("/")[0] if "/" in name else "files"
        hours[kind] = [
            round(sum(pair), 4) for pair in zip(hours[kind], (t / 3600 for t in times), strict=True)
        ]
    return dict(hours)


def agreement(one: Path, other: Path) -> Record:
    """How far two rankings of one pool agree: Spearman's correlation of the ranks, and the fraction of the
    records in the second one's bottom, middle and top half that the first one's half has, too.

    A record without a score in either is left out. Raises PruneError if a file is not a ranking.
    """
    import numpy as np

    import prune_cli

    first, second = (
        {
            record["id"]: record["quantile"]
            for record in prune_cli.read(str(path))
            if record["quantile"] is not None
        }
        for path in (one, other)
    )
    shared = sorted(first.keys() & second.keys())
    quantiles = np.array([[first[name], second[name]] for name in shared])
    ranks = quantiles.argsort(0).argsort(0)  # no ties: quantiles follow a total order
    parts = {"bottom": (0, 0.5), "middle": (0.25, 0.75), "top": (0.5, 1)}
    overlaps = {}
    for part, (low, high) in parts.items():
        inside = (quantiles >= low) & (quantiles < high)
        overlaps[part] = float(inside.all(1).sum() / inside[:, 1].sum())
    return {
        "records": len(shared),
        "spearman": float(np.corrcoef(ranks[:, 0], ranks[:, 1])[0, 1]),
        "overlap": overlaps,
    }


def main() -> None:
    """`--agreement RANKED RANKED -o FILE`."""
    parser = argparse.ArgumentParser(description=agreement.__doc__)
    parser.add_argument("--agreement", nargs=2, type=Path, required=True)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    temporary = options.output.with_suffix(".new")
    temporary.write_text(json.dumps(agreement(*options.agreement)) + "\n")
    temporary.replace(options.output)


if __name__ == "__main__":
    main()
