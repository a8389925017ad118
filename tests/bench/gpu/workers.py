"""Worker processes that take a GPU each: `--device all`, here with as many as there are."""

import json
from pathlib import Path
from typing import Any

import zstandard

from .machine import Machine


def device_all(machine: Machine) -> dict[str, Any]:
    """Whether workers give the scores of one process, and the tokens a second of both.

    A processor has two workers, in place of `--device all`. The rates include the loading of the model.
    """
    every = ("--device", "all") if machine.is_gpu else ("--device", "cpu", "-j", "2")
    alone, rate_alone = _scored(machine, "alone", "--device", machine.device)
    together, rate_together = _scored(machine, "together", *every)
    pairs = zip(alone, together, strict=True)
    return {
        "largest_relative_difference": max(abs(a / b - 1) for a, b in pairs),
        "tokens_per_second": {"one process": rate_alone, "workers": rate_together},
    }


def _scored(machine: Machine, name: str, *options: str) -> tuple[list[float], float]:
    """The perplexities that a run writes into a folder, and its tokens a second."""
    folder = machine.scratch / f"scored-{name}"
    summary = machine.scratch / f"{name}.json"
    command = ("score", "--model", machine.model, *options, "-O", folder, "--summary", summary)
    machine.run([str(word) for word in (*command, *_corpora(machine))])
    perplexities = []
    for path in sorted(folder.glob("*.zst")):
        with zstandard.open(path, "rt") as file:
            perplexities += [json.loads(line)["perplexity"] for line in file]
    return perplexities, json.loads(summary.read_bytes())["tokens_per_second"]


def _corpora(machine: Machine) -> list[Path]:
    """The texts in two files, so that two workers have something to do."""
    lines = machine.corpus.read_text().splitlines(keepends=True)
    paths = [machine.scratch / f"half-{number}.jsonl" for number in range(2)]
    for number, path in enumerate(paths):
        path.write_text("".join(lines[number::2]))
    return paths
