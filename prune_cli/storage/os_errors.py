"""What the system refused, in the words a user is told."""

import errno
import os

from ..errors import InputOutputError, PermissionDeniedError, PruneError

REMEDIES = {
    0: "is the disk full?",  # numpy, for one, says how much it could not write, and not why
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "the quota is used up: free some space, or write elsewhere",
    errno.EFBIG: "the limit on file sizes is reached (ulimit -f)",
}


def display(path: str) -> str:
    """A file's name on one printable line, whatever bytes it is made of."""
    return "".join(
        c
        if c.isprintable()
        else c.encode("utf-8", "surrogateescape").decode("latin-1").encode("unicode_escape").decode()
        for c in path
    )


def failure(error: OSError, path: str, doing: str) -> PruneError:
    """What the system refused, as the failure that a user is told of."""
    place, fault = display(path), f"{doing} failed: {os.strerror(error.errno) if error.errno else error}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError(f"{doing} is not permitted", place=place)
    return InputOutputError(fault, place=place, remedy=REMEDIES.get(error.errno or 0, ""))


def check_memory(error: Exception) -> None:
    """Raise MemoryError where that is what a library could not do without."""
    if "memory" in str(error):
        raise MemoryError from None
