"""Which options does `prune-cli eval` take: for likelihoods, comparisons, result files, tasks and GLUE?"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from .option import option
from .streams import RESULT, Force, OutputFile, TextField

# Units that --fail-if-worse needs. The percentile interval of 20 differences that are normally distributed
# leaves out 3.6 % at each end instead of 2.5 %, that of 5 differences 8 %, and that of one has no width.
DECISIVE = 20


@dataclass(frozen=True)
class Evaluation:
    """Which documents are measured, and how they are grouped and resampled."""

    GROUP: ClassVar[str] = "Options"
    # None stands for no test set: result files need none.
    data: Annotated[
        list[str] | None, option("--data", metavar="FILE", help="Held-out text. Repeat for more test sets.")
    ] = None
    group_by: Annotated[
        str | None, option("--group-by", metavar="FIELD", help="Also report each value of FIELD by itself.")
    ] = None
    cluster: Annotated[
        str | None,
        option(
            "--cluster",
            metavar="FIELD",
            help="Resample documents in groups with the same FIELD, for example a book or a site.",
        ),
    ] = None
    seed: Annotated[int, option("--seed", metavar="N", min=0, help="Seed of the resampling.")] = 0
    text_field: TextField = "text"


@dataclass(frozen=True)
class Comparison:
    """Which baselines the models are compared with, and which outcome fails."""

    GROUP: ClassVar[str] = "Comparison"
    against: Annotated[
        list[str] | None,
        option(
            "--against",
            metavar="MODEL",
            help="Baseline to compare with: a model, or its results. Repeat for more seeds of its recipe.",
        ),
    ] = None
    paired_seeds: Annotated[
        bool,
        option(
            "--paired-seeds",
            help="Each MODEL shares its seed with a baseline. The first MODEL is paired with the first "
            "--against, the second with the second, and so on.",
        ),
    ] = False
    # In per cent of the perplexity, or points of the average over tasks.
    fail_if_worse: Annotated[
        float | None,
        option(
            "--fail-if-worse",
            metavar="P",
            min=0,
            help="Exit with status 1 if a model is more than P % worse for certain, or 65 with fewer than "
            f"{DECISIVE} documents or clusters. It is certain if even the favourable end of the interval is "
            "worse; from too few documents nobody can tell. A model passes against itself. With --samples, "
            "P counts points of the average over tasks.",
        ),
    ] = None


@dataclass(frozen=True)
class PerDocument:
    """Which file keeps the results of single documents."""

    GROUP: ClassVar[str] = RESULT
    per_document: Annotated[
        str | None,
        option(
            "--per-document",
            metavar="FILE",
            help="Write each document's results to FILE. It can later replace the models. With --samples it "
            "holds the values of both sides, for you to look at.",
        ),
    ] = None
    # The one option of this class that --glue uses as well.
    resume: Annotated[
        bool,
        option(
            "--resume",
            help="Resume a run that was stopped. Its results are in FILE.partial, where FILE is the argument "
            "of --per-document, or of -o with --glue.",
        ),
    ] = False


@dataclass(frozen=True)
class TaskSamples:
    """Which folders hold what lm-evaluation-harness wrote; without `samples` there are none."""

    GROUP: ClassVar[str] = "Tasks"
    samples: Annotated[
        list[str] | None,
        option(
            "--samples",
            metavar="DIR",
            help="Samples that lm-evaluation-harness wrote to DIR. They take the place of a MODEL; lm_eval "
            "writes them with --log_samples. Repeat for more models.",
        ),
    ] = None
    against_samples: Annotated[
        list[str] | None,
        option(
            "--against-samples",
            metavar="DIR",
            help="Samples of a baseline to compare --samples with. Repeat for more seeds of its recipe.",
        ),
    ] = None


@dataclass(frozen=True)
class FineTuning:
    """Which tasks of GLUE a model is fine-tuned on, and how; without `glue` there is no fine-tuning."""

    GROUP: ClassVar[str] = "GLUE"
    glue: Annotated[
        str | None,
        option(
            "--glue",
            metavar="DIR",
            help="Fine-tune on the GLUE tasks in DIR instead. Each task is a folder, as in GLUE's own files.",
        ),
    ] = None
    # Names as GLUE spells them or as its own code does: SST-2 is sst2.
    tasks: Annotated[
        str | None,
        option(
            "--tasks",
            metavar="NAME,...",
            help="GLUE tasks to run, as in sst2,mrpc. The default is all in DIR.",
        ),
    ] = None
    seeds: Annotated[
        int, option("--seeds", metavar="N", min=1, help="Fine-tuning runs of each GLUE task.")
    ] = 5
    # The paper (Marion et al. 2023) fine-tunes for 3 epochs at 1e-5; it does not say with which batch.
    epochs: Annotated[int, option("--epochs", metavar="N", min=1, help="Epochs of fine-tuning.")] = 3
    lr: Annotated[float, option("--lr", metavar="X", min=0, help="Peak learning rate of fine-tuning.")] = 1e-5
    batch: Annotated[
        int, option("--batch", metavar="N", min=1, help="Examples in a step of fine-tuning.")
    ] = 32


@dataclass(frozen=True)
class Target:
    """Where the results go."""

    GROUP: ClassVar[str] = RESULT
    output: OutputFile = None
    force: Force = False
