"""Which process may write a file: locks that a process holds until it ends, however it ends.

flock(2) locks the open file, not its name, so that no lock can be stale; the price is that the name may have
moved to another file when the lock is granted. Hence the checks in `_take`.
"""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ...errors import CannotCreateError, PermissionDeniedError, TryAgainError
from ..os_errors import display, failure

# O_NOFOLLOW: another user could have put a symbolic link where our file would be.
LOCK_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
CREATED_MODE = 0o666  # as open(3) does: the umask takes from it


@contextmanager
def locked(path: str, name: str) -> Iterator[int]:
    """A descriptor of the file at `path`, created if absent and locked for this process.

    `name` is the output that it becomes, for messages. Raises TryAgainError at once if another process holds
    the file. When the block fails, or a signal stops it anywhere, an empty file is removed.
    """
    try:
        while True:
            with opened(path, LOCK_FLAGS | os.O_CREAT) as descriptor:
                if _take(descriptor, path, name):
                    yield descriptor
                    return
    except BaseException:
        _remove_empty(path)
        raise


def _take(descriptor: int, path: str, name: str) -> bool:
    """Lock the file. Returns False if the previous holder renamed it away; retry with a new one."""
    try:
        is_free = _lock(descriptor)
        owner = os.fstat(descriptor).st_uid
    except OSError as error:
        raise failure(error, path, "locking") from None
    if not is_free:
        raise TryAgainError(
            "another run is writing it", place=display(name), remedy="wait for it, or write elsewhere"
        )
    if owner != os.geteuid():
        raise CannotCreateError(
            "belongs to another user", place=display(path), remedy="have its owner remove it"
        )
    if not has_name(descriptor, path):
        return False  # the previous holder renamed or removed it between our open(2) and our lock
    if has_name(descriptor, os.path.realpath(name)):
        # The previous holder was killed between link(2) and unlink(2). The file is a whole output under its
        # final name, so it must not be written to: only the temporary name goes.
        os.unlink(path)
        return False
    return True


def _lock(descriptor: int) -> bool:
    """Lock an open file unless another process holds it; whether it is ours now."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _remove_empty(path: str) -> None:
    """Remove a file that was created only to lock it, unless it has content or another process holds it."""
    # Where nothing can be locked at all (some network file systems), no other process holds it either.
    is_free = True
    with suppress(OSError):
        descriptor = os.open(path, LOCK_FLAGS)
        try:
            with suppress(OSError):
                is_free = _lock(descriptor)
            status = os.fstat(descriptor)
            is_ours = status.st_uid == os.geteuid() and has_name(descriptor, path)
            if is_free and is_ours and not status.st_size:
                os.unlink(path)
        finally:
            os.close(descriptor)


def has_name(descriptor: int, path: str) -> bool:
    """Whether an open file is the one at `path`."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)


@contextmanager
def opened(path: str, flags: int) -> Iterator[int]:
    """An open descriptor. Raises PermissionDeniedError or CannotCreateError; InputOutputError on closing."""
    try:
        descriptor = os.open(path, flags, CREATED_MODE)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise PermissionDeniedError("writing is not permitted", place=display(path)) from None
        reason = os.strerror(error.errno or 0).lower()
        raise CannotCreateError(f"cannot be created: {reason}", place=display(path)) from None
    try:
        yield descriptor
    except BaseException:
        with suppress(OSError):  # the first failure is the one to report
            os.close(descriptor)
        raise
    close(descriptor, path)


def close(descriptor: int, path: str) -> None:
    """Close a descriptor. Raises InputOutputError: NFS, for one, reports failed writes only here."""
    try:
        os.close(descriptor)
    except OSError as error:
        raise failure(error, path, "closing") from None
