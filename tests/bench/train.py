"""train against transformers' Trainer and the machine: python -m tests.bench.train PYTHON SCRATCH [RUNS]

PYTHON is an interpreter that has torch, transformers and accelerate. Both train the same model on the same
blocks of random tokens, each in a process of its own, in turn. A rate is the median of a run's steps but for
the first.

45 % of the limit in bfloat16 are out of reach of torch's operations on 2 × 2.6 GHz with AMX. A step of 16,384
tokens would have 2.3 s, and its operations take 3.1 s by themselves, with all that they touch in the caches
(`pieces`): products 1.2 (0.9 but for what transposing costs), attention 0.9, GELU 0.5, the head 0.35, norms
0.1. In the model they find it in memory, at 25 GB a second. In float32 the products of both take 1.9 of our
2.7 s for 4,096 tokens, at the processor's full rate: 1.3 times Trainer's speed would leave 0.4 s.
"""

import json
import random
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from prune_cli.models import cpu_kernels as kernels
from prune_cli.models.device import matrix_rate
from prune_cli.models.memory import keep_freed_memory
from prune_cli.models.text.loading import train_tokenizer
from prune_cli.training.model import save_tokenizer

from .score import limit
from .timing import OURS, run

THEIRS = Path(__file__).with_name("trainer.py")
TYPES = ("bfloat16", "float32")
MEDIUM = {"n_layer": 8, "n_embd": 512, "n_head": 8, "n_positions": 512, "vocab_size": 8192}  # 30 M parameters
WIDE = {**MEDIUM, "n_positions": 1024, "vocab_size": 50_257}
PRESET = {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 2048, "vocab_size": 51_200}  # 124m
Result = tuple[float, int]  # tokens a second, and the most resident memory of the process in bytes


def main(python: str, scratch: Path, runs: int) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    save_tokenizer(train_tokenizer(["some text"], 257), scratch / "tokenizer")
    for dtype in TYPES:
        speed(python, scratch, dtype, runs)
    pieces()
    for dtype in TYPES:
        memory(python, scratch, dtype)
    for blocks in (64, 64 << 10):
        resuming(scratch, blocks)
    if torch.cuda.is_available():
        card(scratch)


def speed(python: str, scratch: Path, dtype: str, runs: int) -> None:
    """Tokens a second beside Trainer's, and the share of the limit by 6 P FLOPs a token; 32 × 512 a batch, 8
    × 512 at a time for both.
    """
    prepare(scratch, MEDIUM, 32)
    mine, other, best = [], [], 0.0
    for _ in range(runs):
        best = max(best, limit(dtype))
        mine.append(run_ours(scratch, 32 << 9, dtype)[0])
        other.append(run_theirs(python, scratch, 32, 8, dtype)[0])
    rate, against, flops = statistics.median(mine), statistics.median(other), 6 * parameters(MEDIUM)
    print(
        f"{dtype:9} {rate:7,.0f} tokens/s, Trainer {against:7,.0f}: {rate / against:.2f} times as fast",
        end="; ",
    )
    print(
        f"{rate * flops / best:.2f} of {best / 1e9:,.0f} GFLOP/s, Trainer {against * flops / best:.2f}",
        flush=True,
    )


def pieces() -> None:
    """What a step of `speed` in bfloat16 takes at least: its operations by themselves, the caches full of
    what they need, in seconds.
    """
    keep_freed_memory()
    width, blocks, length = MEDIUM["n_embd"], 8, MEDIUM["n_positions"]
    times, layers = 32 // blocks, 32 // blocks * MEDIUM["n_layer"]
    products = [(width, 3 * width), (width, width), (width, 4 * width), (4 * width, width)]
    inputs = {part: numbers(blocks, length, part * width) for part in (1, 3, 4)}
    targets, vocabulary = (
        torch.zeros(blocks * length, dtype=torch.int64),
        numbers(MEDIUM["vocab_size"], width),
    )
    found = {
        "products": layers
        * sum(
            both(kernels.linear, numbers(blocks, length, a), numbers(a, b), numbers(b)) for a, b in products
        ),
        "attention": layers
        * both(lambda packed: kernels.causal_attention(packed, MEDIUM["n_head"], 0.125), inputs[3]),
        "GELU": layers * both(lambda wide: F.gelu(wide, approximate="tanh"), inputs[4]),
        "norms": 2
        * layers
        * both(
            lambda state: F.layer_norm(state, state.shape[-1:]), inputs[1].detach().float().requires_grad_()
        ),
        "head": times
        * both(
            lambda state, matrix: kernels.head_loss(state, matrix, targets, 1.0)[0],
            inputs[1].flatten(0, 1),
            vocabulary,
        ),
    }
    least, best = sum(found.values()), limit("bfloat16")
    print(", ".join(f"{name} {seconds:.2f}" for name, seconds in found.items()), end=": ")
    print(
        f"{least:.2f} s, {6 * parameters(MEDIUM) * (32 * length) / least / best:.2f} of "
        f"{best / 1e9:,.0f} GFLOP/s",
        flush=True,
    )


