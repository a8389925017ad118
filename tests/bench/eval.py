"""eval against lm-evaluation-harness, and what its statistics take: python -m tests.bench.eval SHARED PYTHON
SCRATCH [DOCUMENTS]

SHARED, PYTHON and SCRATCH are those of tests.bench.score. The model has GPT-2's shape (124M) and random
weights; lm-evaluation-harness scores some 250 tokens a second on two cores, so the documents are few.
"""

import json
import math
import re
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prune_cli.models.language_model import LanguageModel, ModelSettings, load
from prune_cli.stages.score import windows as stage

from .score import documents, gpt2, timed
from .timing import OURS, compare, show

DOCUMENTS, TOKENS = 100_000, 500


def main(shared: Path, python: str, scratch: Path, count: int) -> None:
    texts, path = documents(shared, scratch, count), gpt2(shared, scratch / "gpt2-124m")
    likelihoods(python, shared / "bench" / "score_lmeval.py", path, scratch / "documents.jsonl", texts)
    bootstrap(scratch)


def likelihoods(python: str, script: Path, path: Path, corpus: Path, texts: list[str]) -> None:
    """Perplexity pooled over all tokens, and tokens a second, theirs and ours."""
    done = subprocess.run(
        [python, script, path, corpus, str(len(texts))], capture_output=True, text=True, check=True
    ).stdout
    rate = float(re.findall(r"([\d.]+) tokens/s", done)[-1])
    total = math.fsum(map(float, re.findall(r"^-[\d.]+$", done, re.MULTILINE)))
    for dtype in ("float32", "bfloat16"):
        model = load(str(path), ModelSettings(device="cpu", dtype=dtype))
        fields = measured(model, texts)
        tokens = sum(one["n_scored"] for one in fields)
        theirs, ours = (
            math.exp(-total / tokens),
            math.exp(math.fsum(one["nll_sum"] for one in fields) / tokens),
        )
        found = tokens / timed(partial(measured, model, texts))
        print(
            f"{dtype:9} {tokens:,} tokens; perplexity {ours:.3f}, theirs {theirs:.3f}: "
            f"{ours / theirs - 1:+.1e}; ",
            end="",
        )
        print(f"{found:,.0f} tokens/s, theirs {rate:,.0f}: {found / rate:.1f} times as fast", flush=True)


def measured(model: LanguageModel, texts: list[str]) -> list[dict[str, Any]]:
    return [
        fields for window in stage.score(enumerate(texts), stage.Scoring((), [model])) for _, fields in window
    ]


def bootstrap(scratch: Path) -> None:
    """The command on results of two models on 100,000 documents: it reads them, resamples each and both
    together, and flips signs.
    """
    dice = np.random.default_rng(0)
    for name, level in (("a", 3.0), ("b", 3.01)):
        nll = TOKENS * dice.normal(level, 0.5, DOCUMENTS)
        made = {"model": name, "tokenizer": "same", "data": "same"}
        with (scratch / f"{name}.jsonl").open("w") as file:
            for at, total in enumerate(nll, 1):
                counts = {"nll_sum": total, "n_scored": TOKENS, "n_bytes": 4 * TOKENS, "words": TOKENS}
                file.write(
                    json.dumps({"model": name, "data": "test", "document": at, "provenance": made, **counts})
                    + "\n"
                )
    a, b = (scratch / f"{name}.jsonl" for name in "ab")
    results = compare(
        {"eval a": [*OURS, "eval", a], "eval a --against b": [*OURS, "eval", a, "--against", b]}, 1
    )
    show(results, "eval a")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), int((sys.argv[4:] or ["50"])[0]))
