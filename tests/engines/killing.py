"""Commands whose processes are killed at random, and started again until they are done."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from ..conftest import PATIENCE, ROOT, command


def children(pid: int) -> list[int]:
    """The worker processes of a run: its children that are no resource tracker."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(pid) for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def kill_at_random(
    *arguments: object, seed: int, kills: int, start: Callable[..., list[str]] = command
) -> int:
    """Run a command, kill workers and now and then the run itself, until it is done; returns the kills."""
    dice = random.Random(seed)
    done = 0
    while True:
        with subprocess.Popen(start(*arguments), cwd=ROOT, stderr=subprocess.PIPE) as process:
            while process.poll() is None and done < kills:
                time.sleep(dice.uniform(0.1, 0.7))
                try:
                    victims = children(process.pid)
                    victim = process.pid if dice.random() < 0.2 or not victims else dice.choice(victims)
                    os.kill(victim, signal.SIGKILL)
                    done += 1
                except (ProcessLookupError, FileNotFoundError):
                    continue
            _, said = process.communicate(timeout=PATIENCE)
        if process.returncode == 0:
            return done
        # The run itself was killed, or a part met three deaths: the same command continues.
        assert process.returncode in (-signal.SIGKILL, 75), said.decode()
