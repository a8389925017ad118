"""Settings of `prune-cli rank`."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from .option import option
from .streams import GroupBy, Overwrite, Prefix, TokensField, Unit


@dataclass(frozen=True)
class Ranking:
    """Which field is ranked, in which unit, within which values, and in which direction the file runs."""

    GROUP: ClassVar[str] = "Options"
    key: Annotated[
        str | None,
        option(
            "--key", "-k", metavar="FIELD", help="Score to rank by. The default is the only one there is."
        ),
    ] = None
    reverse: Annotated[
        bool, option("--reverse", "-r", help="Write the highest score first. Rank 0 stays the lowest.")
    ] = False
    by: Annotated[Unit, option("--by", metavar="UNIT", help="Count quantiles in records or in tokens.")] = (
        Unit.records
    )
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
    merge: Annotated[bool, option("--merge", help="Merge rankings into one.")] = False
    mixed: Annotated[
        bool,
        option(
            "--mixed",
            help="Rank scores of different models or settings together. "
            "Without it, scores whose heads differ are an error.",
        ),
    ] = False
    tokens_field: TokensField = "n_scored"
    prefix: Prefix = ""
    overwrite: Overwrite = False
    group_by: GroupBy = "source"
    buffer_size: Annotated[
        str,
        option("--buffer-size", "-S", metavar="SIZE", help="Memory to sort in. The rest is sorted on disk."),
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
