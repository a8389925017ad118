"""A corpus for runs of `score` that are stopped, and helpers to look at what they left."""

import struct
from itertools import accumulate
from pathlib import Path

WORDS = ["the quick brown fox ", "jumps over ", "a lazy dog ", "", "and on "]
CORPUS = [
    {"id": f"doc-{at}", "text": WORDS[at % 5] * (at % 7), "source": "abc"[at % 3], "pad": "x" * (at % 50)}
    for at in range(120)
]


def borders(data: bytes) -> list[int]:
    """Where the frames of a stream end: start, head, data ..., trailer and seek table, as that table says."""
    [count] = struct.unpack("<I", data[-9:-5])
    sizes = [size for size, _ in struct.iter_unpack("<II", data[-9 - 8 * count : -9])]
    return [*accumulate(sizes), len(data)]


def left(folder: Path) -> set[str]:
    """The files in a folder, besides inputs, what a test compares with, and what describes a dataset."""
    others = {"corpus.jsonl.zst", "whole.zst", "plan.json", "manifest.json"}
    return {path.name for path in folder.iterdir()} - others
