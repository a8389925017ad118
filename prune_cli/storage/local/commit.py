"""How a file becomes visible: written under a hidden name, synced, renamed, and the name synced."""

import errno
import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass

from ...errors import CannotCreateError
from ..os_errors import display, failure

LONGEST_NAME = 255  # bytes of a file name that every common file system takes
# Reasons of link(2) that mean: this file system cannot give a file a second name (exFAT, some FUSE mounts).
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)


@dataclass(frozen=True)
class Names:
    """The file that a path leads to, and the names that unfinished versions of it have, all in one folder."""

    target: str
    temporary: str  # what a run without --resume writes, and removes when it fails
    partial: str  # what a run with --resume writes, and keeps

    @classmethod
    def of(cls, path: str) -> "Names":
        target = os.path.realpath(path)
        return cls(target, hidden(target), f"{target}.partial")


def hidden(target: str) -> str:
    """A hidden name in the folder of `target`, the same for every run: it is the lock between them, too."""
    folder, name = os.path.split(target)
    temporary = f".{name}.prune-cli"
    if len(os.fsencode(temporary)) > LONGEST_NAME:
        temporary = f".{hashlib.sha256(os.fsencode(name)).hexdigest()}.prune-cli"
    return os.path.join(folder, temporary)


def commit(descriptor: int, names: Names, path: str, *, force: bool, source: str = "") -> None:
    """Data on disk, then the name, then the name on disk.

    `source` is the name that the file has now, `names.temporary` unless given. Without `force` a target that
    appeared in the meantime is kept, and CannotCreateError is raised. Raises InputOutputError naming `path`.
    """
    source = source or names.temporary
    try:
        # A failed fsync is final: the kernel drops the pages, and a second call would report success.
        os.fsync(descriptor)
        if force:
            _copy_mode(names.target, descriptor)
            os.replace(source, names.target)
        else:
            _rename_without_replacing(source, names.target)
        sync_folder(os.path.dirname(names.target))
    except FileExistsError:
        raise CannotCreateError(
            "appeared while it was being made", place=display(path), remedy="-f replaces it"
        ) from None
    except OSError as error:
        raise failure(error, path, "committing") from None


def _copy_mode(target: str, descriptor: int) -> None:
    """Give the new file the exact permissions of the file that it replaces, which may be read-only."""
    # There may be nothing to replace, and some file systems have no permissions to set.
    with suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(os.stat(target).st_mode) & 0o777)


def _rename_without_replacing(source: str, target: str) -> None:
    """Rename, or raise FileExistsError if `target` exists."""
    # link(2) fails if the name is taken, rename(2) replaces. A process that is killed in between leaves two
    # names of one whole file; the next run recognises the first one (see `locks`).
    try:
        os.link(source, target)
        os.unlink(source)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        # Without links there is a moment between the look and the rename.
        if os.path.lexists(target):
            raise FileExistsError from None
        os.rename(source, target)


def sync_folder(folder: str) -> None:
    """Make the names in a folder durable, if it may be read."""
    if not os.access(folder or ".", os.R_OK):
        return
    descriptor = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: str) -> None:
    """Remove a file of ours. A failure is ignored: the next run removes it."""
    try:
        os.unlink(path)
    except OSError:
        return
