"""Run a verb, alone in this process or as the jobs of an engine, then show its closing lines."""

import time
from collections.abc import Iterator, Sequence

from .. import storage, terminal
from ..settings.streams import Messages, Reading
from ..terminal import Progress
from .watch import Watch
from .work import AnyReport, Engine, Job, Report, SomeJob, SomeReport, Stage, Work


class Serial(Engine):
    """This process, one job after another, by one worker: models are loaded once."""

    workers = 1

    def __init__(self, watch: Watch | None = None) -> None:
        self.watch = watch or Watch()

    def each(
        self, stage: Stage[SomeJob, AnyReport], jobs: Sequence[SomeJob], progress: Progress
    ) -> Iterator[AnyReport]:
        # Nothing is shown of workers: there are none, and the note beside the bar is that of the job.
        self.watch.begin(stage.verb, len(jobs), progress)
        worker = stage.open()
        for number, job in enumerate(jobs, 1):
            report = worker.do(job, progress)
            self.watch.done = number
            yield report

    def map(
        self,
        stage: Stage[SomeJob, AnyReport],
        jobs: Sequence[SomeJob],
        progress: Progress,
        sizes: Sequence[float] = (),
    ) -> list[AnyReport]:
        return list(self.each(stage, jobs, progress))


def run(job: Job, messages: Messages) -> int:
    """Run a single job and return the exit status."""
    with storage.unsigned(_is_unsigned(messages)):
        report = job.run()
    return _close(report, messages)


def run_jobs(work: Work[SomeJob, SomeReport], messages: Messages, engine: Engine) -> int:
    """Run all jobs of `work` and return the exit status."""
    with storage.unsigned(_is_unsigned(messages)):
        report = _report(work, messages, engine)
    return _close(report, messages)


def _is_unsigned(messages: Messages) -> bool:
    return isinstance(messages, Reading) and messages.no_sign_request


def _report(work: Work[SomeJob, SomeReport], messages: Messages, engine: Engine) -> SomeReport:
    """The report of all jobs."""
    jobs = work.jobs(engine.workers)
    begin = time.perf_counter()
    # An empty input gets a bar without an end, like one of unknown size.
    with terminal.progress(
        work.verb,
        work.size(jobs) or None,
        wanted=messages.shows_progress(),
        at_once=bool(messages.progress),
        # Work that is divided is the work of models: the speed of one worker is counted in tokens, in its
        # note. Several workers have no such note.
        rate=engine.workers > 1,
    ) as progress:
        reports = work.perform(jobs, engine, progress)
    # Not reached if a job fails: finished outputs stay, but a summary of half a run would mislead.
    return work.finish(reports, time.perf_counter() - begin)


def _close(report: Report, messages: Messages) -> int:
    """Show the closing lines; the status is 0, or 3 if bad records were skipped."""
    # The chart among them takes a moment to make, so only if somebody sees it.
    if terminal.is_interactive() and not messages.quiet:
        for line in report.closing():
            terminal.say(line)
    return 3 if report.skipped else 0
