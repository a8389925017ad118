"""The text of `--help`: at most one screen, the same in a pipe as on a terminal."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from typer._click.core import Context
from typer.core import TyperGroup

from ..commands.options import CheckedCommand
from ..settings.streams import COMMON, OF_METRICS
from . import spec
from .spec import OptionSpec, Verb

WIDTH = 80  # of a screen
COLUMN = 32  # where the help of an option begins
NARROW = 12  # where the list of shared options begins
PIPELINE = """\
prune-cli score corpus/*.jsonl.zst | prune-cli rank --by tokens > ranked.jsonl.zst
prune-cli slice --keep middle --frac 0.5 ranked.jsonl.zst > shard.jsonl.zst
prune-cli train --preset 124m --tokenizer gpt2/ --steps 8000 -o run/ shard.jsonl.zst
prune-cli eval run/ --against base/ --data test.jsonl.zst"""


class Command(CheckedCommand):
    """A verb."""

    def get_help(self, ctx: Context) -> str:
        return "\n".join(_of_verb(spec.verb(self)))


class Group(TyperGroup):
    """All verbs together."""

    def get_help(self, ctx: Context) -> str:
        summaries = [(name, spec.verb(command).summary) for name, command in self.commands.items()]
        return "\n".join(_of_all(summaries))


def _of_all(summaries: Sequence[tuple[str, str]]) -> Iterator[str]:
    yield from (
        "usage: prune-cli VERB [OPTION]... [FILE]...",
        "",
        "Prune pretraining corpora for language models.",
        "",
    )
    for command in PIPELINE.splitlines():
        yield from _shown(command)
    yield ""
    for name, summary in summaries:
        yield from _beside(name, summary, 9)
    yield from (
        "",
        "prune-cli VERB --help shows the options of a verb, man prune-cli-VERB explains",
        "them; prune-cli -V prints the version.",
    )


def _of_verb(verb: Verb) -> Iterator[str]:
    groups = verb.groups()
    # No empty line above or below the summary: the longest help fills a screen to its last line.
    yield from (f"usage: {verb.usage}", *textwrap.wrap(verb.summary, WIDTH))
    for _, command in verb.examples[:1]:
        yield from _shown(command)
    yield ""
    for title in (title for title in groups if title not in (*COMMON, OF_METRICS)):
        yield f"{title}:"
        for option in groups[title]:
            yield from _beside(_aligned(option), option.brief, COLUMN)
    # Names alone: these are many, and most users need none of them.
    if OF_METRICS in groups:
        yield f"{OF_METRICS}, explained in man prune-cli-{verb.name}:"
        yield from _beside("", _names(groups[OF_METRICS]), NARROW)
    yield f"Shared by all verbs, explained in man prune-cli-{verb.name}:"
    for title in (title for title in COMMON if title in groups):
        yield from _beside(title.lower(), _names(groups[title]), NARROW)


def _names(options: Iterable[OptionSpec]) -> str:
    return " ".join(map(_short, options))


def _shown(command: str) -> list[str]:
    """A command line, broken over lines as a shell accepts it."""
    *first, last = textwrap.wrap(
        command, WIDTH - 2, initial_indent="  ", subsequent_indent="      ", break_on_hyphens=False
    )
    return [*(f"{line} \\" for line in first), last]


def _aligned(option: OptionSpec) -> str:
    """The spelling; a long name without a short one is aligned with the other long names."""
    return option.spelling if len(option.names) > 1 else f"    {option.spelling}"


def _short(option: OptionSpec) -> str:
    name = option.names[0].replace("--", "--[no-]") if option.negation else option.names[0]
    return f"{name} {option.metavar}" if option.metavar else name


def _beside(left: str, right: str, column: int) -> Iterable[str]:
    """Two columns; a left text that is too long gets a line of its own."""
    lines = textwrap.wrap(
        right, WIDTH, initial_indent=" " * column, subsequent_indent=" " * column, break_on_hyphens=False
    )
    left = f"  {left}"
    if len(left) + 2 > column or not lines:
        return [left, *lines]
    return [left + lines[0][len(left) :], *lines[1:]]
