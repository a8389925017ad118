"""How long is a request repeated that the store did not answer?"""

import logging
import os
import random
import time
from collections.abc import Callable
from threading import Lock
from typing import TypeVar

from ... import terminal
from ...errors import ConfigurationError, UnavailableError

PATIENCE = 600.0  # seconds: longer than stores throttle for, or than a router takes to restart
VARIABLE = "PRUNE_CLI_REMOTE_PATIENCE"
FIRST_PAUSE = 0.5  # seconds; each pause is up to twice as long as the one before
LONGEST_PAUSE = 15.0
ANNOUNCED_AFTER = 2.0  # seconds of retrying before it is mentioned
ANNOUNCED_EVERY = 30.0  # seconds between two lines about retries, whatever number of requests wait

log = logging.getLogger(__name__)
Answer = TypeVar("Answer")


class TransientError(Exception):
    """A request failed in a way that often passes; the message says how."""


def patience() -> float:
    """Seconds for which a request is repeated. Raises ConfigurationError for a bad value of the variable."""
    text = os.environ.get(VARIABLE, "")
    try:
        seconds = float(text) if text else PATIENCE
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ConfigurationError(f"invalid {VARIABLE} {text!r}", remedy="name seconds, such as 600")
    return seconds


def persist(request: Callable[[], Answer], place: str) -> Answer:
    """Repeat a request until it does not fail with TransientError.

    Raises UnavailableError once `patience` is spent. To be called in a thread of `workers`: it sleeps.
    """
    start = time.monotonic()
    end = start + patience()
    tries = 0
    while True:
        tries += 1
        try:
            return request()
        except TransientError as error:
            now = time.monotonic()
            if now >= end:
                raise unavailable(place, str(error), tries, now - start) from None
            # The last try comes when the patience ends, not before.
            pause = min(_pause(tries), end - now)
            if now - start > ANNOUNCED_AFTER:
                announce(place, str(error), tries, end - now)
            time.sleep(pause)


def unavailable(place: str, reason: str, tries: int, seconds: float) -> UnavailableError:
    """The failure of a request that was repeated in vain."""
    count = f"{tries} tries" if tries > 1 else "1 try"
    fault = f"{reason}; gave up after {count} in {seconds:.0f} s"
    return UnavailableError(fault, place=place, remedy=f"try later, or raise {VARIABLE} (seconds)")


def _pause(tries: int) -> float:
    """Seconds before the next try. Random, so that many processes do not come back at the same moment."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(tries - 1, 10))
    return random.uniform(longest / 2, longest)


_announced_at = -ANNOUNCED_EVERY
_lock = Lock()


def announce(place: str, reason: str, tries: int, left: float) -> None:
    """Say that a request is repeated: to a person who watches, else only with --verbose."""
    global _announced_at
    with _lock:
        now = time.monotonic()
        if now - _announced_at < ANNOUNCED_EVERY:
            return
        _announced_at = now
    # Off a terminal a run that succeeds in the end stays silent: cron would mail every line.
    level = logging.WARNING if terminal.is_interactive() else logging.INFO
    log.log(level, "%s: %s; trying again (try %d, for %.0f more seconds)", place, reason, tries + 1, left)
