"""Metrics that need no GPU, by CPU time: MB of text a second and core, beside plain loops over the libraries.

`python -m tests.bench.texts CORPUS.jsonl DIRECTORY [CLASSIFIER.bin] [MODEL.arpa]`. The plain loops parse the
records and call the library for each, but write nothing; `random` is what reading and writing take alone.
"""

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from .timing import OURS

RUNS = 3
REFERENCE = Path(__file__).resolve().parent.parent.parent / "prune_cli" / "reference"
LOOP = """
import json, sys
{setup}
for line in open(sys.argv[1]):
    text = json.loads(line)["text"]
    {each}
"""
FASTTEXT = LOOP.format(
    setup="import fasttext; model = fasttext.load_model(sys.argv[2])",
    each='model.predict(" ".join(text.strip().splitlines()), k=-1)',
)
KENLM = LOOP.format(
    setup="import kenlm; model = kenlm.Model(sys.argv[2])",
    each='sum(map(model.score, text.split("\\n")))',
)


def commands(corpus: Path, folder: Path, models: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The command lines, by what they measure; counts come before what uses them."""
    with corpus.open() as file, (folder / "held-out.jsonl").open("w") as held_out:
        held_out.writelines(line for _, line in zip(range(5000), file, strict=False))
    counts, tokenizer = folder / "counts.json", ("--tokenizer", str(REFERENCE))
    yield "token counts", [*OURS, "stat", *tokenizer, "--token-counts", str(counts), str(corpus)]
    score = [*OURS, "score", "-f", "-o", str(folder / "scored.jsonl.zst"), str(corpus)]
    yield "random", [*score, "-m", "random"]
    yield "compression", [*score, "-m", "compression"]
    yield "overlap", [*score, "-m", "overlap", "--held-out", str(folder / "held-out.jsonl")]
    yield "token priors", [*score, "-m", "token_prior_mean", "--priors", str(counts), *tokenizer]
    for path in models:
        is_classifier = path.endswith(".bin")
        option = ["-m", "quality", "--classifier", path] if is_classifier else ["--model", path]
        loop = FASTTEXT if is_classifier else KENLM
        yield Path(path).name, [*score, *option]
        yield f"{Path(path).name}, plain loop", [sys.executable, "-c", loop, str(corpus), path]


def seconds(command: list[str]) -> float:
    """CPU time of a command, that of the system included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    corpus, folder, *models = sys.argv[1:]
    with open(corpus) as file:
        size = sum(len(json.loads(line)["text"].encode()) for line in file) / 1e6
    found: dict[str, list[float]] = {}
    # In turn, so that a busy minute hits all of them.
    for _ in range(RUNS):
        for name, command in commands(Path(corpus), Path(folder), models):
            if name == "token counts":
                (Path(folder) / "counts.json").unlink(missing_ok=True)
            found.setdefault(name, []).append(seconds(command))
    for name, times in found.items():
        median = statistics.median(times)
        print(f"{name:28} {median:7.2f} s  {size / median:6.1f} MB/s")


if __name__ == "__main__":
    main()
