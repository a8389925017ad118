"""prune-cli rank"""

import tempfile
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from .. import charts, sizes, terminal
from ..errors import DataError, UsageError
from . import options
from .options import Files, GroupBy, Overwrite, Prefix, Streams, TokensField, Unit, expanded, option

if TYPE_CHECKING:
    from ..records.reader import Source
    from ..records.spool import Spool
    from ..stages.rank import Ranked, Ranking

COST = (
    "Everything is read before anything is written (--merge reads and writes side by side). Memory is what -S says and 110 MiB; a "
    "record takes 128 bytes beside its text. What does not fit is sorted in -T, once over, compressed."
)
EXAMPLES = (
    (
        "Rank a scored corpus by its perplexity:",
        "prune-cli rank -k perplexity scored.jsonl.zst -o ranked.jsonl.zst",
    ),
    (
        "Rank each source for itself, by tokens, with two disks to sort on:",
        "prune-cli rank --by tokens --within source -S 2G -T /tmp -T /var/tmp scored.jsonl.zst > ranked.jsonl.zst",
    ),
    (
        "Make one ranking of the rankings that several machines made:",
        "prune-cli rank --merge part-*.jsonl.zst -o ranked.jsonl.zst",
    ),
    ("Ask whether a file is in order:", "prune-cli rank --check ranked.jsonl.zst"),
)
SIDE_BY_SIDE = 16 << 20  # bytes of memory that an input of --merge takes


@expanded
def rank(
    files: Files = None,
    key: Annotated[
        str | None,
        option(
            "--key", "-k", metavar="FIELD", help="The score to rank by. By default the only one there is."
        ),
    ] = None,
    reverse: Annotated[
        bool, option("--reverse", "-r", help="Write the highest score first. Rank 0 stays the lowest.")
    ] = False,
    by: Annotated[
        Unit, option("--by", metavar="UNIT", help="Quantiles are shares of records or of tokens.")
    ] = Unit.records,
    within: Annotated[
        str | None,
        option(
            "--within",
            metavar="FIELD",
            help="Rank each value of FIELD for itself. The order of the file stays that of all records together.",
        ),
    ] = None,
    check: Annotated[
        bool,
        option(
            "--check",
            "-c",
            help="Only ask if it is in order. Writes nothing, and ends with status 1 where it is not.",
        ),
    ] = False,
    merge: Annotated[bool, option("--merge", help="Make one ranking of several.")] = False,
    mixed: Annotated[
        bool,
        option(
            "--mixed",
            help="Rank scores of different models or settings. Their heads say how they were made; without this unlike ones are an error.",
        ),
    ] = False,
    tokens_field: TokensField = "n_scored",
    prefix: Prefix = "",
    overwrite: Overwrite = False,
    group_by: GroupBy = "source",
    buffer_size: Annotated[
        str,
        option("--buffer-size", "-S", metavar="SIZE", help="Memory. What does not fit is sorted on disk."),
    ] = "25%",
    temporary_directory: Annotated[
        list[str] | None,
        option(
            "--temporary-directory",
            "-T",
            metavar="DIR",
            help="Where to sort on disk. Repeat for more, which are used in turn.",
            show_default="TMPDIR",
        ),
    ] = None,
    streams: Streams = Streams(),
) -> None:
    """Order records by a score and add `rank` and `quantile`.

    Rank 0 is the lowest score. A quantile is the share of the records, or of the tokens, that lie below the middle of a record:
    (rank + 1/2) / N. Ties keep their input order; records whose score is null come last, unranked.
    """
    memory, directories = sizes.parse(buffer_size), temporary_directory or [tempfile.gettempdir()]
    if check and merge:
        raise UsageError("--check and --merge exclude each other")
    if check:
        _check(files, key, reverse, prefix, streams)
        return
    from ..records.spool import Spool
    from ..stages.rank import Ranking

    with streams.opened("rank", files) as (source, output):
        score = key or (merge and _ranked_by(source)) or options.the_score(source)
        ranking = Ranking(
            score, by.value, tokens_field, within, reverse, group_by, prefix, overwrite or merge, mixed
        )
        if score in ranking.fresh:
            raise UsageError(
                f"the field `{score}` would be replaced", remedy="--prefix STR names the new fields otherwise"
            )
        with Spool(memory, directories, streams.threads or options.processors(), reverse) as spool:
            ranked = (_merged if merge else _sorted)(source, ranking, spool)
            with streams.sink(output, options.head_after(source, "rank", group_by, rank=ranked.head)) as sink:
                for lines in ranked.records:
                    sink.write_lines(lines)
                sink.facts |= ranked.facts
    terminal.closing(
        f"ranked {ranked.head['n']:,} records; {ranked.head['nulls']:,} unscored", quiet=streams.quiet
    )
    if shape := ranked.facts.get("shape"):
        terminal.closing("\n".join(charts.histogram(score, shape, by.value)), quiet=streams.quiet)


def _check(files: list[str] | None, key: str | None, reverse: bool, prefix: str, streams: Streams) -> None:
    from ..stages import rank as stage

    with streams.source("rank", files) as source:
        score = key or _ranked_by(source) or options.the_score(source)
        stage.check(source, stage.Ranking(score, reverse=reverse, prefix=prefix))


def _ranked_by(source: "Source") -> str | None:
    """What the first stream is a ranking by, if it is one."""
    head, _ = source.peek()
    key: str | None = ((head or {}).get("rank") or {}).get("key")
    return key


def _sorted(source: "Source", ranking: "Ranking", spool: "Spool") -> "Ranked":
    from ..stages import rank as stage
    from ..storage import local

    spool.check(local.total_size(source.inputs) or 0)
    return stage.rank(source, ranking, spool)


def _merged(source: "Source", ranking: "Ranking", spool: "Spool") -> "Ranked":
    """One ranking of several, side by side where each is a whole file in the order that is asked for, else by sorting all of it."""
    from ..stages import rank as stage
    from ..stream import index

    found = [index.of(one) for one in source.inputs]
    tables = [one for one in found if one and stage.is_mergeable(one.head, one.totals, ranking)]
    if len(tables) == len(found) <= spool.fan_in(SIDE_BY_SIDE) and source.reading == replace(
        source.reading, expect_records=None, skip_bad=False
    ):
        return stage.merge([source.only(one.file) for one in tables], [one.totals for one in tables], ranking)
    ranked = _sorted(source, ranking, spool)
    if not all(head and "rank" in head for head in source.heads):
        raise DataError(
            "not every input is known to be a ranking: there is no head that says so",
            remedy="rank without --merge",
        )
    return ranked
