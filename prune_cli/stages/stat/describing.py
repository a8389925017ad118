"""What does `stat` say of one file, or of one dataset? Its trailers if they are enough, else its records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ... import terminal
from ...engines.work import Engine
from ...records.reader import Source, check_expected
from ...settings.stat import Inspection
from ...settings.streams import Reading
from ...storage.base import Input
from ...storage.os_errors import display, operand_name
from ...stream import dataset, index
from ...stream.dataset import DatasetManifest
from ...stream.index import JoinedTable, Table
from ...stream.schema import Head
from .. import measured_cut, streams
from . import agreement, scan, trailer
from .columns import Columns, Follower, read
from .divided import read_divided

if TYPE_CHECKING:  # their tokenizer takes a tenth of a second to import
    from ...texts.priors import TokenCounter, TokenCounts


@dataclass(frozen=True)
class Subject:
    """A file, or a dataset with the parts that are there."""

    name: str
    paths: tuple[str, ...]
    parts: int | None = None  # that the dataset is to have; None for a file
    manifest: DatasetManifest | None = None  # of a finished dataset


def subjects(operands: Sequence[str]) -> list[Subject]:
    """What the operands name.

    Raises DataError for a part of a finished dataset that is missing or not that of its manifest.
    """
    return [_subject(operand) for operand in operands or ["-"]]


def _subject(operand: str) -> Subject:
    directory = dataset.directory_of(operand)
    if directory is None:
        return Subject(operand_name(operand), (operand,))
    manifest = dataset.read_manifest(directory)
    if manifest is not None:
        paths = tuple(file.path for file in dataset.expand([operand]))
        return Subject(display(directory), paths, len(paths), manifest)
    there, of = dataset.parts_there(directory)
    return Subject(display(directory), tuple(there), of)


@dataclass(frozen=True)
class Description:
    """The object that is written for a subject, and what a user is told of its records."""

    content: dict[str, Any]
    records: int
    blank: int = 0
    skipped: int = 0
    token_counts: TokenCounts | None = None
    charts: Sequence[str] = ()  # lines for a terminal


@dataclass(frozen=True)
class RecordStatistics:
    """What the records of a source say, as JSON and as charts for a terminal."""

    content: dict[str, Any]
    charts: Sequence[str]


@dataclass(frozen=True)
class Describer:
    """Describes subjects with the same settings."""

    inspection: Inspection
    reading: Reading
    engine: Engine | None = None  # whose workers divide the reading of a subject

    @cached_property
    def counter(self) -> TokenCounter | None:
        """Counts tokens if that is asked for: the tokenizer is loaded once a process."""
        if self.inspection.tokenizer is None:
            return None
        # What other statistics can do without: it takes a tenth of a second.
        from .token_counting import counter

        return counter(self.inspection.tokenizer)

    def describe(self, subject: Subject, files: Iterable[Input], progress: terminal.Progress) -> Description:
        """The description of a subject; `files` are its inputs. Raises PruneError."""
        inputs: list[Input] = []
        tables: list[Table] = []
        for file in files:
            inputs.append(file)
            table = None if self.inspection.reads_everything else index.read_table(file)
            if table and self._is_described_by(table.head):
                tables.append(table)
        content: dict[str, Any] = {"file": subject.name}
        if subject.parts is not None:
            content |= {"parts": subject.parts, "parts_done": len(subject.paths)}
        if not inputs:
            return Description({**content, "records": 0}, records=0)
        charts: Sequence[str] = ()
        with closing(streams.source_of(inputs, self.reading, progress)) as source:
            if len(tables) == len(inputs):
                content |= self._by_trailers(subject, tables, source)
            else:
                statistics = describe_records(
                    source, self.inspection, self.reading, self.counter, self.engine
                )
                content |= statistics.content
                charts = statistics.charts
        streams.warn_of_missing(source)
        counts = self.counter.take() if self.counter else None
        return Description(content, content["records"], source.blank, source.skipped, counts, charts)

    def _by_trailers(self, subject: Subject, tables: list[Table], source: Source) -> dict[str, Any]:
        records = sum(table.totals.records for table in tables)
        check_expected(records, self.reading.expect_records, subject.name)
        table = tables[0]
        whole = subject.manifest
        if subject.parts is not None:
            facts, verb = (whole.facts, whole.verb) if whole else ({}, None)
            table = JoinedTable.of(tables, facts, verb)
        # Thresholds of a dataset are those of the whole.
        is_whole = subject.parts is None or whole is not None
        with table.open():
            return {**_origin(table.head), **trailer.describe(table, source, is_whole=is_whole)}

    def _is_described_by(self, head: Head) -> bool:
        """Whether the trailer counts what is asked for: groups by one field and tokens by another."""
        counted = head.rank.tokens_field if head.rank else None
        return self.inspection.group_by in (None, head.group) and self.inspection.tokens_field in (
            None,
            counted,
        )


def describe_records(
    source: Source,
    inspection: Inspection,
    reading: Reading = Reading(),
    counter: TokenCounter | None = None,
    engine: Engine | None = None,
) -> RecordStatistics:
    """The statistics of a source, from its records; `reading` is for a file of scores, and `counter` counts
    the tokens of the texts. The workers of an engine divide the reading, unless records depend on those
    before. Raises PruneError.
    """
    compared = inspection.compared
    head, fields = source.peek()
    ranking = head.rank if head else None
    # With a file of scores the others are its fields.
    own = compared[:1] if inspection.scores else compared
    scores = [*dict.fromkeys((*(inspection.key or ()), *own))] or streams.scores_among(head, fields)
    columns = Columns(
        scores=scores,
        tokens=streams.tokens_field_of(source, inspection.tokens_field),
        group=streams.group_field_of(source, inspection.group_by),
        text=inspection.text_field if inspection.duplicates or counter else None,
        duplicates=inspection.duplicates,
        ranking=ranking if inspection.verify else None,
    )
    with _scores_beside(inspection, reading) as joined:
        followers: list[Follower] = [joined] if joined else []
        if counter:
            from .token_counting import TokenFollower

            followers.append(TokenFollower(counter, source, inspection.text_field))
        if engine is not None and not followers and columns.ranking is None:
            table = read_divided(engine, source, columns, reading)
        else:
            table = read(source, columns, followers)
        content = {**_origin(head), **scan.describe(source, table, ranking)}
        if inspection.fractions:
            measured = scan.measure(source, table, inspection.fractions, ranking)
            content[measured_cut.NAME] = measured.to_json()
        if compared:
            content["agreement"] = agreement.describe(table, compared, joined)
    return RecordStatistics(content, scan.pictures(table))


@contextmanager
def _scores_beside(inspection: Inspection, reading: Reading) -> Iterator[agreement.JoinedScores | None]:
    """The scores of the file of --scores, if there is one."""
    if inspection.scores is None:
        yield None
        return
    # --expect-records is for the input, which has the progress bar, too.
    reading = replace(reading, expect_records=None)
    fields = inspection.compared[1:] or inspection.compared
    with streams.open_source("stat", [inspection.scores], reading, bar=False) as source:
        yield agreement.JoinedScores(source, fields)


def _origin(head: Head | None) -> dict[str, Any]:
    """The verb that wrote the stream, and the ranking that it holds."""
    origin: dict[str, Any] = {"verb": head.verb if head else None}
    if head and (ranking := head.rank):
        origin |= {"key": ranking.key, "unit": ranking.unit, "reverse": ranking.reverse}
        origin |= {"within": ranking.within} if ranking.within else {}
    return origin
