"""The command line: its verbs, in the order in which a corpus meets them, signals and exit statuses."""

import gc
import os
import signal
import sys
import traceback
from functools import cache
from importlib import import_module
from types import FrameType
from typing import Annotated, NoReturn

import typer
from typer._click.exceptions import ClickException

from . import storage, terminal
from .engines import ray
from .errors import (
    InputOutputError,
    Interrupted,
    OutOfMemoryError,
    PruneError,
    ReportedElsewhere,
    UsageError,
    ran_out_of_memory,
)
from .help import screen
from .storage.local import standard
from .version import __version__

VERBS = ("pack", "score", "rank", "slice", "stat", "train", "eval", "report")
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
# How the interpreter reports that memory ran out for a thread or a library.
OUT_OF_MEMORY = ("can't start new thread", "failed to map segment")
RECURSION = 20_000  # levels of nested JSON: msgspec counts its own depth against the interpreter's limit


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prune-cli {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", is_eager=True, callback=_version, help="Print the version and exit."),
    ] = False,
) -> None:
    return


@cache
def application(verbs: tuple[str, ...] = VERBS) -> screen.Group:
    """The command line with some of its verbs.

    To declare the options of all verbs takes 0.04 s, a fifth of a start, so a verb is run with its own alone.
    """
    app = typer.Typer(
        name="prune-cli",
        cls=screen.Group,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        callback=_options,
    )
    for verb in verbs:
        function = getattr(import_module(f".commands.{verb}", __package__), verb)
        app.command(verb, cls=screen.Command)(function)
    group = typer.main.get_command(app)
    assert isinstance(group, screen.Group)
    return group


def main() -> NoReturn:
    """Run the verb on the command line and exit with the status that the manual lists."""
    standard.hold()
    _catch_signals()
    _tune_interpreter()
    status = run(sys.argv[1:])
    if status and sys.argv[1:2] == ["train"] and os.environ.get("WORLD_SIZE", "1") != "1":
        # A failed process of a distributed run: an orderly end of torch's threads may wait for a dead peer.
        os._exit(status)
    if not (storage.settle() and ray.has_settled()):
        # A thread inside a client library that comes back to an interpreter that has ended crashes it.
        os._exit(status)
    # All memory is about to be returned: looking for garbage first takes a second where torch is loaded.
    gc.freeze()
    sys.exit(status)


def _tune_interpreter() -> None:
    """Set limits of the interpreter and of libraries, before any of them is loaded."""
    sys.setrecursionlimit(max(RECURSION, sys.getrecursionlimit()))
    # By default a prefetch thread waits ten times as long for the interpreter's lock: 0.1 s of the 5.5 s that
    # ranking 1 GB takes.
    sys.setswitchinterval(5e-4)
    if "OMP_WAIT_POLICY" not in os.environ:
        # How often a waiting thread looks before it sleeps. GNU's default of 300,000 takes 2 to 8 times as
        # long on a busy machine. Scoring 124M on 2 cores, tokens/s alone and next to a busy process: 4,011
        # and 1,992 with this value, 3,693 and 2,188 when threads sleep at once.
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    # numpy starts a thread of OpenBLAS for each processor, which spins for some 50 ms before it sleeps; with
    # this value for less than one.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # else a lost connection logs forty lines of addresses
    os.environ.setdefault(
        "LRU_CACHE_CAPACITY", "32"
    )  # oneDNN caches code for 1,024 matrix shapes: a gigabyte


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status. If a signal or a broken pipe stopped it, the process ends
    by that signal.
    """
    first = next((argument for argument in arguments if not argument.startswith("-")), "")
    name = first if first in VERBS else ""
    terminal.configure(name)
    try:
        return perform(arguments)
    except ReportedElsewhere as error:
        return error.status
    except PruneError as error:
        if "--debug" in arguments:
            traceback.print_exc()
        terminal.fail(name, error)
        return error.status
    except Interrupted as stop:
        return _end_by(stop.args[0])
    except BrokenPipeError:
        return _end_by(signal.SIGPIPE)
    except Exception:
        traceback.print_exc()
        terminal.say(f"prune-cli {name}: this is a bug; please report it with the lines above")
        return 70


def perform(arguments: list[str]) -> int:
    """Run one command and return its exit status.

    Raises PruneError, also for failures of the libraries, and BrokenPipeError if the reader closed the pipe.
    """
    verb = next(iter(arguments), "")
    verbs = application((verb,) if verb in VERBS else VERBS)
    if not arguments:
        terminal.say(verbs.get_help(verbs.context_class(verbs, info_name="prune-cli")))
        return 2
    if verb == "help":  # `prune-cli help rank`, as in git
        arguments = [*arguments[1:2], "--help"]
    try:
        # click's own main() would turn a broken pipe into status 1.
        with verbs.make_context("prune-cli", list(arguments)) as context:
            status = verbs.invoke(context)
        if sys.stdout is not None:  # a caller may have closed it (`>&-`), and named a file with -o
            sys.stdout.flush()
        return int(status or 0)
    except typer.Exit as end:
        return end.exit_code
    except ClickException as error:
        raise UsageError(error.format_message().rstrip(".")) from None
    except (MemoryError, RuntimeError, ImportError) as error:
        if not _ran_out_of_memory(error):
            raise
        remedy = "use a machine with more, or lower --threads, -S or --batch-tokens"
        raise OutOfMemoryError("out of memory", remedy=remedy) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputOutputError(os.strerror(error.errno or 0), place=str(error.filename or "")) from error


def _ran_out_of_memory(error: Exception) -> bool:
    return ran_out_of_memory(error) or any(words in str(error) for words in OUT_OF_MEMORY)


def _catch_signals() -> None:
    """Stop in order on the first signal, at once on the second; leave ignored signals (nohup) ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for caught in SIGNALS:
        signal.signal(caught, signal.SIG_DFL)
    raise Interrupted(number)


def _end_by(number: int) -> int:
    """End the process by the signal, so that a shell sees 128 + its number."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
