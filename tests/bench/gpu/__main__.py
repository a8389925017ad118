"""All that cannot be checked without a GPU: python -m tests.bench.gpu OUT.json [DEVICE]

At most 8 minutes on a large card. OUT.json gets an entry for each check as soon as it is done: what it
found, or its error, and its seconds. On a processor (DEVICE cpu) everything is done in miniature, so that
the tests can run it; the numbers mean nothing there.
"""

import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from . import scoring, training, workers
from .machine import FULL, SMALL, Machine

# In the order of what is most worth knowing, should the time end.
CHECKS: Mapping[str, Callable[[Machine], dict[str, Any]]] = {
    "scores against float64": scoring.scores,
    "scoring speed": scoring.speed,
    "batches halved when memory runs out": scoring.halving,
    "memorization against generate": scoring.memorization,
    "workers on every GPU": workers.device_all,
    "training speed": training.speed,
    "training resumed": training.resumed,
    "training in a world of one": training.world_of_one,
    "memory of the large preset": training.memory,
}
SECONDS = 450  # after which no further check is begun


def main(out: Path, device: str) -> int:
    """Run the checks and return the exit status: 1 if one of them failed."""
    results: dict[str, Any] = {"device": _name(device), "torch": torch.__version__, "checks": {}}
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        machine = Machine(device, Path(scratch), SMALL if device == "cpu" else FULL)
        for name, check in CHECKS.items():
            is_late = time.monotonic() - begin > SECONDS
            results["checks"][name] = {"error": "no time left"} if is_late else _result(check, machine)
            print(name, json.dumps(results["checks"][name]), flush=True)
            # After each check: what was found is kept if the machine goes away.
            out.write_text(json.dumps(results, indent=2) + "\n")
    return int(any("error" in result for result in results["checks"].values()))


def _name(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else device


def _result(check: Callable[[Machine], dict[str, Any]], machine: Machine) -> dict[str, Any]:
    start = time.monotonic()
    try:
        found = check(machine)
    except Exception as error:  # the checks behind it are still worth running
        found = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    return {**found, "seconds": round(time.monotonic() - start, 1)}


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), (sys.argv[2:] or ["cuda"])[0]))
