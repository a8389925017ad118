"""eval --glue on RTE and CoLA, two seeds each, against its five minutes: python -m tests.bench.glue MODEL
GLUE_DIRECTORY [TASK...]
"""

import sys

from .timing import OURS, compare


def main(model: str, directory: str, tasks: list[str]) -> None:
    commands = {
        task: (*OURS, "eval", model, "--glue", directory, "--tasks", task, "--seeds", 2) for task in tasks
    }
    results = compare(commands, runs=1)
    for name, result in results.items():
        print(f"{name:8} {result.median:7.1f} s  {result.resident >> 20:6} MiB")
    print(f"{'all':8} {sum(result.median for result in results.values()):7.1f} s, of 300")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:] or ["rte", "cola"])
