"""Run a grid: start the steps whose needs are met, until all are done; see `shell/paper-grid`.

A step is done when its outputs exist and the record in `state/` says that the same command made them from the
same inputs. So a grid resumes wherever it was stopped, and a changed configuration repeats only what depends
on the change. `prune-cli` writes outputs that are whole or absent, and resumes long runs itself.
"""

import argparse
import hashlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from . import results, table
from .steps import Grid, Step

SHELL = Path(__file__).resolve().parent.parent
TRY_AGAIN = 75  # the status of a command that finds its output locked by another process
PATIENCE = 30.0  # seconds until such a command is started again, or another shard's outputs are looked for
POLL = 0.1

# Starts a command line in a folder; what it says goes to a log.
Start = Callable[[str, Path, Path], "subprocess.Popen[bytes]"]


def main() -> None:
    """Do what the command line says."""
    options = _options()
    if options.table:
        print(table.markdown(results.read(options.table)))
        return
    grid = Grid(tomllib.loads(options.config.read_text()), options.data.resolve())
    folder = Folder(options.output, grid.steps())
    if options.plan:
        print(plan(grid, folder))
        return
    # A service manager stops with SIGTERM: then the commands are stopped as after Ctrl-C.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        status = Runner(folder, options.jobs, options.shard).run()
    except KeyboardInterrupt:
        sys.exit("paper-grid: stopped; the same command continues")
    found = write_results(grid, folder)
    print(f"\n{table.markdown(results.read(found))}\n\nThe results are in {found}.")
    sys.exit(status)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="paper-grid", description=__doc__)
    add = parser.add_argument
    add(
        "--config",
        type=Path,
        metavar="FILE",
        default=SHELL / "paper-grid-124m.toml",
        help="the grid, as TOML",
    )
    add("--data", type=Path, metavar="DIR", default=Path(), help="replaces {data} in the configuration")
    add(
        "-o",
        "--output",
        type=Path,
        metavar="DIR",
        default=Path("grid"),
        help="folder of the grid (default: grid)",
    )
    add("--plan", action="store_true", help="print the number of steps, tokens, hours and bytes; run nothing")
    add("--jobs", type=int, metavar="N", default=1, help="commands that run side by side")
    add(
        "--shard",
        type=_shard,
        metavar="I/N",
        default=(1, 1),
        help="run each N-th step, beside N - 1 other machines",
    )
    add("--table", type=Path, metavar="RESULTS", help="print the table of a results.jsonl; run nothing")
    return parser.parse_args()


def _shard(text: str) -> tuple[int, int]:
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"{text} is not I/N, with I from 1 to N")
    return int(number), int(count)


