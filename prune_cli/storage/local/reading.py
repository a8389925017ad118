"""Reading files, pipes, devices and standard input."""

import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO

from ...errors import NoInputError, PermissionDeniedError, PruneError, UsageError
from ..base import Identity, Input, changed
from ..os_errors import failure

STANDARD_INPUT = 0
# Reasons of open(2) and stat(2) that mean: there is no such input. All others are failures of the system.
ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG)


@dataclass
class LocalInput(Input):
    """A file, pipe or device of this machine; `-` is standard input.

    With `keep`, what is read of a pipe is stored in a temporary file without a name (in TMPDIR). The next
    `open` reads that file.
    """

    descriptor: int = field(default=-1, init=False, repr=False)  # -1 while it is not open
    copy: IO[bytes] | None = field(default=None, init=False, repr=False)
    # Where standard input stood at the first `open`, if it is a file: a shell may have read its beginning.
    start: int = field(default=-1, init=False, repr=False)

    @property
    def size(self) -> int | None:
        status = self._status()
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    @property
    def identity(self) -> Identity | None:
        status = self._status()
        # Standard input may be a file, but has no name under which it could be opened again.
        if self.path == "-" or not stat.S_ISREG(status.st_mode):
            return None
        # The change time moves even where a program such as rsync(1) restores the modification time.
        times = (status.st_mtime_ns, status.st_ctime_ns)
        return (status.st_dev, status.st_ino, status.st_size, *times)

    def is_same_file(self, status: os.stat_result) -> bool:
        """Whether this is the file with that status, perhaps under another name."""
        own = self._status()
        return (own.st_dev, own.st_ino) == (status.st_dev, status.st_ino)

    def check(self) -> None:
        status = self._status()
        if stat.S_ISDIR(status.st_mode):
            pattern = f"{self.name.rstrip('/')}/*.jsonl.zst"
            raise NoInputError("is a directory", place=self.name, remedy=f"name its files: {pattern}")
        if self.path == "-" and os.isatty(STANDARD_INPUT):
            raise UsageError(
                "standard input is a terminal and no FILE was given", remedy="name files, or pipe records in"
            )
        if self.path != "-" and not os.access(self.path, os.R_OK):
            raise PermissionDeniedError("reading is not permitted", place=self.name)

    @contextmanager
    def open(self) -> Iterator["Input"]:
        if self.copy:
            with self._stored_copy(self.copy):
                yield self
            return
        try:
            self.descriptor = self._open()
            before = self._status()
            if self.keep and not stat.S_ISREG(before.st_mode):
                self.copy = tempfile.TemporaryFile(prefix="prune-cli-")
            yield self
            # Not after an exception: damage that another writer caused is reported as the damage it is.
            if stat.S_ISREG(before.st_mode) and _version(before) != _version(self._status()):
                raise changed(self)
        finally:
            if self.descriptor > STANDARD_INPUT:  # standard input stays open
                os.close(self.descriptor)
            self.descriptor = -1

    def read(self, size: int, /) -> bytes:
        try:
            data = os.read(self.descriptor, size)
        except OSError as error:
            raise _unreadable(error, self) from None
        # Only while the pipe itself is read, not its copy.
        if self.copy and self.descriptor != self.copy.fileno():
            self._store(self.copy, data)
        self.progress(len(data))
        return data

    def read_at(self, offset: int, size: int) -> bytes:
        # Linux fills the request on a regular file unless it ends. The position of `read` does not move.
        try:
            return os.pread(self.descriptor, size, offset)
        except OSError as error:
            raise failure(error, self.path, "reading") from None

    def read_into(self, buffer: memoryview, offset: int) -> int:
        try:
            return os.preadv(self.descriptor, [buffer], offset)
        except OSError as error:
            raise failure(error, self.path, "reading") from None

    def _open(self) -> int:
        try:
            if self.path != "-":
                return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            self._rewind()
        except OSError as error:
            raise _unreadable(error, self) from None
        return STANDARD_INPUT

    def _rewind(self) -> None:
        """Put standard input back to where it stood at the first `open`, if it is a file."""
        if not stat.S_ISREG(os.fstat(STANDARD_INPUT).st_mode):
            return
        if self.start < 0:
            self.start = os.lseek(STANDARD_INPUT, 0, os.SEEK_CUR)
        else:
            os.lseek(STANDARD_INPUT, self.start, os.SEEK_SET)

    def _status(self) -> os.stat_result:
        """Status of the open file, whatever has its name by now; of the named one while none is open."""
        try:
            if self.descriptor >= 0:
                return os.fstat(self.descriptor)
            return os.fstat(STANDARD_INPUT) if self.path == "-" else os.stat(self.path)
        except OSError as error:
            raise _unreadable(error, self) from None

    @contextmanager
    def _stored_copy(self, copy: IO[bytes]) -> Iterator[None]:
        copy.flush()
        self.descriptor = copy.fileno()
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        try:
            yield
        finally:
            self.descriptor = -1

    @staticmethod
    def _store(copy: IO[bytes], data: bytes) -> None:
        try:
            copy.write(data)
        except OSError as error:
            raise failure(error, tempfile.gettempdir(), "copying the input to a temporary file") from None


def _version(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _unreadable(error: OSError, file: Input) -> PruneError:
    if error.errno in ABSENT:
        return NoInputError(os.strerror(error.errno or 0).lower(), place=file.name)
    if error.errno == errno.EBADF:  # the caller closed standard input, as `<&-` does
        return NoInputError("is closed", place=file.name)
    return failure(error, file.path, "reading")
