"""prune-cli rank"""

from typing import Annotated

from . import options
from .options import Files, GroupBy, Overwrite, Prefix, Streams, Unit, expanded, option


@expanded
def rank(
    files: Files = None,
    key: Annotated[
        str | None, option("--key", "-k", metavar="FIELD", help="The score to rank by; by default the only one there is.")
    ] = None,
    reverse: Annotated[bool, option("--reverse", "-r", help="Write the highest score first; rank 0 stays the lowest.")] = False,
    by: Annotated[Unit, option("--by", help="What a quantile is a share of.")] = Unit.records,
    tokens_field: Annotated[str, option("--tokens-field", metavar="FIELD", help="The count of tokens.")] = "n_scored",
    prefix: Prefix = "",
    overwrite: Overwrite = False,
    group_by: GroupBy = "source",
    streams: Streams = Streams(),
) -> None:
    """Order records by a score and add `rank` and `quantile`.

    Ties keep their input order; records whose score is null come last, unranked. Everything is read before anything is written.

    Example: prune-cli rank -k perplexity scored.jsonl.zst -o ranked.jsonl.zst
    """
    from ..stages import rank as stage

    with streams.opened("rank", files) as (source, output):
        ranking = stage.Ranking(key or options.the_score(source), by.value, tokens_field, reverse, group_by, prefix, overwrite)
        ranked = stage.rank(source, ranking)
        with streams.sink(output, options.head_after(source, "rank", group_by, rank=ranked.head)) as sink:
            sink.write(ranked.records)
