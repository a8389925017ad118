"""Failures, and the exit status of each (from sysexits.h where one fits)."""

from collections.abc import Callable


class PruneWarning(UserWarning):
    """A warning of a command, as the Python functions issue it."""


class PruneError(Exception):
    """A failure with a known cause, reported in one line, `place: fault; remedy`, without a traceback."""

    status = 70

    def __init__(self, fault: str, *, place: str = "", remedy: str = "") -> None:
        super().__init__(fault, place, remedy)
        self.fault, self.place, self.remedy = fault, place, remedy

    def __reduce__(self) -> tuple[Callable[..., "PruneError"], tuple[type["PruneError"], str, str, str]]:
        # A failure in a worker process is raised again in that of the user, so it has to survive pickling.
        return _rebuilt, (type(self), self.fault, self.place, self.remedy)

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{place}{self.fault}{remedy}"


def _rebuilt(kind: type[PruneError], fault: str, place: str, remedy: str) -> PruneError:
    # The constructor takes place and remedy by keyword only, which pickle cannot do by itself.
    return kind(fault, place=place, remedy=remedy)


class Interrupted(BaseException):
    """A signal asked the run to stop. Complete work is kept; the rest is removed on the way out."""


class ReportedElsewhere(PruneError):
    """Another process of this run failed and reports why; this one ends silently with the same status."""

    def __init__(self, status: int) -> None:
        super().__init__("another process of the run failed")
        self.status = status


class CheckFailed(PruneError):
    """A requested check failed."""

    status = 1


class UsageError(PruneError):
    """The command line is wrong."""

    status = 2


class DataError(PruneError):
    """The input is damaged, in the wrong format, or too small for what was asked."""

    status = 65


class NoInputError(PruneError):
    """An input does not exist or is not a file."""

    status = 66


class UnavailableError(PruneError):
    """A remote service did not answer."""

    status = 69


class OutOfMemoryError(PruneError):
    """Memory ran out; the remedy names the option to change."""

    status = 71


# How torch and CUDA report that memory ran out where they raise a plain RuntimeError.
_OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of a library says that the memory of a GPU or of this machine ran out."""
    # By the name of its class, because torch is not imported here.
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def lost_device(error: BaseException) -> bool:
    """Whether an exception of a library says that a GPU is gone: only a new process can use it again."""
    if type(error).__name__ == "AcceleratorError":
        return True
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


class CannotCreateError(PruneError):
    """The output cannot be created: it exists, is also an input, or its directory is missing."""

    status = 73


class InputOutputError(PruneError):
    """Reading or writing failed: a full disk, a broken device, a file that changed while it was read."""

    status = 74


class TryAgainError(PruneError):
    """Another run holds the output, or this run stopped early and can be resumed."""

    status = 75


class PermissionDeniedError(PruneError):
    """Permission denied."""

    status = 77


class ConfigurationError(PruneError):
    """A model, tokenizer or configuration cannot be used."""

    status = 78
