"""The app: its verbs in the order a corpus meets them, and how every way to end becomes an exit status."""

import os
import signal
import sys
import traceback
from types import FrameType
from typing import Annotated, NoReturn

import typer
from typer._click.exceptions import ClickException

from . import terminal
from .commands import eval, pack, rank, score, slice, stat, train
from .errors import InputOutputError, Interrupted, OutOfMemoryError, PruneError, SaidElsewhere, UsageError
from .help import screen
from .version import __version__

VERBS = (pack.pack, score.score, rank.rank, slice.slice, stat.stat, train.train, eval.eval)
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
OUT_OF_MEMORY = (
    "out of memory",
    "can't start new thread",
    "failed to map segment",
    "can't allocate memory",
)  # as libraries say it
DEPTH = 20_000  # of nested JSON: msgspec counts its own depth against the interpreter's limit

app = typer.Typer(
    name="prune-cli",
    cls=screen.Group,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in VERBS:
    app.command(verb.__name__, cls=screen.Command)(verb)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prune-cli {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", "-V", is_eager=True, callback=_version, help="Print the version and exit."),
    ] = False,
) -> None:
    return


def main() -> NoReturn:
    """Run the verb on the command line and end with the contract's exit status."""
    _hold_standard_streams()
    _catch_signals()
    sys.setrecursionlimit(max(DEPTH, sys.getrecursionlimit()))
    sys.setswitchinterval(
        5e-4
    )  # a thread that reads ahead waits ten times as long by default: 0.1 s of the 5.5 that ranking 1 GB takes
    if "OMP_WAIT_POLICY" not in os.environ:
        # How often a waiting thread looks before it sleeps; GNU's 300,000 take 2 to 8 times as long on a busy machine. Scoring 124M on
        # 2 cores, tokens/s alone and beside a busy process: 4,011 and 1,992 with this, 3,693 and 2,188 asleep at once.
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    os.environ.setdefault(
        "TORCH_CPP_LOG_LEVEL", "ERROR"
    )  # it warns of lost connections with forty lines of addresses
    os.environ.setdefault(
        "LRU_CACHE_CAPACITY", "32"
    )  # torch keeps code for 1,024 shapes of matrices by default: a gigabyte
    status = run(sys.argv[1:])
    if status and sys.argv[1:2] == ["train"] and os.environ.get("WORLD_SIZE", "1") != "1":
        os._exit(
            status
        )  # one of many that fails: to take torch's threads down in order may wait for a process that is no more
    sys.exit(status)


def run(arguments: list[str]) -> int:
    """Run one command and return its exit status; a signal or a reader that left ends the process as such."""
    first = next((argument for argument in arguments if not argument.startswith("-")), "")
    name = first if first in {verb.__name__ for verb in VERBS} else ""
    terminal.configure(name)
    try:
        return perform(arguments)
    except SaidElsewhere as error:
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
    """The app itself, with the failures of the libraries put in our words: raises PruneError, BrokenPipeError where a reader left."""
    verbs = typer.main.get_command(app)
    if not arguments:
        terminal.say(verbs.get_help(verbs.context_class(verbs, info_name="prune-cli")))
        return 2
    if arguments[0] == "help":  # as git has it
        arguments = [*arguments[1:2], "--help"]
    try:
        with verbs.make_context(
            "prune-cli", list(arguments)
        ) as context:  # its own main() would turn a broken pipe into status 1
            status = verbs.invoke(context)
        sys.stdout.flush()
        return int(status or 0)
    except typer.Exit as end:
        return end.exit_code
    except ClickException as error:
        raise UsageError(error.format_message().rstrip(".")) from None
    except (MemoryError, RuntimeError, ImportError) as error:
        if not isinstance(error, MemoryError) and not any(words in str(error) for words in OUT_OF_MEMORY):
            raise
        raise OutOfMemoryError(
            "out of memory", remedy="give it more, or lower --threads, -S or --batch-tokens"
        ) from error
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputOutputError(os.strerror(error.errno or 0), place=str(error.filename or "")) from error


def _hold_standard_streams() -> None:
    """A closed standard stream must not become the first file that is opened: it is held open the wrong way round, and fails."""
    for descriptor, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, flags)


def _catch_signals() -> None:
    """The first signal stops the run in order, the second at once. What the parent ignores (nohup) stays ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _interrupt)


def _interrupt(number: int, frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, signal.SIG_DFL)
    raise Interrupted(number)


def _end_by(number: int) -> int:
    """End as the signal would have ended us, so that a shell sees 128 + its number and knows why."""
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    return 128 + number
