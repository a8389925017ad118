"""Settings that verbs share: messages, reading and writing records, the fields of records, and workers."""

import os
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from .. import terminal
from ..errors import UsageError
from .option import option

# Groups in which help lists options. The first four are shared by the verbs that have them.
COMMON = (INPUT, OUTPUT, WORKERS, MESSAGES) = ("Input", "Output", "Workers", "Messages")
FIELDS, RESULT, COMPUTING = "Fields", "Result", "Computing"
OF_METRICS = "Of some metrics"


class Unit(StrEnum):
    """What a fraction of the data is counted in."""

    records = "records"
    tokens = "tokens"


# Processes that share the CPUs, each with as many threads of its own: more than one in a worker process.
_sharing = 1


def processors() -> int:
    """How many CPUs this process may use: all, or the share of a worker process."""
    # Only Linux says which CPUs a process may run on; elsewhere all of them are assumed.
    count = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    return max(1, count // _sharing)


def share_processors(of: int) -> None:
    """Make this process one of so many that share the CPUs."""
    global _sharing
    _sharing = of


# None leaves these two to the head of the input, and then to the default that help shows.
GroupBy = Annotated[
    str | None,
    option(
        "--group-by",
        metavar="FIELD",
        group=FIELDS,
        help="Count records by this field's values. The default is what the head of the input says, "
        "or source.",
    ),
]
TokensField = Annotated[
    str | None,
    option(
        "--tokens-field",
        metavar="FIELD",
        group=FIELDS,
        help="The field that holds the token count. The default is what the head of the input says, "
        "or n_scored.",
    ),
]
TextField = Annotated[
    str, option("--text-field", metavar="FIELD", group=FIELDS, help="The field that holds the text.")
]
Prefix = Annotated[
    str, option("--prefix", metavar="STR", group=FIELDS, help="Put STR before the names of the new fields.")
]
Overwrite = Annotated[bool, option("--overwrite", group=FIELDS, help="Replace fields that already exist.")]
OutputFile = Annotated[
    str | None,
    option(
        "--output",
        "-o",
        metavar="FILE",
        group=RESULT,
        help="Write to FILE, which appears once it is whole. The default is standard output; "
        "a command that fails leaves standard output unfinished, so that its reader fails too.",
    ),
]
Force = Annotated[bool, option("--force", "-f", group=RESULT, help="Replace the output if it exists.")]


@dataclass(frozen=True)
class Messages:
    """How much is written to standard error."""

    GROUP: ClassVar[str] = MESSAGES
    quiet: Annotated[bool, option("--quiet", "-q", help="Suppress warnings and progress.")] = False
    verbose: Annotated[bool, option("--verbose", "-v", help="Write more messages.")] = False
    progress: Annotated[
        bool | None,
        option(
            "--progress/--no-progress",
            help="Show a progress bar. By default only on a terminal.",
            shown_default=False,
        ),
    ] = None
    debug: Annotated[bool, option("--debug", help="Show the traceback of an error.", hidden=True)] = False

    def shows_progress(self) -> bool:
        """Whether to draw a progress bar."""
        if self.quiet:
            return False
        return terminal.is_interactive() if self.progress is None else self.progress


@dataclass(frozen=True)
class FileList:
    """Operands that stand in a file. Every verb with FILE operands has these options."""

    GROUP: ClassVar[str] = INPUT
    files_from: Annotated[
        str | None,
        option(
            "--files-from",
            metavar="LIST",
            help="Read the names in LIST, too, one a line. - is standard input. "
            "Names are taken as they stand, without patterns and comments; blank lines are skipped.",
        ),
    ] = None
    null: Annotated[
        bool,
        option("--null", "-0", help="End the names of --files-from by a NUL byte instead of a line end."),
    ] = False


@dataclass(frozen=True)
class Reading(Messages):
    """Which input is accepted."""

    GROUP: ClassVar[str] = INPUT
    allow_empty: Annotated[
        bool, option("--allow-empty", help="Accept an input of zero bytes as zero records.")
    ] = False
    skip_bad: Annotated[
        bool, option("--skip-bad", help="Skip and count bad records; exit with status 3 if there were any.")
    ] = False
    expect_records: Annotated[
        int | None,
        option(
            "--expect-records",
            metavar="N",
            min=0,
            is_count=True,
            help="Fail unless N records arrive. N may end in K, M or G (powers of 1000).",
        ),
    ] = None
    strip_bom: Annotated[bool, option("--strip-bom", help="Remove byte-order marks.")] = False
    long: Annotated[
        int,
        option("--long", metavar="BITS", min=10, max=31, help="Largest zstd window accepted, 2^BITS bytes."),
    ] = 27
    ignore_trailing: Annotated[
        bool, option("--ignore-trailing", help="Drop bytes after the last frame, and warn how many.")
    ] = False
    max_line: Annotated[str, option("--max-line", metavar="SIZE", help="Longest line accepted.")] = "64M"
    columns: Annotated[
        str | None,
        option(
            "--columns",
            metavar="A,B",
            help="Read only these columns of Parquet files, in this order. Other files are read whole, "
            "with a warning.",
        ),
    ] = None
    no_sign_request: Annotated[
        bool,
        option("--no-sign-request", help="Send no credentials to object storage, as for a public bucket."),
    ] = False

    def column_names(self) -> tuple[str, ...]:
        """The names of --columns. Raises UsageError if one is named twice or there is none."""
        names = tuple(name.strip() for name in (self.columns or "").split(","))
        if self.columns is None:
            return ()
        if not all(names) or len(set(names)) < len(names):
            raise UsageError(f"--columns {self.columns} has an empty name or one name twice")
        return names


@dataclass(frozen=True)
class Streams(Reading):
    """Records in, records out."""

    GROUP: ClassVar[str] = OUTPUT
    output: OutputFile = None
    force: Force = False
    plain: Annotated[
        bool,
        option("--plain", help="Write uncompressed JSON Lines, the default for a terminal and for *.jsonl."),
    ] = False
    single_frame: Annotated[
        bool,
        option(
            "--single-frame", help="Write one ordinary zstd frame, for readers that stop after the first."
        ),
    ] = False
    level: Annotated[
        int,
        option(
            "--level",
            metavar="N",
            min=1,
            max=22,
            variable="ZSTD_CLEVEL",
            help="zstd compression level. Uncompressed output has none.",
        ),
    ] = 3
    threads: Annotated[
        int | None,
        option(
            "--threads",
            metavar="N",
            min=1,
            variable="ZSTD_NBTHREADS",
            help="Number of compression threads. The default is one per CPU.",
        ),
    ] = None


class EngineName(StrEnum):
    """Where workers are."""

    local = "local"
    ray = "ray"


@dataclass(frozen=True)
class WorkerSettings:
    """Worker processes. Nothing that is written depends on how many there are."""

    GROUP: ClassVar[str] = WORKERS
    jobs: Annotated[
        str | None,
        option(
            "--jobs",
            "-j",
            metavar="N|auto",
            help="Number of worker processes on this machine. auto is one per CPU, or one per GPU with "
            "--device all. The default is to work in one process. With --engine ray, it is the number of "
            "workers on the cluster, by default one per GPU or CPU.",
        ),
    ] = None
    engine: Annotated[
        EngineName,
        option(
            "--engine",
            help="Where the workers are: local is this machine, ray is a Ray cluster. ray needs "
            "pip install 'prune-cli[ray]', and files that all nodes see.",
        ),
    ] = EngineName.local
    ray_address: Annotated[
        str | None,
        option(
            "--ray-address",
            metavar="ADDRESS",
            help="The head of the Ray cluster, as HOST:PORT, or auto for the one that runs on this machine. "
            "The default is RAY_ADDRESS, or else a cluster of this machine that ends with the run.",
        ),
    ] = None
    status_file: Annotated[
        str | None,
        option(
            "--status-file",
            metavar="FILE",
            help="Write how far the run is to FILE, as JSON, every few seconds. FILE is replaced as a whole.",
        ),
    ] = None

    @property
    def cluster(self) -> str | None:
        """The address of the Ray cluster; None for one of this machine."""
        return self.ray_address or os.environ.get("RAY_ADDRESS") or None

    def asked_for(self) -> int | None:
        """The number of workers that was asked for; None if there may be any. Raises UsageError."""
        return None if self.jobs in (None, "auto") else self.number()

    def number(self, gpus: int = 0) -> int:
        """The number of workers, on a machine with so many GPUs that are to be used. Raises UsageError."""
        if self.jobs is None:
            return gpus or 1
        if self.jobs == "auto":
            return gpus or processors()
        # Six digits are plenty; more are a typing error.
        if not (self.jobs.isascii() and self.jobs.isdigit() and len(self.jobs) <= 6 and int(self.jobs)):
            raise UsageError(f"invalid --jobs '{self.jobs}'", remedy="name a number, such as 4, or auto")
        return int(self.jobs)
