"""Which engine does the settings ask for?"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ConfigurationError
from ..settings.model import EVERY_GPU
from ..settings.streams import EngineName, Messages, WorkerSettings
from . import ray
from .devices import every_gpu
from .local import Serial
from .processes import WorkerProcesses
from .watch import Watch, status_file
from .work import Engine

log = logging.getLogger(__name__)


@contextmanager
def open_engine(
    workers: WorkerSettings, messages: Messages, *, device: str | None = None
) -> Iterator[Engine]:
    """The engine for these settings; its workers end with the block.

    `device` is that of the models, if the verb has any. Raises UsageError, ConfigurationError if there is no
    GPU or no Ray, and UnavailableError if the cluster cannot be reached.
    """
    watch = Watch()
    opened = _on_ray if workers.engine is EngineName.ray else _on_this_machine
    with opened(workers, messages, device, watch) as engine:
        yield engine


@contextmanager
def _on_this_machine(
    workers: WorkerSettings, messages: Messages, device: str | None, watch: Watch
) -> Iterator[Engine]:
    gpus = every_gpu() if device == EVERY_GPU else []
    number = workers.number(len(gpus))
    engine = WorkerProcesses(number, messages, gpus, watch) if gpus or number > 1 else Serial(watch)
    # The status file last: it says that the run is over once the workers are gone.
    with status_file(workers.status_file, watch), engine:
        yield engine


@contextmanager
def _on_ray(
    workers: WorkerSettings, messages: Messages, device: str | None, watch: Watch
) -> Iterator[Engine]:
    asked = workers.asked_for()
    ray.prepare(workers.cluster)
    try:
        # Not at the top: it takes a second to import, and is an extra that may be missing.
        from .ray.actors import actors
        from .ray.cluster import connected
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "ray":
            raise
        fault = "--engine ray needs the package ray, which is not installed"
        raise ConfigurationError(fault, remedy="pip install 'prune-cli[ray]'") from None
    with (
        status_file(workers.status_file, watch),
        connected(workers.cluster, asked) as cluster,
        actors(cluster, asked, messages, device=device, watch=watch) as engine,
    ):
        yield engine
