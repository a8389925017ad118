"""How many processes do the work of a verb, and how can it be watched?"""

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from ..errors import UsageError
from .option import option
from .streams import WORKERS, processors


class EngineName(StrEnum):
    """Where workers are."""

    local = "local"
    ray = "ray"


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
            "--device all. The default is to work in one process. With --engine ray, it is the number of "
            "workers on the cluster, by default one per GPU or CPU.",
        ),
    ] = None
    engine: Annotated[
        EngineName,
        option(
            "--engine",
            help="Where the workers are: local is this machine, ray is a Ray cluster. ray needs "
            "pip install 'prune-cli[ray]', and files that all nodes see.",
        ),
    ] = EngineName.local
    ray_address: Annotated[
        str | None,
        option(
            "--ray-address",
            metavar="ADDRESS",
            help="The head of the Ray cluster, as HOST:PORT, or auto for the one that runs on this machine. "
            "The default is RAY_ADDRESS, or else a cluster of this machine that ends with the run.",
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

    @property
    def cluster(self) -> str | None:
        """The address of the Ray cluster; None for one of this machine."""
        return self.ray_address or os.environ.get("RAY_ADDRESS") or None

    def asked_for(self) -> int | None:
        """The number of workers that was asked for; None if there may be any. Raises UsageError."""
        return None if self.jobs in (None, "auto") else self.number()

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
