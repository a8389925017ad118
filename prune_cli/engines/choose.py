"""Which engine does the settings ask for?"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from ..settings.engine import WorkerSettings
from ..settings.streams import Messages
from .devices import every_gpu
from .local import Serial
from .processes import WorkerProcesses
from .watch import Watch, status_file
from .work import Engine

log = logging.getLogger(__name__)


@contextmanager
def open_engine(workers: WorkerSettings, messages: Messages, *, all_gpus: bool = False) -> Iterator[Engine]:
    """The engine for these settings; its workers end with the block.

    `all_gpus` gives a GPU to each worker. Raises UsageError, and ConfigurationError if there is no GPU.
    """
    gpus = every_gpu() if all_gpus else []
    number = workers.number(len(gpus))
    watch = Watch()
    engine = WorkerProcesses(number, messages, gpus, watch) if gpus or number > 1 else Serial(watch)
    # The status file last: it says that the run is over once the workers are gone.
    with status_file(workers.status_file, watch), engine:
        yield engine
