"""prune-cli score"""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any, ClassVar
from zlib import crc32

from .. import metrics, reference, terminal
from ..errors import UsageError
from ..settings.model import Dtype, ModelSettings
from ..stages.score.progress import Throughput
from . import options
from .options import Files, GroupBy, Overwrite, Prefix, Streams, TextField, expanded, option

if TYPE_CHECKING:
    from ..metrics import Metric
    from ..models.language_model import Content
    from ..records.documents import Document
    from ..records.reader import Source
    from ..stages.score.layout import Layout
    from ..stages.score.windows import Scoring
    from ..storage.base import Input, Output
    from ..stream.schema import Totals
    from ..stream.writer import Sink
    from ..training.training_hashes import Seen

COST = (
    "One pass; records come out a window of a few hundred at a time, each a frame of its own. Memory is that of the model and of a "
    "batch (--batch-tokens); logits of a whole batch never exist. Time is the model's: --dry-run says how much."
)
EXAMPLES = (
    (
        "Score with a model of one's own; the same command goes on with a run that was stopped:",
        "prune-cli score --model ./gpt2 corpus.jsonl.zst -o scored.jsonl.zst --resume",
    ),
    (
        "Try it with the small model that comes with the package:",
        "prune-cli score corpus.jsonl.zst | prune-cli rank > ranked.jsonl.zst",
    ),
    (
        "Three metrics from one pass, and only the scores:",
        "prune-cli score -m perplexity -m el2n -m entropy --only id,perplexity,el2n,entropy,n_scored corpus.jsonl.zst > scores.jsonl.zst",
    ),
    ("What a corpus would take:", "prune-cli score --model ./gpt2 --dry-run corpus/*.jsonl.zst"),
    (
        "The second of four machines:",
        "prune-cli score --model ./gpt2 --shard 2/4 -O scored/ corpus/*.jsonl.zst",
    ),
    (
        "How much better one model knows a text than another:",
        "prune-cli score -m excess_loss --model ./gpt2 --against ./base corpus.jsonl.zst > excess.jsonl.zst",
    ),
)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """Which part of a corpus is scored, what is written of it and where, and how a run that was stopped is gone on with."""

    GROUP: ClassVar[str] = options.RESULT
    output_directory: Annotated[
        str | None,
        option(
            "--output-directory",
            "-O",
            metavar="DIR",
            help="Write one output for each FILE into DIR. What is done is passed over.",
        ),
    ] = None
    resume: Annotated[
        bool,
        option(
            "--resume",
            help="Go on with what a stopped run left. It works in FILE.partial, and keeps that when it is stopped.",
        ),
    ] = False
    shard: Annotated[
        str | None,
        option(
            "--shard",
            metavar="I/N",
            help="Score the I-th of N parts. They are runs of 4,096 records, dealt in turn.",
        ),
    ] = None
    only: Annotated[
        str | None, option("--only", metavar="FIELD,...", help="Write these alone, as in id,perplexity.")
    ] = None
    summary: Annotated[
        str | None, option("--summary", metavar="FILE", help="Write what the run did to FILE, as JSON.")
    ] = None

    def check(self, inputs: "list[Input]", streams: Streams) -> None:
        """Raise UsageError, CannotCreateError or PermissionDeniedError for what can be known to fail before anything is read."""
        from .. import storage

        if self.output_directory and streams.output:
            raise UsageError(
                "-o and -O exclude each other", remedy="name one output, or a directory for many"
            )
        if self.output_directory and streams.expect_records is not None:
            raise UsageError(
                "--expect-records counts the records of one output",
                remedy="leave it out, or write one with -o FILE",
            )
        if self.resume and not (self.output_directory or streams.output not in (None, "-")):
            raise UsageError(
                "--resume needs an output that stays",
                remedy="name a file with -o FILE, or a directory with -O DIR",
            )
        if self.resume and (
            streams.plain or streams.single_frame or (streams.output or "").endswith(".jsonl")
        ):
            raise UsageError(
                "--resume goes on behind a whole frame, which neither plain output nor a single frame has"
            )
        if self.summary and not storage.is_stream(self.summary):
            storage.check_target(self.summary, inputs, force=streams.force)
        self.part()

    def part(self) -> tuple[int, int] | None:
        """Which shard, and of how many."""
        if self.shard is None:
            return None
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.shard, re.ASCII)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(
                f"'{self.shard}' is no shard", remedy="for example --shard 1/4, the first of four"
            )
        return int(match[1]), int(match[2])

    @property
    def fields(self) -> list[str]:
        """What is to be written alone; nothing: everything."""
        return [name for name in (self.only or "").split(",") if name]

    def jobs(self, inputs: "list[Input]", streams: Streams) -> "list[tuple[list[Input], str | None]]":
        """Inputs and the path of their output, one such pair for each output."""
        from ..storage import output_paths

        if self.output_directory is None:
            return [(inputs, streams.output)]
        part = self.shard.replace("/", "-of-") if self.shard else ""
        paths = output_paths.in_directory(self.output_directory, inputs, plain=streams.plain, part=part)
        return [([one], path) for one, path in zip(inputs, paths, strict=True)]

    def is_done(self, path: str | None, force: bool) -> bool:
        """Whether another run has finished an output of the directory: the final name is there."""
        from .. import storage

        return self.output_directory is not None and storage.exists(path or "") and not force

    def output(
        self, path: str | None, inputs: "list[Input]", force: bool
    ) -> "AbstractContextManager[Output]":
        from ..stream import resume as partial

        return (
            partial.resume(path or "", inputs, force=force)
            if self.resume
            else partial.afresh(path, inputs, force=force)
        )

    def dealt(self, source: "Source") -> "Source":
        """A source without the records of other shards. Many short files begin with different ones, so that each gets its part."""
        if part := self.part():
            source.deal(
                *part,
                crc32(os.fsencode(os.path.basename(source.inputs[0].path))) if self.output_directory else 0,
            )
        return source

    def write_summary(self, content: dict[str, Any], force: bool) -> None:
        from .. import storage

        if self.summary:
            with storage.create(self.summary, force=force) as output:
                output.write(json.dumps(content).encode() + b"\n")


