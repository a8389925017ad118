"""Files that one process holds alone, from before it writes to them until it ends, however it ends."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ...errors import CannotCreateError, PermissionDeniedError, TryAgainError
from ..os_errors import display, failure


@contextmanager
def locked(path: str, name: str) -> Iterator[int]:
    """The file at `path`, which is to become `name`, open and locked for this process; TryAgainError at once where another holds it.

    When the block fails, or a signal stops it anywhere, an empty file is removed.
    """
    try:
        while True:
            with opened(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC) as descriptor:
                if _take(descriptor, path, name):
                    yield descriptor
                    return
    except BaseException:
        _remove_empty(path)
        raise


def _take(descriptor: int, path: str, name: str) -> bool:
    """Lock the file; False where it went to its last holder's output, and another one is to be made."""
    try:
        free, status = _lock(descriptor), os.fstat(descriptor)
    except OSError as error:
        raise failure(error, path, "locking") from None
    if not free:
        raise TryAgainError(
            "another run is writing it", place=display(name), remedy="wait for it, or write elsewhere"
        )
    if status.st_uid != os.geteuid():
        raise CannotCreateError(
            "belongs to another user", place=display(path), remedy="have its owner remove it"
        )
    if not is_same(descriptor, path):
        return False  # its last holder renamed or removed it while we waited
    if is_same(descriptor, os.path.realpath(name)):
        os.unlink(
            path
        )  # its last holder was killed just after it gave the file its final name, and that is not written to
        return False
    return True


def _lock(descriptor: int) -> bool:
    """Whether nobody else holds the file; then we do."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _remove_empty(path: str) -> None:
    """Remove a file that we made to lock it, unless something is in it or somebody else has it by now."""
    free = True  # also where nothing can be locked: then nobody has locked it
    with suppress(OSError):
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with suppress(OSError):
                free = _lock(descriptor)
            status = os.fstat(descriptor)
            if free and not status.st_size and status.st_uid == os.geteuid() and is_same(descriptor, path):
                os.unlink(path)
        finally:
            os.close(descriptor)


def is_same(descriptor: int, path: str) -> bool:
    try:
        found, ours = os.stat(path, follow_symlinks=False), os.fstat(descriptor)
    except FileNotFoundError:
        return False
    return (found.st_dev, found.st_ino) == (ours.st_dev, ours.st_ino)


@contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PermissionDeniedError("writing is not permitted", place=display(path)) from None
        raise CannotCreateError(
            f"cannot be made: {os.strerror(error.errno or 0).lower()}", place=display(path)
        ) from None
    try:
        yield descriptor
    except BaseException:
        with suppress(OSError):  # what failed first is what is told
            os.close(descriptor)
        raise
    close(descriptor, path)


def close(descriptor: int, path: str) -> None:
    """Some file systems tell only now what they could not write."""
    try:
        os.close(descriptor)
    except OSError as error:
        raise failure(error, path, "closing") from None
