"""What does a verb offer to an engine?

A verb that cannot be divided is one `Job`, which runs by itself. A verb that can be divided is a `Work`:
jobs that are independent of each other, and workers that do them. An `Engine` decides how many workers there
are, and where. A verb of several stages is a work for each of them, and calls the engine once for each.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self, TypeVar

from ..terminal import Progress
from .watch import Watch


class Report(Protocol):
    """The result of a job."""

    @property
    def skipped(self) -> int:
        """Bad records that were skipped, as --skip-bad asks."""

    def closing(self) -> list[str]:
        """The lines that end a run on a terminal."""


class Job(Protocol):
    """Work by value: inputs, outputs and settings, frozen and picklable."""

    def run(self) -> Report:
        """Do the work. Raises PruneError."""


class NamedJob(Protocol):
    """A job among others: picklable, with a name for messages, such as the input that it reads."""

    @property
    def name(self) -> str: ...


# An engine passes jobs and reports on unopened.
SomeJob = TypeVar("SomeJob", bound=NamedJob)
SomeReport = TypeVar("SomeReport", bound=Report)
# A stage in the middle of a verb may return anything that can be pickled: a histogram, a table of sizes.
AnyReport = TypeVar("AnyReport")
# mypy requires the variance to be declared: a worker only takes jobs, and only returns reports.
DoneJob = TypeVar("DoneJob", contravariant=True)
DoneReport = TypeVar("DoneReport", covariant=True)


class Worker(Protocol[DoneJob, DoneReport]):
    """Does jobs one after another in one process, and keeps what is expensive to load, such as a model."""

    def do(self, job: DoneJob, progress: Progress) -> DoneReport:
        """Do one job; `progress` advances by the bytes of input that are done. Raises PruneError."""


class Stage(Protocol[DoneJob, DoneReport]):
    """What workers need to do jobs of one kind. Frozen and picklable, as are the jobs and reports."""

    @property
    def verb(self) -> str:
        """The name that progress and messages are shown under."""

    def open(self) -> Worker[DoneJob, DoneReport]:
        """A new worker. An engine opens one in each of its processes."""


class Work(Stage[SomeJob, SomeReport], Protocol[SomeJob, SomeReport]):
    """All of a verb that can be divided."""

    def jobs(self, workers: int) -> Sequence[SomeJob]:
        """The jobs for so many workers; there may be none.

        Raises PruneError for every fault that is visible before they run.
        """

    def perform(self, jobs: Sequence[SomeJob], engine: "Engine", progress: Progress) -> Sequence[SomeReport]:
        """Have the engine do the jobs, and return their reports, in their order. Raises PruneError."""

    def size(self, jobs: Sequence[SomeJob]) -> int | None:
        """Bytes that these jobs read together; None if that is unknown."""

    def finish(self, reports: Sequence[SomeReport], seconds: float) -> SomeReport:
        """Handle the reports of all jobs, in their order, and return the sum for the closing lines.

        Called once, in the process of the engine, which took so many `seconds` for all jobs.
        """


class Places(NamedTuple):
    """What the workers of a verb have to see, besides the process of the engine."""

    reads: Sequence[str]  # files, and folders such as those of models
    folders: Sequence[str]  # that they write into


class Engine(ABC):
    """Does the jobs of stages, each exactly once as far as its report tells.

    It may be used for several stages, one after another, and is closed at the end of its `with` block.
    """

    workers: int
    """How many jobs are done at the same time, at most. No result may depend on it."""
    watch: Watch
    """What a user sees of the workers."""

    @abstractmethod
    def each(
        self, stage: Stage[SomeJob, AnyReport], jobs: Sequence[SomeJob], progress: Progress
    ) -> Iterator[AnyReport]:
        """The reports, in the order of the jobs, each as soon as it and all before it are there.

        Workers are at most a few jobs ahead of the caller: what it has not taken yet is bounded. Raises the
        PruneError of the first job that fails, and TryAgainError for one whose worker died again and again.
        """

    @abstractmethod
    def map(
        self,
        stage: Stage[SomeJob, AnyReport],
        jobs: Sequence[SomeJob],
        progress: Progress,
        sizes: Sequence[float] = (),
    ) -> list[AnyReport]:
        """All reports, in the order of the jobs. Workers never wait for the caller. Raises as `each` does.

        With the `sizes` of all jobs the largest are done first, so that none is left for the end.
        """

    def check_places(self, places: Places) -> None:
        """Raise ConfigurationError if a worker could not see the same files, before work is begun."""
        return  # processes of this machine see what this process sees

    def close(self) -> None:
        """End the workers."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
