"""What an input, an output and a storage promise, wherever their bytes are.

Everything above `storage/` uses these classes and nothing else, so no code there has to know whether a path
is a file, a pipe or an object behind a URL. To add a storage, derive `Storage`, and register its scheme in
`__init__.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TypeVar

from ..errors import CannotCreateError, InputOutputError, Interrupted, TryAgainError, UsageError
from .os_errors import display, operand_name

Identity = tuple[int | str, ...]
"""Changes when the content under a name does: (device, inode, size, times) of a file, ETag of an object."""

Progress = Callable[[int], object]

# Set while --no-sign-request is in force. A variable, because the worker processes of a run inherit it.
UNSIGNED = "PRUNE_CLI_NO_SIGN_REQUEST"

CHUNK = 1 << 20  # bytes of a read where nothing else decides


def ignore_progress(size: int) -> None:
    """Progress for a reader that nobody watches."""


# --- Inputs ---


@dataclass
class Input(ABC):
    """Bytes to read, named by one operand; `-` is standard input.

    `progress` is called with the number of bytes of every read. With `keep`, what is read of a pipe is stored
    as well, so that `open` can start again from the first byte; inputs that can be opened twice ignore it.
    """

    path: str
    progress: Progress = ignore_progress
    keep: bool = False

    @property
    def name(self) -> str:
        """The name in messages: one printable line, whatever bytes the path is made of."""
        return operand_name(self.path)

    @property
    @abstractmethod
    def size(self) -> int | None:
        """Bytes from the first to the last; None for a pipe. Raises what `check` raises."""

    @property
    @abstractmethod
    def identity(self) -> Identity | None:
        """Changes when the content does; None for pipes and standard input. Raises what `check` raises.

        An input with an identity has a size, can be opened any number of times and be read at any offset.
        """

    @abstractmethod
    def check(self) -> None:
        """Raise NoInputError, PermissionDeniedError or UsageError if reading is bound to fail."""

    def prepare(self) -> None:
        """Begin to find out what `check` needs to know, without waiting for it."""
        return  # a file system answers at once

    def anticipate(self) -> None:
        """Begin to fetch the first and the last bytes, which a reader of a trailer is about to need."""
        return

    def forget(self) -> None:
        """Give up what `anticipate` fetched."""
        return

    @abstractmethod
    def open(self) -> AbstractContextManager["Input"]:
        """Start reading at the first byte; close at the end of the block.

        Raises what `check` raises, and InputOutputError at the end if the content changed while it was read.
        """

    @abstractmethod
    def read(self, size: int, /) -> bytes:
        """The next 1 to `size` bytes of an open input, none at its end. Raises InputOutputError."""

    @abstractmethod
    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes of an open input from `offset` on, fewer only at its end. Does not call `progress`."""

    def read_all(self) -> bytes:
        """The bytes of an open input up to its end, for files that fit into memory."""
        return b"".join(iter(lambda: self.read(CHUNK), b""))

    def read_into(self, buffer: memoryview, offset: int) -> int:
        """Fill a buffer from `offset` on; returns the number of bytes, less than its size only at the end.

        A storage overrides it if it can do so without a copy: `slice` copies whole frames with it.
        """
        data = self.read_at(offset, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def duplicate(self) -> "Input":
        """Another input of the same bytes: both can be open at the same time."""
        return replace(self, keep=False)


@dataclass
class RangedInput(Input):
    """An input whose bytes are fetched by range: a storage adds `check`, `size`, `identity` and `read_at`."""

    position: int = field(default=0, init=False, repr=False)

    @contextmanager
    def open(self) -> Iterator["Input"]:
        self.position = 0
        before = self.identity
        yield self
        # Each range was a request of its own, and nothing but this comparison ties them together.
        if self.identity != before:
            raise changed(self)

    def read(self, size: int, /) -> bytes:
        data = self.read_at(self.position, size)
        self.position += len(data)
        self.progress(len(data))
        return data


def changed(file: Input) -> InputOutputError:
    """The failure of a reader whose input was written to in the meantime."""
    return InputOutputError(
        "changed while reading", place=file.name, remedy="run again when nothing writes to it"
    )


# --- Outputs ---


class Output(ABC):
    """A place for bytes; `written` counts those that this run wrote.

    An output is whole or absent: `commit` gives it its name, and nobody sees it before. Callers use neither
    `commit` nor `abandon`: the context that `Storage.create` returns commits when its block ends without an
    exception, and abandons otherwise.
    """

    resumable = False  # whether the output keeps what was written when the run fails
    etag: str | None = None  # the version that was written, after the commit, where the storage has versions

    def __init__(self, path: str) -> None:
        self.path = path
        self.written = 0

    @abstractmethod
    def write(self, data: bytes | memoryview) -> None:
        """Write all of `data`. Raises InputOutputError, and BrokenPipeError if a pipe has no reader."""

    def begin(self, start: bytes) -> None:
        """Write the bytes that a stream starts with; a resumed output compares them with what it holds."""
        self.write(start)

    def commit(self) -> None:
        """Make what was written durable, then visible under the output's name. Raises InputOutputError."""
        return  # a pipe has nothing to commit

    def abandon(self) -> None:
        """Remove what was written. Raises nothing: it runs while another exception is on its way."""
        return  # a pipe takes nothing back

    def is_terminal(self) -> bool:
        """Whether a person reads along, so that compressed bytes would be of no use."""
        return False

    def check_reader(self) -> None:
        """Raise BrokenPipeError if the reader of a pipe has left: work for it would be in vain."""
        return  # only a pipe has a reader


class ResumableOutput(Output):
    """An output that survives a failed run, PATH.partial, and can be read back by the next one.

    It is open for one process alone. Its `path` is that of the bytes as they lie now. Bytes are appended
    after the last one that is held.
    """

    resumable = True
    finished = False  # True for an output that was committed earlier: it is read again, and never written to

    @property
    @abstractmethod
    def size(self) -> int:
        """Bytes that are held, those of earlier runs included."""

    @abstractmethod
    def read_at(self, offset: int, size: int) -> bytes:
        """`size` bytes that are held from `offset` on, fewer only at the end. Raises InputOutputError."""

    @abstractmethod
    def cut(self, size: int) -> None:
        """Keep the first `size` bytes. Raises InputOutputError."""

    @abstractmethod
    def sync(self) -> None:
        """Make what was written durable, before the output is whole. Raises InputOutputError."""

    @abstractmethod
    def discard(self) -> None:
        """Remove what is held: it is of no use any more."""


Made = TypeVar("Made", bound=Output)


@contextmanager
def committed(output: Made) -> Iterator[Made]:
    """Commit the output when the block ends without an exception, abandon it otherwise."""
    try:
        yield output
        output.commit()
    except BaseException:
        output.abandon()
        raise


@contextmanager
def stopped_early(output: ResumableOutput) -> Iterator[None]:
    """Turn a signal that stops the block into TryAgainError, which says how the run is resumed."""
    try:
        yield
    except Interrupted:
        remedy = (
            "run the same command again to resume" if output.size else "nothing was done yet: run it again"
        )
        raise TryAgainError("stopped early", place=display(output.path), remedy=remedy) from None


# --- Storages ---


class Storage(ABC):
    """A kind of place where bytes are. Paths come as the user wrote them, scheme included."""

    locks_outputs = False  # whether an output that is being written is locked for other processes
    has_folders = False  # whether a path can name a folder without a slash at its end

    @abstractmethod
    def input(self, path: str, progress: Progress = ignore_progress) -> Input:
        """The input at `path`, which is neither opened nor checked."""

    def below(self, folder: str) -> Iterable[str]:
        """The paths of all inputs in a folder at any depth, each with that of the folder in front.

        Raises UsageError for a storage that has no listings.
        """
        fault = "what lies here cannot be listed, so patterns and folders are no input"
        raise UsageError(fault, place=display(folder), remedy="name each file, or list them in --files-from")

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Whether there is anything at `path`, or at what a link there leads to."""

    def existing(self, paths: Sequence[str]) -> set[str]:
        """Those of the paths at which there is anything."""
        return {path for path in paths if self.exists(path)}

    @abstractmethod
    def create(
        self, path: str, inputs: Sequence[Input] = (), *, force: bool = False
    ) -> AbstractContextManager[Output]:
        """An output that takes its name only when the block ends without an exception (see `committed`).

        Raises what `check_target` raises, and TryAgainError while another run writes the same output.
        """

    def copy(self, source: Input, path: str) -> bool:
        """Make `path` a copy of an input of this storage without reading it here. False if that cannot be.

        Raises what `create` raises with `force`.
        """
        return False

    def check_target(self, path: str, inputs: Sequence[Input] = (), *, force: bool = False) -> None:
        """Raise CannotCreateError or PermissionDeniedError if an output at `path` would be refused.

        One that exists is refused without `force`, and one of the inputs even with it.
        """
        if any(file.path == path for file in inputs):
            raise is_an_input(path)
        if not force and self.exists(path):
            raise CannotCreateError("exists", place=display(path), remedy="-f replaces it")

    def is_file(self, path: str) -> bool:
        """Whether there is something at `path` that can be read as an input, unlike a directory."""
        return self.exists(path)

    def is_stream(self, path: str) -> bool:
        """Whether an output at `path` goes straight to a reader or device, and never takes a name."""
        return False

    def location(self, path: str) -> str:
        """The place that `path` leads to: equal for two spellings of one place."""
        return path

    def make_directory(self, path: str) -> None:
        """Make a directory unless it exists. Raises CannotCreateError or PermissionDeniedError."""
        return  # object storage has no directories

    def resume(
        self, path: str, inputs: Sequence[Input] = (), *, force: bool = False
    ) -> AbstractContextManager[ResumableOutput]:
        """The output at `path`, with what an earlier run of the same command left of it.

        Kept when the block fails, committed when it ends without an exception. Raises UsageError for a
        storage that cannot resume, TryAgainError if a signal stops the block, and else what `create` raises.
        """
        raise UsageError("--resume needs a regular output file", place=display(path))

    def unfinished(self, path: str) -> AbstractContextManager[ResumableOutput | None]:
        """What a run with `resume` left of the output at `path`, for this process alone; None if nothing."""
        return nullcontext()

    def scratch(self, path: str) -> AbstractContextManager[ResumableOutput]:
        """A resumable file beside the output at `path`, for results that took long.

        Removed when the block ends without an exception, kept otherwise unless it is empty.
        Raises what `resume` raises.
        """
        raise UsageError("--resume needs a regular output file", place=display(path))


def is_an_input(path: str) -> CannotCreateError:
    """The refusal of an output that would overwrite what the run reads."""
    return CannotCreateError(
        "the output is also an input", place=display(path), remedy="write elsewhere, then mv"
    )
