"""prune-cli eval"""

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import UsageError
from .glue import Tuning
from .options import Force, Model, OutputFile, Reading, TextField, expanded, option

if TYPE_CHECKING:
    from ..io.records import Source
    from ..model import LanguageModel
    from ..stages.eval import Item


@expanded
def eval(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help="The models to evaluate.")],
    data: Annotated[list[str] | None, option("--data", metavar="FILE", help="Held-out text; repeat for more test sets.")] = None,
    against: Annotated[list[str] | None, option("--against", metavar="MODEL", help="Compare every MODEL with this one.")] = None,
    group_by: Annotated[str | None, option("--group-by", metavar="FIELD", help="Results for each value of this field, too.")] = None,
    seed: Annotated[int, option("--seed", help="Of the resampling.")] = 0,
    text_field: TextField = "text",
    tuning: Tuning = Tuning(),
    resume: Annotated[
        bool, option("--resume", help="With --glue: work in FILE.partial, keep it when stopped, go on with the one there is.")
    ] = False,
    output: OutputFile = None,
    force: Force = False,
    running: Model = Model(),
    reading: Reading = Reading(),
) -> None:
    """Measure how well models predict held-out text: perplexity and bits per byte, with 95 % intervals.

    Writes one JSON record per model and test set, and with --against one per comparison: the difference on the very same
    documents, with a paired interval. Negative effects are better than the baseline.

    Example: prune-cli eval run/ base/ --against base/ --data test.jsonl.zst

    With --glue it fine-tunes each model on GLUE's tasks, by the paper's protocol, and writes one record per task and seed, one per
    task (mean and deviation, beside what the most common class and a blind guess would get) and the average over the tasks.

    Example: prune-cli eval run/ --glue glue/ --tasks sst2,mrpc,rte -o glue.jsonl --resume
    """
    tuning.check({"--data": data, "--against": against, "--group-by": group_by})
    if tuning.glue:
        tuning.run(models, running, reading, output, force=force, resume=resume)
        return
    if not data:
        raise UsageError("nothing to evaluate on", remedy="name a test set with --data FILE")
    from .. import safety
    from ..io import files
    from ..io.splicing import members

    baselines = list(dict.fromkeys(against or []))
    others = [model for model in dict.fromkeys(models) if model not in baselines]
    for model in (*others, *baselines):
        safety.check(model)
    with ExitStack() as stack, files.create(output, files.operands(data), force=force) as results:
        from ..stages import eval as stage
        from ..stages import score

        sources = {name: stack.enter_context(reading.source("eval", [name], bar=False)) for name in dict.fromkeys(data)}
        sets = [(name, _items(source, text_field, group_by)) for name, source in sources.items()]
        loaders = {model: partial(_load, model, running, sources.values()) for model in (*others, *baselines)}
        for result in stage.evaluate(
            [(model, loaders[model]) for model in others],
            sets,
            lambda items, model, place: score.score(items, score.Scoring((), [model]), place=place),
            against=[(model, loaders[model]) for model in baselines],
            seed=seed,
        ):
            results.write(b"{" + members(result) + b"}\n")


def _items(source: "Source", text_field: str, group_by: str | None) -> "list[Item]":
    from ..io.documents import documents
    from ..stages.eval import Item

    found = documents(source, text_field, *([group_by] if group_by else []))
    return [Item(one[group_by] if group_by else None, one.content) for one in found]


def _load(model: str, running: Model, sources: "Iterable[Source]") -> "LanguageModel":
    """A model whose tokenizer is the one that packed the blocks, where there are any."""
    from ..io.documents import check_tokenizer
    from ..model import load

    loaded = load(model, running.settings())
    for source in sources:
        check_tokenizer(source.heads, loaded.tokenizer_hash, source.inputs[0].name)
    return loaded
