"""prune-cli eval"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from .. import terminal
from ..errors import CheckFailed, DataError, UsageError
from ..settings.model import ModelSettings
from . import eval_tables
from .glue import Tuning
from .options import RESULT, Force, OutputFile, Reading, TextField, expanded, option, processors

if TYPE_CHECKING:
    from ..models.language_model import LanguageModel
    from ..records.reader import Source
    from ..stages.eval.journal import Journal
    from ..stages.eval.results import Heldout, Run, Task
    from ..storage.base import Input, Output

COST = (
    "Each model reads each test set once; numbers of each document stay in memory (some 160 bytes), the texts do not. Results come when "
    "all is read. --glue fine-tunes, which takes minutes to hours a task."
)
EXAMPLES = (
    ("Is a model better than another?", "prune-cli eval run/ base/ --against base/ --data test.jsonl.zst"),
    (
        "Is a recipe better than another? Three seeds of each:",
        "prune-cli eval a1/ a2/ a3/ --against b1/ --against b2/ --against b3/ --data test.jsonl.zst",
    ),
    (
        "Keep the numbers of each document, and compare them later without a model:",
        "prune-cli eval run/ --data test.jsonl.zst --per-document run.jsonl.zst --resume",
    ),
    (
        "Fail in a script where a model became worse by half a per cent:",
        "prune-cli eval run/ --against base/ --data test.jsonl.zst --fail-if-worse 0.5 -o results.jsonl",
    ),
    (
        "Fine-tune on three tasks of GLUE:",
        "prune-cli eval run/ --glue glue/ --tasks sst2,mrpc,rte -o glue.jsonl --resume",
    ),
)

Result = dict[str, Any]


@dataclass(frozen=True)
class Comparing:
    """What the models are held to."""

    GROUP: ClassVar[str] = "Comparison"
    against: Annotated[
        list[str] | None,
        option(
            "--against",
            metavar="MODEL",
            help="A baseline, or its results. Repeat for more seeds of its recipe.",
        ),
    ] = None
    paired_seeds: Annotated[
        bool,
        option(
            "--paired-seeds",
            help="MODELs and baselines share seeds, in turn. The first MODEL and the first --against, the second ones, and so on.",
        ),
    ] = False
    fail_if_worse: Annotated[
        float | None,
        option(
            "--fail-if-worse",
            metavar="P",
            min=0,
            help="Status 1 where one is P % worse. That is, where even the better end of the interval is.",
        ),
    ] = None

    def check(self) -> None:
        """Raise UsageError for options that compare nothing."""
        for name, asked in (
            ("--fail-if-worse", self.fail_if_worse is not None),
            ("--paired-seeds", self.paired_seeds),
        ):
            if asked and not self.against:
                raise UsageError(
                    f"{name} says how models compare, and there is nothing to compare with",
                    remedy="add --against MODEL",
                )

    def are_arms(self, ours: int, theirs: int) -> bool:
        """Whether the models on either side, so many, are seeds of one recipe each. Raises UsageError for pairs that are none."""
        if self.paired_seeds and not 1 < ours == theirs:
            raise UsageError(
                f"{ours} models and {theirs} baselines are not pairs",
                remedy="name as many, and two or more of each",
            )
        return min(ours, theirs) > 1

    def hold(self, results: Sequence[Result]) -> None:
        """Raise CheckFailed where a comparison says that a model is worse than is allowed, or cannot say."""
        if self.fail_if_worse is None:
            return
        comparisons = [one for one in results if one["result"] == "comparison"]
        if not comparisons:
            raise CheckFailed("nothing was compared", remedy="name a MODEL that is no baseline")
        for one in comparisons:
            about = f"{eval_tables.several(one['model'])} against {eval_tables.several(one['against'])} on {one['data']}"
            if one["effect_interval"] is None:
                raise CheckFailed(
                    f"{about}: the difference cannot be told", remedy="take documents that both can score"
                )
            if (least := 100 * one["effect_interval"][0]) > self.fail_if_worse:
                raise CheckFailed(
                    f"{about}: {least:.2f} % worse at least, {self.fail_if_worse:g} % are allowed"
                )


@dataclass(frozen=True)
class Keeping:
    """Where the results of single documents are kept."""

    GROUP: ClassVar[str] = RESULT
    per_document: Annotated[
        str | None,
        option(
            "--per-document",
            metavar="FILE",
            help="Write each document's results to FILE. It can stand for its models later.",
        ),
    ] = None
    resume: Annotated[
        bool,
        option(
            "--resume",
            help="Go on with what a stopped run left. It works in FILE.partial: of --per-document, or with --glue of -o.",
        ),
    ] = False

    def check(self, output: str | None) -> None:
        """Raise UsageError for what makes no sense together."""
        path = self.per_document
        if self.resume and path in (None, "-"):
            raise UsageError(
                "--resume needs results that stay", remedy="name a file with --per-document FILE"
            )
        if self.resume and (path or "").endswith(".jsonl"):
            raise UsageError(
                "--resume goes on behind a whole frame, which plain output has not",
                remedy="name a FILE.jsonl.zst",
            )
        if path is not None and _place(path) == _place(output or "-"):
            raise UsageError(
                "the results and those of each document would go to one place",
                remedy="name another with -o FILE",
            )

    def check_target(self, inputs: "Sequence[Input]", force: bool) -> None:
        """Raise CannotCreateError or PermissionDeniedError where the file can be known to be refused."""
        from .. import storage
        from ..stages.eval import journal

        path = self.per_document
        if (
            path not in (None, "-")
            and not storage.is_stream(path)
            and not (self.resume and journal.is_finished(path))
        ):
            storage.check_target(path, inputs, force=force)

    @contextmanager
    def journal(
        self, tasks: "Sequence[Task]", inputs: "Sequence[Input]", force: bool, reading: Reading
    ) -> "Iterator[Journal]":
        """What is known of the tasks; it goes to the file as it grows, if there is one."""
        from ..stages.eval import journal

        path = self.per_document
        if path is None:
            yield journal.Journal(tasks)
        elif self.resume and journal.is_finished(path) and not force:
            with _results(reading, path) as source:
                found = journal.finished(source, tasks)
            yield found
        else:
            with journal.kept(
                path, tasks, inputs, force=force, resume=self.resume, threads=processors()
            ) as growing:
                yield growing


@expanded
def eval(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="The models to evaluate, or files that --per-document wrote."
        ),
    ],
    data: Annotated[
        list[str] | None, option("--data", metavar="FILE", help="Held-out text. Repeat for more test sets.")
    ] = None,
    group_by: Annotated[
        str | None, option("--group-by", metavar="FIELD", help="Results for each value of this field, too.")
    ] = None,
    cluster: Annotated[
        str | None,
        option(
            "--cluster",
            metavar="FIELD",
            help="Resample whole books, or sites. Documents with the same value of FIELD hang together.",
        ),
    ] = None,
    seed: Annotated[int, option("--seed", metavar="N", min=0, help="Of the resampling.")] = 0,
    text_field: TextField = "text",
    comparing: Comparing = Comparing(),
    keeping: Keeping = Keeping(),
    tuning: Tuning = Tuning(),
    output: OutputFile = None,
    force: Force = False,
    running: ModelSettings = ModelSettings(),
    reading: Reading = Reading(),
) -> None:
    """Measure how well models predict held-out text, with 95 % intervals.

    Writes perplexity and bits per byte, one JSON record per model, test set and group, or a table on a terminal. With --against it
    compares each MODEL with that one: the difference on the very same documents, with a paired interval; negative effects are better
    than the baseline.

    A record's `result` is `likelihood` (`documents`, `tokens`, `bytes`, `perplexity`, `bits_per_byte`, `word_perplexity`, and what ends in
    `_interval`) or `comparison`: `delta` in its `unit`, `effect` on perplexity (-0.01 is one per cent lower), `p` by random sign flips,
    `improved`, the share of documents that became likelier. `clusters` are what is resampled where --cluster names them, `provenance`
    is what the numbers hang on.

    With two or more of both, the MODELs are seeds of one recipe and the --against those of another: one comparison of the two
    recipes, whose interval holds the noise of training, too. With a single one on a side, each is compared with each.

    With --glue it fine-tunes each model on GLUE's tasks, by the paper's protocol, and writes one record per task and seed, one per
    task (mean and deviation, beside what the most common class and a blind guess would get) and the average over the tasks.
    """
    likelihoods = {
        "--data": data,
        "--against": comparing.against,
        "--group-by": group_by,
        "--cluster": cluster,
    }
    tuning.check({**likelihoods, "--per-document": keeping.per_document})
    if tuning.glue:
        tuning.run(models, running, reading, output, force=force, resume=keeping.resume)
        return
    comparing.check()
    keeping.check(output)
    reading.configure("eval")
    theirs = list(dict.fromkeys(comparing.against or []))
    ours = [model for model in dict.fromkeys(models) if model not in theirs]
    kept = [name for name in (*theirs, *ours) if _is_file(name)]
    loaded = [name for name in (*theirs, *ours) if name not in kept]
    if loaded and not data:
        raise UsageError("nothing to evaluate on", remedy="name a test set with --data FILE")
    from .. import storage
    from ..models import safety

    for model in loaded:
        safety.check(model)
    inputs = storage.operands([*kept, *dict.fromkeys(data or [])]) if kept or data else []
    keeping.check_target(inputs, force)
    with ExitStack() as stack:
        with storage.create(output, inputs, force=force) as out:
            from ..stages.eval import measure as stage
            from ..statistics.bootstrap import Sampling

            sets = [
                _heldout(stack, reading, name, text_field, group_by, cluster)
                for name in dict.fromkeys(data or [])
            ]
            _check_distinct(sets)
            known = {name: _runs(reading, name, sets, group_by, cluster) for name in kept}
            work = Work(loaded, sets, known, running, {"group_by": group_by, "cluster": cluster})
            arms = comparing.are_arms(work.count(ours), work.count(theirs))
            with keeping.journal(work.tasks, inputs, force, reading) as journal, work.bar(reading) as bar:
                of_ours, of_theirs = (work.runs(names, journal, bar.advance) for names in (ours, theirs))
                sampling = Sampling(seed, threads=processors())
                found = _written(
                    stage.evaluate(of_ours, of_theirs, sampling, arms=arms, paired=comparing.paired_seeds),
                    out,
                )
            if out.is_terminal():
                eval_tables.show(found)
        comparing.hold(found)


# --- what is read -------------------------------------------------------------------------------------------------------------


def _is_file(name: str) -> bool:
    """Whether an operand is results, not a model."""
    from .. import storage

    return name == "-" or storage.is_file(name)


def _place(path: str) -> str:
    from .. import storage

    return storage.location(path)


def _heldout(
    stack: ExitStack, reading: Reading, name: str, text_field: str, group_by: str | None, cluster: str | None
) -> "Heldout":
    from ..stages.eval.results import heldout

    return heldout(
        name, stack.enter_context(reading.source("eval", [name], bar=False)), text_field, group_by, cluster
    )


def _check_distinct(sets: "Sequence[Heldout]") -> None:
    """Raise UsageError for test sets with the same documents: which is compared with which could not be told."""
    names: dict[str, str] = {}
    for one in sets:
        if (other := names.setdefault(one.hash, one.name)) != one.name:
            raise UsageError(f"{other} and {one.name} hold the same documents", remedy="name one of them")


def _results(reading: Reading, name: str) -> "AbstractContextManager[Source]":
    """The records of a result file, none of which may be missing."""
    return replace(reading, skip_bad=False, expect_records=None).source("eval", [name], bar=False)


def _runs(
    reading: Reading, name: str, sets: "Sequence[Heldout]", group_by: str | None, cluster: str | None
) -> "list[Run]":
    """What a result file holds of the test sets, or of all there are."""
    from ..stages.eval import results

    with _results(reading, name) as source:
        runs = results.runs(source)
    if not sets:
        for run in runs:
            for wanted, had in ((group_by, "group_by"), (cluster, "cluster")):
                if wanted and run.provenance.get(had) != wanted:
                    fault = f"the results of {run.model} do not say the `{wanted}` of a document"
                    raise UsageError(fault, place=name, remedy="name the test set with --data, too")
        return runs
    by_hash = {one.hash: one for one in sets}
    found = [
        results.again(run, by_hash[run.provenance["data"]])
        for run in runs
        if run.provenance["data"] in by_hash
    ]
    if missing := next((one.name for one in sets if one.name not in {run.data for run in found}), None):
        raise DataError(
            f"holds no results on the documents of {missing}",
            place=name,
            remedy="evaluate the models on them, too",
        )
    return found


# --- what is run --------------------------------------------------------------------------------------------------------------


@dataclass
class Work:
    """The models that are run, the test sets they are run on, and how; and the runs that are known from files."""

    models: Sequence[str]
    sets: "Sequence[Heldout]"
    known: "dict[str, list[Run]]"
    running: ModelSettings
    fields: dict[str, str | None]
    tasks: "list[Task]" = field(init=False)

    def __post_init__(self) -> None:
        from ..stages.eval.results import Task

        self.tasks = []
        for model in self.models:
            made = _provenance(model, self.running, self.sets)
            self.tasks += [
                Task(model, one.name, {**made, "data": one.hash, **self.fields}, one.items)
                for one in self.sets
            ]

    def count(self, names: Sequence[str]) -> int:
        """How many models these operands stand for."""
        return sum(
            len({(run.model, run.provenance["model"]) for run in self.known[name]})
            if name in self.known
            else 1
            for name in names
        )

    def bar(self, reading: Reading) -> AbstractContextManager[terminal.Progress]:
        """Over the documents that models read."""
        documents = len(self.models) * sum(len(one.items) for one in self.sets)
        return (
            reading.bar("eval", documents, "documents")
            if documents
            else terminal.progress("eval", None, wanted=False)
        )

    def runs(
        self, names: Sequence[str], journal: "Journal", advance: "Callable[[int], object]"
    ) -> "Iterator[Run]":
        """Those of all models that the operands stand for, in turn."""
        for name in names:
            yield from self.known[name] if name in self.known else self._measured(name, journal, advance)

    def _measured(
        self, model: str, journal: "Journal", advance: "Callable[[int], object]"
    ) -> "Iterator[Run]":
        from ..stages.eval import measure as stage
        from ..stages.score import windows

        first = self.models.index(model) * len(self.sets)
        return stage.measure(
            partial(_load, model, self.running),
            [(number, one.contents) for number, one in enumerate(self.sets, first)],
            journal,
            lambda items, loaded, place: windows.score(items, windows.Scoring((), [loaded]), place=place),
            advance,
        )


def _provenance(model: str, running: ModelSettings, sets: "Sequence[Heldout]") -> dict[str, Any]:
    """What a model's numbers hang on; refused where others packed the blocks."""
    from ..models.language_model import provenance
    from ..records.documents import check_tokenizer
    from ..stages.eval import comparability
    from ..version import __version__

    found = provenance(model, running)
    for one in sets:
        check_tokenizer(one.heads, found["tokenizer"], one.name)
    found["versions"] |= {"prune_cli": __version__}
    return {**found, "training": comparability.training(Path(model))}


def _load(model: str, running: ModelSettings) -> "LanguageModel":
    from ..models.language_model import load

    return load(model, running)


# --- what is said -------------------------------------------------------------------------------------------------------------


def _written(results: Iterator[Result], out: "Output") -> list[Result]:
    """The results, each written as it comes, but to a terminal."""
    from ..records.documents import written

    found = []
    for result in results:
        found.append(result)
        if not out.is_terminal():
            out.write(written(result) + b"\n")
    return found
