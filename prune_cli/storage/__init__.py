"""Bytes at a path or URL: which storage a path belongs to, and the operations that work on all of them.

A storage is added by one entry in `_MAKERS`, or by `register`: its scheme, and a function that makes it. The
function is called when the first path with that scheme is used, so that nobody pays for importing the others.
"""

import logging
import os
import re
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from ..errors import ConfigurationError, UsageError
from . import patterns
from .base import CHUNK, UNSIGNED, Input, Output, Progress, ResumableOutput, Storage, ignore_progress
from .local import Local
from .os_errors import display

log = logging.getLogger(__name__)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://")
_LOCAL = Local()


def _objects() -> Storage:
    # Not at the top: the client library takes 25 ms to import, and is an extra that may be missing.
    try:
        from .objects import Objects
    except ImportError as error:
        if not (error.name or "").startswith("obstore"):
            raise
        fault = "URLs need the package obstore, which is not installed"
        raise ConfigurationError(fault, remedy="pip install 'prune-cli[remote]'") from None
    return Objects()


def _web() -> Storage:
    # Not at the top: the modules for HTTP and TLS take 40 ms.
    from .remote.http import Web

    return Web()


def _hub() -> Storage:
    # Not at the top: the library of the Hub takes 0.3 s to import.
    from .remote.hub import Hub

    return Hub()


_MAKERS: dict[str, Callable[[], Storage]] = {
    **dict.fromkeys(("s3", "gs", "az", "abfss"), _objects),
    **dict.fromkeys(("https", "http"), _web),
    "hf": _hub,
}
_STORAGES: dict[str, Storage] = {}


AHEAD = 32  # inputs whose ends are fetched at a time
# Files that say that a folder is one dataset (see stream/dataset.py), and are no records themselves.
DESCRIPTIONS = ("manifest.json", "plan.json")


def register(scheme: str, make: Callable[[], Storage]) -> None:
    """Have `make` return the storage for paths that start with `scheme`://."""
    _MAKERS[scheme] = make
    _STORAGES.pop(scheme, None)


def storage_of(path: str) -> Storage:
    """The storage that a path belongs to: this machine's files unless it begins with a scheme.

    Raises UsageError for a scheme that is not registered.
    """
    match = _SCHEME.match(path)
    if match is None:
        return _LOCAL
    scheme = match[1]
    if scheme not in _MAKERS:
        # `a://b` may be a name, too: that of the file `b` in the folder `a:`.
        if os.path.isdir(f"{scheme}:"):
            return _LOCAL
        known = ", ".join(f"{name}://" for name in sorted(_MAKERS))
        raise UsageError(f"unknown scheme {scheme}://", place=display(path), remedy=f"known are {known}")
    if scheme not in _STORAGES:
        _STORAGES[scheme] = _MAKERS[scheme]()
    return _STORAGES[scheme]


@contextmanager
def unsigned(wanted: bool) -> Iterator[None]:
    """Send no credentials to object storage until the block ends, if `wanted`."""
    before = os.environ.get(UNSIGNED)
    if wanted:
        os.environ[UNSIGNED] = "1"
    try:
        yield
    finally:
        if wanted and before is None:
            del os.environ[UNSIGNED]


def settle() -> bool:
    """Wait a moment for requests whose answers nobody needs any more; False if some are still under way."""
    # Not loaded unless a URL was named.
    workers = sys.modules.get(f"{__name__}.remote.workers")
    return workers is None or bool(workers.WORKERS.settle())


# --- Inputs ---


def input_at(path: str, progress: Progress = ignore_progress) -> Input:
    """The input at a path, which is not checked."""
    return storage_of(path).input(path, progress)


def expand(paths: Sequence[str]) -> list[str]:
    """The inputs that operands stand for: patterns and folders in URLs are expanded (see `patterns`).

    Patterns over local files are the shell's: such paths are taken as they stand, and so is the folder of a
    dataset. Raises NoInputError for a pattern that matches nothing, and UsageError for one over a storage
    that has no listings.
    """
    names: list[str] = []
    for path in paths:
        kind = storage_of(path)
        expanded = [path] if kind is _LOCAL else patterns.expand(path, kind.below)
        is_dataset = path.endswith("/") and any(path + name in expanded for name in DESCRIPTIONS)
        names += [path] if is_dataset else expanded
    return names


def operands(paths: Sequence[str], progress: Progress = ignore_progress) -> list[Input]:
    """The inputs that a command line names, each checked; standard input if it names none.

    Raises what `Input.check` raises, and UsageError if standard input is named twice.
    """
    inputs = [input_at(path, progress) for path in paths or ["-"]]
    if sum(file.path == "-" for file in inputs) > 1:
        raise UsageError("standard input (-) is named twice", remedy="it can be read only once")
    # First all of them: what has to be asked of a server is asked for many at a time.
    for file in inputs:
        file.prepare()
    for file in inputs:
        file.check()
    return inputs


