"""Settings of `prune-cli rank`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from .option import option
from .streams import FIELDS, RESULT, GroupBy, Overwrite, TokensField, Unit


@dataclass(frozen=True)
class Ranking:
    """Which field is ranked, in which unit, within which values, and in which direction the file runs.

    None leaves a setting to the head of the input; `stages/rank/order.py` settles it.
    """

    GROUP: ClassVar[str] = "Options"
    key: Annotated[
        str | None,
        option(
            "--key",
            "-k",
            metavar="FIELD",
            help="Field to rank by. Optional if the stream has exactly one score.",
        ),
    ] = None
    reverse: Annotated[
        bool | None,
        option("--reverse", "-r", help="Write the highest score first. Rank 0 stays the lowest."),
    ] = None
    by: Annotated[
        Unit | None,
        option(
            "--by",
            metavar="UNIT",
            help="Unit of quantiles: records or tokens. The default is records; --merge takes it from the "
            "rankings.",
        ),
    ] = None
    within: Annotated[
        str | None,
        option(
            "--within",
            metavar="FIELD",
            help="Rank each value of FIELD on its own. The order of the file stays global.",
        ),
    ] = None
    check: Annotated[
        bool,
        option(
            "--check",
            "-c",
            help="Only check the order. Writes nothing and exits with status 1 if a record is out of order.",
        ),
    ] = False
    merge: Annotated[
        bool,
        option(
            "--merge",
            help="Merge rankings into one. They must agree in key, unit, fields and direction, which the "
            "result keeps; an option that contradicts them is an error.",
        ),
    ] = False
    mixed: Annotated[
        bool,
        option(
            "--mixed",
            help="Rank scores of different models or settings together. "
            "Without it, scores whose heads differ are an error.",
        ),
    ] = False
    output_directory: Annotated[
        str | None,
        option(
            "--output-directory",
            "-O",
            metavar="DIR",
            group=RESULT,
            help="Write a dataset into DIR, or below URL/: parts of up to 256 MB of text, in order, with a "
            "manifest. The same command makes what a stopped run left out. Files must not change meanwhile.",
        ),
    ] = None
    tokens_field: TokensField = None
    prefix: Annotated[
        str | None,
        option(
            "--prefix",
            metavar="STR",
            group=FIELDS,
            help="Put STR before the names of the new fields. The default is none, or that of the ranking "
            "that is merged or replaced.",
        ),
    ] = None
    overwrite: Overwrite = False
    group_by: GroupBy = None
    buffer_size: Annotated[
        str,
        option(
            "--buffer-size",
            "-S",
            metavar="SIZE",
            help="Memory to sort in. The rest is sorted on disk. With --jobs, SIZE is for each worker, and a "
            "percentage is for all of them.",
        ),
    ] = "25%"
    temporary_directory: Annotated[
        list[str] | None,
        option(
            "--temporary-directory",
            "-T",
            metavar="DIR",
            help="Directory for sorting on disk. Repeat to use several in turn.",
            shown_default="TMPDIR",
        ),
    ] = None
