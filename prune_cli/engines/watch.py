"""How does a user see several workers? By a note beside the bar, and in the file of --status-file."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from .. import storage, terminal
from ..errors import PruneError
from ..terminal import Progress

PERIOD = 2.0  # seconds between two versions of the status file

log = logging.getLogger(__name__)


class Watch:
    """What is known of the workers of an engine and of the stage that they do."""

    def __init__(self) -> None:
        self.verb = ""
        self.workers = 0
        self.tries = 0  # jobs that were tried again
        self.done = 0  # jobs of this stage
        self.of = 0
        self.began = time.time()
        self.progress: Progress = terminal.silent()

    def begin(self, verb: str, jobs: int, progress: Progress) -> None:
        """A stage begins."""
        self.verb = verb
        self.done = 0
        self.of = jobs
        self.progress = progress

    def alive(self, workers: int) -> None:
        """So many worker processes are alive."""
        self.workers = workers
        self._show()

    def tried_again(self) -> None:
        """A job goes to another worker."""
        self.tries += 1
        self._show()

    def finished(self, done: int) -> None:
        """So many jobs of the stage are done."""
        self.done = done
        self._show()

    def _show(self) -> None:
        again = f", {self.tries} tried again" if self.tries else ""
        self.progress.describe(f"{self.done} of {self.of} parts, {self.workers} workers{again}")

    def status(self, state: str) -> dict[str, object]:
        """The content of the status file."""
        done = self.progress.done
        total = self.progress.total
        seconds = time.time() - self.began
        # Over the whole run: what is shown to a program need not follow every change of speed.
        rate = done / seconds if seconds > 0 else 0.0
        left = (total - done) / rate if total is not None and rate else None
        return {
            "state": state,
            "verb": self.verb,
            "parts_done": self.done,
            "parts": self.of,
            "done": done,
            "of": total,
            "rate": round(rate, 3),
            "seconds": round(seconds, 3),
            "seconds_left": None if left is None else round(max(left, 0.0), 3),
            "workers": self.workers,
            "tried_again": self.tries,
            "updated": round(time.time(), 3),
        }


@contextmanager
def status_file(path: str | None, watch: Watch) -> Iterator[None]:
    """Write the status to `path` until the block ends, and then how it ended: `done` or `failed`.

    Raises what `storage.create` raises, if even the first one cannot be written.
    """
    if path is None:
        yield
        return
    _write(path, watch.status("running"))
    ended = threading.Event()
    thread = threading.Thread(target=_keep_writing, args=(path, watch, ended), name="status", daemon=True)
    thread.start()
    state = "failed"
    try:
        yield
        state = "done"
    finally:
        ended.set()
        thread.join()
        _try_to_write(path, watch.status(state))


def _keep_writing(path: str, watch: Watch, ended: threading.Event) -> None:
    while not ended.wait(PERIOD):
        _try_to_write(path, watch.status("running"))


def _try_to_write(path: str, status: dict[str, object]) -> None:
    # The run is worth more than the file that shows it.
    try:
        _write(path, status)
    except PruneError as error:
        log.warning("--status-file: %s", error)


def _write(path: str, status: dict[str, object]) -> None:
    with storage.create(path, force=True) as output:
        output.write(json.dumps(status).encode() + b"\n")
