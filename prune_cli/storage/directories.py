"""Output directories that are whole or absent, as a training run and its checkpoints are.

They are written under another name, synced and renamed. `seal` stores hashes of the files, to detect damage.
"""

import ctypes
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import IO, Any

from ..errors import CannotCreateError
from .local import commit
from .local.locks import locked
from .os_errors import display, failure

SEAL = "state.json"
# Arguments of renameat2(2), from linux/fcntl.h and linux/fs.h; Python has no binding.
AT_FDCWD = -100
RENAME_EXCHANGE = 2


@contextmanager
def working(target: Path, *, resume: bool, replace: bool, mark: str, keep: str) -> Iterator[Path]:
    """A locked directory `target`.partial, renamed to `target` when the block ends without an exception.

    When the block fails the directory is removed, unless `resume`, or something in it matches the pattern
    `keep`. Then only `replace` lets a later run start over. `replace` also replaces a `target` that holds the
    file `mark`, and no other. Raises CannotCreateError if something is in the way, TryAgainError while
    another run holds the directory.
    """
    target = Path(os.path.abspath(target))
    work = target.with_name(f"{target.name}.partial")
    lock = Path(commit.hidden(str(target)))
    with locked(str(lock), str(target)):
        try:
            # Under the lock: a run that ended a moment ago may have made the target.
            _check_target(target, replace, mark)
            if work.exists() and not resume:
                _clear(work, replace, keep)
            work.mkdir(exist_ok=True)
            with _kept_if(work, resume, keep), _naming(work):
                yield work
            _publish(work, target)
        finally:
            lock.unlink()


@contextmanager
def _kept_if(work: Path, resume: bool, keep: str) -> Iterator[None]:
    """Remove the directory when the block fails, unless a later run can resume from it."""
    try:
        yield
    except BaseException:
        if not resume and not any(work.glob(keep)):
            shutil.rmtree(work)
        raise


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Name the folder in an error of the system that names no file, as those of write(2) do not."""
    try:
        yield
    except OSError as error:
        raise failure(error, str(error.filename or folder), "writing") from None


def _check_target(target: Path, replace: bool, mark: str) -> None:
    if not os.path.lexists(target):
        return
    place = display(str(target))
    if not replace:
        raise CannotCreateError("exists", place=place, remedy="-f replaces it")
    # A directory of someone else's is never deleted, and a link could lead to one.
    if target.is_symlink() or not (target / mark).is_file():
        raise CannotCreateError(
            f"is not a directory with {mark} in it", place=place, remedy="remove it yourself"
        )


def _clear(work: Path, replace: bool, keep: str) -> None:
    if any(work.glob(keep)) and not replace:
        raise CannotCreateError(
            "holds an unfinished run",
            place=display(str(work)),
            remedy="--resume continues it, -f starts over",
        )
    shutil.rmtree(work)


def _publish(work: Path, target: Path) -> None:
    _sync(work)
    # From an earlier run that was killed after its exchange.
    old = work.with_name(f"{work.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        _replace(work, target, old)
    else:
        work.rename(target)
    commit.sync_folder(str(target.parent))
    shutil.rmtree(old, ignore_errors=True)


def _replace(work: Path, target: Path, old: Path) -> None:
    """Put `work` in the place of `target`, which becomes `old`."""
    # rename(2) replaces only an empty directory. Two renames leave a moment without a target, an exchange
    # does not.
    if _exchange(work, target):
        work.rename(old)
    else:
        target.rename(old)
        work.rename(target)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step. Returns False where the system cannot, on NFS for example."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:  # not Linux, or a C library from before 2018
        return False
    status = rename(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE)
    return bool(status == 0)


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A directory renamed to `path` when the block ends without an exception, replacing one there."""
    work = path.with_name(f".{path.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        _sync(work)
        # For a moment there is neither: a checkpoint that is lost here is made again by the next run.
        shutil.rmtree(path, ignore_errors=True)
        work.rename(path)
        commit.sync_folder(str(path.parent))
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def remove(path: Path) -> None:
    """Delete a directory that is whole or absent at every moment."""
    # Half of a directory could be taken for a whole one: the name goes first.
    doomed = path.with_name(f".{path.name}.partial")
    shutil.rmtree(doomed, ignore_errors=True)
    path.rename(doomed)
    shutil.rmtree(doomed)


def sync_file(file: IO[Any]) -> None:
    """Make what was written to an open file durable."""
    file.flush()
    os.fsync(file.fileno())


def file_size(path: Path) -> int:
    """Bytes of a file. Raises FileNotFoundError."""
    return path.stat().st_size


def _sync(folder: Path) -> None:
    # fsync(2) works on a descriptor that is open for reading: the libraries that wrote the files are done
    # with them.
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    commit.sync_folder(str(folder))


def seal(folder: Path, values: dict[str, Any]) -> None:
    """Store `values` in a directory, together with the SHA-256 of each of its files."""
    (folder / SEAL).write_text(json.dumps({**values, "files": _hashes(folder)}))


def sealed(folder: Path) -> dict[str, Any] | None:
    """The values that `seal` stored; None if a file is missing, new or changed since."""
    try:
        values: dict[str, Any] = json.loads((folder / SEAL).read_text())
        return values if values["files"] == _hashes(folder) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hashes(folder: Path) -> dict[str, str]:
    hashes = {}
    for path in sorted(folder.iterdir()):
        if path.name != SEAL:
            with path.open("rb") as file:
                hashes[path.name] = file_digest(file, "sha256").hexdigest()
    return hashes
