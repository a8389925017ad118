"""Writing to files, pipes, devices and standard output."""

import os
import select
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from ...errors import CannotCreateError, PermissionDeniedError
from ..base import Input, Output, committed, is_an_input
from ..os_errors import display, failure
from . import commit
from .descriptors import descriptor_of, duplicate
from .locks import close, locked, opened
from .reading import LocalInput

STANDARD_OUTPUT = 1
# Bytes after which a file that will be synced is sent on its way: few enough that the last sync is short.
SENT = 32 << 20


class Stream(Output):
    """An open descriptor: a pipe, a device or standard output. Nothing can be taken back from it."""

    def __init__(self, descriptor: int, path: str) -> None:
        super().__init__(path)
        self.descriptor = descriptor

    def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            try:
                # A pipe takes what it has room for; a nearly full disk takes a part, and fails next time.
                size = os.write(self.descriptor, rest)
            except BrokenPipeError:
                raise
            except OSError as error:
                doing = f"writing {len(data)} bytes after {self.written}"
                raise failure(error, self.path, doing) from None
            self.written += size
            rest = rest[size:]

    def is_terminal(self) -> bool:
        return os.isatty(self.descriptor)

    def check_reader(self) -> None:
        # A pipe without a reader reports POLLERR, whether or not it is asked for; files never do.
        poll = select.poll()
        poll.register(self.descriptor, 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            raise BrokenPipeError


class Inherited(Stream):
    """A descriptor that the caller opened, such as standard output: it stays open for who comes after."""

    def commit(self) -> None:
        # Network file systems report a failed write at close(2) only: closing a duplicate makes them.
        close(os.dup(self.descriptor), self.path)


class NewFile(Stream):
    """A file that is written as `temporary` and renamed to `target` when it is whole.

    What was written goes to the disk while more is made, so that the sync at the end has little to wait for.
    """

    def __init__(self, descriptor: int, path: str, names: commit.Names, *, force: bool) -> None:
        super().__init__(descriptor, path)
        self.names = names
        self.force = force
        self.sent = 0

    def write(self, data: bytes | memoryview) -> None:
        super().write(data)
        if self.written - self.sent >= SENT:
            self._send()

    def commit(self) -> None:
        commit.commit(self.descriptor, self.names, self.path, force=self.force)

    def abandon(self) -> None:
        commit.remove(self.names.temporary)

    def _send(self) -> None:
        # Pages that are not on the disk cannot leave memory: asked to drop them, Linux starts to write them.
        # It is a hint: not every system has the call, and not every file system takes it.
        with suppress(OSError, AttributeError):
            size = self.written - self.sent
            os.posix_fadvise(self.descriptor, self.sent, size, os.POSIX_FADV_DONTNEED)
        self.sent = self.written


@contextmanager
def create(path: str, inputs: Sequence[Input], *, force: bool) -> Iterator[Output]:
    """See `Storage.create`: a new file, or a pipe or device that is written to as it stands."""
    if path == "-":
        refuse_an_input(STANDARD_OUTPUT, "(standard output)", inputs)
        with committed(Inherited(STANDARD_OUTPUT, "(standard output)")) as output:
            yield output
    elif (number := descriptor_of(path)) is not None:
        with _descriptor(path, number, inputs) as output:
            yield output
    elif is_stream(path):
        with opened(path, os.O_WRONLY | os.O_CLOEXEC) as descriptor:
            yield Stream(descriptor, path)
    else:
        with _new_file(path, inputs, force) as output:
            yield output


@contextmanager
def _descriptor(path: str, number: int, inputs: Sequence[Input]) -> Iterator[Output]:
    """An open descriptor, written to at its own position: nothing in it is replaced or cut off."""
    # A duplicate, so that its number stays taken, whatever the process closes meanwhile.
    descriptor = duplicate(path, number)
    try:
        refuse_an_input(descriptor, path, inputs)
        with committed(Inherited(descriptor, path)) as output:
            yield output
    finally:
        os.close(descriptor)


@contextmanager
def _new_file(path: str, inputs: Sequence[Input], force: bool) -> Iterator[Output]:
    check_target(path, inputs, force=force)
    names = commit.Names.of(path)
    with (
        locked(names.temporary, path) as descriptor,
        committed(NewFile(descriptor, path, names, force=force)) as output,
    ):
        # Again: another run may have committed its output since we looked, and before we held the lock.
        check_target(path, inputs, force=force)
        cut(descriptor, 0, path)  # a killed run may have left its bytes
        keep_mode(descriptor, names.target)
        yield output


def keep_mode(descriptor: int, target: str) -> None:
    """Give a new file the permissions of the file that it will replace, if there is one.

    Before the first byte is written: a private file must not be readable to all while it is made. The owner
    may write to it until it is committed, else the next run could not open what a stopped run left.
    """
    # Some file systems (FAT, some network mounts) have no permissions to set, and need none.
    with suppress(OSError):
        os.fchmod(descriptor, stat.S_IMODE(os.stat(target).st_mode) & 0o777 | stat.S_IRUSR | stat.S_IWUSR)


def cut(descriptor: int, size: int, path: str) -> None:
    """Keep the first `size` bytes of an open file."""
    try:
        os.ftruncate(descriptor, size)
    except OSError as error:
        raise failure(error, path, "cutting it off") from None


def is_stream(path: str) -> bool:
    """Whether a path is a pipe, a device or an open descriptor: nothing can be renamed onto it."""
    if descriptor_of(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_target(path: str, inputs: Sequence[Input] = (), *, force: bool = False) -> None:
    """See `Storage.check_target`. The order of the checks decides which of several faults is named."""
    refuse_an_input(path, path, inputs)
    _check_name(path, force)
    _check_directory(path)


def refuse_an_input(target: int | str, name: str, inputs: Sequence[Input]) -> None:
    """Raise CannotCreateError if a path or descriptor leads to the file of an input, by whatever name."""
    try:
        status = os.stat(target)
    except OSError:
        return
    # A device can be both: /dev/null, or the terminal.
    if not stat.S_ISREG(status.st_mode):
        return
    if any(isinstance(file, LocalInput) and file.is_same_file(status) for file in inputs):
        raise is_an_input(name)


def _check_name(path: str, force: bool) -> None:
    name = display(path)
    if os.path.isdir(path):
        raise CannotCreateError("is a directory", place=name, remedy="name a file in it")
    if os.path.islink(path) and not os.path.exists(path):
        remedy = "remove it, or name the file it should lead to"
        raise CannotCreateError("is a symbolic link to nothing", place=name, remedy=remedy)
    if os.path.lexists(path) and not force:
        raise CannotCreateError("exists", place=name, remedy="-f replaces it")


def _check_directory(path: str) -> None:
    name = display(path)
    folder = os.path.dirname(path) or "."
    file = _file_among(folder)
    if file:
        raise CannotCreateError(f"{display(file)} is not a directory", place=name, remedy="name another")
    if not os.path.isdir(folder):
        remedy = f"mkdir -p {display(folder)}"
        raise CannotCreateError("its directory does not exist", place=name, remedy=remedy)
    # The file of a symbolic link is made where the link leads to.
    if not os.access(os.path.dirname(os.path.realpath(path)), os.W_OK | os.X_OK):
        raise PermissionDeniedError("its directory cannot be written to", place=name)


def _file_among(folder: str) -> str:
    """The part of a path that would have to be a directory and is a file; "" if there is none."""
    while folder and not os.path.exists(folder):
        folder = os.path.dirname(folder)
    return folder if folder and not os.path.isdir(folder) else ""
