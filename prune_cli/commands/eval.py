"""prune-cli eval"""

from typing import Annotated

import typer

from ..engines import local
from ..settings.eval import Comparison, Evaluation, FineTuning, PerDocument, Target, TaskSamples
from ..settings.model import ModelSettings
from ..settings.streams import Reading
from .options import command

COST = (
    "Each model reads each test set once. Memory holds some 160 bytes for each document, not its text. "
    "Results come when everything is read. --glue fine-tunes, which takes minutes to hours per task. "
    "--samples reads files alone: it takes 3 s for 24,000 documents of 58 tasks, 150 MB for each model."
)
EXAMPLES = (
    ("Is a model better than another?", "prune-cli eval run/ base/ --against base/ --data test.jsonl.zst"),
    (
        "Is a recipe better than another? Three seeds of each:",
        "prune-cli eval a1/ a2/ a3/ --against b1/ --against b2/ --against b3/ --data test.jsonl.zst",
    ),
    (
        "Keep the results of each document, and compare them later without a model:",
        "prune-cli eval run/ --data test.jsonl.zst --per-document run.jsonl.zst --resume",
    ),
    (
        "Fail in a script if a model became worse by half a per cent:",
        "prune-cli eval run/ --against base/ --data test.jsonl.zst --fail-if-worse 0.5 -o results.jsonl",
    ),
    (
        "Are answers to benchmarks better, task by task and on average?",
        "prune-cli eval --samples harness/run --against-samples harness/base",
    ),
    (
        "Fine-tune on three tasks of GLUE:",
        "prune-cli eval run/ --glue glue/ --tasks sst2,mrpc,rte -o glue.jsonl --resume",
    ),
)


@command
def eval(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL]...",
            help="Models to evaluate, or result files that --per-document wrote. Needed without --samples.",
            show_default=False,
        ),
    ] = None,
    evaluation: Evaluation = Evaluation(),
    comparison: Comparison = Comparison(),
    keeping: PerDocument = PerDocument(),
    samples: TaskSamples = TaskSamples(),
    tuning: FineTuning = FineTuning(),
    target: Target = Target(),
    model_settings: ModelSettings = ModelSettings(),
    reading: Reading = Reading(),
) -> int:
    """Measure how well models predict held-out text, with 95 % intervals.

    Writes perplexity and bits per byte, one JSON record per model, test set and group, or a table on a
    terminal. With --against each MODEL is compared with each baseline on the very same documents, with a
    paired interval. A negative effect means that the model is better than the
    baseline.

    A record's `result` is `likelihood` (`documents`, `tokens`, `bytes`, `perplexity`, `bits_per_byte`,
    `word_perplexity`, and their intervals in fields that end in `_interval`) or `comparison`: `delta` in
    its `unit`, `effect` on perplexity (-0.01 is one per cent lower), `p` by random sign flips, and
    `improved`, the fraction of documents that became more likely. `clusters` counts the units that
    --cluster resamples. `provenance` lists everything that the numbers depend on.

    Two or more MODELs and two or more baselines are seeds of two recipes. They give one comparison, that of
    the recipes, whose interval covers training noise, too.

    With --samples the models are those that lm-evaluation-harness evaluated, on any of its tasks. The records
    are `task` (the `value` of a `metric` behind a `filter`, and its interval), `task comparison` and `average
    comparison`. `delta` is the model's value less the baseline's (in nats or bits for perplexities), and
    `higher_is_better` says which sign is good. `p` is by random sign flips, `p_mcnemar` by McNemar's exact
    test where answers are right or wrong; `improved` and `worsened` are fractions of the documents.

    A comparison pairs documents by their hashes, and counts one that occurs several times once, by its first
    sample; `task` counts every sample, as the harness does. `repeated` is the number of samples that repeat a
    document (of the model that has most of them), `unpaired` the number of documents that a model lacks.
    Documents whose value is null or NaN are left out with a warning.

    The average gives each task the same weight. It takes the first metric that a task names, and leaves out
    a task whose first metric is not between 0 and 1. Of twenty tasks without any difference, one has a p
    below 0.05.

    With --glue each model is fine-tuned on GLUE's tasks by the paper's protocol. The records are one per
    task and seed, one per task (mean and deviation, with the baselines majority class and random guessing),
    and the average over the tasks.
    """
    from ..stages.eval.run import job

    work = job(
        models or (), evaluation, comparison, keeping, samples, tuning, target, model_settings, reading
    )
    return local.run(work, reading)
