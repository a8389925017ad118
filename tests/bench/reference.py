"""What the reference model's scores are worth: python -m tests.bench.reference SHARED [MODEL]

SHARED is the folder with data/; MODEL is by default the one in the package. It takes a quarter of an hour, of
which only `speed` needs a machine that does nothing else. The numbers go into prune_cli/reference/README.md.
"""

import json
import math
import subprocess
import sys
import zlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from prune_cli import metrics, reference
from prune_cli.models.language_model import LanguageModel, ModelSettings, load
from prune_cli.stages.score import windows as stage

from . import score as scoring
from .reference_data import Document, streams
from .timing import OURS, compare

ORDER = 5  # bytes that the character model looks back
MOST = 100  # records of a source of the web corpus
TRIVIAL: dict[str, Callable[[str], float]] = {
    "length": len,
    "share of letters": lambda text: sum(map(str.isalpha, text)) / len(text),
    "zlib ratio": lambda text: len(zlib.compress(text.encode(), 9)) / len(text.encode()),
}


def main(shared: Path, path: Path) -> None:
    model = load(str(path), ModelSettings(device="cpu"))
    print(
        f"{path}: {model.flops_per_token / 2e6:.2f} M parameters, "
        f"{sum(file.stat().st_size for file in path.iterdir()) / 1e6:.2f} MB"
    )
    held_out(path, shared)
    web(model, shared)
    articles(model, shared)
    speed(path, shared)


def records(path: Path) -> list[dict[str, Any]]:
    """What zstd(1) makes of a corpus."""
    data = subprocess.run(["zstd", "-dcq", path], capture_output=True, check=True).stdout
    return [json.loads(line) for line in data.splitlines()]


def scored(model: LanguageModel, texts: Sequence[str], *names: str) -> list[dict[str, Any]]:
    """The new fields of each text."""
    chosen = stage.Scoring([metrics.load(name) for name in names], [model])
    return [fields for window in stage.score(list(enumerate(texts)), chosen) for _, fields in window]


# Bits per byte


def held_out(path: Path, shared: Path) -> None:
    """Bits per byte of the works that were not trained on, by source: ours in both number formats, a
    character model's, xz's.
    """
    training, heldout = streams(shared / "data" / "clean.jsonl.zst")
    bits = {f"ours, {dtype}": _ours(path, dtype, heldout) for dtype in ("float32", "bfloat16")}
    bits["order-5 characters"] = CharacterModel([one.text for one in training]).bits(
        [one.text for one in heldout]
    )
    sizes = np.array([len(one.text.encode()) for one in heldout])
    groups = {
        name: np.array([name in ("all", one.source) for one in heldout])
        for name in ("all", *sorted({one.source for one in heldout}))
    }
    print(f"{'bits per byte of held-out works':32}" + "".join(f"{name:>12}" for name in groups))
    print(f"{'MB':32}" + "".join(f"{sizes[group].sum() / 1e6:12.2f}" for group in groups.values()))
    for name, found in bits.items():
        print(
            f"{name:32}"
            + "".join(f"{found[group].sum() / sizes[group].sum():12.3f}" for group in groups.values())
        )
    texts = [
        "\n".join(one.text for one, wanted in zip(heldout, group, strict=True) if wanted).encode()
        for group in groups.values()
    ]
    print(f"{'xz -9e':32}" + "".join(f"{_xz(text):12.3f}" for text in texts), flush=True)


def _ours(path: Path, dtype: str, documents: list[Document]) -> NDArray[np.float64]:
    """Bits that each text takes."""
    model = load(str(path), ModelSettings(device="cpu", dtype=dtype))
    return np.array(
        [fields["nll_sum"] / math.log(2) for fields in scored(model, [one.text for one in documents])]
    )


def _xz(text: bytes) -> float:
    return (
        8
        * len(subprocess.run(["xz", "-9e", "-c"], input=text, capture_output=True, check=True).stdout)
        / len(text)
    )


class CharacterModel:
    """A byte after the five before it, from counts, each order interpolated with the one below (Witten and
    Bell 1991).
    """

    def __init__(self, texts: list[str]) -> None:
        data = _joined(texts)
        self.tables = [_table(_grams(data, order)) for order in range(ORDER + 1)]

    def bits(self, texts: list[str]) -> NDArray[np.float64]:
        """Bits that each text takes."""
        data = _joined(texts)
        probability = np.full(len(data), 1 / 256)
        for order, (grams, counts, contexts, totals, kinds) in enumerate(self.tables):
            wanted = _grams(data, order)
            count, total, kind = (
                _at(grams, counts, wanted),
                _at(contexts, totals, wanted >> 8),
                _at(contexts, kinds, wanted >> 8),
            )
            probability = np.where(
                total > 0, (count + kind * probability) / np.maximum(1, total + kind), probability
            )
        ends = np.cumsum([len(text.encode()) + 1 for text in texts])
        bits = np.where(
            data > 0, -np.log2(probability), 0.0
        )  # where a text ends is not counted: it is not text
        return np.diff(np.concatenate(([0.0], np.cumsum(bits)[ends - 1])))


