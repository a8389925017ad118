"""prune-cli train"""

from ..engines import local
from ..settings.streams import Reading
from ..settings.train import Training
from .options import Files, command

COST = (
    "Before the first step everything is read and tokenized once, into a file in DIR.partial "
    "(2 or 4 bytes per token); --resume reuses it. Memory is 16 bytes per parameter, plus the activations of "
    "a micro-batch."
)
EXAMPLES = (
    (
        "Train a small model and its tokenizer on a slice:",
        "prune-cli train --preset tiny --train-tokenizer 4096 --steps 500 -o run/ shard.jsonl.zst",
    ),
    (
        "Train the paper's 124M model; after an interruption the same command resumes it:",
        "prune-cli train --preset 124m --tokenizer gpt2/ --steps 8000 --resume -o run/ shard.jsonl.zst",
    ),
    (
        "Train a reference model with the paper's early checkpoints and a held-out loss:",
        "prune-cli train --preset 124m --tokenizer gpt2/ --epochs 1 --save-at 14%,55% "
        "--eval-data test.jsonl.zst -o run/ corpus.jsonl.zst",
    ),
    (
        "Train three passes on all blocks, then each on the half in the middle of the losses:",
        "prune-cli train --preset tiny --train-tokenizer 4096 --epochs 5 --adapt middle --adapt-from 3ep "
        "-o run/ shard.jsonl.zst",
    ),
    (
        "Train on eight GPUs, with the model sharded over them:",
        "torchrun --nproc-per-node 8 -m prune_cli train --preset 1.5b --fsdp --tokenizer gpt2/ --steps 14568 "
        "-o run/ shard.jsonl.zst",
    ),
)


@command
def train(files: Files = None, training: Training = Training(), reading: Reading = Reading()) -> int:
    """Train a causal language model on documents or packed blocks.

    The order of the input does not matter: documents are permuted by the data seed and packed into blocks,
    and the blocks are permuted again in each epoch. The held-out loss is in nats per token, on blocks packed
    in the same way.

    DIR/metrics.jsonl has a line for every step: `step`, `tokens`, `loss`, `norm` of the gradient, `lr`,
    `tokens_per_second`, `passes` (epochs so far), `held_out_loss`. DIR/train.json has every setting of the
    run and its origin: given, paper, preset, file or default.

    With --adapt, each pass over the data chooses its blocks by the loss that each had when it was last
    trained on, so no extra forward pass is made, and a block that a pass leaves out can come back. bottom,
    middle and top choose as `slice --keep` does. infobatch (Qin et al. 2024) keeps a block below the mean
    loss with a probability of --adapt-frac, and weights its gradient by 1/--adapt-frac, so that the expected
    gradient is that of all blocks. The run has as many steps as without --adapt. Each pass takes whole steps:
    its last batch is filled with its first blocks. The line of its first step has `pass` (its number),
    `kept_blocks`, `rescaled_blocks`, and `kept_min_loss` and `kept_max_loss`, the range of the losses that it
    was chosen by. While the model learns fast, a loss depends more on when a block was seen than on how hard
    it is: --adapt-from 3ep waits until losses tell blocks apart.

    Under torchrun several processes train one model; the losses are those of one process.
    """
    training.check()  # before the import of torch, which takes seconds
    from ..stages.train import TrainJob

    return local.run(TrainJob(tuple(files or ()), training, reading), reading)
