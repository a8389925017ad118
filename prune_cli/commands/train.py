"""prune-cli train"""

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

from .. import charts, terminal
from ..errors import UsageError
from .options import (
    COMPUTING,
    RESULT,
    Device,
    Dtype,
    Files,
    Force,
    NumberFormat,
    Reading,
    TextField,
    expanded,
    option,
)

if TYPE_CHECKING:
    from ..records.reader import Content, Source
    from ..storage.base import Input
    from ..training.loop import Summary
    from ..training.recipe import Settings
    from ..training.setup import Corpus

COST = (
    "Everything is read and tokenized once, into a file beside the run (2 or 4 bytes a token), before the first step; --resume does not "
    "read it again. Memory is four numbers a parameter and the activations of what is computed at a time."
)
EXAMPLES = (
    (
        "A small model, with a tokenizer of its own, on a slice:",
        "prune-cli train --preset tiny --train-tokenizer 4096 --steps 500 -o run/ shard.jsonl.zst",
    ),
    (
        "The paper's 124M for equal steps; the same command goes on with a run that was stopped:",
        "prune-cli train --preset 124m --tokenizer gpt2/ --steps 8000 --resume -o run/ shard.jsonl.zst",
    ),
    (
        "A reference model at the paper's early checkpoints, with a held-out loss:",
        "prune-cli train --preset 124m --tokenizer gpt2/ --epochs 1 --save-at 14%,55% --eval-data test.jsonl.zst -o run/ corpus.jsonl.zst",
    ),
    (
        "Eight cards, the model divided among them:",
        "torchrun --nproc-per-node 8 -m prune_cli train --preset 1.5b --fsdp --tokenizer gpt2/ --steps 14568 -o run/ shard.jsonl.zst",
    ),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What is trained, on how much, and how; what is not given comes from the protocol, the preset or the defaults."""

    GROUP: ClassVar[str] = "Training"
    preset: Annotated[
        str | None, option("--preset", metavar="SIZE", help="A GPT of this size: tiny, 124m or 1.5b.")
    ] = None
    config: Annotated[
        Path | None,
        option(
            "--config",
            metavar="FILE",
            help="Or a model's config.json, or keys in TOML. The keys are those of the presets: layers, width, heads, "
            "context, lr, batch_tokens.",
        ),
    ] = None
    init_from: Annotated[
        Path | None, option("--init-from", metavar="DIR", help="Or this model and its tokenizer, trained on.")
    ] = None
    tokenizer: Annotated[
        Path | None, option("--tokenizer", metavar="DIR", help="The tokenizer in this directory.")
    ] = None
    train_tokenizer: Annotated[
        int | None,
        option(
            "--train-tokenizer",
            metavar="VOCAB",
            help="Or a new one of so many entries. Byte-level BPE, trained on the stream.",
        ),
    ] = None
    steps: Annotated[int | None, option("--steps", metavar="N", help="Budget: optimizer steps.")] = None
    tokens: Annotated[int | None, option("--tokens", metavar="N", help="Budget: or tokens.")] = None
    epochs: Annotated[
        float | None, option("--epochs", metavar="X", help="Budget: or passes over the data.")
    ] = None
    batch_tokens: Annotated[
        int | None,
        option(
            "--batch-tokens",
            metavar="N",
            help="Tokens in a step. They go through in as many pieces as memory asks for.",
        ),
    ] = None
    lr: Annotated[float | None, option("--lr", metavar="X", help="The highest learning rate.")] = None
    schedule: Annotated[
        str | None,
        option(
            "--schedule",
            metavar="SHAPE",
            help="cosine, linear, constant or wsd. How the rate falls: to a tenth, or (wsd, to 0) in the last fifth of the steps alone.",
        ),
    ] = None
    warmup: Annotated[
        int | None,
        option(
            "--warmup",
            metavar="N",
            help="Steps in which the rate rises. By default 5 % of them, at most 2,000.",
        ),
    ] = None
    seed: Annotated[int | None, option("--seed", metavar="N", help="Of the first weights.")] = None
    data_seed: Annotated[
        int | None, option("--data-seed", metavar="N", help="Of the order of documents and blocks.")
    ] = None
    save_at: Annotated[
        str | None,
        option(
            "--save-at",
            metavar="POINT,...",
            help="Keep DIR/step-N there, as in 250,0.55ep,50%. That is after steps, passes over the data, or a share of the run.",
        ),
    ] = None
    save_every: Annotated[int | None, option("--save-every", metavar="N", help="Keep one every N steps.")] = (
        None
    )
    keep: Annotated[
        int | None, option("--keep", metavar="N", help="Keep only the last N of --save-every.")
    ] = None
    eval_every: Annotated[
        int | None, option("--eval-every", metavar="N", help="Take the held-out loss every N steps, too.")
    ] = None
    protocol: Annotated[
        str | None, option("--protocol", metavar="paper", help="The paper's own numbers for the preset.")
    ] = None
    checkpoint_activations: Annotated[
        bool | None,
        option(
            "--checkpoint-activations",
            help="Less memory, a third more time. Each layer is computed once more rather than kept.",
        ),
    ] = None


@expanded
def train(
    files: Files = None,
    run: Run = Run(),
    output: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            metavar="DIR",
            rich_help_panel=RESULT,
            help="The run: a Hugging Face directory. Whole or absent; made in DIR.partial.",
        ),
    ] = None,
    force: Force = False,
    resume: Annotated[
        bool,
        option(
            "--resume",
            rich_help_panel=RESULT,
            help="Go on from the newest checkpoint in DIR.partial. With the very same numbers.",
        ),
    ] = False,
    eval_data: Annotated[
        str | None,
        option(
            "--eval-data",
            metavar="FILE",
            rich_help_panel=Run.GROUP,
            help="Records to take a held-out loss on.",
        ),
    ] = None,
    text_field: TextField = "text",
    device: Device = "auto",
    dtype: NumberFormat = Dtype.auto,
    fsdp: Annotated[
        bool,
        option(
            "--fsdp",
            rich_help_panel=COMPUTING,
            help="Divide the model among processes. They are started by torchrun; without this each has a copy.",
        ),
    ] = False,
    reading: Reading = Reading(),
) -> None:
    """Train a causal language model on documents or packed blocks.

    Documents may come in any order: they are permuted by the data seed, packed into blocks, and the blocks are permuted anew
    each pass. The held-out loss is in nats a token, on blocks that are packed in the same way. DIR/metrics.jsonl has a line for
    every step (`step`, `tokens`, `loss`, `norm` of the gradient, `lr`, `tokens_per_second`, `passes`, `held_out_loss`), DIR/train.json
    every value of the run, and whether it was given, the preset's, the paper's or a default. Under torchrun many processes train one
    model, with the numbers of one.
    """
    if output is None:
        raise UsageError("no place for the run", remedy="name a directory with -o DIR")
    if eval_data == "-":
        raise UsageError("--eval-data is read from a file", remedy="name one")
    from ..training import loop as stage
    from ..training.distributed import started
    from ..training.recipe import Settings

    settings = Settings(**asdict(run), dtype=None if dtype is Dtype.auto else dtype.value, device=device)
    with started(device, sharded=fsdp) as processes:
        if fsdp and processes.world == 1:
            log.warning(
                "--fsdp divides a model among the processes that torchrun starts: this is one, and has all of it"
            )
        if not processes.is_first:  # who reads and speaks for all
            files, eval_data, reading = [os.devnull], eval_data and os.devnull, replace(reading, quiet=True)
        kept = (
            replace(reading, expect_records=None).source("train", [eval_data], bar=False)
            if eval_data
            else nullcontext()
        )
        with (
            reading.source("train", files, bar=False) as source,
            kept as held_out,
            reading.bar("train", None, "steps") as bar,
        ):
            corpus = _corpus(source, text_field, settings)
            summary = stage.train(
                corpus.documents,
                settings,
                output,
                source=corpus.source,
                held_out=_corpus(held_out, text_field, settings) if held_out else None,
                resume=resume,
                replace=force,
                report=Shown(bar),
                processes=processes,
                measured=reading.is_watched(),
            )
    terminal.closing(f"{_words(summary)}: {output}", quiet=reading.quiet)
    if terminal.is_interactive():
        terminal.closing(_curve(output), quiet=reading.quiet)


def _corpus(source: "Source", text_field: str, settings: "Settings") -> "Corpus":
    from ..training.setup import Corpus

    return Corpus(
        _contents(source, text_field, settings.tokenizer or settings.init_from),
        _known_by(source.inputs, text_field),
    )


def _contents(source: "Source", text_field: str, tokenizer: Path | None) -> "Iterator[Content]":
    """What is trained on; of blocks only those that the tokenizer at this place packed."""
    from ..models.tokenizer import load_tokenizer, tokenizer_hash
    from ..records.documents import documents

    expected = tokenizer_hash(load_tokenizer(tokenizer)) if tokenizer else ""
    for document in documents(source, text_field, tokenizer=expected):
        yield document.content


def _known_by(inputs: "list[Input]", text_field: str) -> str | None:
    """Fingerprint of the inputs: paths and identities; None for a pipe, which has to be read to be known."""
    identities = [(file.path, file.identity) for file in inputs]
    if any(identity is None for _, identity in identities):
        return None
    return json.dumps([text_field, [(path, *(identity or ())) for path, identity in identities]])


@dataclass
class Shown:
    """What somebody who watches is told: of the documents, and then of every step."""

    bar: terminal.Progress
    share: float = 0.0  # of what the device can do, for each token a second
    step: int = 0
    held_out: str = ""

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        if step:
            self._take(step, values)
        elif "steps" in values:
            self.bar.expect(values["steps"])
            self.share = 6 * values["parameters"] / values["limit"] if values["limit"] else 0.0
        else:
            self.bar.describe(f"{values['documents']:,} documents, {values['tokens']:,} tokens")

    def _take(self, step: int, values: Mapping[str, float]) -> None:
        self.bar.advance(step - self.step)
        self.step = step
        if "held_out_loss" in values:
            self.held_out = f"  held-out {values['held_out_loss']:.3f}"
        rate = values["tokens_per_second"]
        share = f" ({self.share * rate:.0%} of the limit)" if self.share else ""
        self.bar.describe(
            f"loss {values['loss']:.3f}{self.held_out}  lr {values['lr']:.1e}  {rate:,.0f} tokens/s{share}"
        )


def _curve(run: Path) -> str:
    """How the loss of a run fell."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    return "\n".join(charts.curve("loss", [line["loss"] for line in lines], [line["step"] for line in lines]))


def _words(summary: "Summary") -> str:
    data = f"{summary.passes:.2f} passes over {summary.unique_tokens:,}, {summary.repeated_tokens:,} repeated"
    held_out = "" if isnan(summary.held_out_loss) else f", held-out {summary.held_out_loss:.3f}"
    return f"trained {summary.steps:,} steps on {summary.tokens:,} tokens ({data}); loss {summary.loss:.3f}{held_out}"
