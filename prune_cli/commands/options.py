"""How do settings become options of a command line? Only here, and for operands, is typer told of them."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import wraps
from math import isfinite
from typing import Annotated, Any

import typer
from typer._click.core import Context, Parameter
from typer.core import TyperCommand, TyperOption

from .. import sizes, terminal
from ..errors import UsageError
from ..settings.option import Option, settings_of
from ..settings.streams import FileList, Messages, Reading
from . import conflicts

FILES = "files"  # the parameter of a verb whose operands are inputs

Files = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[FILE]...",
        help="Files or URLs to read. The default, and -, is standard input.",
        show_default=False,
    ),
]

MAY_BE_EMPTY = ("STR",)  # value names of options whose value may be the empty string: --prefix


class CheckedCommand(TyperCommand):
    """A command that refuses empty values: `-o "$OUT"` with an unset variable is not `-o` left out."""

    def parse_args(self, ctx: Context, args: list[str]) -> list[str]:
        # Before values are converted: as a path, an empty value would become the current directory.
        given, _, _ = self.make_parser(ctx).parse_args(args=list(args))
        _refuse_empty(self.params, given)
        names = {parameter.name: max(parameter.opts, key=len) for parameter in self.params}
        rest = super().parse_args(ctx, args)
        # After the values themselves: a wrong one says more than one that has no effect.
        conflicts.check(self.name or "", given, lambda field: names[field])
        _refuse_infinite(self.params, ctx.params)
        return rest


def _refuse_empty(parameters: Sequence[Parameter], given: Mapping[str, Any]) -> None:
    """Raise UsageError for the first option or operand whose value is the empty string."""
    for parameter in parameters:
        value = given.get(parameter.name or "")
        values = value if isinstance(value, list | tuple) else [value]
        if "" in values and getattr(parameter, "metavar", None) not in MAY_BE_EMPTY:
            # The long name stands in the manual, whichever the user wrote.
            is_option = isinstance(parameter, TyperOption)
            name = max(parameter.opts, key=len) if is_option else "an operand"
            raise UsageError(f"{name} is empty", remedy="is a shell variable unset?")


def _refuse_infinite(parameters: Sequence[Parameter], values: Mapping[str, Any]) -> None:
    """Raise UsageError for the first number that is not finite: 1e400 is infinity as a double."""
    for parameter in parameters:
        value = values.get(parameter.name or "")
        if isinstance(value, float) and not isfinite(value):
            name = max(parameter.opts, key=len)
            raise UsageError(f"{name} {value} is not a finite number", remedy="leave it out for no bound")


def command(function: Callable[..., int | None]) -> Callable[..., int | None]:
    """Decorate a verb: each field of its dataclasses of settings becomes an option."""
    signature = inspect.signature(function)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if is_dataclass(parameter.annotation)
    }
    parameters: list[inspect.Parameter] = []
    for name, parameter in signature.parameters.items():
        if name in groups:
            parameters += _parameters(groups[name])
        else:
            # Keyword-only like all others, so that their order does not depend on which have a default.
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
    takes_files = FILES in signature.parameters
    if takes_files:
        parameters += _parameters(FileList)

    @wraps(function)
    def run(**values: Any) -> int | None:
        for name, kind in groups.items():
            settings = kind(**{field.name: values.pop(field.name) for field in fields(kind)})
            values[name] = settings
            # Before the verb begins, so that its first message is shown, or not, as asked.
            if isinstance(settings, Messages):
                terminal.configure(function.__name__, quiet=settings.quiet, verbose=settings.verbose)
        if takes_files:
            listed = {field.name: values.pop(field.name) for field in fields(FileList)}
            reading = next((each for each in values.values() if isinstance(each, Reading)), Reading())
            values[FILES] = _named(values[FILES] or [], FileList(**listed), unsigned=reading.no_sign_request)
        return function(**values)

    # typer reads options from the signature, and their types from the annotations.
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _named(operands: list[str], listed: FileList, *, unsigned: bool) -> list[str]:
    """The inputs that the operands stand for, with those of --files-from behind them.

    `unsigned` as in --no-sign-request: what is behind a pattern is asked for without credentials.
    """
    # Most command lines name local files alone, and help is not to pay for the import.
    if listed == FileList() and not any("://" in operand for operand in operands):
        return operands
    from ..storage import file_list

    with file_list.unsigned(unsigned):
        return file_list.named(operands, listed.files_from, null=listed.null)


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


def _count(declared: Option) -> Callable[[str], int]:
    """The parser of a count, with the bounds of the option."""

    def parse(text: str) -> int:
        number = sizes.parse_count(str(text))
        if declared.min is not None and number < declared.min:
            raise UsageError(f"{declared.names[0]} {text} is below {declared.min:g}")
        return number

    return parse


def _typer_option(declared: Option, group: str) -> Any:
    return typer.Option(
        *declared.names,
        help=declared.help,
        metavar=declared.metavar,
        rich_help_panel=group,
        min=declared.min,
        max=declared.max,
        parser=_count(declared) if declared.is_count else None,
        envvar=declared.variable,
        show_default=declared.shown_default,
        hidden=declared.hidden,
    )
