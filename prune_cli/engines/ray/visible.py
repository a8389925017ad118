"""Does every node see the inputs and the output? Asked before any work, of each node by a task of its own."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ... import storage
from ...errors import ConfigurationError, PruneError, UnavailableError
from ...storage.os_errors import display
from ...version import __version__
from ..work import Places
from .cluster import Cluster

PATIENCE = 120.0  # seconds for all nodes to answer: each starts a process, on a busy machine in 20


@dataclass(frozen=True)
class Question:
    """What a node has to find: files of so many bytes, and a marker in each folder of outputs."""

    directory: str  # that relative paths start from
    files: tuple[tuple[str, int | None], ...]  # with their sizes; None for a folder
    markers: tuple[str, ...]

    def answer(self) -> list[str]:
        """Everything that is wrong on this machine."""
        if not os.path.isdir(self.directory):
            return [f"{display(self.directory)}: no such directory"]
        os.chdir(self.directory)
        faults = [fault for path, size in self.files if (fault := _fault(path, size))]
        return faults + [fault for marker in self.markers for fault in _faults_of_folder(marker)]


def _fault(path: str, size: int | None) -> str | None:
    try:
        if size is None:
            return None if storage.exists(path) else f"{display(path)}: is not there"
        file = storage.input_at(path)
        file.check()
        # A file of the same name that is another one would be scored instead.
        return None if file.size == size else f"{display(path)}: is another file there"
    except PruneError as error:
        return str(error)


def _faults_of_folder(marker: str) -> list[str]:
    folder = os.path.dirname(marker)
    if not os.path.exists(marker):
        return [f"{display(folder)}: is another folder there"]
    return [] if os.access(folder, os.W_OK) else [f"{display(folder)}: cannot be written there"]


def _answer(question: Question) -> tuple[str, list[str]]:
    """Runs on a node: its version of this package, and what is wrong."""
    return __version__, question.answer()


def check(cluster: Cluster, places: Places) -> None:
    """Raise ConfigurationError unless every node has this version and sees the same inputs and output."""
    with ExitStack() as stack:
        local = [folder for folder in places.folders if "://" not in folder]
        markers = tuple(stack.enter_context(_marker(folder)) for folder in local)
        question = Question(os.getcwd(), tuple(_files(places.reads)), markers)
        ask = ray.remote(num_cpus=0, max_retries=0)(_answer)
        nodes = cluster.nodes()
        there = {name: NodeAffinitySchedulingStrategy(name, soft=False) for name in nodes}
        answers = {name: ask.options(scheduling_strategy=there[name]).remote(question) for name in nodes}
        for name, answer in answers.items():
            _judge(nodes[name], answer)


def _judge(node: dict[str, Any], answer: Any) -> None:
    place = f"node {node['NodeManagerAddress']}"
    try:
        version, faults = ray.get(answer, timeout=PATIENCE)
    except ray.exceptions.RayTaskError as error:
        raise cannot_import(error, place) from None
    except ray.exceptions.RayError as error:
        raise UnavailableError(f"does not answer ({type(error).__name__})", place=place) from None
    if version != __version__:
        remedy = "install the same version on all nodes, or ship it with a runtime_env"
        raise ConfigurationError(f"has prune-cli {version}, not {__version__}", place=place, remedy=remedy)
    if faults:
        more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
        remedy = "use a folder that all nodes share, or object storage"
        raise ConfigurationError(f"{faults[0]}{more}", place=place, remedy=remedy)


def cannot_import(error: Exception, place: str) -> ConfigurationError:
    """The failure of a node that does not have the package."""
    # The last line of the traceback of that node says why.
    reason = str(error).strip().splitlines()[-1].strip()
    remedy = "install prune-cli on all nodes, or ship it with a runtime_env"
    return ConfigurationError(f"cannot run prune-cli ({reason})", place=place, remedy=remedy)


def _files(paths: Sequence[str]) -> Iterator[tuple[str, int | None]]:
    """The paths with the sizes of files. One object in storage stands for all: it shows the credentials."""
    has_remote = False
    for path in paths:
        is_remote = "://" in path
        if path == "-" or (is_remote and has_remote):
            continue
        has_remote = has_remote or is_remote
        is_file = storage.is_file(path) and not storage.is_stream(path)
        yield path, storage.input_at(path).size if is_file else None


@contextmanager
def _marker(folder: str) -> Iterator[str]:
    """A file in the folder, which others can look for."""
    with tempfile.NamedTemporaryFile(prefix=".prune-cli-", dir=folder or ".") as file:
        yield os.path.abspath(file.name)
