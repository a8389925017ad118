"""Run work in this process, one job after another."""

from functools import reduce
from operator import add

from .. import terminal
from ..settings.streams import Messages
from .work import Job, Report, SomeJob, SomeReport, Work


def run(job: Job, messages: Messages) -> int:
    """Run a single job and return the exit status."""
    return _close(job.run(), messages)


def run_jobs(work: Work[SomeJob, SomeReport], messages: Messages) -> int:
    """Run all jobs of `work` and return the exit status.

    A single worker does them, so that models are loaded once.
    """
    jobs = work.jobs()
    # An empty input gets a bar without an end, like one of unknown size.
    with terminal.progress(
        work.verb,
        work.size() or None,
        wanted=messages.shows_progress(),
        at_once=bool(messages.progress),
        # Work that is divided is the work of models: its speed is counted in tokens, not in bytes.
        rate=False,
    ) as progress:
        worker = work.open()
        report = reduce(add, (worker.do(job, progress) for job in jobs))
    # Not reached if a job fails: finished outputs stay, but a summary of half a run would mislead.
    work.finish(report)
    return _close(report, messages)


def _close(report: Report, messages: Messages) -> int:
    """Show the closing lines; the status is 0, or 3 if bad records were skipped."""
    # The chart among them takes a moment to make, so only if somebody sees it.
    if terminal.is_interactive() and not messages.quiet:
        for line in report.closing():
            terminal.say(line)
    return 3 if report.skipped else 0