def anticipated(files: Iterable[Input]) -> Iterator[Input]:
    """The files, while both ends of the next ones are fetched if they are on a server.

    Most of the time of a reader of many trailers passes in waiting for a server.
    """
    coming = iter(files)
    waiting: deque[Input] = deque()
    for file in coming:
        file.anticipate()
        waiting.append(file)
        if len(waiting) < AHEAD:
            continue
        yield waiting[0]
        waiting.popleft().forget()
    for file in waiting:
        yield file
        file.forget()


def warn_of_repeats(inputs: Sequence[Input]) -> None:
    """Warn once of a file that is named twice: as with sort(1), its records are read twice."""
    # By identity, not by name: links count, and a status that cannot be read is an error as everywhere.
    counts = Counter(file.identity for file in inputs)
    repeats = [file for file in inputs if file.identity is not None and counts[file.identity] > 1]
    if repeats:
        files = len({file.identity for file in repeats})
        more = f", and {files - 1} more files are" if files > 1 else ""
        log.warning("%s is named twice%s: its records are read twice", repeats[0].name, more)


def total_size(inputs: Sequence[Input]) -> int | None:
    """Bytes of all inputs; None if one of them is a pipe. Raises what `Input.check` raises."""
    # A list, not a generator: an input that cannot be read is an error even behind a pipe.
    sizes = [file.size for file in inputs]
    known = [size for size in sizes if size is not None]
    return sum(known) if len(known) == len(sizes) else None


def is_file(path: str) -> bool:
    """Whether there is something at `path` that can be read as an input, unlike a directory."""
    return storage_of(path).is_file(path)


def locks_outputs(path: str) -> bool:
    """Whether an output at `path` is locked for other processes while it is written."""
    return storage_of(path).locks_outputs


def has_folders(path: str) -> bool:
    """Whether a path can name a folder without a slash at its end, as a local one can."""
    return storage_of(path).has_folders


def exists(path: str) -> bool:
    """Whether there is anything at `path`, or at what a link there leads to."""
    return storage_of(path).exists(path)


def existing(paths: Sequence[str]) -> set[str]:
    """Those of the paths at which there is anything: many are asked for together where that is possible."""
    by_storage: dict[Storage, list[str]] = {}
    for path in paths:
        by_storage.setdefault(storage_of(path), []).append(path)
    return {path for kind, named in by_storage.items() for path in kind.existing(named)}


def location(path: str) -> str:
    """The place that a path leads to: equal for two spellings of one place; `-` stays as it is."""
    return storage_of(path).location(path)


# --- Outputs: see `Storage` for what they raise ---


def create(
    path: str | None, inputs: Sequence[Input] = (), *, force: bool = False
) -> AbstractContextManager[Output]:
    """An output that takes its name only when the block ends without an exception.

    None and `-` are standard output. Raises UsageError for an empty name, which is most likely a variable
    that was never set.
    """
    if path == "":
        raise UsageError("the name of the output is empty", remedy="name a file, or - for standard output")
    name = "-" if path is None else path
    return storage_of(name).create(name, inputs, force=force)


def copy(source: Input, path: str) -> None:
    """Make `path` a copy of an input, whole or not at all, by the storage itself where both are in one.

    What is copied is not looked at: compare it with what it should be. Raises what `create` raises.
    """
    kind = storage_of(path)
    if storage_of(source.path) is kind and kind.copy(source, path):
        return
    with source.duplicate().open() as opened, create(path, [source], force=True) as output:
        while data := opened.read(CHUNK):
            output.write(data)


def etags(*outputs: Output | None) -> dict[str, str]:
    """The ETags of outputs that are committed, by path; those of files, which have none, are left out."""
    return {output.path: output.etag for output in outputs if output and output.etag}


def check_target(path: str, inputs: Sequence[Input] = (), *, force: bool = False) -> None:
    """Raise CannotCreateError or PermissionDeniedError if an output at `path` would be refused."""
    storage_of(path).check_target(path, inputs, force=force)


def is_stream(path: str) -> bool:
    """Whether an output at `path` is a pipe or a device: it is written to as it stands, and never renamed."""
    return storage_of(path).is_stream(path)


def check_distinct(*outputs: str | None) -> None:
    """Raise UsageError if two outputs of a command lead to one place; None is standard output."""
    # /dev/null takes any number of outputs.
    places = [location("-" if path is None else path) for path in outputs if path != os.devnull]
    if len(set(places)) < len(places):
        raise UsageError("two outputs are the same file", remedy="give each output a file of its own")


def make_directory(path: str) -> None:
    """Make a directory for outputs unless it exists."""
    storage_of(path).make_directory(path)


def resume(
    path: str, inputs: Sequence[Input] = (), *, force: bool = False
) -> AbstractContextManager[ResumableOutput]:
    """The output at `path`, with what an earlier run of the same command left of it."""
    return storage_of(path).resume(path, inputs, force=force)


def unfinished(path: str) -> AbstractContextManager[ResumableOutput | None]:
    """What a run with `resume` left of the output at `path`, for this process alone; None if nothing."""
    return storage_of(path).unfinished(path)


def scratch(path: str) -> AbstractContextManager[ResumableOutput]:
    """A resumable file beside the output at `path`, removed when the block ends without an exception."""
    return storage_of(path).scratch(path)
