"""Golden losses of a fixed run. `python -m tests.test_golden_losses` writes them again after a change."""

import json
import random
import tempfile
from pathlib import Path

import pytest
import torch

from prune_cli.models.text.loading import train_tokenizer
from prune_cli.settings.train import Training
from prune_cli.training.model import save_tokenizer

from .conftest import ROOT
from .training import train

GOLDEN = ROOT / "tests" / "cases" / "train-losses.json"
SHAPE = "layers = 2\nwidth = 64\nheads = 2\ncontext = 64\nvocabulary = 320\nlr = 3e-3\nbatch_tokens = 512\n"
WORDS = 256


def documents():
    """Of ids, so that no tokenizer has a say; most of them are told by the one before."""
    dice = random.Random(7)
    for _ in range(80):
        ids = [dice.randrange(WORDS)]
        while len(ids) < 128:
            ids.append((7 * ids[-1] + 3) % WORDS if dice.random() < 0.8 else dice.randrange(WORDS))
        yield ids


def losses(folder):
    (folder / "shape.toml").write_text(SHAPE)
    save_tokenizer(train_tokenizer(["lorem ipsum"], 257), folder / "tokenizer")
    fixed = Training(
        config=folder / "shape.toml",
        tokenizer=folder / "tokenizer",
        steps=40,
        schedule="wsd",
        dtype="float32",
        device="cpu",
    )
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    train(documents(), fixed, folder / "run")
    torch.set_num_threads(before)
    return [json.loads(line)["loss"] for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def test_the_losses_of_a_fixed_run_do_not_move(tmp_path):
    golden = json.loads(GOLDEN.read_text())
    assert golden[-1] < golden[0] - 1
    assert losses(tmp_path) == pytest.approx(golden, abs=1e-4)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        GOLDEN.write_text(json.dumps([round(loss, 7) for loss in losses(Path(folder))], indent=1) + "\n")
