"""Which Ray cluster does the work, and what has it? One that runs, or one of this machine for this run alone.

Of Ray only its core is used: tasks, actors and `wait`. Retries are ours, so that all engines fail alike.
"""

import logging
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import ray

from ...errors import (
    ConfigurationError,
    PermissionDeniedError,
    PruneError,
    TryAgainError,
    UnavailableError,
    UsageError,
)
from ...settings.streams import processors
from . import is_of_this_machine

PATIENCE = 10.0  # seconds for an address to answer; Ray itself would try for minutes, and then abort
PORT = 6379  # of a head, unless it was told another one
LOOK = 1.0  # seconds between two questions whether the head is there
# Seconds without an answer after which it is lost. A head with a spare one is back by then. Ray itself aborts
# after 60.
GONE = 45.0
LOST = threading.Event()  # once it is set, Ray cannot be shut down any more
# Logs of workers come as messages, those of Ray itself interest nobody.
_QUIET: dict[str, Any] = {
    "log_to_driver": False,
    "configure_logging": False,
    "logging_level": logging.CRITICAL,
}
STORE = 80 << 20  # bytes of shared memory: reports are small, and Ray's smallest store has 75 MB


class HeadNode:
    """The head of the cluster, and since when it does not answer."""

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self.address = (host.strip("[]"), int(port))
        self.asked = time.monotonic()
        self.silent_since: float | None = None

    def answers(self) -> bool:
        """Whether the head answers; it is asked once a second at most. Raises TryAgainError if it is lost."""
        now = time.monotonic()
        if now - self.asked >= LOOK:
            self.asked = now
            self._ask(now)
        return self.silent_since is None

    def _ask(self, now: float) -> None:
        try:
            socket.create_connection(self.address, LOOK).close()
            self.silent_since = None
        except OSError:
            self.silent_since = self.silent_since or now
            if now - self.silent_since < GONE:
                return
            LOST.set()
            fault = f"the head of the Ray cluster, {self.address[0]}:{self.address[1]}, is gone"
            remedy = "start it again, then the same command continues"
            raise TryAgainError(fault, remedy=remedy) from None


@dataclass(frozen=True)
class Cluster:
    """The cluster that this process is connected to."""

    is_own: bool  # it is of this machine alone, and ends with this run
    head: HeadNode

    def nodes(self) -> dict[str, dict[str, Any]]:
        """What Ray says of each node that is alive and can work, by its id."""
        nodes = {node["NodeID"]: node for node in _nodes() if node["Alive"]}
        return {name: node for name, node in nodes.items() if self.places(node, "CPU")}

    def places(self, node: dict[str, Any], kind: str) -> int:
        """How many workers a node has room for; `kind` is CPU or GPU."""
        return int(node["Resources"].get(kind, 0))

    def total(self, kind: str) -> int:
        """How many workers the cluster has room for."""
        return sum(self.places(node, kind) for node in self.nodes().values())


@contextmanager
def connected(address: str | None, workers: int | None) -> Iterator[Cluster]:
    """Connect to the cluster at an address, or start one of this machine with room for so many workers.

    Raises UnavailableError if it cannot be reached, and what `_refusal` says.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    is_own = is_of_this_machine(address)
    try:
        if is_own:
            _start(workers or processors())
        else:
            _connect(str(address))
        # Ray takes SIGTERM for itself. Ours stops the jobs in order first.
        for number, handler in handlers.items():
            signal.signal(number, handler)
        _be_silent()
        yield Cluster(is_own, HeadNode(ray.get_runtime_context().gcs_address))
    finally:
        if not LOST.is_set():
            ray.shutdown()


def _start(workers: int) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=STORE,
            **_QUIET,
        )
    except Exception as error:
        raise UnavailableError(f"Ray does not start here ({_first_line(error)})") from None


def _connect(address: str) -> None:
    if "://" in address:
        remedy = "run this on a node of the cluster, and name its head as HOST:PORT or auto"
        raise UsageError(
            "an address with a scheme is one of Ray Client", place=_place(address), remedy=remedy
        )
    if address != "auto":
        address = _answering(address)
    try:
        ray.init(address=address, **_QUIET)
    except Exception as error:
        raise _refusal(address, error) from None


def _answering(address: str) -> str:
    """The address with its port, once something answers there. Raises UnavailableError."""
    host, _, port = address.rpartition(":") if ":" in address else (address, "", str(PORT))
    try:
        with socket.create_connection((host, int(port)), PATIENCE):
            return f"{host}:{port}"
    except (OSError, ValueError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or "no answer"
        remedy = "start a head with `ray start --head`, or leave out the address to use this machine"
        raise UnavailableError(reason, place=_place(address), remedy=remedy) from None


def _refusal(address: str, error: Exception) -> PruneError:
    """The failure of `ray.init` as one of ours."""
    reason = _first_line(error)
    if "Version mismatch" in str(error):
        remedy = "use the same versions of Ray and Python on all nodes"
        return ConfigurationError(" ".join(str(error).split()), place=_place(address), remedy=remedy)
    if type(error).__name__ == "AuthenticationError":
        remedy = "set RAY_AUTH_MODE=token and the token of the cluster"
        return PermissionDeniedError(reason, place=_place(address), remedy=remedy)
    remedy = "run this on a node of the cluster; `ray status` tells whether it runs"
    return UnavailableError(reason, place=_place(address), remedy=remedy)


def _place(address: str) -> str:
    return f"--ray-address {address}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).partition("\n")[0]


def _nodes() -> list[dict[str, Any]]:
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return nodes


def _be_silent() -> None:
    # Ray prints what it knows of dead workers to standard output, where records may go. That is no option of
    # it; a test notices if this stops to work.
    with suppress(KeyError, AttributeError):
        worker: Any = sys.modules["ray._private.worker"]
        worker.print_to_stdstream = lambda *given, **named: None
