"""What is declared of each verb (signature, docstring, COST, EXAMPLES): what every document is made from, and `--help` with them."""

import sys
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any

from typer import Typer
from typer.core import TyperOption
from typer.main import get_command

PLAIN = "Options"  # where an option belongs of which nothing else is said


@dataclass(frozen=True)
class Option:
    """An option: how it is spelt, what it takes, what it does."""

    names: tuple[str, ...]  # the short one first
    negation: str | None  # the spelling that says no
    metavar: str | None  # None for a switch
    choices: tuple[str, ...]  # all that it takes, if these are few
    help: str
    default: str | None
    variable: str | None  # of the environment
    group: str
    repeats: bool

    @property
    def long(self) -> str:
        return self.names[-1]

    @property
    def spelling(self) -> str:
        """As in `-k, --key FIELD`."""
        names = ", ".join(self.names).replace("--", "--[no-]") if self.negation else ", ".join(self.names)
        return f"{names} {self.metavar}" if self.metavar else names

    @property
    def brief(self) -> str:
        """The first sentence of its help, and the default."""
        sentence = self.help.partition(". ")[0].rstrip(".")
        return f"{sentence} [{self.default}]" if self.default else sentence


@dataclass(frozen=True)
class Verb:
    """A verb of the command line and everything that is said of it."""

    name: str
    operands: str
    summary: str
    description: tuple[str, ...]  # paragraphs
    cost: str
    examples: tuple[tuple[str, str], ...]  # what it does, and the command
    options: tuple[Option, ...]

    def groups(self) -> dict[str, list[Option]]:
        """Its options by group, in the order in which groups are first met."""
        found: dict[str, list[Option]] = {}
        for option in self.options:
            found.setdefault(option.group, []).append(option)
        return found

    @property
    def usage(self) -> str:
        return f"prune-cli {self.name} [OPTION]... {self.operands}"


def verbs(app: Typer) -> list[Verb]:
    """Every verb of the app, in its order."""
    return [verb(command) for command in get_command(app).commands.values()]  # type: ignore[attr-defined]


def verb(command: Any) -> Verb:
    """What is declared of a typer command."""
    callback = command.callback
    module = sys.modules[callback.__module__]
    summary, *paragraphs = (" ".join(text.split()) for text in cleandoc(callback.__doc__).split("\n\n"))
    options = [_option(one) for one in command.params if isinstance(one, TyperOption) and not one.hidden]
    operands = " ".join(str(one.metavar) for one in command.params if not isinstance(one, TyperOption))
    return Verb(
        command.name, operands, summary, tuple(paragraphs), module.COST, module.EXAMPLES, tuple(options)
    )


def _option(declared: TyperOption) -> Option:
    choices = tuple(str(one) for one in getattr(declared.type, "choices", ()))
    metavar = None if declared.is_flag else declared.metavar or "N"
    return Option(
        tuple(sorted(declared.opts, key=len)),
        next(iter(declared.secondary_opts), None),
        metavar,
        choices or _enumerated(metavar),
        " ".join((declared.help or "").split()),
        _default(declared),
        declared.envvar if isinstance(declared.envvar, str) else None,
        declared.rich_help_panel or PLAIN,
        declared.multiple,
    )


def _enumerated(metavar: str | None) -> tuple[str, ...]:
    """The choices that a metavar like `tiny|124m` names; one like `PATH|HUB_ID` names none."""
    names = (metavar or "").split("|")
    return tuple(names) if len(names) > 1 and all(one.islower() or one[0].isdigit() for one in names) else ()


def _default(declared: TyperOption) -> str | None:
    """The default as it is told, None where there is none to tell."""
    if isinstance(declared.show_default, str):
        return declared.show_default
    if declared.is_flag or declared.default in (None, "", 0, "auto") or not declared.show_default:
        return None
    return f"{getattr(declared.default, 'value', declared.default)}"
