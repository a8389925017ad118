"""Metrics that need no GPU, by CPU time: MB of text a second and core, beside plain loops over the libraries.

`python -m tests.bench.texts CORPUS.jsonl DIRECTORY [MODEL...]`, with models of fastText and
KenLM. One plain loop parses the records and calls the library for each; the other also writes them with
their scores, as we do. `random` is what reading and writing take alone.
"""

import json
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from prune_cli.texts.fasttext_file import MAGIC

from .timing import OURS

RUNS = 3
REFERENCE = Path(__file__).resolve().parent.parent.parent / "prune_cli" / "reference"
LOOP = """
import json, sys
{setup}
for line in open(sys.argv[1]):
    text = json.loads(line)["text"]
    {score}
"""
WRITING = """
import sys
import orjson, zstandard
{setup}
with zstandard.open(sys.argv[3], "wb") as output:
    for line in open(sys.argv[1], "rb"):
        record = orjson.loads(line)
        text = record["text"]
        record["score"] = {score}
        output.write(orjson.dumps(record) + b"\\n")
"""
FASTTEXT = {
    "setup": "import fasttext; model = fasttext.load_model(sys.argv[2])",
    "score": 'dict(zip(*model.predict(" ".join(text.strip().splitlines()), k=-1))).get("__label__hq")',
}
KENLM = {
    "setup": "import kenlm; model = kenlm.Model(sys.argv[2])",
    "score": 'sum(map(model.score, text.split("\\n"))) / (len(text.split()) + text.count("\\n") + 1)',
}


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
        name = Path(path).name
        is_classifier = Path(path).open("rb").read(4) == MAGIC.to_bytes(4, "little")
        option = ["-m", "quality", "--classifier", path] if is_classifier else ["--model", path]
        library = FASTTEXT if is_classifier else KENLM
        yield name, [*score, *option]
        yield f"{name}, plain loop", [sys.executable, "-c", LOOP.format(**library), str(corpus), path]
        written = str(folder / "loop.jsonl.zst")
        loop = [sys.executable, "-c", WRITING.format(**library), str(corpus), path, written]
        yield f"{name}, loop that writes", loop


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
        print(f"{name:36} {median:7.2f} s  {size / median:6.1f} MB/s")


if __name__ == "__main__":
    main()
