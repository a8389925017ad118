"""prune-cli score"""

import json
import logging
import os
import re
import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING, Annotated, Any
from zlib import crc32

from .. import terminal
from ..errors import UsageError
from . import options
from .options import Files, GroupBy, Model, Overwrite, Prefix, Streams, TextField, expanded, option

if TYPE_CHECKING:
    from ..io.documents import Document
    from ..io.files import Input, Output
    from ..io.records import Record, Source
    from ..io.scores import Layout
    from ..io.sink import Sink
    from ..model import LanguageModel

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """Which part of a corpus is scored, what is written of it and where, and how a run that was stopped is gone on with."""

    output_directory: Annotated[
        str | None,
        option("--output-directory", "-O", metavar="DIR", help="Write one output for each FILE into DIR; pass over what is done."),
    ] = None
    resume: Annotated[bool, option("--resume", help="Work in FILE.partial, keep it when stopped, go on with the one there is.")] = False
    shard: Annotated[
        str | None, option("--shard", metavar="I/N", help="Score the I-th of N equal parts; their outputs together are the whole.")
    ] = None
    only: Annotated[str | None, option("--only", metavar="FIELD,...", help="Write these fields alone, for example id,perplexity.")] = None
    summary: Annotated[str | None, option("--summary", metavar="FILE", help="Write what the run did to FILE, as JSON.")] = None

    def check(self, inputs: "list[Input]", streams: Streams) -> None:
        """Raise UsageError, CannotCreateError or PermissionDeniedError for what can be known to fail before anything is read."""
        from ..io import files

        if self.output_directory and streams.output:
            raise UsageError("-o and -O exclude each other", remedy="name one output, or a directory for many")
        if self.output_directory and streams.expect_records is not None:
            raise UsageError("--expect-records counts the records of one output", remedy="leave it out, or write one with -o FILE")
        if self.resume and not (self.output_directory or streams.output not in (None, "-")):
            raise UsageError("--resume needs an output that stays", remedy="name a file with -o FILE, or a directory with -O DIR")
        if self.resume and (streams.plain or streams.single_frame or (streams.output or "").endswith(".jsonl")):
            raise UsageError("--resume goes on behind a whole frame, which neither plain output nor a single frame has")
        if self.summary and not files.is_special(self.summary):
            files.check_target(self.summary, inputs, force=streams.force)
        self.part()

    def part(self) -> tuple[int, int] | None:
        """Which shard, and of how many."""
        if self.shard is None:
            return None
        match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", self.shard, re.ASCII)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(f"'{self.shard}' is no shard", remedy="for example --shard 1/4, the first of four")
        return int(match[1]), int(match[2])

    def jobs(self, inputs: "list[Input]", streams: Streams) -> "list[tuple[list[Input], str | None]]":
        """Inputs and the path of their output, one such pair for each output."""
        from ..io import outputs

        if self.output_directory is None:
            return [(inputs, streams.output)]
        part = self.shard.replace("/", "-of-") if self.shard else ""
        paths = outputs.in_directory(self.output_directory, inputs, plain=streams.plain, part=part)
        return [([one], path) for one, path in zip(inputs, paths, strict=True)]

    def is_done(self, path: str | None, force: bool) -> bool:
        """Whether another run has finished an output of the directory: the final name is there."""
        return self.output_directory is not None and os.path.exists(path or "") and not force

    def output(self, path: str | None, inputs: "list[Input]", force: bool) -> "AbstractContextManager[Output]":
        from ..io import partial

        return partial.resume(path or "", inputs, force=force) if self.resume else partial.afresh(path, inputs, force=force)

    def dealt(self, source: "Source") -> "Source":
        """A source without the records of other shards. Many short files begin with different ones, so that each gets its part."""
        if part := self.part():
            source.deal(*part, crc32(os.fsencode(os.path.basename(source.inputs[0].path))) if self.output_directory else 0)
        return source

    def write_summary(self, content: dict[str, Any], force: bool) -> None:
        from ..io import files

        if self.summary:
            with files.create(self.summary, force=force) as output:
                output.write(json.dumps(content).encode() + b"\n")


