"""Commands in turn, several times each; medians of their times, and the most memory they had."""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

OURS = (sys.executable, "-m", "prune_cli")


@dataclass
class Result:
    """Seconds of each run, and the largest resident memory of any process in it."""

    seconds: list[float] = field(default_factory=list)
    resident: int = 0

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


def compare(commands: Mapping[str, Sequence[object]], runs: int = 3) -> dict[str, Result]:
    """Run all commands `runs` times in turn, so that a busy minute hits all of them; standard output goes
    nowhere.
    """
    results = {name: Result() for name in commands}
    for _ in range(runs):
        for name, command in commands.items():
            seconds, resident = run([str(each) for each in command])
            results[name].seconds.append(seconds)
            results[name].resident = max(results[name].resident, resident)
    return results


def run(command: list[str]) -> tuple[float, int]:
    """Time and memory of one run; a small process in between, since a child's memory starts out as its
    parent's.
    """
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, "
        "check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)"
    )
    os.sync()
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-S", "-c", script, *command], stderr=subprocess.PIPE, check=True)
    return time.perf_counter() - start, int(done.stderr.split()[-1]) << 10


def show(results: Mapping[str, Result], limit: str) -> None:
    """A line for each: seconds, the ratio to `limit`, memory."""
    for name, result in results.items():
        runs = " ".join(f"{seconds:.2f}" for seconds in result.seconds)
        print(
            f"{name:28} {result.median:7.2f} s  {result.median / results[limit].median:6.2f} x  "
            f"{result.resident >> 20:6} MiB   ({runs})"
        )
