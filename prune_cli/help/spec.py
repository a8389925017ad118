"""The declarations of each verb (signature, docstring, COST, EXAMPLES), from which every document is made."""

import sys
from dataclasses import dataclass
from inspect import cleandoc
from typing import Any

from typer.core import TyperGroup, TyperOption

PLAIN = "Options"  # the group of options that name no group


@dataclass(frozen=True)
class OptionSpec:
    """An option: its spelling, its values, its help."""

    names: tuple[str, ...]  # the short one first
    negation: str | None  # the spelling that switches it off, as in --no-progress
    metavar: str | None  # None for a switch
    choices: tuple[str, ...]  # every value, if there are few
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
    def negation_brief(self) -> str:
        """The help of the negation: the help of every option with one is an imperative sentence."""
        sentence = self.help.partition(". ")[0].rstrip(".")
        return f"Do not {sentence[0].lower()}{sentence[1:]}"

    @property
    def brief(self) -> str:
        """The first sentence of the help, and the default: what --help and completions show."""
        sentence = self.help.partition(". ")[0].rstrip(".")
        return f"{sentence} [{self.default}]" if self.default else sentence


@dataclass(frozen=True)
class Verb:
    """A verb of the command line, with everything that its documents say."""

    name: str
    operands: str
    summary: str
    description: tuple[str, ...]  # paragraphs
    cost: str
    examples: tuple[tuple[str, str], ...]  # a description and a command each
    options: tuple[OptionSpec, ...]

    def groups(self) -> dict[str, list[OptionSpec]]:
        """The options by group, in the order in which the groups first appear."""
        groups: dict[str, list[OptionSpec]] = {}
        for option in self.options:
            groups.setdefault(option.group, []).append(option)
        return groups

    @property
    def usage(self) -> str:
        return f"prune-cli {self.name} [OPTION]... {self.operands}"


def verbs(group: TyperGroup) -> list[Verb]:
    """Every verb of the command line, in its order."""
    return [verb(command) for command in group.commands.values()]


def verb(command: Any) -> Verb:
    """The declarations of a typer command."""
    callback = command.callback
    module = sys.modules[callback.__module__]
    summary, *paragraphs = (" ".join(text.split()) for text in cleandoc(callback.__doc__).split("\n\n"))
    options = [
        _option(parameter)
        for parameter in command.params
        if isinstance(parameter, TyperOption) and not parameter.hidden
    ]
    operands = " ".join(
        str(parameter.metavar) for parameter in command.params if not isinstance(parameter, TyperOption)
    )
    return Verb(
        command.name, operands, summary, tuple(paragraphs), module.COST, module.EXAMPLES, tuple(options)
    )


def _option(declared: TyperOption) -> OptionSpec:
    choices = tuple(str(choice) for choice in getattr(declared.type, "choices", ()))
    metavar = None if declared.is_flag else declared.metavar or "N"
    return OptionSpec(
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
    """The choices in a metavar like `tiny|124m`; a metavar like `PATH|HUB_ID` names none."""
    names = (metavar or "").split("|")
    return (
        tuple(names) if len(names) > 1 and all(name.islower() or name[0].isdigit() for name in names) else ()
    )


def _default(declared: TyperOption) -> str | None:
    """The default as help shows it; None where it is not worth showing."""
    if isinstance(declared.show_default, str):
        return declared.show_default
    if declared.is_flag or declared.default in (None, "", 0, "auto") or not declared.show_default:
        return None
    return f"{getattr(declared.default, 'value', declared.default)}"
