"""Run a job in this process."""

from typing import Protocol

from .. import terminal
from ..settings.streams import Messages


class Report(Protocol):
    """The result of a job: counts that add up, and what a person is shown at the end."""

    @property
    def skipped(self) -> int:
        """Bad records that were skipped, as --skip-bad asks."""
        ...

    def closing(self) -> list[str]:
        """The lines that end a run on a terminal."""
        ...


class Job(Protocol):
    """Work by value: inputs, outputs and settings, frozen and picklable."""

    def run(self) -> Report:
        """Do the work. Raises PruneError."""
        ...


def run(job: Job, messages: Messages) -> int:
    """Run the job and return the exit status: 0, or 3 if bad records were skipped."""
    report = job.run()
    for line in report.closing():
        terminal.closing(line, quiet=messages.quiet)
    return 3 if report.skipped else 0
