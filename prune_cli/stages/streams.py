"""How are the sources and the output of a verb opened? All are checked before anything is read."""

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from .. import metrics, sizes, storage, terminal
from ..errors import UsageError
from ..records import reader
from ..records.documents import Document
from ..records.fields import nested_remedy
from ..records.reader import Source
from ..settings.streams import Messages, Reading, Streams, processors
from ..storage.base import Input, Output
from ..stream import dataset, writer
from ..stream.lookahead import Limits
from ..stream.schema import Head
from ..stream.writer import Closing, Sink

log = logging.getLogger(__name__)
FOREIGN_SUFFIXES = (".gz", ".bz2", ".xz", ".parquet", ".csv", ".json")  # formats that we do not write


@dataclass(frozen=True)
class VerbProgress:
    """How the progress of a verb is shown."""

    verb: str
    messages: Messages

    def bar(self, total: float | None, unit: str = "bytes") -> AbstractContextManager[terminal.Progress]:
        """A bar over `total` units; None where the total is unknown."""
        return terminal.progress(
            self.verb,
            total,
            unit,
            wanted=self.messages.shows_progress(),
            at_once=bool(self.messages.progress),
        )


@contextmanager
def open_source(
    verb: str,
    paths: Sequence[str],
    reading: Reading,
    *,
    replay: bool = False,
    bar: bool = True,
    passes: int = 1,
) -> Iterator[Source]:
    """The records of the operands, with a progress bar over their bytes in so many passes.

    With `replay` a pipe is copied to a temporary file as it is read, so that it can be read again: that is a
    pass more.
    """
    with open_inputs(verb, paths, reading, bar=bar, passes=passes + replay) as (inputs, shown):
        source = source_of(inputs, reading, shown, replay=replay)
        try:
            yield source
        finally:
            source.close()
    report_skipped(source)


@contextmanager
def open_inputs(
    verb: str, paths: Sequence[str], messages: Messages, *, bar: bool = True, passes: int = 1
) -> Iterator[tuple[list[Input], terminal.Progress]]:
    """The operands, checked, and a progress bar over their bytes, which are read `passes` times."""
    inputs = dataset.expand(paths)
    storage.warn_of_repeats(inputs)
    total = storage.total_size(inputs)
    silent = terminal.progress(verb, None, wanted=False)
    shown = VerbProgress(verb, messages).bar(passes * total if total else None)
    with shown if bar else silent as progress:
        yield inputs, progress


def source_of(
    inputs: list[Input], reading: Reading, progress: terminal.Progress, *, replay: bool = False
) -> Source:
    """The records of some of the inputs, in turn."""
    for file in inputs:
        file.progress = progress.advance
        file.keep = replay
    limits = Limits(reading.long, reading.ignore_trailing, reading.allow_empty, reading.column_names())
    accepted = reader.ReadingLimits(
        reading.strip_bom, reading.skip_bad, sizes.parse(reading.max_line), reading.expect_records, limits
    )
    return Source(inputs, accepted, log.warning)


