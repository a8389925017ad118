"""Made-up examples of GLUE, for tests."""

import random

import numpy as np

from prune_cli.stages.eval.glue.tasks import Examples


def examples(count, seed, pairs=True, numbers=False):
    """Those of class 1 speak of foxes; a number says how much they do."""
    dice = random.Random(seed)
    labels = [dice.randrange(2) for _ in range(count)]
    words = [
        " ".join(
            dice.choice(("the quick fox", "a fox") if label else ("lazy dog", "sheep")) for _ in range(3)
        )
        for label in labels
    ]
    return Examples(
        [(text, "over the dog"[: dice.randint(3, 12)]) if pairs else (text,) for text in words],
        np.array(labels) * (2.5 if numbers else 1.0),
    )


def lay(folder, first, *lines, parts=("train", "dev")):
    """Write the files of a task, each with these lines. Returns the folder."""
    folder.mkdir(exist_ok=True)
    for part in parts:
        (folder / f"{part}.tsv").write_text(
            "".join(f"{line}\n" for line in (first, *lines) if line), encoding="utf-8"
        )
    return str(folder)
