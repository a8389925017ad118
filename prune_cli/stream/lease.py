"""Which run may write into a dataset? One of a kind at a time; a second one is turned away at once.

Where files have locks, the lock of a file says that its run lives, and ends with it. Object storage has none:
there a run writes the time into a small object again and again, and counts as dead once the time is old.
"""

import logging
import os
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from .. import storage
from ..errors import CannotCreateError, PruneError, TryAgainError
from ..storage.os_errors import display

BEAT = 20.0  # seconds between two signs of life
# Seconds without one after which a run counts as dead: an upload may be slow, and clocks differ a little.
EXPIRY = 120.0
SETTLING = 1.0  # seconds after which two runs that began at the same moment see which of them was last

log = logging.getLogger(__name__)


class Sign(msgspec.Struct, frozen=True):
    """A sign of life: of which run, and when, in seconds since 1970; 0 once it has ended."""

    run: str
    time: float


class _Released(Exception):
    """Ends the block of an output that is not to be made."""


@contextmanager
def lease(directory: str, label: str) -> Iterator[None]:
    """Hold the folder for the run `label`. Raises TryAgainError while another process holds it."""
    if storage.locks_outputs(directory):
        with _locked(os.path.join(directory, f".{label}")):
            yield
    else:
        with _beating(os.path.join(directory, f"{label}.json")):
            yield


# --- With locks ---


@contextmanager
def _locked(path: str) -> Iterator[None]:
    try:
        with storage.create(path, force=True):
            yield
            # An output that is being written is locked. This one is never finished.
            raise _Released
    except _Released:
        return


# --- With signs of life ---


@contextmanager
def _beating(path: str) -> Iterator[None]:
    run = uuid.uuid4().hex
    _take(path, run)
    ended = threading.Event()
    beating = threading.Thread(target=_beat, args=(path, run, ended), name="lease", daemon=True)
    beating.start()
    try:
        yield
    finally:
        ended.set()
        beating.join()
        _try_to_write(path, Sign(run, 0))


def _take(path: str, run: str) -> None:
    """Write the first sign of life. Raises TryAgainError if another run lives."""
    before = _read(path)
    _refuse_living(path, before)
    try:
        _write(path, Sign(run, time.time()), force=before is not None)
    except CannotCreateError:
        # It exists by now; or the answer of the server was lost, and it is ours.
        sign = _read(path)
        if sign is not None and sign.run != run:
            _refuse_living(path, sign)
            _write(path, Sign(run, time.time()), force=True)
    if before is not None:
        # Two runs may have found the same dead one: the last to write holds the lease.
        time.sleep(SETTLING)
    sign = _read(path)
    if sign is not None and sign.run != run:
        _refuse_living(path, sign)


def _refuse_living(path: str, sign: Sign | None) -> None:
    if sign is None:
        return
    age = time.time() - sign.time
    if age < EXPIRY:
        wait = EXPIRY - max(age, 0)
        remedy = f"wait for it; if it was killed, this one may begin in {wait:.0f} seconds"
        raise TryAgainError("another run is writing it", place=display(os.path.dirname(path)), remedy=remedy)


def _beat(path: str, run: str, ended: threading.Event) -> None:
    while not ended.wait(BEAT):
        _try_to_write(path, Sign(run, time.time()))


def _try_to_write(path: str, sign: Sign) -> None:
    # Outputs are whole whoever writes them: a missing sign costs work that is done twice, no record.
    try:
        _write(path, sign, force=True)
    except PruneError as error:
        log.warning("%s", error)


def _write(path: str, sign: Sign, *, force: bool) -> None:
    with storage.create(path, force=force) as output:
        output.write(msgspec.json.encode(sign) + b"\n")


def _read(path: str) -> Sign | None:
    """The last sign of life; None if there is none, or one that nobody can read."""
    if not storage.exists(path):
        return None
    with storage.input_at(path).open() as file:
        try:
            return msgspec.json.decode(file.read_all(), type=Sign)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None
