"""prune-cli stat"""

import json
from typing import TYPE_CHECKING, Annotated, Any

from . import options
from .options import Files, Force, GroupBy, OutputFile, Reading, TextField, TokensField, expanded, option

if TYPE_CHECKING:
    from ..records.reader import Source
    from ..stages.stat import Wish
    from ..storage.base import Input

COST = "A file of ours says it at once, from its trailer; everything else, -k and --verify read all of it: 16 bytes a record and score."
EXAMPLES = (
    ("Look at the thresholds of a ranking:", "prune-cli stat ranked.jsonl.zst | jq .scores"),
    (
        "Check every byte of a file, and count its duplicates:",
        "prune-cli stat --verify --duplicates corpus.jsonl.zst",
    ),
)


@expanded
def stat(
    files: Files = None,
    key: Annotated[
        list[str] | None,
        option(
            "--key",
            "-k",
            metavar="FIELD",
            help="A score to look at. Repeat for more; by default all known ones.",
        ),
    ] = None,
    verify: Annotated[bool, option("--verify", help="Read all, and hold it to the trailer.")] = False,
    duplicates: Annotated[
        bool, option("--duplicates", help="Count exact duplicates of the text, too.")
    ] = False,
    tokens_field: TokensField = "n_scored",
    text_field: TextField = "text",
    group_by: GroupBy = "source",
    output: OutputFile = None,
    force: Force = False,
    reading: Reading = Reading(),
) -> None:
    """Say what streams hold: records, tokens and the thresholds of scores, by source.

    One JSON object a file: `records`, `nulls` (those without a score), `tokens` (null where no record counts them), `bytes` of text,
    `groups` (records and tokens by --group-by), and for each of `scores` its `quantiles`: of a ranking, that at 0.25 is the lowest
    score that `slice --range 0.25:1` keeps, in the unit of the ranking. `length_correlation` is Spearman's, of score and length.
    The trailer of a ranked file knows the thresholds of the whole; those of a file that was only scored, and those by group, are known
    when it is read, by -k or --verify.
    """
    from .. import storage
    from ..stages.stat import Wish

    with reading.source("stat", files) as source, storage.create(output, source.inputs, force=force) as out:
        for one in source.inputs:
            wish = Wish(key or (), tokens_field, group_by, text_field if duplicates else None)
            found = _found(one, source, wish, whole=verify or duplicates or bool(key))
            out.write(
                json.dumps({"file": one.name, **found}, indent=2 if out.is_terminal() else None).encode()
                + b"\n"
            )


def _found(one: "Input", source: "Source", wish: "Wish", whole: bool) -> dict[str, Any]:
    from dataclasses import replace

    from ..stages import stat as stage
    from ..stages.slice.ranked import ranking_of
    from ..stream import index

    alone = source.only(one)
    found = None if whole else index.of(one)
    if found and found.head.get("group") == wish.group:
        with found.file.open():
            return {**_origin(found.head), **stage.at_once(found, alone)}
    head, fields = alone.peek()
    known = ranking_of(head)
    by_tokens = known["key"] if known.get("unit") == "tokens" else None
    wish = replace(wish, by_tokens=by_tokens, reverse=bool(known.get("reverse")))
    told = stage.reading(alone, replace(wish, scores=wish.scores or options.scores_among(head, fields)))
    source.blank, source.skipped = source.blank + alone.blank, source.skipped + alone.skipped
    return {**_origin(head or {}), **told}


def _origin(head: dict[str, Any]) -> dict[str, Any]:
    """Which verb wrote the stream, and of a ranking what it is a ranking by."""
    known = head.get("rank") or {}
    return {
        "verb": head.get("verb"),
        **{name: known[name] for name in ("key", "unit", "reverse", "within") if name in known},
    }
