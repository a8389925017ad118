"""Operands, standard streams and outputs that are whole or absent.

An output file is written beside its final name, synced and renamed. The file beside it is locked (flock) for as long as the
writer lives: a second run on the same output sees the lock and leaves at once, and one that was killed leaves no lock behind.
"""

import errno
import hashlib
import os
import select
import stat
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import IO

from ..errors import (
    CannotCreateError,
    InputOutputError,
    NoInputError,
    PermissionDeniedError,
    PruneError,
    UsageError,
)
from .locks import close, locked, opened
from .os_errors import display, failure

CHUNK = 1 << 20
SENT = 32 << 20  # bytes after which a file that will be synced is sent on its way


# Inputs


@dataclass
class Input:
    """One operand; `-` is standard input. `progress` is called with the number of bytes of every read.

    With `keep`, what is read of a pipe is copied to a temporary file (in TMPDIR, without a name), and the next reading reads that.
    """

    path: str
    progress: Callable[[int], object] = lambda size: None
    keep: bool = False
    descriptor: int = field(default=-1, repr=False)
    copy: IO[bytes] | None = field(default=None, repr=False)
    start: int = field(default=-1, repr=False)  # where standard input stood when it is a file

    @property
    def name(self) -> str:
        return "(standard input)" if self.path == "-" else display(self.path)

    def status(self) -> os.stat_result:
        """What the system says of it; the failures of `check` may come up later, too."""
        try:
            return os.fstat(0) if self.path == "-" else os.stat(self.path)
        except OSError as error:
            raise _unreadable(error, self) from None

    def check(self) -> None:
        """Raise NoInputError, PermissionDeniedError or UsageError where this can be known before anything is read."""
        status = self.status()
        if stat.S_ISDIR(status.st_mode):
            raise NoInputError(
                "is a directory",
                place=self.name,
                remedy=f"name its files: {self.name.rstrip('/')}/*.jsonl.zst",
            )
        if self.path == "-" and os.isatty(0):
            raise UsageError(
                "standard input is a terminal and no FILE was given", remedy="name files, or pipe records in"
            )
        if self.path != "-" and not os.access(self.path, os.R_OK):
            raise PermissionDeniedError("reading is not permitted", place=self.name)

    @contextmanager
    def open(self) -> Iterator["Input"]:
        """Read from the start; a regular file that changes meanwhile is an error at its end."""
        if self.copy:
            self.copy.flush()
            self.descriptor = self.copy.fileno()
            os.lseek(self.descriptor, 0, os.SEEK_SET)
            yield self
            return
        try:
            self.descriptor = 0 if self.path == "-" else os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            before = os.fstat(self.descriptor)
        except OSError as error:
            raise _unreadable(error, self) from None
        try:
            if self.keep and not stat.S_ISREG(before.st_mode):
                self.copy = tempfile.TemporaryFile(prefix="prune-cli-")
            elif self.path == "-" and stat.S_ISREG(before.st_mode):
                self.start = (
                    os.lseek(0, self.start, os.SEEK_SET) if self.start >= 0 else os.lseek(0, 0, os.SEEK_CUR)
                )
            yield self
            after = self.opened()
            if stat.S_ISREG(before.st_mode) and (before.st_size, before.st_mtime_ns) != (
                after.st_size,
                after.st_mtime_ns,
            ):
                raise InputOutputError(
                    "changed while reading", place=self.name, remedy="run again when nothing writes to it"
                )
        finally:
            if self.descriptor > 0:
                os.close(self.descriptor)
            self.descriptor = -1

    def opened(self) -> os.stat_result:
        """What the system says of the file that is being read, whatever has its name by now."""
        try:
            return os.fstat(self.descriptor)
        except OSError as error:
            raise _unreadable(error, self) from None

    def read(self, size: int, /) -> bytes:
        try:
            data = os.read(self.descriptor, size)
        except OSError as error:
            raise _unreadable(error, self) from None
        if self.copy and self.descriptor != self.copy.fileno():
            try:
                self.copy.write(data)
            except OSError as error:
                raise failure(error, tempfile.gettempdir(), "copying the input to a temporary file") from None
        self.progress(len(data))
        return data


def _unreadable(error: OSError, file: Input) -> PruneError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG):
        return NoInputError(os.strerror(error.errno).lower(), place=file.name)
    if error.errno == errno.EBADF:
        return NoInputError("is closed", place=file.name)
    return failure(error, file.path, "reading")


def operands(paths: Sequence[str], progress: Callable[[int], object] = lambda size: None) -> list[Input]:
    """The inputs a command line names, each checked; none at all is standard input. Standard input counts once."""
    inputs = [Input(path, progress) for path in paths or ["-"]]
    if sum(one.path == "-" for one in inputs) > 1:
        raise UsageError("standard input (-) is named twice", remedy="it can be read only once")
    for one in inputs:
        one.check()
    return inputs


def total_size(inputs: Sequence[Input]) -> int | None:
    """Bytes of all inputs; None where one is a pipe."""
    found = [one.status() for one in inputs]
    return (
        sum(status.st_size for status in found)
        if all(stat.S_ISREG(status.st_mode) for status in found)
        else None
    )


# Outputs


