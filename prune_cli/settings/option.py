"""How a setting declares its option: spelling, help and bounds, as metadata of a dataclass field.

    keep: Annotated[Keep | None, option("--keep", metavar="PART", help="Which part to keep.")] = None

`commands/options.py` makes command-line options of such fields; every document is made from these.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from inspect import get_annotations
from typing import Annotated, Any, NamedTuple, get_args, get_origin


@dataclass(frozen=True)
class Option:
    """An option: its names, its value's name, its help.

    `group` is where help lists it; by default that of its class.
    """

    names: tuple[str, ...]
    help: str
    metavar: str | None = None
    group: str | None = None
    min: float | None = None
    max: float | None = None
    variable: str | None = None  # of the environment
    shown_default: str | bool = True  # a text, or whether help shows the default
    hidden: bool = False
    is_count: bool = False  # of tokens or records: takes K, M and G, powers of 1000


def option(*names: str, help: str, **more: Any) -> Option:
    """Declare an option; `more` are the other fields of Option."""
    return Option(names=names, help=help, **more)


class Setting(NamedTuple):
    """A field that declares an option."""

    name: str
    type: Any
    option: Option
    group: str
    default: Any


def settings_of(kind: Any) -> Iterator[Setting]:
    """The options of a dataclass of settings, in order.

    An option that names no group is in the GROUP of its class.
    """
    # `from __future__ import annotations` is not used in settings/, so that annotations are types on every
    # Python.
    for field in fields(kind):
        if get_origin(field.type) is not Annotated:
            continue
        owner = next(base for base in kind.__mro__ if field.name in get_annotations(base))
        annotation, declared = get_args(field.type)
        yield Setting(field.name, annotation, declared, declared.group or owner.GROUP, field.default)
