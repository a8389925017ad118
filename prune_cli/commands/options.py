"""The options that mean the same in every verb, and the streams they open."""

import inspect
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, get_args

import typer

from .. import sizes, terminal
from ..errors import UsageError
from ..settings.option import Option, settings_of
from ..settings.streams import Messages

if TYPE_CHECKING:
    from ..records.reader import Source
    from ..storage.base import Input, Output
    from ..stream.schema import Head
    from ..stream.writer import Closing, Sink

log = logging.getLogger(__name__)


def option(*names: str, rich_help_panel: str | None = None, envvar: str | None = None, **more: Any) -> Option:
    """For the verbs whose settings are still declared in their commands."""
    if "show_default" in more:
        more["shown_default"] = more.pop("show_default")
    return Option(names, group=rich_help_panel, variable=envvar, **more)


COMMON = (INPUT, FORM, MESSAGES) = (
    "Input",
    "Output",
    "Messages",
)  # groups of options that are the same in every verb
FOREIGN = (".gz", ".bz2", ".xz", ".parquet", ".csv", ".json")  # names for what is not written
FIELDS, RESULT, COMPUTING = "Fields", "Result", "Computing"


class Unit(StrEnum):
    """What a share of the data is counted in."""

    records = "records"
    tokens = "tokens"


Files = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE]...", help="Records to read; - or none is standard input.", show_default=False
    ),
]
GroupBy = Annotated[
    str,
    option(
        "--group-by", metavar="FIELD", rich_help_panel=FIELDS, help="Count records by this field's values."
    ),
]
TextField = Annotated[
    str, option("--text-field", metavar="FIELD", rich_help_panel=FIELDS, help="What holds the text.")
]
TokensField = Annotated[
    str,
    option("--tokens-field", metavar="FIELD", rich_help_panel=FIELDS, help="What holds the count of tokens."),
]
OutputFile = Annotated[
    str | None,
    option(
        "--output",
        "-o",
        metavar="FILE",
        rich_help_panel=RESULT,
        help="Write FILE, whole or not at all. Without it the output is standard output, which a command that fails leaves unfinished.",
    ),
]
Force = Annotated[
    bool, option("--force", "-f", rich_help_panel=RESULT, help="Replace the output if it exists.")
]


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Talk:
    """How much is said on standard error."""

    GROUP: ClassVar[str] = MESSAGES
    quiet: Annotated[bool, option("--quiet", "-q", help="No warnings, no progress.")] = False
    verbose: Annotated[bool, option("--verbose", "-v", help="Say more.")] = False
    progress: Annotated[
        bool | None,
        option(
            "--progress/--no-progress", help="A progress bar; by default on a terminal.", show_default=False
        ),
    ] = None
    debug: Annotated[bool, option("--debug", help="Show the traceback of an error.", hidden=True)] = False

    def configure(self, verb: str) -> None:
        terminal.configure(verb, quiet=self.quiet, verbose=self.verbose)

    def is_watched(self) -> bool:
        """Whether progress is shown."""
        return not self.quiet and (terminal.is_interactive() if self.progress is None else self.progress)

    def bar(
        self, verb: str, total: float | None, unit: str = "bytes"
    ) -> AbstractContextManager[terminal.Progress]:
        return terminal.progress(verb, total, unit, wanted=self.is_watched(), at_once=bool(self.progress))


