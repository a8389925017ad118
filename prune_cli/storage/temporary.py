"""Temporary files without a name: nothing is left of them, however the process ends."""

import os
import shutil
import tempfile
from collections.abc import Sequence
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


def check_room(directories: Sequence[str], needed: int) -> None:
    """Raise InputOutputError unless the file systems of these directories have `needed` bytes free in all."""
    # Directories on one device share its room, which counts once.
    devices = {os.stat(directory).st_dev: directory for directory in directories}
    free = sum(shutil.disk_usage(directory).free for directory in devices.values())
    if free < needed:
        fault = f"{human(free)} are free where sorted runs will take about {human(needed)}"
        place = ", ".join(map(display, directories))
        raise InputOutputError(fault, place=place, remedy="name more room with -T")
