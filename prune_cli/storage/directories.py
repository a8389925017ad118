"""Output directories that are whole or absent: written beside, synced, renamed; and sealed, so that damage is seen."""

import ctypes
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import Any

from ..errors import CannotCreateError
from .local import commit
from .local.locks import locked
from .os_errors import display, failure

SEAL = "state.json"
HERE, EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of renameat2(2)


@contextmanager
def working(target: Path, *, resume: bool, replace: bool, mark: str, keep: str) -> Iterator[Path]:
    """A locked folder `target`.partial that becomes `target` when the block ends well.

    When it does not, the folder is removed, unless it is to be resumed or holds something that matches the pattern `keep`; such a
    one is not started over but by `replace`. `replace` also takes the place of a `target` that holds the file `mark`, and of
    nothing else. Raises CannotCreateError where something is in the way, TryAgainError while another run holds it.
    """
    target = Path(os.path.abspath(target))
    work, lock = target.with_name(f"{target.name}.partial"), Path(commit.hidden(str(target)))
    with locked(str(lock), str(target)):
        try:
            _check(target, replace, mark)
            if work.exists() and not resume:
                _clear(work, replace, keep)
            work.mkdir(exist_ok=True)
            try:
                with _naming(work):
                    yield work
            except BaseException:
                if not resume and not any(work.glob(keep)):
                    shutil.rmtree(work)
                raise
            _publish(work, target)
        finally:
            lock.unlink()


@contextmanager
def _naming(folder: Path) -> Iterator[None]:
    """Have a failure to write a file, which does not say which, name the folder."""
    try:
        yield
    except OSError as error:
        raise failure(error, str(error.filename or folder), "writing") from None


def _check(target: Path, replace: bool, mark: str) -> None:
    if os.path.lexists(target) and not replace:
        raise CannotCreateError("exists", place=display(str(target)), remedy="-f replaces it")
    if os.path.lexists(target) and (target.is_symlink() or not (target / mark).is_file()):
        raise CannotCreateError(
            f"is not a directory with {mark} in it", place=display(str(target)), remedy="remove it yourself"
        )


def _clear(work: Path, replace: bool, keep: str) -> None:
    if any(work.glob(keep)) and not replace:
        fault = "holds a run that was not finished"
        raise CannotCreateError(
            fault, place=display(str(work)), remedy="--resume goes on with it, -f starts over"
        )
    shutil.rmtree(work)


def _publish(work: Path, target: Path) -> None:
    _sync(work)
    old = work.with_name(f"{work.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        _replace(work, target, old)
    else:
        work.rename(target)
    commit.sync_folder(str(target.parent))
    shutil.rmtree(old, ignore_errors=True)


def _replace(work: Path, target: Path, old: Path) -> None:
    """Put one folder in another's place, which becomes `old`; where the system can do that, there is no moment without either."""
    if _exchange(work, target):
        work.rename(old)
    else:
        target.rename(old)
        work.rename(target)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where that cannot be done, on NFS for example."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    return rename is not None and rename(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A folder that takes the name `path` when the block ends well, in place of one that had it."""
    work = path.with_name(f".{path.name}.partial")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        yield work
        _sync(work)
        shutil.rmtree(path, ignore_errors=True)
        work.rename(path)
        commit.sync_folder(str(path.parent))
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def remove(path: Path) -> None:
    """Delete a folder that is whole or absent at every moment."""
    gone = path.with_name(f".{path.name}.partial")
    shutil.rmtree(gone, ignore_errors=True)
    path.rename(gone)
    shutil.rmtree(gone)


def _sync(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    commit.sync_folder(str(folder))


def seal(folder: Path, values: dict[str, Any]) -> None:
    """Write `values` down beside the hashes of all files in a folder."""
    (folder / SEAL).write_text(json.dumps({**values, "files": _hashes(folder)}))


def sealed(folder: Path) -> dict[str, Any] | None:
    """What `seal` wrote down; None if a file is not what it was."""
    try:
        values: dict[str, Any] = json.loads((folder / SEAL).read_text())
        return values if values["files"] == _hashes(folder) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name != SEAL:
            with path.open("rb") as file:
                found[path.name] = file_digest(file, "sha256").hexdigest()
    return found
