"""Outputs that survive a failed run: FILE.partial, held, read back and extended by one process at a time."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from ...errors import UsageError
from ..base import Input, ResumableOutput, stopped_early
from ..os_errors import display, failure
from . import commit
from .locks import locked
from .reading import LocalInput
from .writing import Stream, check_target, cut, is_stream, keep_mode


class LocalFile(Stream, ResumableOutput):
    """An open file that is written at its end and read at any offset."""

    def __init__(self, descriptor: int, path: str) -> None:
        super().__init__(descriptor, path)
        os.lseek(descriptor, 0, os.SEEK_END)

    @property
    def size(self) -> int:
        return os.fstat(self.descriptor).st_size

    def read_at(self, offset: int, size: int) -> bytes:
        try:
            return os.pread(self.descriptor, size, offset)
        except OSError as error:
            raise failure(error, self.path, "reading") from None

    def cut(self, size: int) -> None:
        cut(self.descriptor, size, self.path)
        # A write after the end would leave a hole of zeros.
        os.lseek(self.descriptor, size, os.SEEK_SET)

    def sync(self) -> None:
        try:
            os.fsync(self.descriptor)
        except OSError as error:
            raise failure(error, self.path, "syncing") from None

    def discard(self) -> None:
        commit.remove(self.path)


class FinishedFile(LocalFile):
    """An output that an earlier run committed, opened for reading."""

    finished = True


@contextmanager
def resume(path: str, inputs: Sequence[Input], *, force: bool) -> Iterator[ResumableOutput]:
    """See `Storage.resume`."""
    if is_stream(path):
        raise UsageError("--resume needs a regular output file", place=display(path))
    # An output that exists is an earlier run's result: the caller compares it with what it would write.
    is_finished = os.path.isfile(path) and not force
    check_target(path, inputs, force=force or is_finished)
    names = commit.Names.of(path)
    if is_finished:
        with _finished(names, path) as output:
            yield output
        return
    with _locked_partial(names, path) as descriptor:
        output = LocalFile(descriptor, names.partial)
        with stopped_early(output):
            # Again: another run may have committed its output since we looked, and before we held the lock.
            check_target(path, inputs, force=force)
            keep_mode(descriptor, names.target)
            yield output
            commit.commit(descriptor, names, path, force=force, source=names.partial)


@contextmanager
def unfinished(path: str) -> Iterator[ResumableOutput | None]:
    """See `Storage.unfinished`."""
    name = commit.Names.of(path).partial
    # Looked for first: to lock a file is to create it.
    if not os.path.isfile(name):
        yield None
        return
    with locked(name, path) as descriptor:
        yield LocalFile(descriptor, name)


@contextmanager
def scratch(path: str) -> Iterator[ResumableOutput]:
    """See `Storage.scratch`."""
    if path == "-" or is_stream(path):
        raise UsageError("--resume needs an output that stays", remedy="name a file with -o FILE")
    name = commit.Names.of(path).partial
    with locked(name, path) as descriptor:
        output = LocalFile(descriptor, name)
        try:
            with stopped_early(output):
                yield output
                output.discard()
        finally:
            # Also after a failure: an empty file would only be in the way.
            if not output.size:
                output.discard()


@contextmanager
def _locked_partial(names: commit.Names, path: str) -> Iterator[int]:
    """The partial file for this process alone, also against a run without --resume.

    That run locks the hidden file. It is held here until the partial file is locked, and not needed after
    that: a run that starts later looks for the partial file (see `stream.resume`).
    """
    with ExitStack() as stack:
        with locked(names.temporary, path):
            try:
                descriptor = stack.enter_context(locked(names.partial, path))
            finally:
                commit.remove(names.temporary)
        yield descriptor


@contextmanager
def _finished(names: commit.Names, path: str) -> Iterator[ResumableOutput]:
    """An output that is whole, to be read again."""
    if os.path.exists(names.partial) and os.path.samefile(names.partial, names.target):
        # The run that committed it was killed between link(2) and unlink(2): the file has two names.
        with locked(names.partial, path):
            commit.remove(names.partial)
    # As an input, so that a change in the meantime is noticed at the end.
    file = LocalInput(names.target)
    with file.open():
        yield FinishedFile(file.descriptor, path)
