"""Temporary files: without a name, so that nothing is left of them, or in a folder that processes share."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType

from ..errors import CannotCreateError, InputOutputError, PermissionDeniedError
from ..sizes import human
from .local.writing import Stream
from .os_errors import display, failure


class TemporaryFile:
    """Bytes that are appended and read back by offset, on the disk of one directory."""

    def __init__(self, directory: str) -> None:
        """Make the file. Raises InputOutputError or PermissionDeniedError, which name the directory."""
        self.directory = directory
        try:
            # Unbuffered: frames of megabytes come, and what is buffered could not be read back by offset.
            self.file = tempfile.TemporaryFile(prefix="prune-cli-", dir=directory, buffering=0)
        except OSError as error:
            raise failure(error, directory, "making a temporary file") from None
        self.output = Stream(self.file.fileno(), f"temporary file in {directory}")

    def append(self, data: bytes) -> int:
        """Write at the end and return the offset of the first byte. Raises InputOutputError."""
        offset = self.output.written
        self.output.write(data)
        return offset

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on. Other threads may append meanwhile. Raises InputOutputError."""
        try:
            return os.pread(self.file.fileno(), size, offset)
        except OSError as error:
            raise failure(error, self.directory, "reading a temporary file") from None

    def close(self) -> None:
        """Delete the file."""
        self.file.close()

    def __enter__(self) -> "TemporaryFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# --- Files that several processes share ---

FOLDER = "prune-cli-shared-"  # begins the name of a folder of shared files
LOCK = "lock"


@contextmanager
def shared_folders(directories: Sequence[str]) -> Iterator[list[str]]:
    """A new folder in each directory, for files that other processes read and write. Removed at the end.

    A process that is killed leaves its folders behind: they are removed when the next one makes its own.
    Raises InputOutputError or PermissionDeniedError.
    """
    folders: list[str] = []
    locks: list[int] = []
    try:
        for directory in directories:
            _remove_abandoned(directory)
            try:
                folders.append(tempfile.mkdtemp(prefix=FOLDER, dir=directory))
                locks.append(_locked(folders[-1]))
            except OSError as error:
                raise failure(error, directory, "making a temporary folder") from None
        yield folders
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        for descriptor in locks:
            os.close(descriptor)


def _locked(folder: str) -> int:
    """The descriptor of the lock that says that the owner of a folder lives."""
    # Not inherited: a worker that outlives its parent must not keep the folder alive.
    path = os.path.join(folder, LOCK)
    # It gets its name when it is locked: in between, another process would take the folder for abandoned.
    descriptor = os.open(path + ".new", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.rename(path + ".new", path)
    return descriptor


def _remove_abandoned(directory: str) -> None:
    """Remove folders whose owner was killed. One that has no lock yet belongs to somebody who begins."""
    with suppress(OSError):
        names = [name for name in os.listdir(directory) if name.startswith(FOLDER)]
        for folder in (os.path.join(directory, name) for name in names):
            # Of another user, or locked: not ours to remove.
            with suppress(OSError):
                descriptor = os.open(os.path.join(folder, LOCK), os.O_RDWR)
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder, ignore_errors=True)
                finally:
                    os.close(descriptor)


class SharedFile:
    """A file in such a folder: bytes that one process appends, and that others read by offset."""

    def __init__(self, path: str, *, write: bool = False) -> None:
        """Open the file; `write` makes it anew. Raises InputOutputError or PermissionDeniedError."""
        self.path = path
        # What a worker that died left under this name is of no use.
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC if write else os.O_RDONLY
        try:
            self.descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise failure(error, os.path.dirname(path), "opening a temporary file") from None
        self.output = Stream(self.descriptor, f"temporary file in {os.path.dirname(path)}")

    def append(self, data: bytes | memoryview) -> int:
        """Write at the end and return the offset of the first byte. Raises InputOutputError."""
        offset = self.output.written
        self.output.write(data)
        return offset

    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` on. Raises InputOutputError."""
        pieces = []
        try:
            # The system reads 2 GiB at once, at most.
            while size and (piece := os.pread(self.descriptor, size, offset)):
                pieces.append(piece)
                offset += len(piece)
                size -= len(piece)
        except OSError as error:
            raise failure(error, os.path.dirname(self.path), "reading a temporary file") from None
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def __enter__(self) -> "SharedFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.descriptor)


# --- Checks before the work ---


def check_directories(directories: Sequence[str]) -> None:
    """Raise CannotCreateError or PermissionDeniedError if temporary files cannot be made in one of them."""
    # Called before anything is read: rank may read for an hour before it needs the files.
    remedy = "name another with -T"
    for directory in directories:
        name = display(directory)
        if not os.path.isdir(directory):
            raise CannotCreateError("no such directory for temporary files", place=name, remedy=remedy)
        if not os.access(directory, os.W_OK | os.X_OK):
            raise PermissionDeniedError("temporary files cannot be written to it", place=name, remedy=remedy)


def room(directories: Sequence[str]) -> int:
    """The bytes that are free on the file systems of these directories."""
    # Directories on one device share its room, which counts once.
    devices = {os.stat(directory).st_dev: directory for directory in directories}
    return sum(shutil.disk_usage(directory).free for directory in devices.values())


def check_room(directories: Sequence[str], needed: int) -> None:
    """Raise InputOutputError unless the file systems of these directories have `needed` bytes free in all."""
    free = room(directories)
    if free < needed:
        fault = f"{human(free)} are free where sorted runs will take about {human(needed)}"
        place = ", ".join(map(display, directories))
        raise InputOutputError(fault, place=place, remedy="name more room with -T")
