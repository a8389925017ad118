"""On which device do the checks run, and how large is what they run?"""

import json
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from prune_cli import reference
from prune_cli.models.text.loading import load_tokenizer
from prune_cli.training.model import gpt2_config, new_model, save_model
from prune_cli.training.recipe import PRESETS

ROOT = Path(__file__).parents[3]
Shape = Mapping[str, float]  # the keys of a preset of `train`


@dataclass(frozen=True)
class Sizes:
    """How much is done, and with which models."""

    documents: int  # that speeds are measured on
    checked: int  # whose scores are compared with float64
    recited: int  # that are continued
    steps: int  # of training
    shape: Shape
    large: Shape
    batch_tokens: int  # of a training step
    large_batch_tokens: int


FULL = Sizes(
    documents=2000,
    checked=200,
    recited=128,
    steps=12,
    shape=PRESETS["124m"],
    large=PRESETS["1.5b"],
    batch_tokens=128 << 10,
    large_batch_tokens=2048,
)
MINIATURE: Shape = {
    "layers": 2,
    "width": 64,
    "heads": 2,
    "context": 64,
    "vocabulary": 4608,
    "batch_tokens": 256,
    "lr": 1e-3,
}
SMALL = Sizes(
    documents=24,
    checked=3,
    recited=4,
    steps=24,
    shape=MINIATURE,
    large=MINIATURE,
    batch_tokens=256,
    large_batch_tokens=256,
)


@dataclass(frozen=True)
class Machine:
    """A device, and a scratch folder with the inputs of the checks."""

    device: str
    scratch: Path
    sizes: Sizes

    @property
    def is_gpu(self) -> bool:
        """Whether the numbers mean anything: on a processor only the logic of the checks runs."""
        return self.device.startswith("cuda")

    @cached_property
    def texts(self) -> list[str]:
        """English and code: pieces of the manual pages and of our source, 200 to 8,000 characters long."""
        files = sorted(ROOT.glob("man/*.1")) + sorted(ROOT.glob("prune_cli/**/*.py"))
        text = "\n".join(path.read_text() for path in files)
        dice = random.Random(1)
        lengths = [int(200 * 40 ** dice.random()) for _ in range(self.sizes.documents)]
        starts = [dice.randrange(len(text) - length) for length in lengths]
        return [text[start : start + length] for start, length in zip(starts, lengths, strict=True)]

    @cached_property
    def corpus(self) -> Path:
        """The texts as records."""
        path = self.scratch / "corpus.jsonl"
        records = [{"id": number, "text": text} for number, text in enumerate(self.texts)]
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    @cached_property
    def model(self) -> Path:
        """A model of the shape that is measured, with random weights and the reference model's tokenizer."""
        path = self.scratch / "model"
        path.mkdir()
        tokenizer = load_tokenizer(reference.DIRECTORY)
        names = ("layers", "width", "heads", "context")
        shape = {name: int(self.sizes.shape[name]) for name in names}
        config = gpt2_config(tokenizer, **shape, entries=int(self.sizes.shape["vocabulary"]))
        save_model(new_model(config, 0), tokenizer, path)
        return path

    def training(self, shape: Shape, batch_tokens: int, *options: object) -> list[str]:
        """The command that trains a model of this shape on the corpus."""
        file = self.scratch / f"width-{shape['width']}.toml"
        file.write_text("".join(f"{name} = {value}\n" for name, value in shape.items()))
        model = ("--config", file, "--tokenizer", reference.DIRECTORY, "--device", self.device)
        command = ("train", *model, "--batch-tokens", batch_tokens, *options, self.corpus)
        return [str(part) for part in command]

    def run(self, command: Sequence[str], program: Sequence[str] = ("-m", "prune_cli")) -> str:
        """Standard output of a command of ours. Raises RuntimeError with its messages if it fails."""
        done = subprocess.run(
            [sys.executable, *program, *command], capture_output=True, text=True, cwd=ROOT, check=False
        )
        if done.returncode:
            raise RuntimeError(f"status {done.returncode} of {' '.join(command)}: {done.stderr[-2000:]}")
        return done.stdout

    def synchronize(self) -> None:
        """Wait until the device has done what was asked of it."""
        if self.is_gpu:
            torch.cuda.synchronize()