def memory(python: str, scratch: Path, dtype: str) -> None:
    """The most memory of the process at a batch of 8 × 1024 and a vocabulary of 50,257; its libraries alone
    take 300 MiB.
    """
    prepare(scratch, WIDE, 8)
    mine, other = (
        run_ours(scratch, 8 << 10, dtype)[1] >> 20,
        run_theirs(python, scratch, 8, 8, dtype)[1] >> 20,
    )
    print(f"{dtype:9} {mine:,} MiB at 8 × 1024, Trainer {other:,}: {mine / other:.2f} of it", flush=True)


def resuming(scratch: Path, blocks: int) -> None:
    """From `--resume` to the first new step and with it, less what a process takes that imports all and loads
    the model.
    """
    prepare(scratch, MEDIUM, blocks)
    metrics = scratch / "run.partial" / "metrics.jsonl"
    command = [*ours(scratch, 512, "float32", steps=1000), "--save-at", "1"]
    until(command, lambda: metrics.exists() and metrics.read_bytes().count(b"\n") > 1)
    metrics.write_bytes(metrics.read_bytes().splitlines(keepends=True)[0])
    script = (
        "import sys; from pathlib import Path; from prune_cli.stages import train; "
        "train.load_model(Path(sys.argv[1]))"
    )
    loading = timed(
        lambda: subprocess.run(
            [sys.executable, "-c", script, metrics.parent / "step-1"], check=True, stderr=subprocess.DEVNULL
        )
    )
    seconds = timed(lambda: until([*command, "--resume"], lambda: metrics.read_bytes().count(b"\n") > 1))
    print(
        f"resumed on {blocks << 9:,} tokens in {seconds - loading:.2f} s, past {loading:.2f} s to load",
        flush=True,
    )
    shutil.rmtree(metrics.parent)


def card(scratch: Path) -> None:
    """The 124m preset, compiled, as a share of what the card is sold as."""
    prepare(scratch, PRESET, 256)
    rate, _ = run_ours(scratch, 512 << 10, "bfloat16", steps=10)
    flops, sold = 6 * parameters(PRESET) * rate, matrix_rate(torch.device("cuda"), torch.bfloat16)
    print(f"{torch.cuda.get_device_name()}: {rate:,.0f} tokens/s, {flops:.3g} of {sold:.3g} FLOP/s")


# What is run


def prepare(scratch: Path, shape: Mapping[str, int], blocks: int) -> None:
    """Leave config.json and blocks.jsonl in `scratch`."""
    for name in ("run", "run.partial"):
        shutil.rmtree(scratch / name, ignore_errors=True)
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = {
        "model_type": "gpt2",
        "activation_function": "gelu_pytorch_tanh",
        "bos_token_id": 0,
        "eos_token_id": 0,
        **dropout,
        **shape,
    }
    (scratch / "config.json").write_text(json.dumps(config))
    with (scratch / "blocks.jsonl").open("w") as file:
        for _ in range(blocks):
            file.write(json.dumps({"input_ids": list(random.randbytes(shape["n_positions"]))}) + "\n")


def ours(scratch: Path, batch: int, dtype: str, steps: int) -> list[str]:
    model = ("--config", scratch / "config.json", "--tokenizer", scratch / "tokenizer", "--dtype", dtype)
    budget = ("--steps", steps, "--batch-tokens", batch)
    return [
        str(each)
        for each in (*OURS, "train", "-q", *model, *budget, "-o", scratch / "run", scratch / "blocks.jsonl")
    ]


def run_ours(scratch: Path, batch: int, dtype: str, steps: int = 4) -> Result:
    shutil.rmtree(scratch / "run", ignore_errors=True)
    _, resident = run(ours(scratch, batch, dtype, steps))
    rates = [
        json.loads(line)["tokens_per_second"]
        for line in (scratch / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    return statistics.median(rates[1:]), resident


def run_theirs(python: str, scratch: Path, batch: int, rows: int, dtype: str) -> Result:
    _, resident = run([python, str(THEIRS), str(scratch), str(batch), str(rows), dtype])
    return float((scratch / "theirs.txt").read_text()), resident


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape).div(8).bfloat16().requires_grad_()


def both(operation: Callable[..., Tensor], *inputs: Tensor) -> float:
    """Seconds of an operation and its gradients, the best of many."""
    slope = torch.randn_like(operation(*inputs))
    return min(timed(lambda: torch.autograd.grad(operation(*inputs), inputs, slope)) for _ in range(40))


def until(command: list[str], done: Callable[[], bool]) -> None:
    """Run a command until it has `done` something, and kill it."""
    process = subprocess.Popen(command)
    while not done():
        assert process.poll() is None, command
        time.sleep(0.01)
    process.kill()
    process.wait()


def parameters(shape: Mapping[str, int]) -> int:
    """Of a GPT-2 whose output layer is its embedding."""
    width = shape["n_embd"]
    return (
        shape["n_layer"] * (12 * width + 13) * width
        + (shape["vocab_size"] + shape["n_positions"] + 2) * width
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int((sys.argv[3:] or ["3"])[0]))