@dataclass(frozen=True)
class Reading(Talk):
    """What is accepted of the input."""

    GROUP: ClassVar[str] = INPUT
    allow_empty: Annotated[bool, option("--allow-empty", help="Accept no bytes at all as no records.")] = (
        False
    )
    skip_bad: Annotated[
        bool, option("--skip-bad", help="Skip bad records, say how many, end with status 3.")
    ] = False
    expect_records: Annotated[
        int | None, option("--expect-records", metavar="N", min=0, help="Fail unless N records came.")
    ] = None
    strip_bom: Annotated[bool, option("--strip-bom", help="Take out byte-order marks.")] = False
    ignore_trailing: Annotated[
        bool, option("--ignore-trailing", help="Accept rubbish after the last frame.")
    ] = False
    max_line: Annotated[str, option("--max-line", metavar="SIZE", help="The longest line accepted.")] = "64M"
    long: Annotated[
        int,
        option(
            "--long", metavar="BITS", min=10, max=31, help="The largest zstd window accepted, 2^BITS bytes."
        ),
    ] = 27

    @contextmanager
    def source(
        self, verb: str, paths: list[str] | None, *, replay: bool = False, bar: bool = True
    ) -> Iterator["Source"]:
        """The records of the operands, with a progress bar over their bytes; bad ones that were skipped make the status 3."""
        with self.inputs(verb, paths, bar=bar, passes=1 + replay) as (inputs, shown):
            source = self.records(inputs, shown, replay=replay)
            try:
                yield source
            finally:
                source.close()
        self.account(source)

    @contextmanager
    def inputs(
        self, verb: str, paths: list[str] | None, *, bar: bool = True, passes: int = 1
    ) -> Iterator[tuple[list["Input"], terminal.Progress]]:
        """The operands, checked, and a progress bar over their bytes, which are read in so many passes."""
        from .. import storage

        self.configure(verb)
        inputs = storage.operands(paths or [])
        total = storage.total_size(inputs)
        with (
            self.bar(verb, passes * total if total else None)
            if bar
            else terminal.progress(verb, None, wanted=False) as shown
        ):
            yield inputs, shown

    def records(self, inputs: list["Input"], shown: terminal.Progress, *, replay: bool = False) -> "Source":
        """The records of some of the inputs in turn."""
        from ..records import reader
        from ..stream.lookahead import Limits

        for one in inputs:
            one.progress, one.keep = shown.advance, replay
        limits = Limits(self.long, self.ignore_trailing, self.allow_empty)
        reading = reader.Reading(
            self.strip_bom, self.skip_bad, sizes.parse(self.max_line), self.expect_records, limits
        )
        return reader.Source(inputs, reading, log.warning)

    def account(self, *sources: "Source") -> None:
        """Say what was passed over in sources that were read; bad records make the status 3."""
        if blank := sum(source.blank for source in sources):
            log.info("%d blank lines were skipped", blank)
        if skipped := sum(source.skipped for source in sources):
            log.warning("%d bad records were skipped", skipped)
            raise typer.Exit(3)


@dataclass(frozen=True)
class Streams(Reading):
    """Records in, records out."""

    GROUP: ClassVar[str] = FORM
    output: OutputFile = None
    force: Force = False
    plain: Annotated[
        bool, option("--plain", help="Write JSON Lines uncompressed, as to a terminal or a *.jsonl.")
    ] = False
    single_frame: Annotated[
        bool,
        option(
            "--single-frame", help="Write one ordinary zstd frame, for readers that stop after the first."
        ),
    ] = False
    level: Annotated[
        int,
        option("--level", metavar="N", min=1, max=22, envvar="ZSTD_CLEVEL", help="zstd compression level."),
    ] = 3
    threads: Annotated[
        int | None,
        option(
            "--threads",
            metavar="N",
            min=1,
            envvar="ZSTD_NBTHREADS",
            help="Threads that compress; by default one a processor.",
        ),
    ] = None

    @contextmanager
    def opened(
        self, verb: str, paths: list[str] | None, *, replay: bool = False
    ) -> Iterator[tuple["Source", "Output"]]:
        """Source and output, both checked before anything is read; the output takes its name when the block ends well.

        With `replay` a pipe is copied as it is read, so that it can be read again.
        """
        from .. import storage

        is_shown_itself = (
            self.output in (None, "-") and not self.progress and terminal.shows_output()
        )  # then a bar would stand among the records
        with (
            self.source(verb, paths, replay=replay, bar=not is_shown_itself) as source,
            storage.create(self.output, source.inputs, force=self.force) as output,
            self.shown_to_fail(output),
        ):
            yield source, output

    @contextmanager
    def shown_to_fail(self, output: "Output") -> Iterator[None]:
        """Have a failure of the block be one of the output, too."""
        from ..stream import writer

        try:
            yield
        except BaseException:
            writer.leave_unfinished(output, self.is_plain(output))
            raise

    def is_plain(self, output: "Output") -> bool:
        return self.plain or output.is_terminal() or (self.output or "").endswith(".jsonl")

    def sink(
        self, output: "Output", head: "Head", trailer: "Closing" = lambda totals: {}
    ) -> AbstractContextManager["Sink"]:
        from ..stream import writer

        if os.path.splitext(self.output or "")[1] in FOREIGN and not self.is_plain(output):
            log.warning("%s will be zstd, whatever its name says", self.output)
        writing = writer.Writing(
            self.is_plain(output), self.single_frame, self.level, self.threads or processors()
        )
        return writer.open_sink(output, head, writing, trailer)


