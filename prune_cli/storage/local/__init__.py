"""The storage of this machine: files, pipes, devices and the standard streams."""

import os
import stat
from collections.abc import Sequence
from contextlib import AbstractContextManager

from ...errors import CannotCreateError
from ..base import Input, Output, Progress, ResumableOutput, Storage, ignore_progress
from ..os_errors import display, failure
from . import copying, resumable, writing
from .descriptors import descriptor_of
from .reading import LocalInput


class Local(Storage):
    """Paths as the system takes them; `-` is standard input or standard output."""

    has_folders = True
    locks_outputs = True

    def input(self, path: str, progress: Progress = ignore_progress) -> Input:
        return LocalInput(path, progress)

    def exists(self, path: str) -> bool:
        return os.path.exists(path)

    def is_file(self, path: str) -> bool:
        try:
            return not stat.S_ISDIR(os.stat(path).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False  # other errors, such as a loop of links, are for the user to see
        except OSError as error:
            raise failure(error, path, "reading") from None

    def is_stream(self, path: str) -> bool:
        return writing.is_stream(path)

    def location(self, path: str) -> str:
        # Links are resolved: two outputs whose paths lead to one file would overwrite each other.
        if path == "-" or descriptor_of(path) == writing.STANDARD_OUTPUT:
            return "-"  # /dev/stdout is standard output, whatever file is behind it
        return os.path.realpath(path)

    def make_directory(self, path: str) -> None:
        try:
            os.mkdir(path)
        except FileExistsError:
            return  # if it is a file, `check_target` of the outputs in it says so
        except FileNotFoundError:
            remedy = f"mkdir -p {display(path)}"
            raise CannotCreateError(
                "its directory does not exist", place=display(path), remedy=remedy
            ) from None
        except NotADirectoryError:
            file = display(os.path.dirname(path))
            fault = f"{file} is not a directory"
            raise CannotCreateError(fault, place=display(path), remedy="name another") from None
        except OSError as error:
            raise failure(error, path, "making the directory") from None

    def create(
        self, path: str, inputs: Sequence[Input] = (), *, force: bool = False
    ) -> AbstractContextManager[Output]:
        return writing.create(path, inputs, force=force)

    def copy(self, source: Input, path: str) -> bool:
        return copying.copy(source, path)

    def check_target(self, path: str, inputs: Sequence[Input] = (), *, force: bool = False) -> None:
        writing.check_target(path, inputs, force=force)

    def resume(
        self, path: str, inputs: Sequence[Input] = (), *, force: bool = False
    ) -> AbstractContextManager[ResumableOutput]:
        return resumable.resume(path, inputs, force=force)

    def unfinished(self, path: str) -> AbstractContextManager[ResumableOutput | None]:
        return resumable.unfinished(path)

    def scratch(self, path: str) -> AbstractContextManager[ResumableOutput]:
        return resumable.scratch(path)
