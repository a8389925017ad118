"""How do actors of a cluster become workers? Each holds a worker process, and passes on what it says.

The process of an actor belongs to Ray: its signals, its threads and its standard error. A job therefore runs
in a child of it, which is the worker process of any other engine, and stops in order as that does: also
if the actor, its node's raylet or the driver is killed, because it watches its parent.
"""

import logging
import os
import pickle
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import ray

from ...errors import ConfigurationError, Interrupted, TryAgainError, UnavailableError, UsageError
from ...settings.model import EVERY_GPU
from ...settings.streams import Messages, processors
from ...version import __version__
from ..crew import TRIES, Crew, CrewMember, first_free
from ..processes import WorkerProcess, setup_of
from ..watch import Watch
from ..work import Places
from ..worker import GRACE, Kind, Message, Order, Setup
from . import visible
from .cluster import GONE, LOOK, LOST, Cluster

PERIOD = 2.0  # seconds between two messages about progress: hundreds of workers are read by one driver
SOON = 30.0  # seconds after which it is said that the cluster has no room
NODE_LOST = "its node is gone"
# Variables that this process has set or was given for itself, and that a worker elsewhere needs as well.
CARRIED = (
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "GOMP_SPINCOUNT",
    "LRU_CACHE_CAPACITY",
    "TORCH_CPP_LOG_LEVEL",
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Workplace:
    """What an actor is told when it starts."""

    setup: Setup
    directory: str  # that relative paths start from
    variables: Mapping[str, str]
    gpu: bool
    sharing: Mapping[str, int]  # by the id of a node: the workers that share its CPUs


class Host:
    """The actor. Its methods run in two threads: one waits for messages while the other says stop."""

    def __init__(self, workplace: Workplace) -> None:
        # A spawned process imports the main file of its parent, which is Ray's here and takes a second.
        vars(sys.modules["__main__"]).pop("__file__", None)
        with suppress(OSError):
            os.chdir(workplace.directory)
        node = ray.get_runtime_context().get_node_id()
        setup = replace(workplace.setup, of=workplace.sharing.get(node, 1))
        # Ray sets one thread, whatever the node has.
        variables = {"OMP_NUM_THREADS": str(max(1, processors() // setup.of)), **workplace.variables}
        if not workplace.gpu:
            variables["CUDA_VISIBLE_DEVICES"] = ""
        self.process = WorkerProcess(setup, variables)
        self.is_orphan = False
        threading.Thread(target=self._end_with_parent, name="raylet", daemon=True).start()

    def introduce(self) -> str:
        """The version of this package on this node."""
        return __version__

    def exchange(self, orders: Sequence[bytes]) -> list[bytes]:
        """Pass orders to the worker, then wait for its messages. Both are passed on unopened."""
        connection = self.process.connection
        messages: list[bytes] = []
        try:
            for order in orders:
                connection.send_bytes(order)
            messages.append(connection.recv_bytes())
            while connection.poll():
                messages.append(connection.recv_bytes())
        except (EOFError, OSError):
            # The worker's last message says more than its end, if there is one.
            messages = messages or [pickle.dumps(self.process.death())]
        # The worker says that a signal stopped it, which was ours.
        return [pickle.dumps(Message(Kind.lost, NODE_LOST))] if self.is_orphan else messages

    def stop(self) -> None:
        """Ask the worker to stop its job in order."""
        self.process.terminate()

    def end(self) -> None:
        """End a worker that has nothing to do."""
        self.process.dismiss()

    def _end_with_parent(self) -> None:
        """End when the raylet is gone, and before that the worker: another one does its job again.

        Ray itself would let an actor finish the call that it answers, which takes as long as the job.
        """
        raylet = os.getppid()
        while os.getppid() == raylet:
            time.sleep(LOOK)
        self.is_orphan = True
        self.process.terminate()
        self.process.process.join(GRACE)
        os._exit(1)


class ActorWorker(CrewMember):
    """An actor and its worker process, as the driver sees them."""

    def __init__(self, number: int, actor: Any) -> None:
        super().__init__(number)
        self.actor = actor
        # What is waited for: first that the actor is there, then its messages.
        self.answer: Any = actor.introduce.remote()

    def send(self, orders: Sequence[Order]) -> None:
        self.answer = self.actor.exchange.remote([pickle.dumps(order) for order in orders])

    def receive(self) -> list[Message]:
        try:
            messages: list[Message] = [pickle.loads(each) for each in ray.get(self.answer)]
        except ray.exceptions.RayError as error:
            check_own_node(error)
            return [Message(Kind.lost, reason_of(error))]
        if messages[-1].kind in (Kind.progress, Kind.line):
            self.send([])
        return messages

    def dismiss(self) -> None:
        if not LOST.is_set():
            with suppress(Exception):
                ray.kill(self.actor)

    def terminate(self) -> None:
        if not LOST.is_set():
            with suppress(Exception):
                self.actor.stop.remote()

    def last_words(self) -> Any:
        content = None
        with suppress(Exception):
            message = Message(Kind.progress, 0)
            while message.kind in (Kind.progress, Kind.line) and self._answers():
                message = self.receive()[-1]
                content = message.content if message.kind is Kind.stopped else None
        self.dismiss()
        return content

    def _answers(self) -> bool:
        return not LOST.is_set() and bool(ray.wait([self.answer], timeout=GRACE)[0])


def check_own_node(error: Exception) -> None:
    """Raise TryAgainError if an actor died with the node of this process, as all actors do then."""
    if "owner has died" in str(error):
        remedy = "start Ray on it again, then the same command continues"
        raise TryAgainError("the Ray node of this machine is gone", remedy=remedy)


def reason_of(error: Exception) -> str:
    """Why an actor died, in a few words: Ray's are a paragraph."""
    text = str(error)
    if "node has died" in text or "node was terminated" in text:
        return NODE_LOST
    if "out of memory" in text.lower() and "OutOfMemory" in type(error).__name__ + text:
        return "out of memory, says Ray"
    return f"its actor is gone ({type(error).__name__})"


class RayActors(Crew):
    """Workers on a cluster, one a GPU with `gpus`, else one a CPU. Ray decides on which node."""

    remedy = "the same command continues"

    def __init__(
        self, cluster: Cluster, workers: int, messages: Messages, *, gpus: bool, watch: Watch | None = None
    ) -> None:
        super().__init__(workers, watch)
        self.cluster = cluster
        self.messages = messages
        self.gpus = gpus
        self.coming: list[ActorWorker] = []
        self.failures = 0  # actors in a row that never arrived
        self.staffed = time.monotonic()  # when the cluster had a node last, as far as was asked
        # `options`, because Ray's types of `remote` do not have all of these.
        self.make = ray.remote(Host).options(
            num_cpus=1,
            num_gpus=int(gpus),
            max_restarts=0,
            max_task_retries=0,
            max_concurrency=2,
        )

    def check_places(self, places: Places) -> None:
        # A cluster that this process started sees what it sees.
        if not self.cluster.is_own:
            visible.check(self.cluster, places)

    def recruit(self, taken: AbstractSet[int], wanted: int) -> None:
        numbers = set(taken) | {member.number for member in self.coming}
        if not self.cluster.head.answers():
            return
        while len(self.coming) < wanted:
            number = first_free(numbers)
            numbers.add(number)
            self.coming.append(ActorWorker(number, self.make.remote(self._workplace(number))))

    def _workplace(self, number: int) -> Workplace:
        kind = _kind(self.gpus)
        nodes = self.cluster.nodes().items()
        sharing = {name: min(self.workers, self.cluster.places(node, kind)) for name, node in nodes}
        setup = replace(setup_of(number, 1, self.messages), period=PERIOD, sends_lines=True)
        return Workplace(setup, os.getcwd(), _carried(), self.gpus, sharing)

    def wait(self, busy: Sequence[CrewMember]) -> Sequence[CrewMember]:
        members = [*(member for member in busy if isinstance(member, ActorWorker)), *self.coming]
        by_answer = {member.answer: member for member in members}
        if not members:
            time.sleep(LOOK)
            return []
        warning = threading.Timer(SOON, self._warn)
        if not busy:
            warning.start()
        try:
            ready: list[Any] = []
            # Not for ever: a signal that comes while Ray waits is only seen afterwards.
            while not ready:
                ready, _ = ray.wait(list(by_answer), timeout=LOOK)
                self._check_cluster(busy)
        except SystemError as error:
            # Ray's compiled code returns an answer although a signal was raised in it.
            if isinstance(error.__cause__, Interrupted):
                raise error.__cause__ from None
            raise
        finally:
            warning.cancel()
        arrived = [by_answer[answer] for answer in ready if by_answer[answer] in self.coming]
        for member in arrived:
            self._welcome(member)
        return [by_answer[answer] for answer in ready if by_answer[answer] not in arrived]

    def _check_cluster(self, busy: Sequence[CrewMember]) -> None:
        """Raise TryAgainError if the head is lost, or all nodes that could work: new ones may not come."""
        now = time.monotonic()
        # While the head does not answer, Ray would wait for it: nothing may be asked.
        if not self.cluster.head.answers() or busy or self.cluster.total(_kind(self.gpus)):
            self.staffed = now
        elif now - self.staffed > GONE:
            remedy = "start them again, then the same command continues"
            raise TryAgainError("all nodes of the Ray cluster are gone", remedy=remedy)

    def _warn(self) -> None:
        log.warning("no worker yet: the cluster has no room for one, or starts it slowly")

    def _welcome(self, member: ActorWorker) -> None:
        """Take in an actor that is there. Raises ConfigurationError if it is of no use."""
        self.coming.remove(member)
        try:
            version = ray.get(member.answer)
        except ray.exceptions.RayTaskError as error:
            raise visible.cannot_import(error, "a node") from None
        except ray.exceptions.RayError as error:
            check_own_node(error)
            # Its node may have died just then: another one is asked for.
            self.failures += 1
            if self.failures < TRIES * max(2, self.workers):
                return
            raise UnavailableError(f"no worker starts ({reason_of(error)})", place="--engine ray") from None
        if version != __version__:
            fault = f"a node has prune-cli {version}, not {__version__}"
            raise ConfigurationError(fault, remedy="install the same version on all nodes")
        self.failures = 0
        self.idle.append(member)

    def close(self) -> None:
        members = [member for member in self.idle if isinstance(member, ActorWorker)]
        with suppress(Exception):
            ends = [member.actor.end.remote() for member in members]
            if ends:
                ray.wait(ends, num_returns=len(ends), timeout=GRACE)
        for member in self.coming:
            member.dismiss()
        super().close()


def _kind(gpus: bool) -> str:
    """The resource that a worker takes, in Ray's words."""
    return "GPU" if gpus else "CPU"


def _carried() -> dict[str, str]:
    return {
        name: value for name, value in os.environ.items() if name in CARRIED or name.startswith("PRUNE_CLI_")
    }


@contextmanager
def actors(
    cluster: Cluster, asked: int | None, messages: Messages, *, device: str | None, watch: Watch
) -> Iterator[RayActors]:
    """So many workers as were asked for, or one for each GPU or CPU. `device` is that of models, if any.

    Raises ConfigurationError if the device is a GPU, and the cluster has none, or if nothing can work there.
    """
    gpus = _uses_gpus(cluster, device)
    kind = _kind(gpus)
    room = cluster.total(kind)
    if not room:
        remedy = "add nodes, or start them with --num-cpus"
        raise ConfigurationError(f"the Ray cluster has no {kind}", place="--engine ray", remedy=remedy)
    if asked is not None and asked > room:
        log.warning("the cluster has %d %ss: so many workers, not %d", room, kind, asked)
    with RayActors(cluster, min(asked or room, room), messages, gpus=gpus, watch=watch) as crew:
        yield crew


def _uses_gpus(cluster: Cluster, device: str | None) -> bool:
    """Whether workers take a GPU each. Raises what `actors` says, and UsageError for the number of a GPU."""
    if device is not None and ":" in device:
        # Ray gives each worker a GPU of its own, which is the first that it sees.
        remedy = "say --device cuda, and limit the workers by -j"
        raise UsageError("on a Ray cluster, Ray chooses the GPUs", place=f"--device {device}", remedy=remedy)
    has_gpus = bool(cluster.total("GPU"))
    if device is not None and device.startswith((EVERY_GPU, "cuda")) and not has_gpus:
        remedy = "leave out --device to use its CPUs"
        raise ConfigurationError("the Ray cluster has no GPU", place=f"--device {device}", remedy=remedy)
    return has_gpus and device not in (None, "cpu")