def _joined(texts: list[str]) -> NDArray[np.uint8]:
    return np.frombuffer("".join(f"{text}\0" for text in texts).encode(), np.uint8)


def _grams(data: NDArray[np.uint8], order: int) -> NDArray[np.uint64]:
    """Every byte with the `order` bytes before it, as one number; before the first there are zeros."""
    padded = np.concatenate((np.zeros(order, np.uint8), data)).astype(np.uint64)
    found = np.zeros(len(data), np.uint64)
    for back in range(order + 1):
        found = found << np.uint64(8) | padded[back : back + len(data)]
    return found


def _table(grams: NDArray[np.uint64]) -> tuple[NDArray[Any], ...]:
    """Grams and how often each came; contexts, how often each came and before how many different bytes."""
    grams, counts = np.unique(grams, return_counts=True)
    contexts, starts, kinds = np.unique(grams >> 8, return_index=True, return_counts=True)
    return grams, counts, contexts, np.add.reduceat(counts, starts), kinds


def _at(keys: NDArray[np.uint64], values: NDArray[np.int64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    places = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[places] == wanted, values[places], 0)


# What scores say


def web(model: LanguageModel, shared: Path) -> None:
    """Perplexity and bits per byte by source on the web corpus, what of each the top tenth holds, and the
    correlation with length.
    """
    names, by_source = ("perplexity", "bits_per_byte"), defaultdict[str, Any](list)
    for record in records(shared / "data" / "web.jsonl.zst"):
        by_source[record["source"]].append(record["text"])
    for source, texts in by_source.items():
        found = scored(model, texts[:MOST], *names)
        by_source[source] = np.array(
            [[fields[name] for name in (*names, "n_scored")] for fields in found if fields["n_scored"]]
        )
    every = np.concatenate(list(by_source.values()))
    border = np.quantile(every[:, 0], 0.9)
    print(
        f"{'web.jsonl.zst, medians':24}{'records':>9}{'perplexity':>12}{'bits per byte':>15}"
        f"{'in the top tenth':>18}{'with length':>13}"
    )
    for source, rows in sorted({**by_source, "all": every}.items(), key=lambda item: median(item[1][:, 0])):
        scores, bits, lengths = rows.T
        print(f"{source:24}{len(scores):9,}{median(scores):12.1f}{median(bits):15.2f}", end="")
        print(f"{(scores > border).mean():18.1%}{spearmanr(scores, lengths).statistic:13.2f}")


def articles(model: LanguageModel, shared: Path) -> None:
    """How often an article scores lower than a page with its navigation, over all pairs of them: 0.5 is
    chance.
    """
    corpus = records(shared / "data" / "articles-labelled.jsonl.zst")
    labels, names = np.array([record["label"] for record in corpus]), ("perplexity", "bits_per_byte", "el2n")
    found = scored(model, [record["text"] for record in corpus], *names)
    scores = {name: [fields[name] for fields in found] for name in names}
    scores |= {name: [of(record["text"]) for record in corpus] for name, of in TRIVIAL.items()}
    print("articles-labelled.jsonl.zst: area under the curve, `clean` below `raw`")
    for name, values in scores.items():
        clean, raw = (np.array(values)[labels == label] for label in ("clean", "raw"))
        less, equal = clean[:, None] < raw, clean[:, None] == raw
        print(f"  {name:18}{less.mean() + equal.mean() / 2:.3f}", flush=True)


# Speed


def speed(path: Path, shared: Path) -> None:
    """Tokens a second with their share of the matrix-product limit, and how long a first score takes beyond
    its imports.
    """
    texts = [record["text"] for record in records(shared / "data" / "web.jsonl.zst")[::93]]
    for dtype in ("bfloat16", "float32"):
        scoring.ours(path, dtype, texts)
    record = json.dumps({"text": "The first of many."})
    shell = ("sh", "-c", 'printf %s "$0" | "$@"', record)
    commands = {
        "imports": (
            sys.executable,
            "-c",
            "import torch; from transformers import AutoTokenizer, LlamaForCausalLM",
        ),
        "first score": (*shell, *OURS, "score", "--model", path),
    }
    results = compare(commands, runs=5)
    beyond = results["first score"].median - results["imports"].median
    print(
        f"first score: {results['first score'].median:.2f} s, {beyond:.2f} s beyond its imports",
        flush=True,
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else reference.DIRECTORY)
