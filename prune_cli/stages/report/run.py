"""Run `report`: from streams, slices, runs and results to one page, or to its numbers as JSON."""

import json
import logging
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from ... import storage
from ...errors import ConfigurationError
from ...records.reader import Source
from ...settings.report import Page, Subjects
from ...settings.streams import Reading
from ...stream import dataset
from ...stream.schema import Head
from ...version import __version__
from .. import streams
from . import findings, provenance, relations
from .collect.corpus import CorpusPass, Fields
from .collect.picking import Spot, edge_places, end_places
from .collect.results import read_results
from .collect.runs import read_run
from .collect.slices import SliceReading, edges, facts, read_slice
from .content import Content, Duplicates, ShownDocument, StreamFacts
from .distribution import distribution

VERB = "report"
MIDDLE = (0.45, 0.55)  # quantiles between which a document is near the median
GROUPS_SHOWN = 8  # with distributions and documents of their own; tables have all groups

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ReportOutcome:
    """What was read and shown, and the conclusions of the page."""

    records: int = 0
    documents: int = 0
    skipped: int = 0
    sentences: tuple[str, ...] = ()

    def closing(self) -> list[str]:
        """The conclusions, as the page has them."""
        return [*self.sentences]


@dataclass(frozen=True)
class ReportJob:
    """Write the page of these operands and subjects."""

    inputs: tuple[str, ...]
    subjects: Subjects
    page: Page
    reading: Reading

    def run(self) -> ReportOutcome:
        """Read everything, then write. Raises PruneError."""
        # Cheap faults first: results and runs are small, and a page needs its packages.
        make = _json if self.page.json else _page_maker()
        runs = [read_run(directory) for directory in self.subjects.run or ()]
        results = read_results(self.subjects.results or ())
        paths = [*self.inputs, *(self.subjects.slice_ or ()), *(self.subjects.results or ())]
        with self._sources() as (corpus, cuts), self._output(paths) as output, _recorded() as warnings:
            content = replace(
                self._content(corpus, cuts),
                runs=runs,
                likelihoods=results.likelihoods,
                comparisons=results.comparisons,
                tasks=results.tasks,
            )
            for mismatch in findings.mismatches(content):
                log.warning("%s", mismatch)
            said = findings.cautions(content)
            content = replace(content, findings=findings.findings(content), warnings=[*said, *warnings])
            output.write(make(content))
        skipped = sum(source.skipped for source in (corpus, *cuts) if source)
        records = content.corpus.amount.records if content.corpus else 0
        return ReportOutcome(records, len(content.documents), skipped, tuple(content.findings))

    @contextmanager
    def _output(self, paths: Sequence[str]) -> Iterator[Any]:
        inputs = [storage.input_at(path) for path in paths]
        with storage.create(self.page.output, inputs, force=self.page.force) as output:
            yield output

    @contextmanager
    def _sources(self) -> Iterator[tuple[Source | None, list[Source]]]:
        """The records of the operands, if there are any, and those of each slice; one bar for all."""
        names = list(self.inputs)
        others = any((self.subjects.slice_, self.subjects.run, self.subjects.results))
        # Without any subject the records are on standard input, as for every verb.
        if not names and not others:
            names = ["-"]
        cuts = self.subjects.slice_ or []
        if not names and not cuts:
            yield None, []
            return
        with streams.open_inputs(VERB, [*names, *cuts], self.reading) as (_, progress):
            opened = [self._source(group, progress) for group in ([names] if names else [])]
            of_cuts = [self._source([path], progress) for path in cuts]
            try:
                yield (opened[0] if opened else None), of_cuts
            finally:
                for source in (*opened, *of_cuts):
                    source.close()
        streams.report_skipped(*opened, *of_cuts)

    def _source(self, names: Sequence[str], progress: Any) -> Source:
        return streams.source_of(dataset.expand(names), self.reading, progress)

    def _content(self, corpus: Source | None, cuts: Sequence[Source]) -> Content:
        group_by = self._group(corpus, cuts)
        content = Content(
            title=self.page.title or "What was pruned",
            version=__version__,
            command=shlex.join(["prune-cli", *sys.argv[1:]]),
            created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            group_by=group_by,
        )
        if corpus is None:
            readings = [read_slice(cut, [], self._tokens(cut), group_by) for cut in cuts]
            return replace(content, slices=[facts(each, -float("inf"), float("inf")) for each in readings])
        fields = self._fields(corpus, group_by)
        readings = [read_slice(cut, list(fields.scores), fields.tokens, group_by) for cut in cuts]
        read = CorpusPass(fields, _places(fields, readings), self.subjects.documents, self.subjects.seed)
        head = read.read(corpus)
        return self._filled(content, corpus, head, read, readings)

    def _filled(
        self,
        content: Content,
        corpus: Source,
        head: Head | None,
        read: CorpusPass,
        readings: Sequence[SliceReading],
    ) -> Content:
        fields = read.fields.scores
        ranking = head.rank if head else None
        unit = str(ranking.unit) if ranking else "records"
        groups = read.groups()
        shown = {name: read.code(name) for name in list(groups)[:GROUPS_SHOWN]}
        described = [
            distribution(field, unit, histograms, shown, readings)
            for field, histograms in zip(fields, read.histograms, strict=True)
        ]
        return replace(
            content,
            corpus=StreamFacts(
                name=corpus.name if len(corpus.inputs) == 1 else f"{len(corpus.inputs)} files",
                amount=read.amount,
                nulls=read.nulls,
                text_bytes=read.text_bytes,
                version=head.json.get("version") if head else None,
                steps=provenance.steps(head),
                key=ranking.key if ranking else None,
                unit=unit,
                ranked=ranking.n if ranking else None,
            ),
            groups=groups,
            slices=[_facts_of(reading, read) for reading in readings],
            distributions=[each for each in described if each],
            lengths=relations.lengths(fields, read.sample),
            agreements=relations.agreements(fields, read.sample),
            duplicates=_duplicates(read),
            documents=self._documents(read, shown),
        )

    def _documents(self, read: CorpusPass, shown: dict[str, int]) -> list[ShownDocument]:
        codes = [*shown.values()] or [-1]
        total = self.subjects.documents
        picked = read.picker.documents(codes, total)
        middle = read.histograms[0].whole().quantiles(MIDDLE, 0)
        if not middle:
            return picked
        room = min(total - len(picked), total // (len(read.picker.places) + 1))
        low, high = middle
        return [*picked, *read.documents.between(low, high, "near the median", room, len(codes))]

    def _fields(self, corpus: Source, group_by: str) -> Fields:
        head, present = corpus.peek()
        scores = self.subjects.score or streams.scores_among(head, present)
        if not scores:
            scores = [streams.the_score(corpus)]
        # The score that was cut comes first, and documents are chosen by it.
        ranked_by = head.rank.key if head and head.rank else None
        scores = sorted(scores, key=lambda name: name != ranked_by)
        tokens = streams.tokens_field_of(corpus, self.page.tokens_field)
        return Fields(tuple(scores), tokens, group_by, self.page.text_field)

    def _group(self, corpus: Source | None, cuts: Sequence[Source]) -> str:
        source = corpus or next(iter(cuts), None)
        if source is None:
            return self.page.group_by or "source"
        return streams.group_field_of(source, self.page.group_by)

    def _tokens(self, source: Source) -> str:
        return streams.tokens_field_of(source, self.page.tokens_field)


def _places(fields: Fields, readings: Sequence[SliceReading]) -> list[Spot]:
    """The places of the distribution from which documents are shown."""
    places = end_places()
    for reading in readings:
        label = f" of {reading.name}" if len(readings) > 1 else ""
        if reading.key in fields.scores:
            places += edge_places(edges(reading), fields.scores.index(reading.key), label)
    return places


def _facts_of(reading: SliceReading, read: CorpusPass) -> Any:
    number = read.fields.scores.index(reading.key) if reading.key else 0
    return facts(reading, float(read.least[number]), float(read.most[number]))


def _duplicates(read: CorpusPass) -> Duplicates | None:
    counter = read.duplicates
    if not counter.seen:
        return None
    copies, most_often = counter.copies()
    return Duplicates(counter.seen, copies, most_often, counter.is_exact)


@contextmanager
def _recorded() -> Iterator[list[str]]:
    """The warnings that are logged until the block ends: the page shows them, too."""
    messages: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("prune_cli")
    logger.addHandler(handler)
    try:
        yield messages
    finally:
        logger.removeHandler(handler)


def _page_maker() -> Callable[[Content], bytes]:
    """What makes a page. Raises ConfigurationError if its packages are not installed."""
    # Not at the top: they are an extra, and take half a second to import.
    try:
        from .page import render
    except ImportError as error:
        fault = f"a page needs the package {error.name}, which is not installed"
        remedy = "pip install 'prune-cli[report]', or --json for the numbers"
        raise ConfigurationError(fault, remedy=remedy) from None
    return render.page


def _json(content: Content) -> bytes:
    """The numbers of the page. Documents are listed without their texts, which are in the streams."""
    values = asdict(content)
    for document in values["documents"]:
        del document["text"]
    return json.dumps(values).encode() + b"\n"
