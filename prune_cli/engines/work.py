"""What does a verb offer to an engine?

A verb that cannot be divided is one `Job`, which runs by itself. A verb that can be divided is a `Work`:
jobs that are independent of each other, and workers that do them. An engine decides how many workers there
are, and where.
"""

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

from ..terminal import Progress


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


class Addable(Report, Protocol):
    """A report that adds up: the sum of the reports of all jobs is the report of the whole."""

    def __add__(self, other: Self) -> Self: ...


# An engine passes jobs on unopened. All it does with their reports is to add them up.
SomeJob = TypeVar("SomeJob")
SomeReport = TypeVar("SomeReport", bound=Addable)
# mypy requires the variance to be declared: a worker only takes jobs, and only returns reports.
DoneJob = TypeVar("DoneJob", contravariant=True)
DoneReport = TypeVar("DoneReport", bound=Addable, covariant=True)


class Worker(Protocol[DoneJob, DoneReport]):
    """Does jobs one after another in one process, and keeps what is expensive to load, such as a model."""

    def do(self, job: DoneJob, progress: Progress) -> DoneReport:
        """Do one job; `progress` advances by the bytes of input that are done. Raises PruneError."""


class Work(Protocol[SomeJob, SomeReport]):
    """Independent jobs. Frozen and picklable, as are its jobs and reports."""

    @property
    def verb(self) -> str:
        """The name that progress is shown under."""

    def jobs(self) -> Sequence[SomeJob]:
        """The jobs, at least one. Raises PruneError for every fault that is visible before they run."""

    def size(self) -> int | None:
        """Bytes that all jobs read together; None if that is unknown."""

    def open(self) -> Worker[SomeJob, SomeReport]:
        """A new worker. An engine opens one in each of its processes."""

    def finish(self, report: SomeReport) -> None:
        """Handle the sum of all reports. Called once, in the process of the engine."""
