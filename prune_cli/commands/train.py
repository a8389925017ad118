"""prune-cli train"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from .. import terminal
from ..errors import UsageError
from .options import Device, Dtype, Files, Force, Reading, TextField, expanded, option

if TYPE_CHECKING:
    from ..io.files import Input
    from ..io.records import Content, Source


@dataclass(frozen=True)
class Run:
    """What is trained, on how much, and how; what is not given comes from the protocol, the preset or the defaults."""

    preset: Annotated[str | None, option("--preset", metavar="tiny|124m|1.5b", help="A GPT of this size.")] = None
    config: Annotated[Path | None, option("--config", metavar="FILE", help="A model's config.json, or our keys in TOML.")] = None
    tokenizer: Annotated[Path | None, option("--tokenizer", metavar="DIR", help="The tokenizer in this directory.")] = None
    train_tokenizer: Annotated[int | None, option("--train-tokenizer", metavar="VOCAB", help="A new one of VOCAB entries.")] = None
    steps: Annotated[int | None, option("--steps", metavar="N", help="Budget: optimizer steps.")] = None
    tokens: Annotated[int | None, option("--tokens", metavar="N", help="Budget: tokens.")] = None
    epochs: Annotated[float | None, option("--epochs", metavar="X", help="Budget: passes over the data.")] = None
    batch_tokens: Annotated[int | None, option("--batch-tokens", metavar="N", help="Tokens a step.")] = None
    lr: Annotated[float | None, option("--lr", metavar="X", help="The highest learning rate.")] = None
    schedule: Annotated[str | None, option("--schedule", metavar="cosine|linear|constant", help="How the rate falls.")] = None
    warmup: Annotated[int | None, option("--warmup", metavar="N", help="Steps in which it rises; 5 % of them, at most 2,000.")] = None
    seed: Annotated[int | None, option("--seed", help="Of the first weights.")] = None
    data_seed: Annotated[int | None, option("--data-seed", help="Of the order of documents and blocks.")] = None
    save_at: Annotated[str | None, option("--save-at", metavar="250,0.55ep,50%", help="Keep DIR/step-N at these points.")] = None
    save_every: Annotated[int | None, option("--save-every", metavar="N", help="Keep one every N steps.")] = None
    protocol: Annotated[str | None, option("--protocol", metavar="paper", help="The paper's own numbers for the preset.")] = None
    checkpoint_activations: Annotated[
        bool | None,
        option("--checkpoint-activations", help="Compute each layer once more rather than keep it: less memory, a third more time."),
    ] = None


@expanded
def train(
    files: Files = None,
    output: Annotated[
        Path | None, option("--output", "-o", metavar="DIR", help="The run: a Hugging Face directory, whole or absent.")
    ] = None,
    force: Force = False,
    resume: Annotated[bool, option("--resume", help="Go on with DIR.partial from its newest checkpoint.")] = False,
    text_field: TextField = "text",
    device: Device = "auto",
    dtype: Dtype = Dtype.auto,
    fsdp: Annotated[bool, option("--fsdp", help="Under torchrun, divide the model among the processes; else each has a copy.")] = False,
    run: Run = Run(),
    reading: Reading = Reading(),
) -> None:
    """Train a causal language model from scratch on documents or packed blocks.

    Documents may come in any order: they are permuted by the data seed, packed into blocks, and the blocks are permuted anew
    each pass. Everything is read and tokenized once before the first step.

    Example: prune-cli train --preset tiny --train-tokenizer 4096 --steps 500 -o run/ shard.jsonl.zst

    On many cards: torchrun --nproc-per-node 8 -m prune_cli train --preset 1.5b --fsdp ... (the same options, the same numbers).
    """
    if output is None:
        raise UsageError("no place for the run", remedy="name a directory with -o DIR")
    from ..processes import started
    from ..recipes import Settings
    from ..stages import train as stage

    settings = Settings(**asdict(run), dtype=None if dtype is Dtype.auto else dtype.value, device=device)
    with started(device, sharded=fsdp) as processes:
        if not processes.is_first:  # who reads and speaks for all
            files, reading = [os.devnull], replace(reading, quiet=True)
        with reading.source("train", files, bar=False) as source, reading.bar("train", None, "steps") as bar:
            stage.train(
                _contents(source, text_field, settings.tokenizer),
                settings,
                output,
                source=_known_by(source.inputs, text_field),
                resume=resume,
                replace=force,
                report=lambda step, values: _show(bar, step, values),
                processes=processes,
            )
    terminal.closing(f"trained: {output}", quiet=reading.quiet)


def _contents(source: "Source", text_field: str, tokenizer: Path | None) -> "Iterator[Content]":
    """What is trained on; of blocks only those that the tokenizer at this place packed."""
    from .. import pretrained
    from ..io.documents import documents

    expected = pretrained.tokenizer_hash(pretrained.load_tokenizer(tokenizer)) if tokenizer else ""
    for document in documents(source, text_field, tokenizer=expected):
        yield document.content


def _known_by(inputs: "list[Input]", text_field: str) -> str | None:
    """What tells that files are the same again; None for a pipe, which has to be read to know."""
    found = [(one.path, one.status()) for one in inputs]
    if any(path == "-" for path, _ in found):
        return None
    return json.dumps([text_field, [(path, status.st_size, status.st_mtime_ns) for path, status in found]])


def _show(bar: terminal.Progress, step: int, values: Mapping[str, float]) -> None:
    if step:
        bar.advance(1)
        bar.describe(f"loss {values['loss']:.3f}  lr {values['lr']:.1e}  {values['tokens_per_second']:,.0f} tokens/s")
    elif "steps" in values:
        bar.expect(values["steps"])
    else:
        bar.describe(f"{values['documents']:,} documents, {values['tokens']:,} tokens")
