"""Workers on Ray beside processes of this machine: python -m tests.bench.ray SHARED SCRATCH [RUNS]

Scores 100 small shards with a model of 264 k parameters by two workers, in turn. A time is that of the last
90 shards, taken from the moments at which their outputs were complete: the start does not count.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import zstandard

from .timing import OURS

SHARDS = 100
FIRST = 10  # shards, after which both workers have loaded the model
TEXT = 10_000  # characters in a shard
ENGINES = {"processes": ("-j", 2), "Ray": ("-j", 2, "--engine", "ray")}


def shards(corpus: Path, scratch: Path) -> list[Path]:
    """Files of equal size with the text of a corpus."""
    with zstandard.open(corpus, "rt", encoding="utf-8") as file:
        text = "\n".join(json.loads(line)["text"] for line in file)[: SHARDS * TEXT]
    paths = [scratch / f"{number:03}.jsonl" for number in range(SHARDS)]
    for number, path in enumerate(paths):
        pieces = [text[at : at + 2000] for at in range(number * TEXT, (number + 1) * TEXT, 2000)]
        path.write_text("".join(json.dumps({"text": piece}) + "\n" for piece in pieces))
    return paths


def seconds(options: tuple[object, ...], model: Path, paths: list[Path], scratch: Path) -> float:
    """The time in which all shards but the first were scored."""
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        command = [*OURS, "score", "--model", model, *options, "-q", "-O", out, *paths]
        # Ray's workers have a session of their own, and a busy system shares its time among sessions.
        subprocess.run([str(word) for word in command], check=True, start_new_session=True)
        done = sorted(path.stat().st_mtime for path in Path(out).glob("*.zst"))
    return done[-1] - done[FIRST - 1]


def main(shared: Path, scratch: Path, runs: int) -> None:
    scratch.mkdir(parents=True, exist_ok=True)
    paths = shards(shared / "data" / "clean.jsonl.zst", scratch)
    times: dict[str, list[float]] = {name: [] for name in ENGINES}
    for _ in range(runs):
        for name, options in ENGINES.items():
            times[name].append(seconds(options, shared / "data" / "stories260k", paths, scratch))
            print(f"{name}: {times[name][-1]:.2f} s", flush=True)
    local, remote = (statistics.median(times[name]) for name in ENGINES)
    print(f"medians: {local:.2f} and {remote:.2f} s, {remote / local:.3f} x")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int((sys.argv[3:] or ["5"])[0]))