class Folder:
    """The folder of a grid, and which of its steps are done."""

    def __init__(self, root: Path, steps: Sequence[Step]) -> None:
        self.root = root
        self.steps = steps
        self.keys: dict[str, str] = {}
        # A step's key depends on the keys of what it needs: a changed command repeats all that follows.
        for step in steps:
            made = [self.keys.get(need, need) for need in step.needs]
            self.keys[step.name] = hashlib.sha256(json.dumps([step.command, made]).encode()).hexdigest()

    def is_done(self, step: Step) -> bool:
        """Whether the outputs exist and are of this command."""
        is_whole = all((self.root / output).exists() for output in step.outputs)
        return is_whole and self._state(step).get("key") == self.keys[step.name]

    def seconds(self, step: Step) -> tuple[float, float]:
        """How long the command ran, and how long on a processor, attempts that failed included."""
        state = self._state(step)
        return float(state.get("seconds", 0)), float(state.get("processor_seconds", 0))

    def begin(self, step: Step) -> None:
        """Record the command, and remove what another one left. A stopped run of the same resumes."""
        if self._state(step).get("key") != self.keys[step.name]:
            for output in step.outputs:
                for path in (self.root / output, self.root / f"{output}.partial"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
            self._record(step, 0, 0)
        for output in step.outputs:
            (self.root / output).parent.mkdir(parents=True, exist_ok=True)

    def end(self, step: Step, seconds: float, processor_seconds: float) -> None:
        """Add the time that an attempt took."""
        before, processor_before = self.seconds(step)
        self._record(step, before + seconds, processor_before + processor_seconds)

    def log(self, step: Step) -> Path:
        """The file that the step's command writes its messages to."""
        path = self.root / "logs" / f"{step.name.replace('/', '-')}.log"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _path(self, step: Step) -> Path:
        return self.root / "state" / f"{step.name.replace('/', '-')}.json"

    def _state(self, step: Step) -> dict[str, str | float]:
        try:
            state: dict[str, str | float] = json.loads(self._path(step).read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return state

    def _record(self, step: Step, seconds: float, processor_seconds: float) -> None:
        path = self._path(step)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        times = {"seconds": round(seconds, 1), "processor_seconds": round(processor_seconds, 1)}
        temporary.write_text(json.dumps({"key": self.keys[step.name], **times}))
        temporary.replace(path)


def start_process(command: str, folder: Path, log: Path) -> "subprocess.Popen[bytes]":
    """Start a command line with bash."""
    with log.open("ab") as file:
        words = ["bash", "-euo", "pipefail", "-c", command]
        return subprocess.Popen(words, cwd=folder, stdin=subprocess.DEVNULL, stdout=file, stderr=file)


@dataclass
class Runner:
    """Runs the steps of a shard, `jobs` of them side by side, in their order as far as their needs allow."""

    folder: Folder
    jobs: int = 1
    shard: tuple[int, int] = (1, 1)
    start: Start = start_process
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)
    started: dict[str, float] = field(default_factory=dict)
    not_before: dict[str, float] = field(default_factory=dict)

    def run(self) -> int:
        """Run until all steps are done, or one has failed. Returns 0, or the status of that one."""
        number, count = self.shard
        left = {step.name: step for step in self.folder.steps[number - 1 :: count]}
        done = {step.name for step in self.folder.steps if self.folder.is_done(step)}
        status = 0
        try:
            while (left.keys() - done and not status) or self.running:
                if not status:
                    self._start_ready([step for step in left.values() if step.name not in done], done)
                status = self._reap(left, done) or status
        finally:
            self._stop()
        return status

    def _start_ready(self, steps: Sequence[Step], done: set[str]) -> None:
        known = self.folder.keys
        for step in steps:
            if len(self.running) >= self.jobs:
                return
            waits = step.name in self.running or time.monotonic() < self.not_before.get(step.name, 0)
            # A need without a step is a file of the user's.
            if not waits and all(need in done or need not in known for need in step.needs):
                self._begin(step)
        if not self.running:
            self._look_for_others(done)

    def _begin(self, step: Step) -> None:
        self.folder.begin(step)
        command = step.command
        if "{lr}" in command:
            sweep = [self.folder.root / need for need in step.needs if need.startswith("results/sweep-")]
            command = command.replace("{lr}", results.chosen_rate(sweep))
        print(f"+ {command}", flush=True)
        self.started[step.name] = time.monotonic()
        self.running[step.name] = self.start(command, self.folder.root, self.folder.log(step))

    def _look_for_others(self, done: set[str]) -> None:
        """Nothing can start: wait for the outputs of other shards, or until a locked output is free.

        A shard that failed or stopped keeps the others waiting until it is started again.
        """
        time.sleep(PATIENCE if self.shard[1] > 1 else POLL)
        done.update(step.name for step in self.folder.steps if self.folder.is_done(step))

    def _reap(self, steps: dict[str, Step], done: set[str]) -> int:
        """Take note of the commands that have ended. Returns the status of one that failed, else 0."""
        failed = 0
        for name, process in [*self.running.items()]:
            before = _processor_seconds()
            if (status := process.poll()) is None:
                continue
            del self.running[name]
            # The system adds the time of a process to that of its parent when the parent asks for its status.
            processor = _processor_seconds() - before
            self.folder.end(steps[name], time.monotonic() - self.started[name], processor)
            if status == TRY_AGAIN:
                self.not_before[name] = time.monotonic() + PATIENCE
            elif status or not self.folder.is_done(steps[name]):
                failed = status or 1
                print(f"paper-grid: {name} failed ({status}); its log ends:\n{self._last_lines(steps[name])}")
            else:
                done.add(name)
        time.sleep(POLL if self.running else 0)
        return failed

    def _last_lines(self, step: Step) -> str:
        log = self.folder.log(step)
        return "\n".join(log.read_text(errors="replace").splitlines()[-5:]) if log.exists() else ""

    def _stop(self) -> None:
        """Stop what still runs, after an interruption. Its runs resume."""
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait()


def _processor_seconds() -> float:
    """The processor time of all processes that this one has started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def plan(grid: Grid, folder: Folder) -> str:
    """A table of the work: steps, those that are done, tokens, hours and bytes, by kind."""
    rate = grid.config["plan"]["flops"]
    rows = []
    for kind in dict.fromkeys(step.kind for step in folder.steps):
        rows.append(_row(kind, [step for step in folder.steps if step.kind == kind], folder, rate))
    rows.append(_row("all", folder.steps, folder, rate))
    head = f"{'steps':14}{'all':>6}{'done':>6}{'M tokens':>12}{'hours':>10}{'GB':>10}"
    about = f"{grid.parameters() / 1e6:.2f} M parameters, {rate:.3g} floating-point operations per second"
    return "\n".join([head, *rows, about])


def _row(kind: str, steps: Sequence[Step], folder: Folder, rate: float) -> str:
    tokens, flops, disk = (sum(getattr(step, name) for step in steps) for name in ("tokens", "flops", "disk"))
    return (
        f"{kind:14}{len(steps):6,}{sum(map(folder.is_done, steps)):6,}{tokens / 1e6:12,.1f}"
        f"{flops / rate / 3600:10,.2f}{disk / 1e9:10,.2f}"
    )


def write_results(grid: Grid, folder: Folder) -> Path:
    """Collect what the steps that are done found into results.jsonl."""
    path = folder.root / "results.jsonl"
    temporary = path.with_suffix(".new")
    done = [step for step in folder.steps if folder.is_done(step)]
    records = results.collect(grid, folder.root, {step.name: folder.seconds(step) for step in done})
    temporary.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
    temporary.replace(path)
    return path


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
