"""Which worker does which job? Several take one after another; the job of one that dies goes to another.

A job is tried three times at most. Where the workers are, and how one hears of them, is left to the classes
that derive from `Crew` and `CrewMember`: the loop is the same for processes of this machine and of others.
"""

import logging
from abc import abstractmethod
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any, Generic

from ..errors import Interrupted, PruneError, TryAgainError
from ..terminal import Progress, say
from .watch import Watch
from .work import AnyReport, Engine, SomeJob, Stage
from .worker import Begin, Do, Kind, Message, Order

TRIES = 3
AHEAD = 2  # jobs a worker that `each` has finished or begun, and whose reports the caller has not taken

log = logging.getLogger(__name__)


class WorkerBug(Exception):
    """An exception in a worker that is nobody's fault but ours, with the traceback of that process."""


class CrewMember:
    """A worker, as the process sees it that gives it jobs. `number` counts from 1."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.stage: Any = None
        self.job: int | None = None
        self.advanced = 0.0  # by the job that it does

    def begin(self, stage: Stage[Any, Any], index: int, job: Any) -> None:
        """Send a job. A worker that is dead shows when its answer is read."""
        self.job = index
        self.advanced = 0.0
        orders: list[Order] = []
        if self.stage is not stage:
            self.stage = stage
            orders.append(Begin(stage))
        self.send([*orders, Do(job)])

    @abstractmethod
    def send(self, orders: Sequence[Order]) -> None:
        """Send orders. Raises nothing if the worker is dead."""

    @abstractmethod
    def receive(self) -> list[Message]:
        """The next messages, at least one. The last one is `lost` if the worker is dead."""

    @abstractmethod
    def dismiss(self) -> None:
        """End a worker that has nothing to do, or is dead."""

    @abstractmethod
    def terminate(self) -> None:
        """Ask the worker to stop its job in order."""

    @abstractmethod
    def last_words(self) -> Any:
        """How a job ended that was stopped; None if the worker did not say. Ends the worker."""


class Crew(Engine):
    """Several workers. They start with the first jobs, and stay until the engine is closed."""

    remedy = "the same command continues"  # beside a job that was tried in vain

    def __init__(self, workers: int, watch: Watch | None = None) -> None:
        self.workers = workers
        self.watch = watch or Watch()
        self.idle: list[CrewMember] = []

    def each(
        self, stage: Stage[SomeJob, AnyReport], jobs: Sequence[SomeJob], progress: Progress
    ) -> Iterator[AnyReport]:
        return _Run(self, stage, jobs, progress, ahead=AHEAD * self.workers).reports()

    def map(
        self,
        stage: Stage[SomeJob, AnyReport],
        jobs: Sequence[SomeJob],
        progress: Progress,
        sizes: Sequence[float] = (),
    ) -> list[AnyReport]:
        run = _Run(self, stage, jobs, progress, ahead=len(jobs))
        if sizes:
            run.waiting = deque(sorted(run.waiting, key=lambda number: -sizes[number]))
        return list(run.reports())

    def close(self) -> None:
        for member in self.idle:
            member.dismiss()
        self.idle.clear()
        self.watch.alive(0)

    @abstractmethod
    def recruit(self, taken: AbstractSet[int], wanted: int) -> CrewMember | None:
        """A new worker whose number is not taken; None if it is only on its way.

        So many more are `wanted`: the free places, or the jobs that wait if they are fewer.
        """

    @abstractmethod
    def wait(self, busy: Sequence[CrewMember]) -> Sequence[CrewMember]:
        """Wait until some of these have something to say, and return them.

        Returns early, perhaps with none, if a worker arrives that was on its way: it is in `idle` then.
        """


@dataclass
class _Run(Generic[SomeJob, AnyReport]):
    """Jobs of a stage, from the first that is dealt to the last report that is taken."""

    crew: Crew
    stage: Stage[SomeJob, AnyReport]
    jobs: Sequence[SomeJob]
    progress: Progress
    ahead: int  # jobs that may be finished or begun, and whose reports are not taken

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.jobs)))
        self.deaths: Counter[int] = Counter()
        self.busy: dict[int, CrewMember] = {}  # by number
        self.finished: dict[int, AnyReport] = {}
        self.taken = 0
        self.crew.watch.begin(self.stage.verb, len(self.jobs), self.progress)

    def reports(self) -> Iterator[AnyReport]:
        """See `Engine.each`."""
        try:
            while self.taken < len(self.jobs):
                self._deal()
                if self.taken in self.finished:
                    self.taken += 1
                    yield self.finished.pop(self.taken - 1)
                    continue
                for member in self.crew.wait(list(self.busy.values())):
                    for message in member.receive():
                        self._take(member, *message)
        except Interrupted:
            # A worker may know how the run is resumed, which is worth more than that it was stopped.
            if resumable := self._stop():
                raise resumable from None
            raise
        finally:
            self._stop()

    def _deal(self) -> None:
        """Give jobs to workers that have none, as far ahead as allowed."""
        crew = self.crew
        while self.waiting and len(self.busy) < crew.workers:
            if self.waiting[0] >= self.taken + self.ahead:
                return
            wanted = min(crew.workers - len(self.busy), len(self.waiting))
            # A number is free again once its process is gone: CUDA_VISIBLE_DEVICES goes with it.
            member = crew.idle.pop() if crew.idle else crew.recruit(self.busy.keys(), wanted)
            if member is None:
                return
            self.busy[member.number] = member
            crew.watch.alive(len(self.busy) + len(crew.idle))
            index = self.waiting.popleft()
            member.begin(self.stage, index, self.jobs[index])

    def _take(self, member: CrewMember, kind: Kind, content: Any) -> None:
        """Take a message of a worker."""
        if kind is Kind.progress:
            member.advanced += content
            self.progress.advance(content)
        elif kind is Kind.line:
            say(content)
        elif kind is Kind.done:
            assert member.job is not None
            self.finished[member.job] = content
            self.crew.watch.finished(len(self.finished) + self.taken)
            del self.busy[member.number]
            self.crew.idle.append(member)
        elif kind is Kind.failed:
            raise content
        elif kind is Kind.bug:
            raise WorkerBug(f"in a worker process:\n{content}")
        else:
            # A signal that only the worker got counts as its death.
            self._bury(member, content if kind is Kind.lost else "stopped by a signal")

    def _bury(self, member: CrewMember, reason: str) -> None:
        """Put the job of a dead worker back. Raises TryAgainError if it was the last try."""
        del self.busy[member.number]
        member.dismiss()
        assert member.job is not None
        self.progress.advance(-member.advanced)
        self.deaths[member.job] += 1
        name = self.jobs[member.job].name
        tries = self.deaths[member.job]
        if tries == TRIES:
            fault = f"its worker died {TRIES} times ({reason})"
            raise TryAgainError(fault, place=name, remedy=self.crew.remedy)
        log.warning("worker %d died (%s): %s is tried again", member.number, reason, name)
        self.crew.watch.tried_again()
        # In front: the caller waits for the oldest job.
        self.waiting.appendleft(member.job)

    def _stop(self) -> PruneError | None:
        """Stop the jobs that are being done. Returns the failure by which one of them can be resumed."""
        members = list(self.busy.values())
        self.busy.clear()
        for member in members:
            member.terminate()
        failures = [failure for member in members if (failure := member.last_words())]
        return next(iter(failures), None)


def first_free(taken: AbstractSet[int]) -> int:
    """The smallest number from 1 that is not taken."""
    return next(number for number in range(1, len(taken) + 2) if number not in taken)