class RecordProgress:
    """Advances the bar of a source by the records that are done, instead of by the bytes that are read.

    Input is read ahead, and a small one whole before its first record is scored. The bar counts bytes of
    input, which may be compressed. It therefore shows the bytes read so far, multiplied by the share of the
    text read so far that belongs to finished records. Make it before anything is read.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.advance: Callable[[int], object] = source.inputs[0].progress
        self.bytes = 0  # read
        self.text = 0  # bytes of text that they hold
        self.finished = 0  # bytes of text of the records that are done
        self.shown = 0  # bytes that the bar has been advanced by
        for file in source.inputs:
            file.progress = self._take_bytes
        source.on_text = self._take_text

    def done(self, text: int) -> None:
        """Records with so many bytes of text, their line ends included, are done."""
        self.finished += text
        kept = self.source.records
        # Records that were skipped, or belong to another shard, pass with those around them.
        passed = kept + self.source.skipped + self.source.elsewhere
        if kept and self.text:
            self._show(int(self.bytes * min(1.0, self.finished / self.text * passed / kept)))

    def through(self, documents: Iterable[Document]) -> Iterator[Document]:
        """The same documents, each counted as done when the next one is asked for."""
        for document in documents:
            yield document
            # A byte more for the line end.
            self.done(len(document.line) + 1)
        self.finish()

    def finish(self) -> None:
        """Everything that was read is done."""
        self._show(self.bytes)

    # The next two run in the thread that reads ahead: they only add up.
    def _take_bytes(self, size: int) -> None:
        self.bytes += size

    def _take_text(self, size: int) -> None:
        self.text += size

    def _show(self, position: int) -> None:
        # The estimate may fall when text turns out to be compressed better; a bar does not go back.
        if position > self.shown:
            self.advance(position - self.shown)
            self.shown = position


class InputProgress:
    """Progress of workers on the bar of a source that is read by them, and not here."""

    def __init__(self, source: Source) -> None:
        self.done = 0.0
        self.total: float | None = storage.total_size(source.inputs)
        self._advance: Callable[[int], object] = source.inputs[0].progress
        # What this process reads of the source is read again by the workers.
        for file in source.inputs:
            file.progress = lambda size: None

    def advance(self, amount: float) -> None:
        """Add to the amount that is done."""
        self.done += amount
        self._advance(int(amount))

    def describe(self, text: str) -> None:
        """Do nothing: the bar of a source has no note."""

    def expect(self, total: float) -> None:
        """Set the total."""
        self.total = total


class OutputProgress:
    """Advances the bar of a source by records that are written: all of them are as much as its inputs."""

    def __init__(self, source: Source, records: int) -> None:
        self.advance: Callable[[int], object] = source.inputs[0].progress
        self.size = storage.total_size(source.inputs) or 0
        self.records = records
        self.written = 0

    def wrote(self, records: int) -> None:
        """Some more records are written."""
        before = self._position()
        self.written += records
        self.advance(self._position() - before)

    def _position(self) -> int:
        # From the sum, so that the parts of a byte do not add up to an error.
        return self.size * self.written // max(self.records, 1)


class WorkerProgress:
    """The bar of a source, for workers that read its inputs `passes` times."""

    def __init__(self, source: Source, passes: int) -> None:
        self.source = source
        self.done = 0.0
        self.total: float | None = passes * (storage.total_size(source.inputs) or 0)

    def advance(self, amount: float) -> None:
        """Add to the amount that is done."""
        self.done += amount
        self.source.inputs[0].progress(int(amount))

    def describe(self, text: str) -> None:
        """Do nothing: the bar of a source has no notes."""

    def expect(self, total: float) -> None:
        """Do nothing: the total is known."""


def report_skipped(*sources: Source) -> None:
    """Log how many blank lines and bad records were skipped."""
    log_skipped(sum(source.blank for source in sources), sum(source.skipped for source in sources))
    for source in sources:
        warn_of_missing(source)


def warn_of_missing(source: Source) -> None:
    """Log fields that options name and that no record has: --group-by and --tokens-field do not need them."""
    for name in source.missing_fields:
        remedy = nested_remedy(name)
        log.warning("%s: no record has a field `%s`%s", source.name, name, f"; {remedy}" if remedy else "")


def log_skipped(blank: int, skipped: int) -> None:
    """As `report_skipped`, for a verb that adds up the counts itself."""
    if blank:
        log.info("%d blank lines were skipped", blank)
    if skipped:
        log.warning("%d bad records were skipped", skipped)


@contextmanager
def open_streams(
    verb: str, paths: Sequence[str], streams: Streams, *, replay: bool = False, passes: int = 1
) -> Iterator[tuple[Source, Output]]:
    """Source and output, both checked first. The output takes its name when the block ends well.

    `passes` is as in `open_source`. A verb that reads everything before it writes counts writing as a pass.
    """
    to_terminal = streams.output in (None, "-") and terminal.shows_output()
    bar = bool(streams.progress) or not to_terminal  # a bar would stand among the records
    with (
        open_source(verb, paths, streams, replay=replay, bar=bar, passes=passes) as source,
        storage.create(streams.output, source.inputs, force=streams.force) as output,
        failing_visibly(output, streams),
    ):
        yield source, output


@contextmanager
def open_divided(
    verb: str, paths: Sequence[str], streams: Streams, passes: int
) -> Iterator[tuple[Source, Output, terminal.Progress]]:
    """As `open_streams`, for a verb whose records are read by workers, who use the progress.

    The source is for a look at the first record, and for the counts of the workers, which it reports.
    """
    to_terminal = streams.output in (None, "-") and terminal.shows_output()
    bar = bool(streams.progress) or not to_terminal
    with (
        open_for_workers(verb, paths, streams, passes, bar=bar) as (source, progress),
        storage.create(streams.output, source.inputs, force=streams.force) as output,
        failing_visibly(output, streams),
    ):
        yield source, output, progress


@contextmanager
def open_for_workers(
    verb: str, paths: Sequence[str], reading: Reading, passes: int, *, bar: bool = True
) -> Iterator[tuple[Source, terminal.Progress]]:
    """As `open_divided`, for outputs that the workers write."""
    with (
        open_inputs(verb, paths, reading, bar=bar, passes=passes) as (inputs, progress),
        terminal.progress(verb, None, wanted=False) as silent,
    ):
        # Workers count what they read; the look at the first record is no progress.
        source = source_of(inputs, reading, silent)
        with closing(source):
            yield source, progress
    report_skipped(source)


@contextmanager
def failing_visibly(output: Output, streams: Streams) -> Iterator[None]:
    """Leave the output unfinished when the block fails, so that its reader fails too."""
    try:
        yield
    except BaseException:
        writer.leave_unfinished(output, is_plain(streams, output))
        raise


def is_plain(streams: Streams, output: Output) -> bool:
    """Whether the output is uncompressed JSON Lines."""
    return output.is_terminal() or is_plain_by_name(streams)


def is_plain_by_name(streams: Streams) -> bool:
    """Whether the output is uncompressed JSON Lines wherever it goes."""
    return streams.plain or (streams.output or "").endswith(".jsonl")


def open_sink(
    streams: Streams, output: Output, head: Head, trailer: Closing = lambda totals: {}
) -> AbstractContextManager[Sink]:
    """The sink that writes records to the output."""
    plain = is_plain(streams, output)
    if os.path.splitext(streams.output or "")[1] in FOREIGN_SUFFIXES and not plain:
        log.warning("writing zstd to %s despite its name", streams.output)
    writing = writer.Writing(plain, streams.single_frame, streams.level, streams.threads or processors())
    return writer.open_sink(output, head, writing, trailer)


def the_score(source: Source) -> str:
    """The field to rank by when none was named: the only score of the stream.

    Raises UsageError if there are several.
    """
    head, present = source.peek()
    scores = scores_among(head, present)
    if len(scores) == 1 or not present:
        return scores[0] if scores else "perplexity"
    fault = f"no known score among {', '.join(present)}"
    if scores:
        fault = f"several scores: {', '.join(scores)}"
    raise UsageError(f"{source.name} has {fault}", remedy="name one with -k FIELD")


def group_field_of(source: Source, wanted: str | None) -> str:
    """The field by which records are counted: `wanted`, else that of the stream's head, else source."""
    if wanted:
        source.watch(wanted)
    head, _ = source.peek()
    return wanted or (head.group if head else None) or "source"


