"""What can go wrong, and with which exit status the command ends (sysexits.h where it fits)."""


class PruneError(Exception):
    """A failure whose cause is known: said in one line, `place: fault; remedy`, never as a traceback."""

    status = 70

    def __init__(self, fault: str, *, place: str = "", remedy: str = "") -> None:
        super().__init__(fault, place, remedy)
        self.fault, self.place, self.remedy = fault, place, remedy

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        return f"{place}{self.fault}{remedy}"


class Interrupted(BaseException):
    """A signal asked the run to stop; what is complete is kept, the rest removed on the way out."""


class SaidElsewhere(PruneError):
    """Another process of the same run has failed, and says why; this one ends with the same status."""

    def __init__(self, status: int) -> None:
        super().__init__("another process of the run has failed")
        self.status = status


class CheckFailed(PruneError):
    """A check that was asked for said no."""

    status = 1


class UsageError(PruneError):
    """The command line makes no sense."""

    status = 2


class DataError(PruneError):
    """The input is damaged, or is not what the verb reads."""

    status = 65


class NoInputError(PruneError):
    """An input does not exist or cannot be read as a file."""

    status = 66


class UnavailableError(PruneError):
    """Something remote that the user named did not answer."""

    status = 69


class OutOfMemoryError(PruneError):
    """Memory ran out; the remedy names the option to change."""

    status = 71


class CannotCreateError(PruneError):
    """The output cannot be made: it exists, is an input, or its folder is missing."""

    status = 73


class InputOutputError(PruneError):
    """The system failed to read or write: a full disk, a broken device, a file that changed while it was read."""

    status = 74


class TryAgainError(PruneError):
    """Another run holds the output, or this one stopped early and can be resumed."""

    status = 75


class PermissionDeniedError(PruneError):
    """The system forbids it."""

    status = 77


class ConfigurationError(PruneError):
    """A model, tokenizer or configuration cannot be used."""

    status = 78
