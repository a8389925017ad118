"""score against its neighbours and the machine: python -m tests.bench.score SHARED PYTHON SCRATCH [DOCUMENTS
[OF THEM FOR THE SLOW ONES]]

SHARED is the folder with data/ and bench/, PYTHON an interpreter that has what bench/requirements.txt lists.
The model has GPT-2's shape (124M) and random weights; the documents are real web text. Neighbours score a
tenth of the documents: they would take a quarter of an hour.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from prune_cli import metrics
from prune_cli.models.language_model import LanguageModel, ModelSettings, load
from prune_cli.models.text.loading import load_tokenizer
from prune_cli.stages.score import windows as stage
from prune_cli.training.model import gpt2_config, load_model, new_model, save_model

from .timing import OURS

ONE_PASS = ("perplexity", "el2n", "bits_per_byte", "entropy", "brier", "top_k_accuracy")
RUNS = 3


def main(shared: Path, python: str, scratch: Path, count: int, few: int) -> None:
    texts, path = documents(shared, scratch, count), gpt2(shared, scratch / "gpt2-124m")
    for dtype in ("bfloat16", "float32"):
        ours(path, dtype, texts if dtype == "bfloat16" else texts[: count // 5])
    for script in ("score_lmeval.py", "score_naive.py"):
        neighbour(python, shared / "bench" / script, path, scratch / "documents.jsonl", texts[:few])
    recite(path, texts)
    long_documents(shared, path)
    agreement(shared)


def documents(shared: Path, scratch: Path, count: int) -> list[str]:
    """Every 93rd document of the web corpus."""
    scratch.mkdir(parents=True, exist_ok=True)
    data = subprocess.run(
        ["zstd", "-dcq", shared / "data" / "web.jsonl.zst"], capture_output=True, check=True
    ).stdout
    lines = data.splitlines()[::93][:count]
    (scratch / "documents.jsonl").write_bytes(b"".join(line + b"\n" for line in lines))
    return [json.loads(line)["text"] for line in lines]


def gpt2(shared: Path, path: Path) -> Path:
    if not path.exists():
        tokenizer = load_tokenizer(shared / "data" / "gpt2-tokenizer")
        config = gpt2_config(tokenizer, layers=12, width=768, heads=12, context=1024, entries=50_257)
        path.mkdir()
        save_model(new_model(config, 0), tokenizer, path)
    return path


def timed(run: Callable[[], object]) -> float:
    """Seconds, the median of RUNS."""
    found = []
    for _ in range(RUNS):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return median(found)


def limit(dtype: str) -> float:
    """FLOPs a second of a matrix product, as bench/matmul.py measures them."""
    a, b = (torch.randn(2048, 2048).to(getattr(torch, dtype)) for _ in "ab")
    return 2 * 2048**3 / min(timed(lambda: a @ b) for _ in range(5))


def scored(model: LanguageModel, names: tuple[str, ...], texts: list[str]) -> Callable[[], object]:
    scoring = stage.Scoring([metrics.load(name) for name in names], [model])
    return lambda: list(stage.score(list(enumerate(texts)), scoring))


def ours(path: Path, dtype: str, texts: list[str]) -> None:
    """Tokens a second, tokenizing included; the share of the limit by 2 P FLOPs a token that is scored; all
    metrics against one.
    """
    model = load(str(path), ModelSettings(device="cpu", dtype=dtype))
    tokens = sum(document.n_scored for document in model.encode_many(texts))
    scored(model, ONE_PASS, texts[:20])()
    before, one, every, after = (
        limit(dtype),
        *(timed(scored(model, names, texts)) for names in (ONE_PASS[:1], ONE_PASS)),
        limit(dtype),
    )
    rate, best = tokens / one, max(before, after)
    print(
        f"{dtype:9} {tokens:8,} tokens  {rate:7,.0f} tokens/s  "
        f"{rate * model.flops_per_token / best:.2f} of {best / 1e9:,.0f} GFLOP/s"
    )
    print(f"{'':9} all one-pass metrics take {every / one:.2f} times as long as perplexity alone", flush=True)


def neighbour(python: str, script: Path, model: Path, corpus: Path, texts: list[str]) -> None:
    """Theirs and ours on the same few documents, in turn."""
    theirs = subprocess.run(
        [python, script, model, corpus, str(len(texts))], capture_output=True, text=True, check=True
    ).stdout
    rate = float(re.findall(r"([\d.]+) tokens/s", theirs)[-1])
    for dtype in ("bfloat16", "float32"):
        own = load(str(model), ModelSettings(device="cpu", dtype=dtype))
        tokens = sum(document.n_scored for document in own.encode_many(texts))
        found = tokens / timed(scored(own, ("perplexity",), texts))
        print(
            f"{script.name}: {rate:,.0f} tokens/s; ours in {dtype} {found:,.0f}: {found / rate:.1f} "
            f"times as fast",
            flush=True,
        )


def recite(path: Path, texts: list[str]) -> None:
    """Memorization in batches against plain `generate`, a record at a time, in float32."""
    model = load(str(path), ModelSettings(device="cpu", dtype="float32"))
    documents = [document for document in model.encode_many(texts) if len(document.tokens) > 65][:52]
    plain: Any = load_model(path)

    def one_at_a_time() -> None:
        for document in documents[:6]:
            prompt = torch.tensor([document.tokens[:33].tolist()])
            plain.generate(prompt, max_new_tokens=32, min_new_tokens=32, do_sample=False, pad_token_id=0)

    each, together = (
        timed(one_at_a_time) / 6,
        timed(lambda: model.continuations(documents, 32, 32)) / len(documents),
    )
    print(
        f"memorization: {1 / together:.1f} records/s, plain generate {1 / each:.2f}: "
        f"{each / together:.1f} times as fast",
        flush=True,
    )


def memory(model: Path, sentences: int) -> int:
    """Resident memory of the command at its highest, in MiB, over one document of so many sentences of 45
    bytes.
    """
    record = json.dumps({"text": "The quick brown fox jumps over the lazy dog. " * sentences}).encode()
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, "
        "check=True);"
    )
    script += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    command = (sys.executable, "-S", "-c", script, *OURS, "score", "--model", model)
    return int(subprocess.run(command, input=record, capture_output=True, check=True).stdout) >> 10


def long_documents(shared: Path, path: Path) -> None:
    """What a long document costs: by the large model, and by a small one a document that would take the large
    one minutes.
    """
    for model, sentences in ((path, 8 << 10), (shared / "data" / "stories260k", 200_000)):
        short, long = memory(model, 1), memory(model, sentences)
        print(
            f"memory, {model.name}: {short} MiB for a sentence, {long - short} more for a document of "
            f"{45 * sentences / 1e6:.1f} MB"
        )


def agreement(shared: Path) -> None:
    """bfloat16 against float32 on 2,000 documents and a small model that was trained: rank correlation,
    overlap of the middle halves.
    """
    from scipy.stats import rankdata, spearmanr

    data = subprocess.run(
        ["zstd", "-dcq", shared / "data" / "web.jsonl.zst"], capture_output=True, check=True
    ).stdout
    texts = [json.loads(line)["text"] for line in data.splitlines()[::23][:2000]]
    found = []
    for dtype in ("float32", "bfloat16"):
        model = load(str(shared / "data" / "stories260k"), ModelSettings(device="cpu", dtype=dtype))
        windows = stage.score(list(enumerate(texts)), stage.Scoring([metrics.load("perplexity")], [model]))
        found.append([fields["perplexity"] for window in windows for _, fields in window])
    kept = [{at for at, rank in enumerate(rankdata(one)) if 0.25 < rank / len(one) <= 0.75} for one in found]
    overlap = len(kept[0] & kept[1]) / len(kept[0] | kept[1])
    print(
        f"bfloat16 and float32: rank correlation {spearmanr(*found).statistic:.5f}, middle halves "
        f"overlap {overlap:.4f} (Jaccard)"
    )


if __name__ == "__main__":
    count, few = ([int(one) for one in sys.argv[4:]] + [500, 50][len(sys.argv) - 4 :])[:2]
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), count, few)
