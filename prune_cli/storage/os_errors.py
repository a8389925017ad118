"""Errors of the operating system, in the words of a message."""

import errno
import os

from ..errors import InputOutputError, PermissionDeniedError, PruneError

REMEDIES = {
    0: "is the disk full?",  # numpy, for one, reports how much it could not write, and no errno
    errno.ENOSPC: "free some space, or write elsewhere",
    errno.EDQUOT: "the quota is used up: free some space, or write elsewhere",
    errno.EFBIG: "the limit on file sizes is reached (ulimit -f)",
}


def display(path: str) -> str:
    """A path on one printable line, whatever bytes it is made of."""
    return "".join(c if c.isprintable() else _escaped(c) for c in path)


def _escaped(character: str) -> str:
    # Names that are not UTF-8 reach Python as lone surrogates: "surrogateescape" gives the bytes back.
    raw = character.encode("utf-8", "surrogateescape")
    return raw.decode("latin-1").encode("unicode_escape").decode()


def failure(error: OSError, path: str, doing: str) -> PruneError:
    """The PermissionDeniedError or InputOutputError for an error of the system while `doing` something."""
    place = display(path)
    if error.errno in (errno.EACCES, errno.EPERM):
        return PermissionDeniedError(f"{doing} is not permitted", place=place)
    reason = os.strerror(error.errno) if error.errno else str(error)
    remedy = REMEDIES.get(error.errno or 0, "")
    return InputOutputError(f"{doing} failed: {reason}", place=place, remedy=remedy)


def check_memory(error: Exception) -> None:
    """Raise MemoryError if a library's own error says that it could not allocate."""
    # zstandard has one exception for everything; only its message tells.
    if "memory" in str(error):
        raise MemoryError from None


def operand_name(path: str) -> str:
    """The name of an operand in messages."""
    return "(standard input)" if path == "-" else display(path)