@dataclass(frozen=True)
class Models:
    """Which models score, and how what they say becomes one number."""

    GROUP: ClassVar[str] = "What is computed"
    model: Annotated[
        list[str] | None,
        option(
            "--model",
            metavar="PATH|HUB_ID",
            help="The model that scores. Repeat for an ensemble; by default PRUNE_CLI_MODEL, or a small one of our own.",
        ),
    ] = None
    against: Annotated[
        str | None,
        option("--against", metavar="PATH|HUB_ID", help="The second model of excess_loss and its kin."),
    ] = None
    per_model: Annotated[
        bool,
        option("--per-model", help="Write each model's own score, too. As perplexity_1, perplexity_2, ..."),
    ] = False
    min_tokens: Annotated[
        int, option("--min-tokens", metavar="N", min=1, help="Records with fewer tokens get null.")
    ] = 1
    top_k: Annotated[
        int, option("--top-k", metavar="K", min=1, help="Of top_k_accuracy: the K likeliest are hits.")
    ] = 5
    seed: Annotated[int, option("--seed", metavar="N", help="Of -m random.")] = 0

    def named(self, chosen: "list[Metric]") -> list[str]:
        """The models to load, that of `against` last. Raises UsageError where the metrics want others than those that were named."""
        two = next((metric.name for metric in chosen if metric.needs_second_model), None)
        if two and not self.against:
            raise UsageError(f"{two} compares two models", remedy="name the second one with --against PATH")
        if self.against and not two:
            raise UsageError("no metric uses --against", remedy="for example -m excess_loss")
        if not any(metric.needs_model for metric in chosen):
            return []
        models = self.model or [os.environ.get("PRUNE_CLI_MODEL") or str(reference.DIRECTORY)]
        return [*models, *([self.against] if self.against else [])]


@dataclass(frozen=True)
class Rehearsal:
    """What is found out on a sample before the work begins."""

    GROUP: ClassVar[str] = "Beforehand"
    dry_run: Annotated[
        bool, option("--dry-run", help="Only say what it would take. As JSON: tokens, FLOPs, hours, bytes.")
    ] = False
    self_check: Annotated[
        int | None,
        option(
            "--self-check",
            metavar="N",
            min=1,
            help="Verify the first N scores first. Against each record alone in float32; status 1 if they differ.",
        ),
    ] = None

    def check(self, with_models: bool, work: Work) -> None:
        """Raise UsageError for what makes no sense together."""
        if self.self_check and not with_models:
            raise UsageError(
                "--self-check compares what models say, and no metric asks one", remedy="leave it out"
            )
        if self.dry_run and (self.self_check or work.summary):
            raise UsageError(
                "--dry-run writes nothing and scores but a sample",
                remedy="leave out --summary and --self-check",
            )