def expanded(command: Callable[..., int | None]) -> Callable[..., int | None]:
    """A command whose dataclass parameters are, on the command line, one option for each of their fields."""
    signature = inspect.signature(command)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if is_dataclass(parameter.annotation)
    }
    parameters = []
    for name, parameter in signature.parameters.items():
        if name in groups:
            parameters += _parameters(groups[name])
        else:
            parameters.append(_converted(parameter))

    @wraps(command)
    def run(**values: Any) -> int | None:
        for name, kind in groups.items():
            values[name] = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            if issubclass(kind, Messages):
                terminal.configure(command.__name__, quiet=values[name].quiet, verbose=values[name].verbose)
        return command(**values)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameters(kind: Any) -> list[inspect.Parameter]:
    """The fields of a dataclass of settings as keyword-only parameters with typer's options."""
    return [
        inspect.Parameter(
            setting.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=setting.default,
            annotation=Annotated[setting.type, _typer_option(setting.option, setting.group)],
        )
        for setting in settings_of(kind)
    ]


def _converted(parameter: inspect.Parameter) -> inspect.Parameter:
    """A parameter of the command itself, its option (if it is one of ours) as typer's."""
    parameter = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
    kind, *metadata = get_args(parameter.annotation) or (parameter.annotation,)
    declared = metadata[0] if metadata else None
    if not isinstance(declared, Option):
        return parameter
    return parameter.replace(annotation=Annotated[kind, _typer_option(declared, declared.group)])


def _typer_option(declared: Option, group: str | None) -> Any:
    return typer.Option(
        *declared.names,
        help=declared.help,
        metavar=declared.metavar,
        rich_help_panel=group,
        min=declared.min,
        max=declared.max,
        envvar=declared.variable,
        show_default=declared.shown_default,
        hidden=declared.hidden,
    )


def the_score(source: "Source") -> str:
    """The field to rank by when none was named: the one metric that the stream was scored with."""
    head, present = source.peek()
    named = scores_among(head, present)
    if len(named) == 1 or not present:
        return named[0] if named else "perplexity"
    found = (
        f"several scores: {', '.join(named)}"
        if named
        else f"no score that is known among {', '.join(present)}"
    )
    raise UsageError(f"{source.inputs[0].name} has {found}", remedy="name one with -k FIELD")


def scores_among(head: "Head | None", present: list[str]) -> list[str]:
    """Which of the fields of a stream are scores: those that its head names, or that are called as a metric."""
    from .. import metrics

    named = head.score.fields if head and head.score else ()
    return [name for name in dict.fromkeys((*named, *metrics.names())) if name in present]


def head_after(
    source: "Source", verb: str, group: str, keeps: tuple[str, ...] = ("score",), **added: Any
) -> "Head":
    """The head of an output: how its blocks were packed, what else `keeps` says of the input's head, and what this verb did."""
    from ..stream.schema import Head

    head, _ = source.peek()
    return Head.compose(verb, group, previous=head, keep=("pack", *keeps), **added)
