"""Which paths name an open descriptor of this process, and not a file?

`/dev/stderr`, `/dev/stdout`, `/dev/fd/N` and links to them. open(2) on such a path opens the file behind it
again: from its first byte, and without the O_APPEND of `2>> log`, so that a log would be overwritten.
"""

import fcntl
import os
import re

from ...errors import CannotCreateError
from ..os_errors import display

STANDARD = {"stdin": 0, "stdout": 1, "stderr": 2}
NAMED = re.compile(r"/dev/(stdin|stdout|stderr)")
NUMBERED = re.compile(r"(?:/dev/fd|/proc/(?:self|thread-self|(\d+))/fd)/(\d+)")
MOST_LINKS = 40  # that Linux follows before it reports a loop


def descriptor_of(path: str) -> int | None:
    """The number of the descriptor that a path names; None for every other path."""
    for _ in range(MOST_LINKS):
        number = _number(os.path.abspath(path))
        if number is not None:
            return number
        try:
            # A log file may be a link to /dev/stdout, as in containers.
            path = os.path.join(os.path.dirname(path), os.readlink(path))
        except (OSError, ValueError):
            return None
    return None


def duplicate(path: str, number: int) -> int:
    """Another descriptor of the same open file, with the same position. Raises CannotCreateError."""
    try:
        is_readonly = fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    except OSError:
        raise CannotCreateError("is not open", place=display(path), remedy="name a file") from None
    if is_readonly:
        raise CannotCreateError("is open for reading only", place=display(path), remedy="name a file")
    return fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, 0)


def _number(path: str) -> int | None:
    if match := NAMED.fullmatch(path):
        return STANDARD[match[1]]
    match = NUMBERED.fullmatch(path)
    # The descriptors of another process are none of ours: those are opened like files.
    if match is None or (match[1] and int(match[1]) != os.getpid()):
        return None
    return int(match[2])
