"""What is a storage like that a command can only read from?"""

from abc import abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager

from ...errors import CannotCreateError, NoInputError
from ..base import Input, Output, Storage


class ReadOnly(Storage):
    """Every output is refused, with the reason and the way out that `unwritable` gives."""

    @abstractmethod
    def unwritable(self, path: str) -> CannotCreateError:
        """The failure of writing to `path`."""

    def exists(self, path: str) -> bool:
        try:
            self.input(path).check()
        except NoInputError:
            return False
        return True

    def create(
        self, path: str, inputs: Sequence[Input] = (), *, force: bool = False
    ) -> AbstractContextManager[Output]:
        raise self.unwritable(path)

    def check_target(self, path: str, inputs: Sequence[Input] = (), *, force: bool = False) -> None:
        raise self.unwritable(path)

    def make_directory(self, path: str) -> None:
        raise self.unwritable(path)