def tokens_field_of(source: Source, wanted: str | None) -> str:
    """The field that holds the token count: `wanted`, else what the head of the stream implies.

    A ranking names it. Unscored blocks use `n_tokens`. If the scores have a prefix, so does `n_scored`.
    """
    if wanted:
        source.watch(wanted)
        return wanted
    head, present = source.peek()
    if head and head.rank and head.rank.tokens_field:
        return head.rank.tokens_field
    if "n_scored" in present:
        return "n_scored"
    return _implied_tokens_field(head, present) or "n_scored"


def _implied_tokens_field(head: Head | None, present: list[str]) -> str | None:
    if head and head.verb == "pack":
        return "n_tokens"
    # The field of a score is a prefix and a metric's name. If several names match its end, take the longest.
    for field in head.score.fields if head and head.score else ():
        metric = max((name for name in metrics.names() if field.endswith(name)), key=len, default="")
        name = field.removesuffix(metric) + "n_scored"
        if metric and name in present:
            return name
    return None


def scores_among(head: Head | None, present: list[str]) -> list[str]:
    """The fields of a stream that are scores: those that its head names, and those named like a metric."""
    named = head.score.fields if head and head.score else ()
    return [name for name in dict.fromkeys((*named, *metrics.names())) if name in present]


def head_after(
    source: Source, verb: str, group: str, keeps: tuple[str, ...] = ("score",), **added: Any
) -> Head:
    """The head of an output: `pack` and `keeps` of the input's head, then `added` by this verb."""
    head, _ = source.peek()
    return Head.compose(verb, group, previous=head, keep=("pack", *keeps), **added)
