"""Run `stat`: from inputs and settings to one JSON object for each file."""

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from ... import storage
from ...records.reader import Source, check_expected
from ...settings.stat import Inspection
from ...settings.streams import Reading
from ...storage.base import Input
from ...stream import index
from ...stream.schema import Head
from .. import streams
from . import scan, trailer

AHEAD = 32  # inputs whose trailers are fetched at a time: most of the time passes in waiting for a server


@dataclass(frozen=True)
class StatReport:
    """Files that were described, their records, and bad records that were skipped."""

    files: int = 0
    records: int = 0
    skipped: int = 0

    def closing(self) -> list[str]:
        """Nothing: the output is the report."""
        return []


@dataclass(frozen=True)
class StatJob:
    """Describe each of the `inputs`."""

    inputs: tuple[str, ...]
    inspection: Inspection
    reading: Reading

    def run(self) -> StatReport:
        """Write an object for each file. Raises PruneError."""
        sources: list[Source] = []
        records = 0
        with (
            streams.open_inputs("stat", self.inputs, self.reading) as (inputs, progress),
            storage.create(self.inspection.output, inputs, force=self.inspection.force) as output,
        ):
            for file in self._fetching_ahead(inputs):
                with closing(streams.source_of([file], self.reading, progress)) as source:
                    description = {"file": file.name, **self._describe(file, source)}
                sources.append(source)
                records += description["records"]
                indent = 2 if output.is_terminal() else None
                output.write(json.dumps(description, indent=indent).encode() + b"\n")
        streams.report_skipped(*sources)
        skipped = sum(source.skipped for source in sources)
        return StatReport(files=len(sources), records=records, skipped=skipped)

    def _fetching_ahead(self, inputs: list[Input]) -> Iterator[Input]:
        """The inputs, while the trailers of the next ones are fetched if they are on a server."""
        for number, file in enumerate(inputs):
            coming = inputs[number : number + AHEAD] if number == 0 else inputs[number + AHEAD - 1 :][:1]
            if not self.inspection.reads_everything:
                for each in coming:
                    each.anticipate()
            yield file
            file.forget()

    def _describe(self, file: Input, source: Source) -> dict[str, Any]:
        """The statistics of a file, from its trailer if that is enough, else from its records."""
        table = None if self.inspection.reads_everything else index.read_table(file)
        if table and self._is_described_by(table.head):
            check_expected(table.totals.records, self.reading.expect_records, file.name)
            with table.file.open():
                return {**_origin(table.head), **trailer.describe(table, source)}
        return describe_records(source, self.inspection)

    def _is_described_by(self, head: Head) -> bool:
        """Whether the trailer counts what is asked for: groups by one field and tokens by another."""
        counted = head.rank.tokens_field if head.rank else None
        return self.inspection.group_by in (None, head.group) and self.inspection.tokens_field in (
            None,
            counted,
        )


def describe_records(source: Source, inspection: Inspection) -> dict[str, Any]:
    """The statistics of a source, from its records. Raises PruneError."""
    head, fields = source.peek()
    scores = inspection.key or streams.scores_among(head, fields)
    columns = scan.Columns(
        scores=scores,
        tokens=streams.tokens_field_of(source, inspection.tokens_field),
        group=streams.group_field_of(source, inspection.group_by),
        text=inspection.text_field if inspection.duplicates else None,
        ranking=head.rank if head and inspection.verify else None,
    )
    statistics = scan.describe(source, columns, head.rank if head else None)
    return {**_origin(head), **statistics}


def _origin(head: Head | None) -> dict[str, Any]:
    """The verb that wrote the stream, and the ranking that it holds."""
    origin: dict[str, Any] = {"verb": head.verb if head else None}
    if head and (ranking := head.rank):
        origin |= {"key": ranking.key, "unit": ranking.unit, "reverse": ranking.reverse}
        origin |= {"within": ranking.within} if ranking.within else {}
    return origin
