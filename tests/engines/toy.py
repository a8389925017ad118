"""A stage whose jobs count, wait, fail or kill their worker, as the tests of engines need it."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune_cli.errors import DataError, OutOfMemoryError, TryAgainError
from prune_cli.settings.streams import processors
from prune_cli.terminal import Progress

PATIENCE = 60.0


@dataclass(frozen=True)
class ToyJob:
    """The job `number`, which does `action` in the folder `folder`."""

    number: int
    action: str = "square"
    folder: str = ""

    @property
    def name(self) -> str:
        return f"job {self.number}"

    @property
    def mark(self) -> Path:
        return Path(self.folder, f"{self.action}-{self.number}")


class ToyWorker:
    """Knows how many jobs it did, as a worker knows its models."""

    def __init__(self) -> None:
        self.jobs = 0

    def do(self, job: ToyJob, progress: Progress) -> Any:
        self.jobs += 1
        self.progress = progress
        progress.advance(1)
        result = getattr(self, job.action)(job)
        progress.advance(1)
        return result

    def square(self, job: ToyJob) -> int:
        return job.number**2

    def self_description(self, job: ToyJob) -> dict[str, Any]:
        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
        # Long enough that no worker gets two jobs of a few.
        time.sleep(0.5)
        variables = {name: os.environ.get(name) for name in names}
        return {"pid": os.getpid(), "jobs": self.jobs, "processors": processors(), **variables}

    def die_once(self, job: ToyJob) -> int:
        if not job.mark.exists():
            job.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return job.number**2

    def kill_the_actor_once(self, job: ToyJob) -> int:
        """Kill the parent, as it happens if Ray ends an actor."""
        if not job.mark.exists():
            job.mark.touch()
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(PATIENCE)
        return job.number

    def die_always(self, job: ToyJob) -> None:
        with job.mark.open("ab") as file:
            file.write(b"x")
        os.kill(os.getpid(), signal.SIGKILL)

    def run_out_of_memory(self, job: ToyJob) -> None:
        raise OutOfMemoryError("no memory left", remedy="lower --batch-tokens")

    def lose_the_gpu(self, job: ToyJob) -> int:
        if not job.mark.exists():
            job.mark.touch()
            raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore lines")
        return job.number**2

    def find_bad_data(self, job: ToyJob) -> None:
        raise DataError("not JSON", place="web.jsonl:7", remedy="mend it")

    def divide_by_zero(self, job: ToyJob) -> float:
        return job.number / 0

    def terminate_once(self, job: ToyJob) -> int:
        if not job.mark.exists():
            job.mark.touch()
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE)
        return job.number**2

    def wait(self, job: ToyJob) -> int:
        """Wait for a signal, and say what came of it."""
        try:
            job.mark.write_text(str(os.getpid()))
            time.sleep(PATIENCE)
        except BaseException:
            job.mark.with_suffix(".stopped").touch()
            raise
        return job.number

    def wait_and_resume(self, job: ToyJob) -> int:
        """As a run with --resume does it: what is done is kept."""
        try:
            return self.wait(job)
        except BaseException:
            raise TryAgainError("stopped early", place=job.name, remedy="resume") from None

    def wait_in_a_finalizer(self, job: ToyJob) -> None:
        """Get the signal where Python can raise nothing, and go on as long as nobody says so."""

        def abandoned():
            try:
                yield
            finally:
                job.mark.touch()
                time.sleep(PATIENCE)

        generator = abandoned()
        next(generator)
        del generator
        while True:
            time.sleep(0.1)
            self.progress.advance(1)

    def sleep_longer_if_early(self, job: ToyJob) -> int:
        time.sleep(0.2 if job.number == 0 else 0)
        return job.number

    def hold(self, job: ToyJob) -> int:
        """Wait until the folder has a file `released`; note the begin, and the end if it is not that."""
        job.mark.touch()
        try:
            while not Path(job.folder, "released").exists():
                time.sleep(0.05)
        except BaseException:
            job.mark.with_suffix(".stopped").touch()
            raise
        return job.number

    def note_the_time(self, job: ToyJob) -> float:
        return time.monotonic()


@dataclass(frozen=True)
class Toy:
    """The stage."""

    verb: str = "toy"

    def open(self) -> ToyWorker:
        return ToyWorker()