class Output:
    """A place for bytes. `written` counts them; partial writes are completed, and failures name the file.

    A `resumable` one keeps the whole frames that it was given when the run fails; `begin` takes what every stream starts with.
    """

    resumable = False

    def __init__(self, descriptor: int, path: str) -> None:
        self.descriptor, self.path, self.written = descriptor, path, 0

    def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            try:
                size = os.write(self.descriptor, rest)
            except BrokenPipeError:
                raise
            except OSError as error:
                raise failure(error, self.path, f"writing {len(data)} bytes after {self.written}") from None
            self.written += size
            rest = rest[size:]

    def cut(self, size: int) -> None:
        """Leave the first `size` bytes of a file."""
        try:
            os.ftruncate(self.descriptor, size)
        except OSError as error:
            raise failure(error, self.path, "cutting it off") from None

    def begin(self, start: bytes) -> None:
        self.write(start)

    def is_terminal(self) -> bool:
        return os.isatty(self.descriptor)

    def check_reader(self) -> None:
        """Raise BrokenPipeError where the reader of a pipe has left: nothing more need be made for it."""
        asked = select.poll()
        asked.register(self.descriptor, 0)
        if any(found & select.POLLERR for _, found in asked.poll(0)):
            raise BrokenPipeError


class _Synced(Output):
    """A file that is synced at its end: what was written goes to the disk while more is made, so that the sync has little to wait for."""

    def __init__(self, descriptor: int, path: str) -> None:
        super().__init__(descriptor, path)
        self.sent = 0

    def write(self, data: bytes | memoryview) -> None:
        super().write(data)
        if (
            self.written - self.sent >= SENT
        ):  # what is not on the disk yet cannot leave memory; asked to, it is written
            with suppress(OSError, AttributeError):  # a hint, which not every system takes
                os.posix_fadvise(self.descriptor, self.sent, self.written - self.sent, os.POSIX_FADV_DONTNEED)
            self.sent = self.written


@contextmanager
def create(path: str | None, inputs: Sequence[Input] = (), *, force: bool = False) -> Iterator[Output]:
    """An output that takes its name only when the block ends well; None or `-` is standard output.

    Raises CannotCreateError before anything is written: the target exists (without `force`), is one of the inputs (with it, too),
    or has no folder to be in; TryAgainError while another run writes it.
    """
    if path is None or path == "-":
        _not_an_input(1, "(standard output)", inputs)
        yield Output(1, "(standard output)")
        close(os.dup(1), "(standard output)")
    elif is_special(path):
        with opened(path, os.O_WRONLY | os.O_CLOEXEC) as descriptor:
            yield Output(descriptor, path)
    else:
        with _beside(path, inputs, force) as output:
            yield output


def _not_an_input(target: int | str, name: str, inputs: Sequence[Input]) -> None:
    try:
        status = os.stat(target)
    except OSError:
        return
    for one in inputs:
        found = one.status()
        if stat.S_ISREG(status.st_mode) and (found.st_dev, found.st_ino) == (status.st_dev, status.st_ino):
            raise CannotCreateError(
                "the output is also an input", place=display(name), remedy="write elsewhere, then mv"
            )


def is_special(path: str) -> bool:
    """A pipe or a device: written to as it stands, since it cannot be renamed onto."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextmanager
def _beside(path: str, inputs: Sequence[Input], force: bool) -> Iterator[Output]:
    check_target(path, inputs, force=force)
    target = os.path.realpath(path)
    temporary = beside(target)
    with locked(temporary, path) as descriptor:
        try:
            check_target(path, inputs, force=force)  # another run may have made it since we looked
            output = _Synced(descriptor, path)
            output.cut(0)
            yield output
            commit(descriptor, temporary, target, path, force)
        except BaseException:
            remove(temporary)
            raise


def check_target(path: str, inputs: Sequence[Input] = (), *, force: bool = False) -> None:
    """Raise CannotCreateError or PermissionDeniedError where an output at `path` would be refused."""
    name, folder = display(path), os.path.dirname(path) or "."
    _not_an_input(path, path, inputs)
    if os.path.isdir(path):
        raise CannotCreateError("is a directory", place=name, remedy="name a file in it")
    if os.path.islink(path) and not os.path.exists(path):
        raise CannotCreateError(
            "is a symbolic link to nothing",
            place=name,
            remedy="remove it, or name the file it should lead to",
        )
    if os.path.lexists(path) and not force:
        raise CannotCreateError("exists", place=name, remedy="-f replaces it")
    if not os.path.isdir(folder):
        raise CannotCreateError(
            "its directory does not exist", place=name, remedy=f"mkdir -p {display(folder)}"
        )
    if not os.access(os.path.dirname(os.path.realpath(path)), os.W_OK | os.X_OK):
        raise PermissionDeniedError("its directory cannot be written to", place=name)


def beside(target: str) -> str:
    """Where `target` is written until it is whole: hidden, in the same folder, one for every target."""
    folder, name = os.path.split(target)
    hidden = f".{name}.prune-cli"
    if len(os.fsencode(hidden)) > 255:
        hidden = f".{hashlib.sha256(os.fsencode(name)).hexdigest()}.prune-cli"
    return os.path.join(folder, hidden)


def commit(descriptor: int, temporary: str, target: str, name: str, force: bool) -> None:
    """Data on disk, then the name, then the name on disk. Without `force` a target that appeared meanwhile is kept."""
    try:
        os.fsync(descriptor)
        if force:
            os.replace(temporary, target)
        else:
            _rename_to_nothing(temporary, target)
        sync_folder(os.path.dirname(target))
    except FileExistsError:
        raise CannotCreateError(
            "appeared while it was being made", place=display(name), remedy="-f replaces it"
        ) from None
    except OSError as error:
        raise failure(error, name, "committing") from None


def _rename_to_nothing(temporary: str, target: str) -> None:
    """A rename that never replaces: a second name, then the first goes. Where a file cannot have two names, the best there is."""
    try:
        os.link(temporary, target)
        os.unlink(temporary)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        if os.path.lexists(target):
            raise FileExistsError from None
        os.rename(temporary, target)


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
    """Remove a file of ours, if it can be removed."""
    try:
        os.unlink(path)
    except OSError:
        return
