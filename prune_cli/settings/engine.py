"""How many processes do the work of a verb, and how can it be watched?"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from ..errors import UsageError
from .option import option
from .streams import WORKERS, processors


@dataclass(frozen=True)
class WorkerSettings:
    """Worker processes. Nothing that is written depends on how many there are."""

    GROUP: ClassVar[str] = WORKERS
    jobs: Annotated[
        str | None,
        option(
            "--jobs",
            "-j",
            metavar="N|auto",
            help="Number of worker processes on this machine. auto is one per CPU, or one per GPU with "
            "--device all. The default is to work in one process.",
        ),
    ] = None
    status_file: Annotated[
        str | None,
        option(
            "--status-file",
            metavar="FILE",
            help="Write how far the run is to FILE, as JSON, every few seconds. FILE is replaced as a whole.",
        ),
    ] = None

    def number(self, gpus: int = 0) -> int:
        """The number of workers, on a machine with so many GPUs that are to be used. Raises UsageError."""
        if self.jobs is None:
            return gpus or 1
        if self.jobs == "auto":
            return gpus or processors()
        # Six digits are plenty; more are a typing error.
        if not (self.jobs.isascii() and self.jobs.isdigit() and len(self.jobs) <= 6 and int(self.jobs)):
            raise UsageError(f"invalid --jobs '{self.jobs}'", remedy="name a number, such as 4, or auto")
        return int(self.jobs)