@dataclass
class Tally:
    """What this run has done so far; `resumed` records and `finished` outputs were there before it."""

    records: int = 0
    nulls: int = 0
    tokens: int = 0
    bytes: int = 0
    resumed: int = 0
    outputs: int = 0
    finished: int = 0
    scoring: float = 0.0  # seconds
    started: float = field(default_factory=time.perf_counter)

    def begin(self) -> None:
        """Scoring begins: what was loaded and passed over until now took another kind of time."""
        self.since = time.perf_counter()

    def add(self, records: "list[Record]", fields: "list[dict[str, Any]]") -> None:
        now = time.perf_counter()
        self.scoring, self.since = self.scoring + now - self.since, now
        self.records += len(records)
        self.nulls += sum(record.null for record in records)
        self.tokens += sum(new["n_scored"] for new in fields)
        self.bytes += sum(new["n_bytes"] or 0 for new in fields)

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.scoring if self.scoring else 0.0

    def progress(self) -> str:
        return f"{self.records:,} records  {self.rate:,.0f} tokens/s"

    def closing(self) -> str:
        resumed = f"; {self.resumed:,} were there before" if self.resumed else ""
        finished = f"; {self.finished} of {self.finished + self.outputs} outputs were finished before" if self.finished else ""
        return f"scored {self.records:,} records, {self.tokens:,} tokens ({self.rate:,.0f} a second){resumed}{finished}"

    def summary(self) -> dict[str, Any]:
        counts = {name: value for name, value in vars(self).items() if type(value) is int}
        return counts | {"seconds": time.perf_counter() - self.started, "tokens_per_second": self.rate}


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
    work: Work = Work(),
    running: Model = Model(),
    streams: Streams = Streams(),
) -> None:
    """Score records with a causal language model.

    Adds one field per metric and `nll_sum`, `n_scored`, `n_bytes`. Order is kept; results are written as they come, a few
    hundred records at a time. With --resume a run that was stopped, however it was, is gone on with by the same command, and
    its output becomes what it would have been. The outputs of --shard 1/N to N/N put after one another (`cat`) are a stream.

    Example: prune-cli score --model ./reference corpus.jsonl.zst -o scored.jsonl.zst --resume
    """
    if model is None:
        raise UsageError("no model to score with", remedy="name one with --model PATH")
    from .. import metrics
    from ..io.scores import Layout

    flops_per_token, how = 0.0, dict[str, Any]()
    chosen = [metrics.load(name) for name in metric or ["perplexity"]]
    layout = Layout([one.name for one in chosen], prefix, group_by, [name for name in (work.only or "").split(",") if name])
    scorer, tally, sources = cache(partial(_load, model, running)), Tally(), list["Source"]()
    with streams.inputs("score", files) as (inputs, bar):
        work.check(inputs, streams)
        for some, path in work.jobs(inputs, streams):
            if work.is_done(path, streams.force):
                tally.finished += 1
                bar.advance(some[0].status().st_size)
                continue
            with work.output(path, some, streams.force) as output, streams.shown_to_fail(output):
                loaded = scorer()
                from ..io.documents import documents
                from ..io.partial import take_up
                from ..stages import score as stage

                sources.append(source := work.dealt(streams.records(some, bar)))
                how = {"fields": layout.added_scores, "model": model, "tokenizer": loaded.tokenizer_hash, **asdict(loaded.settings)}
                how |= {"min_tokens": min_tokens, "text_field": text_field, "only": layout.only, "shard": work.shard}
                flops_per_token = getattr(loaded, "flops_per_token", 0.0)
                head = options.head_after(source, "score", group_by, (), score=how)
                with streams.sink(output, head, partial(_spent, layout, flops_per_token)) as sink:
                    found = documents(source, text_field, group_by, fresh=layout.fresh, overwrite=overwrite)
                    tally.resumed += take_up(output, sink, found, layout.read_back)
                    items = ((one, one.content) for one in found)
                    scored = stage.score(items, loaded, chosen, min_tokens=min_tokens, size=layout.most_bytes)
                    _write(scored, layout, sink, tally, bar)
            tally.outputs += 1
    work.write_summary({**tally.summary(), "flops": tally.tokens * flops_per_token, "score": how}, streams.force)
    if tally.finished:
        log.info("%d outputs were finished before", tally.finished)
    terminal.closing(tally.closing(), quiet=streams.quiet)
    streams.account(*sources)


def _load(model: str, running: Model) -> "LanguageModel":
    """The model, refused at first sight where it cannot be used: torch takes seconds to load."""
    from .. import safety

    safety.check(model)
    from ..model import load

    return load(model, running.settings())


def _write(
    windows: "Iterable[list[tuple[Document, dict[str, Any]]]]", layout: "Layout", sink: "Sink", tally: Tally, bar: terminal.Progress
) -> None:
    """Each window as a frame of its own, behind which the work can be taken up again."""
    tally.begin()
    for window in windows:
        records = [layout.record(document, fields) for document, fields in window]
        sink.write(records, whole=True)
        sink.end_frame()
        tally.add(records, [fields for _, fields in window])
        bar.describe(tally.progress())


def _spent(layout: "Layout", flops_per_token: float, totals: dict[str, Any]) -> dict[str, Any]:
    """What scoring took, as the trailer says it; where the records do not say how many tokens they have, neither can it."""
    tokens = totals["tokens"]
    return {"work": {"tokens": tokens, "flops": tokens * flops_per_token}} if layout.counts_tokens else {}
