"""Settings of `prune-cli report`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from .option import option
from .streams import Force, GroupBy, OutputFile, TextField, TokensField


@dataclass(frozen=True)
class Subjects:
    """What the page shows beside the records of the operands."""

    GROUP: ClassVar[str] = "Options"
    slice_: Annotated[
        list[str] | None,
        option(
            "--slice",
            metavar="FILE",
            help="A slice of the records: its cut is drawn into their distribution. This option, --run, "
            "--results and --score may be repeated.",
        ),
    ] = None
    run: Annotated[
        list[str] | None,
        option("--run", metavar="DIR", help="Directory of a training run, whose losses are drawn."),
    ] = None
    results: Annotated[
        list[str] | None,
        option(
            "--results",
            metavar="FILE",
            help="Results of eval, of texts or of tasks, whose comparisons are drawn.",
        ),
    ] = None
    score: Annotated[
        list[str] | None,
        option(
            "--score",
            "-k",
            metavar="FIELD",
            help="Score to show. The default is every score that the stream names.",
        ),
    ] = None
    documents: Annotated[
        int,
        option(
            "--documents",
            metavar="N",
            min=0,
            max=10_000,
            help="Show at most N documents: from each end, the median and both sides of each cut, by source.",
        ),
    ] = 200
    seed: Annotated[int, option("--seed", metavar="N", min=0, help="Seed of the samples.")] = 0


@dataclass(frozen=True)
class Page:
    """Where the page goes, and what it is made of."""

    GROUP: ClassVar[str] = "Options"
    title: Annotated[str | None, option("--title", metavar="TEXT", help="Title of the page.")] = None
    json: Annotated[
        bool,
        option("--json", help="Write the numbers of the page as one JSON object, without documents' texts."),
    ] = False
    tokens_field: TokensField = None
    text_field: TextField = "text"
    group_by: GroupBy = None
    output: OutputFile = None
    force: Force = False