@dataclass(frozen=True)
class Corpus:
    """What is read of the records, and what is written of them."""

    text_field: str
    group: str
    overwrite: bool
    layout: "Layout"
    seen: "Seen"

    def documents(self, source: "Source", scoring: "Scoring") -> "Iterator[Document]":
        from ..records.documents import documents

        tokenizer = scoring.models[0].tokenizer_hash if scoring.models else None
        also = dict.fromkeys((self.group, "id"))
        return documents(
            source,
            self.text_field,
            *also,
            fresh=self.layout.fresh,
            overwrite=self.overwrite,
            tokenizer=tokenizer,
        )

    def described(self, scoring: "Scoring", shard: str | None) -> dict[str, Any]:
        """What the scores hang on, for the head of the stream."""
        models = [*scoring.models, *([scoring.against] if scoring.against else [])]
        of_models: dict[str, Any] = {}
        if models:
            of_models = {
                "names": [os.path.basename(os.path.normpath(one.name)) for one in models],
                "models": [one.hash for one in models],
            }
            of_models |= {
                "against": scoring.against is not None,
                "tokenizer": models[0].tokenizer_hash,
                **models[0].settings.recorded(),
            }
            of_models["versions"] = models[0].versions
        parameters: dict[str, Any] = {
            name: getattr(scoring, name) for name in ("top_k", "seed") if name in scoring.needs
        }
        how: dict[str, Any] = {
            "fields": self.layout.added_scores,
            **of_models,
            **parameters,
            "min_tokens": scoring.min_tokens,
        }
        return how | {"text_field": self.text_field, "only": self.layout.only, "shard": shard}


@expanded
def score(
    files: Files = None,
    metric: Annotated[
        list[str] | None,
        option(
            "--metric",
            "-m",
            metavar="NAME",
            rich_help_panel=Models.GROUP,
            help=f"{', '.join(metrics.names())}. Repeat for more.",
            show_default="perplexity",
        ),
    ] = None,
    text_field: TextField = "text",
    prefix: Prefix = "",
    overwrite: Overwrite = False,
    group_by: GroupBy = "source",
    models: Models = Models(),
    work: Work = Work(),
    rehearsal: Rehearsal = Rehearsal(),
    running: ModelSettings = ModelSettings(),
    streams: Streams = Streams(),
) -> None:
    """Score records with a causal language model.

    Adds one field per metric and `nll_sum` (nats over the scored tokens), `n_scored` (their number) and `n_bytes` (of UTF-8).
    Order is kept. With --resume the same command continues a run that was stopped, however it was, and the output becomes what it
    would have been. The outputs of --shard 1/N to N/N put after one another (`cat`) are a stream. Without --model a small
    one scores that comes with the package, for trying out and triage.

    --dry-run writes an estimate from the first records: `records`, `tokens`, `flops`, `hours_here`, `gpu_hours` (an H100 at two fifths
    of its rate), `bytes` (of the output), `sampled_records` and `sampled_share`. --summary writes the counts of a run, its `seconds`,
    `tokens_per_second`, and under `score` everything that the scores hang on.
    """
    from ..stages.score.layout import Layout, counts, names
    from ..training.training_hashes import Seen

    chosen = [metrics.load(name) for name in dict.fromkeys(metric or ["perplexity"])]
    wanted = models.named(chosen)
    rehearsal.check(bool(wanted), work)
    fields = names(
        [(one.name, one.needs_model) for one in chosen],
        len(wanted) - bool(models.against) if models.per_model else 0,
    )
    layout = Layout(fields, counts(bool(wanted), models.against is not None), prefix, group_by, work.fields)
    corpus = Corpus(text_field, group_by, overwrite, layout, Seen(wanted))
    scorer, tally, sources, how = (
        cache(partial(_load, models, chosen, wanted, running)),
        Throughput(),
        list["Source"](),
        dict[str, Any](),
    )
    with ExitStack() as closed, streams.inputs("score", files) as (inputs, bar):
        work.check(inputs, streams)
        if rehearsal.dry_run:
            _dry_run(scorer(), corpus, streams, inputs)
            return
        for some, path in work.jobs(inputs, streams):
            if work.is_done(path, streams.force):
                tally.finished += 1
                bar.advance(some[0].size or 0)
                continue
            with work.output(path, some, streams.force) as output, streams.shown_to_fail(output):
                scoring = scorer()
                source = work.dealt(closed.enter_context(closing(streams.records(some, bar))))
                sources.append(source)
                how = corpus.described(scoring, work.shard)
                head = options.head_after(source, "score", group_by, (), score=how)
                with streams.sink(output, head, partial(_work, layout, scoring)) as sink:
                    _score(
                        corpus,
                        source,
                        output,
                        sink,
                        scoring,
                        tally,
                        bar,
                        None if tally.outputs else rehearsal.self_check,
                    )
            tally.outputs += 1
    passed_over = {name: sum(getattr(source, name) for source in sources) for name in ("blank", "skipped")}
    work.write_summary({**tally.summary(), **passed_over, "score": how}, streams.force)
    if tally.finished:
        log.info("%d outputs were finished before", tally.finished)
    if tally.seen:
        log.warning(corpus.seen.words(tally.seen, tally.records))
    terminal.closing(tally.closing(), quiet=streams.quiet)
    streams.account(*sources)


