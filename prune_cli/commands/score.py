"""prune-cli score"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

from ..errors import UsageError
from . import options
from .options import Files, GroupBy, Model, Overwrite, Prefix, Streams, TextField, expanded, option

if TYPE_CHECKING:
    from ..io.documents import Document
    from ..io.records import Record

COUNTS = ("nll_sum", "n_scored", "n_bytes")


@expanded
def score(
    files: Files = None,
    metric: Annotated[
        list[str] | None, option("--metric", "-m", metavar="NAME", help="What to compute; repeat for more.", show_default="perplexity")
    ] = None,
    model: Annotated[
        str | None, option("--model", metavar="PATH|HUB_ID", envvar="PRUNE_CLI_MODEL", help="The language model that scores.")
    ] = None,
    min_tokens: Annotated[int, option("--min-tokens", metavar="N", min=1, help="Records with fewer scored tokens get null.")] = 1,
    text_field: TextField = "text",
    prefix: Prefix = "",
    overwrite: Overwrite = False,
    group_by: GroupBy = "source",
    running: Model = Model(),
    streams: Streams = Streams(),
) -> None:
    """Score records with a causal language model.

    Adds one field per metric and `nll_sum`, `n_scored`, `n_bytes`. Order is kept; results are written as they come, a few
    hundred records at a time.

    Example: prune-cli score --model ./reference corpus.jsonl.zst -o scored.jsonl.zst
    """
    if model is None:
        raise UsageError("no model to score with", remedy="name one with --model PATH")
    from .. import metrics, safety

    chosen = [metrics.load(name) for name in metric or ["perplexity"]]
    names = {name: prefix + name for name in (*(one.name for one in chosen), *COUNTS)}
    with streams.opened("score", files) as (source, output):
        safety.check(model)
        from ..io.documents import documents  # torch takes seconds to load: what is wrong at first sight is said before that
        from ..model import load
        from ..stages import score as stage

        scorer = load(model, running.settings())
        items = ((one, one.content) for one in documents(source, text_field, group_by, fresh=tuple(names.values()), overwrite=overwrite))
        how = {"fields": [names[one.name] for one in chosen], "model": model, "tokenizer": scorer.tokenizer_hash, **asdict(scorer.settings)}
        with streams.sink(output, options.head_after(source, "score", group_by, (), score=how)) as sink:
            for window in stage.score(items, scorer, chosen, min_tokens=min_tokens):
                sink.write(_record(document, fields, names, group_by) for document, fields in window)
                sink.end_frame()


def _record(document: "Document", fields: dict[str, Any], names: dict[str, str], group: str) -> "Record":
    null = all(fields[name] is None for name in fields if name not in COUNTS)
    return document.extended({names[name]: value for name, value in fields.items()}, fields["n_scored"], null, document[group])
