"""Settings of `prune-cli train`."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

from ..errors import UsageError
from .model import Device, Dtype, NumberFormat
from .option import option
from .streams import COMPUTING, RESULT, Force, TextField


class Adaptation(StrEnum):
    """Which blocks a pass trains on, by their losses in earlier passes."""

    bottom = "bottom"
    middle = "middle"
    top = "top"
    infobatch = "infobatch"


@dataclass(frozen=True)
class Training:
    """The model, the budget and the hyperparameters of a run, and where the run goes.

    None means not given: `training.recipe` then takes the value of the protocol, the preset or the defaults.
    """

    GROUP: ClassVar[str] = "Training"
    preset: Annotated[
        str | None,
        option("--preset", metavar="SIZE", help="Train a GPT-2 of this size: tiny, 124m or 1.5b."),
    ] = None
    config: Annotated[
        Path | None,
        option(
            "--config",
            metavar="FILE",
            help="Read the shape of the model from FILE. FILE is a Hugging Face config.json, or TOML with "
            "the keys of the presets: layers, width, heads, context, and optionally vocabulary, lr, "
            "batch_tokens.",
        ),
    ] = None
    init_from: Annotated[
        Path | None,
        option("--init-from", metavar="DIR", help="Continue from the model and tokenizer in DIR."),
    ] = None
    tokenizer: Annotated[
        Path | None, option("--tokenizer", metavar="DIR", help="Use the tokenizer in DIR.")
    ] = None
    train_tokenizer: Annotated[
        int | None,
        option(
            "--train-tokenizer",
            metavar="VOCAB",
            help="Train a tokenizer with VOCAB entries. It is a byte-level BPE, trained on the input.",
        ),
    ] = None
    steps: Annotated[int | None, option("--steps", metavar="N", help="Train for N optimizer steps.")] = None
    tokens: Annotated[
        int | None,
        option(
            "--tokens",
            metavar="N",
            is_count=True,
            help="Train on N tokens, rounded up to whole steps. N may end in K, M or G (powers of 1000).",
        ),
    ] = None
    epochs: Annotated[
        float | None,
        option("--epochs", metavar="X", help="Train for X epochs, rounded up to whole steps."),
    ] = None
    batch_tokens: Annotated[
        int | None,
        option(
            "--batch-tokens",
            metavar="N",
            is_count=True,
            help="Tokens per optimizer step. Gradient accumulation splits them into micro-batches that fit "
            "in memory. N is rounded down to whole blocks, and may end in K, M or G (powers of 1000).",
        ),
    ] = None
    lr: Annotated[float | None, option("--lr", metavar="X", help="Peak learning rate.")] = None
    schedule: Annotated[
        str | None,
        option(
            "--schedule",
            metavar="SHAPE",
            help="Schedule: cosine, linear, constant or wsd. All but constant end at a tenth of the peak "
            "learning rate; wsd decays in the last fifth of the steps only.",
        ),
    ] = None
    warmup: Annotated[
        int | None,
        option(
            "--warmup",
            metavar="N",
            help="Number of warm-up steps, at most all of them. The default is 5 % of the steps, at most "
            "2,000.",
        ),
    ] = None
    seed: Annotated[int | None, option("--seed", metavar="N", help="Seed for weight initialisation.")] = None
    data_seed: Annotated[
        int | None,
        option("--data-seed", metavar="N", help="Seed for the order of documents and blocks."),
    ] = None
    save_at: Annotated[
        str | None,
        option(
            "--save-at",
            metavar="POINT,...",
            help="Save at these points, such as 250,0.55ep,50%. A point is a number of steps, a number of "
            "epochs or a percentage of the run. Its checkpoint is kept as DIR/step-N.",
        ),
    ] = None
    save_every: Annotated[
        int | None,
        option(
            "--save-every", metavar="N", help="Save a checkpoint every N steps. A shorter run saves none."
        ),
    ] = None
    keep: Annotated[
        int | None,
        option("--keep", metavar="N", help="Keep the last N checkpoints of --save-every."),
    ] = None
    eval_every: Annotated[
        int | None,
        option(
            "--eval-every",
            metavar="N",
            help="Compute the held-out loss every N steps. It is also computed after the last step, and by "
            "default only then.",
        ),
    ] = None
    adapt: Annotated[
        Adaptation | None,
        option(
            "--adapt",
            metavar="PART",
            help="Choose the blocks of each pass by their losses. PART is bottom, middle, top or infobatch. "
            "The first pass trains on all blocks. infobatch drops blocks below the mean loss at random, "
            "gives the rest of them more weight, and trains on all blocks in the last eighth of the run.",
        ),
    ] = None
    adapt_frac: Annotated[
        str | None,
        option(
            "--adapt-frac",
            metavar="F",
            help="Fraction that --adapt keeps, such as 0.5 or 50%. With infobatch it counts among the blocks "
            "below the mean loss. The default is 0.5.",
        ),
    ] = None
    adapt_from: Annotated[
        str | None,
        option(
            "--adapt-from",
            metavar="POINT",
            help="Adapt passes from this point on, such as 2ep. A point is a number of steps, a number of "
            "epochs or a percentage of the run. The default is 1ep, the end of the first pass.",
        ),
    ] = None
    protocol: Annotated[
        str | None,
        option(
            "--protocol",
            metavar="paper",
            help="Use the paper's hyperparameters for the preset. The paper is Marion et al. 2023.",
        ),
    ] = None
    checkpoint_activations: Annotated[
        bool | None,
        option(
            "--checkpoint-activations",
            help="Recompute activations in the backward pass. A step takes less memory and a third more "
            "time.",
        ),
    ] = None
    output: Annotated[
        Path | None,
        option(
            "--output",
            "-o",
            metavar="DIR",
            group=RESULT,
            help="Write the run to DIR, a Hugging Face directory. DIR appears only when the run is complete; "
            "until then the run is in DIR.partial.",
        ),
    ] = None
    force: Force = False
    resume: Annotated[
        bool,
        option(
            "--resume",
            group=RESULT,
            help="Resume from the last checkpoint in DIR.partial. The result is the same, bit for bit, as "
            "without the interruption. If there is no checkpoint, the run starts from the beginning.",
        ),
    ] = False
    eval_data: Annotated[
        str | None,
        option("--eval-data", metavar="FILE", help="Compute a held-out loss on the records of FILE."),
    ] = None
    text_field: TextField = "text"
    device: Device = "auto"
    dtype: NumberFormat = Dtype.auto
    fsdp: Annotated[
        bool,
        option(
            "--fsdp",
            group=COMPUTING,
            help="Shard the model over the processes of torchrun. Without it each process has a full copy.",
        ),
    ] = False

    @property
    def directory(self) -> Path:
        """The directory that the run is written to. Raises UsageError if none is named."""
        if self.output is None:
            raise UsageError("no output directory", remedy="name one with -o DIR")
        return self.output

    def check(self) -> None:
        """Raise UsageError for what is wrong without a look at any file."""
        _ = self.directory
        if self.eval_data == "-":
            raise UsageError("--eval-data cannot be standard input", remedy="name a file")