def _load(models: Models, chosen: "list[Metric]", wanted: list[str], running: ModelSettings) -> "Scoring":
    """The models, refused at first sight where they cannot be used: torch takes seconds to load, and is not where none is wanted."""
    from ..models import safety

    for name in wanted:
        safety.check(name)
    from ..stages.score.windows import Scoring

    if not wanted:
        return Scoring(chosen, seed=models.seed)
    from ..models.language_model import load

    loaded = [load(name, running) for name in wanted]
    second = loaded.pop() if models.against else None
    return Scoring(chosen, loaded, second, models.per_model, models.min_tokens, models.top_k, models.seed)


def _score(
    corpus: Corpus,
    source: "Source",
    output: "Output",
    sink: "Sink",
    scoring: "Scoring",
    tally: Throughput,
    bar: terminal.Progress,
    self_check: int | None,
) -> None:
    """Each window as a frame of its own, behind which the work can be taken up again; a reader that left is noticed with each batch."""
    from ..stages.score import windows as stage
    from ..stream.resume import take_up

    found = corpus.documents(source, scoring)
    tally.resumed += take_up(output, sink, found, corpus.layout.read_back)
    if self_check:
        first = list(islice(found, self_check))
        tally.self_check = _self_check(first, scoring)
        found = chain(first, found)
    tally.begin()
    windows = stage.score(
        ((one, one.content) for one in found),
        scoring,
        identity=lambda document: document["id"],
        size=corpus.layout.most_bytes,
        pulse=lambda tokens: output.check_reader(),
    )
    for window in windows:
        records = [corpus.layout.record(document, fields) for document, fields in window]
        sink.write(records, whole=True)
        sink.end_frame()
        tally.add(records, [fields for _, fields in window], partial(_flops, scoring))
        tally.seen += corpus.seen.count([document.content for document, _ in window])
        bar.describe(tally.progress())


def _flops(scoring: "Scoring", totals: "Mapping[str, int]") -> float:
    """What records took, from how many there are: one pass over their tokens, and a continuation of each that has a score."""
    return (
        totals["tokens"] * scoring.flops_per_token
        + (totals["records"] - totals["nulls"]) * scoring.flops_per_continuation
    )


def _work(layout: "Layout", scoring: "Scoring", totals: "Totals") -> dict[str, Any]:
    """What scoring took, as the trailer says it; where the records do not say how many tokens they have, neither can it."""
    if not layout.counts_tokens:
        return {}
    counts = {"tokens": totals.tokens, "records": totals.records, "nulls": totals.nulls}
    return {"work": {"tokens": totals.tokens, "flops": _flops(scoring, counts)}}


def _fields(scoring: "Scoring", contents: "Sequence[Content]") -> list[dict[str, Any]]:
    """The new fields of some contents."""
    from ..stages.score import windows as stage

    return [fields for window in stage.score(enumerate(contents), scoring) for _, fields in window]


def _self_check(documents: "list[Document]", scoring: "Scoring") -> float:
    """The first records as they are scored, and once more: one at a time, in float32."""
    from ..models.language_model import load
    from ..stages.score import estimate

    exact = [load(one.name, replace(one.settings, dtype=Dtype.float32)) for one in scoring.models]
    likelihoods, again = (
        replace(scoring, metrics=(), against=None),
        replace(scoring, metrics=(), models=exact, against=None),
    )
    contents, places = [one.content for one in documents], [str(one) for one in documents]
    dtype = scoring.models[0].settings.dtype
    return estimate.self_check(
        contents, places, partial(_fields, likelihoods), partial(_fields, again), dtype
    )


def _dry_run(scoring: "Scoring", corpus: Corpus, streams: Streams, inputs: "list[Input]") -> None:
    """Say on standard output what the work would take, from the records at the start of the first file."""
    from ..stages.score import estimate
    from ..stages.score.sample import sampled

    with streams.bar("score", None) as bar:
        source, documents = streams.records(inputs[:1], bar), partial(corpus.documents, scoring=scoring)
        sample = sampled(inputs, source, documents, fields=len(corpus.layout.added), level=streams.level)
    some = estimate.Sample([one.content for one in sample.documents], sample.share, sample.bytes)
    print(
        json.dumps(
            estimate.dry_run(
                some, partial(_fields, scoring), scoring.flops_per_token, scoring.flops_per_continuation
            )
        )
    )
