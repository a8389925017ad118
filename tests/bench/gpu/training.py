"""Training on the device: fast, resumed bit by bit, in a world of one, and as large as it fits."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch

from prune_cli.models.device import matrix_rate
from prune_cli.training.checkpoints import resumable

from .machine import ROOT, Machine

PEAK = """
import sys, torch
from prune_cli import cli
status = cli.run(sys.argv[1:])
print(torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)
sys.exit(status)
"""


def speed(machine: Machine) -> dict[str, Any]:
    """Tokens a second of the measured shape, and their share of the rate in the card's data sheet."""
    run = _trained(machine, "speed")
    steps = _steps(run)
    # The first steps compile.
    rate = median(step["tokens_per_second"] for step in steps[len(steps) // 2 :])
    parameters = json.loads((run / "train.json").read_bytes())["summary"]["parameters"]
    sold = matrix_rate(torch.device(machine.device), torch.bfloat16)
    return {
        "tokens_per_second": round(rate),
        # Kaplan et al. 2020: 2 operations a parameter and token forward, 4 backward.
        "share_of_data_sheet": round(6 * parameters * rate / sold, 3) if sold else None,
        "losses": [step["loss"] for step in steps],
    }


def resumed(machine: Machine) -> dict[str, Any]:
    """Whether a run that was killed after a checkpoint ends with the weights of one that was not."""
    middle = str(machine.sizes.steps // 2)
    whole = _trained(machine, "whole", "--save-at", middle)
    command = _command(machine, "stopped", "--save-at", middle)
    _kill_after_checkpoint([sys.executable, "-m", "prune_cli", *command], machine.scratch / "stopped.partial")
    machine.run([*command, "--resume"])
    stopped = machine.scratch / "stopped"
    losses = [[step["loss"] for step in _steps(run)] for run in (whole, stopped)]
    name = "model.safetensors"
    return {
        "weights_equal": (whole / name).read_bytes() == (stopped / name).read_bytes(),
        "losses_equal": losses[0] == losses[1],
    }


def _kill_after_checkpoint(command: list[str], work: Path) -> None:
    """Start a run, and kill it as soon as it has a checkpoint. Raises RuntimeError if it ends before."""
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not resumable(work):
            time.sleep(0.001)
        process.kill()
    if process.returncode != -signal.SIGKILL:
        raise RuntimeError(f"the run that was to be killed ended with status {process.returncode}")


def world_of_one(machine: Machine) -> dict[str, Any]:
    """Whether a process group of one process (NCCL on a GPU) gives the losses of a plain run."""
    alone = _steps(_trained(machine, "alone"))
    start = ("-m", "torch.distributed.run", "--nproc-per-node", "1", "-m", "prune_cli")
    machine.run(_command(machine, "world"), start)
    together = _steps(machine.scratch / "world")
    pairs = zip(alone, together, strict=True)
    return {"largest_difference": max(abs(a["loss"] - b["loss"]) for a, b in pairs)}


def memory(machine: Machine) -> dict[str, Any]:
    """The most memory of a step of the large preset, with and without activation checkpointing, in GiB."""
    sizes = machine.sizes
    peaks = {}
    for name, options in (("plain", ()), ("checkpointed", ("--checkpoint-activations",))):
        output = ("-o", machine.scratch / f"large-{name}", "--steps", "2", *options)
        command = machine.training(sizes.large, sizes.large_batch_tokens, *output)
        peaks[name] = round(int(machine.run(command, ("-c", PEAK)).split()[-1]) / (1 << 30), 2)
    return {"peak_gib": peaks, "batch_tokens": sizes.large_batch_tokens}


# --- Shared ---


def _command(machine: Machine, name: str, *options: str) -> list[str]:
    budget = ("--steps", machine.sizes.steps, "-o", machine.scratch / name)
    return machine.training(machine.sizes.shape, machine.sizes.batch_tokens, *budget, *options)


def _trained(machine: Machine, name: str, *options: str) -> Path:
    machine.run(_command(machine, name, *options))
    return machine.scratch / name


def _steps(run: Path) -> list[dict[str, Any]]:
    """What `train` wrote about each step."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
