"""Result files of made-up models, and comparisons of them, for the tests of `eval`."""

import numpy as np

from prune_cli.stages.eval.compare import evaluate
from prune_cli.stages.eval.held_out import Item
from prune_cli.stages.eval.results import Measured
from prune_cli.statistics.bootstrap import Sampling

LETTERS = "abcdefghij"


def made_up(
    nll,
    tokens,
    n_bytes=None,
    words=None,
    *,
    tokenizer="same",
    name="model",
    data="held out",
    items=None,
    **made,
):
    """The content of a result file: numbers of a model for each document."""
    count = len(nll)
    columns = [nll, tokens, n_bytes or [2 * each for each in tokens], words or [2] * count]
    rows = np.array(columns, dtype=np.float64).T.reshape(count, 4)
    made = {"model": name, "data": data, "tokenizer": tokenizer, **made}
    return Measured(name, data, made, items or [Item(at + 1) for at in range(count)], rows)


def grouped(*labels, field="group"):
    return [Item(at, **{field: label}) for at, label in enumerate(labels, 1)]


def run(*runs, resamples=500, seed=0, **more):
    return list(evaluate(runs, more.pop("against", ()), Sampling(seed, resamples), **more))
