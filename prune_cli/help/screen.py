"""What `--help` shows: at most a screen, and the same in a pipe as on a terminal."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from typer._click.core import Context
from typer.core import TyperCommand, TyperGroup

from ..commands.options import COMMON
from .spec import Option, Verb, verb

WIDTH = 80  # of a screen
COLUMN, NARROW = 32, 12  # where the help of an option begins, and the names of those that every verb has
PIPELINE = """\
prune-cli score corpus/*.jsonl.zst | prune-cli rank --by tokens > ranked.jsonl.zst
prune-cli slice --keep middle --frac 0.5 ranked.jsonl.zst > shard.jsonl.zst
prune-cli train --preset 124m --tokenizer gpt2/ --steps 8000 -o run/ shard.jsonl.zst
prune-cli eval run/ --against base/ --data test.jsonl.zst"""


class Command(TyperCommand):
    """A verb."""

    def get_help(self, ctx: Context) -> str:
        return "\n".join(_of_verb(verb(self)))


class Group(TyperGroup):
    """All verbs together."""

    def get_help(self, ctx: Context) -> str:
        told = [(name, verb(command).summary) for name, command in self.commands.items()]
        return "\n".join(_of_all(told))


def _of_all(told: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield from (
        "usage: prune-cli VERB [OPTION]... [FILE]...",
        "",
        "Prune pretraining corpora for language models.",
        "",
    )
    for command in PIPELINE.splitlines():
        yield from _shown(command)
    yield ""
    for name, summary in told:
        yield from _beside(name, summary, 9)
    yield from (
        "",
        "prune-cli VERB --help shows the options of a verb, man prune-cli-VERB explains",
        "them; prune-cli -V prints the version.",
    )


def _of_verb(told: Verb) -> Iterator[str]:
    groups = told.groups()
    yield from (f"usage: {told.usage}", "", *textwrap.wrap(told.summary, WIDTH), "")
    for _, command in told.examples[:1]:
        yield from _shown(command)
    yield ""
    for title in (one for one in groups if one not in COMMON):
        yield f"{title}:"
        for option in groups[title]:
            yield from _beside(_aligned(option), option.brief, COLUMN)
    yield f"The same in every verb; man prune-cli-{told.name} explains all of them:"
    for title in (one for one in COMMON if one in groups):
        yield from _beside(title.lower(), " ".join(_short(one) for one in groups[title]), NARROW)


def _shown(command: str) -> list[str]:
    """A command line, in as many lines as a shell would take together again."""
    *first, last = textwrap.wrap(
        command, WIDTH - 2, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
    )
    return [*(f"{line} \\" for line in first), last]


def _aligned(option: Option) -> str:
    """Its spelling; a long name without a short one stands below those that have one."""
    return option.spelling if len(option.names) > 1 else f"    {option.spelling}"


def _short(option: Option) -> str:
    name = option.names[0].replace("--", "--[no-]") if option.negation else option.names[0]
    return f"{name} {option.metavar}" if option.metavar else name


def _beside(left: str, right: str, column: int) -> Iterable[str]:
    """Two columns; what is too long for the left one gets a line of its own."""
    lines = textwrap.wrap(
        right, WIDTH, initial_indent=" " * column, subsequent_indent=" " * column, break_on_hyphens=False
    )
    left = f"  {left}"
    if len(left) + 2 > column or not lines:
        return [left, *lines]
    return [left + lines[0][len(left) :], *lines[1:]]
