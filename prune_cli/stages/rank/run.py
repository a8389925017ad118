"""Run `rank`: from inputs and settings to a ranked stream."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ... import charts, sizes, storage
from ...engines.work import Engine
from ...errors import UsageError
from ...records.reader import Source
from ...records.spool import Spool
from ...settings.rank import Ranking
from ...settings.streams import Streams, processors
from ...stream import dataset, index
from ...stream.schema import RankSection
from .. import streams
from ..datasets import NothingToDo
from ..divided import can_be_divided
from ..ranked_parts import RankedParts, rankings_of
from . import ranking as stage
from .dataset import rank_dataset
from .divided import rank_divided
from .order import Order, no_ranking, settled, to_check

log = logging.getLogger(__name__)
MERGE_MEMORY = 16 << 20  # bytes per input of --merge: a few blocks of text, and their rows


@dataclass(frozen=True)
class RankReport:
    """What was ranked: records with and without a score, and the distribution of the score for a terminal."""

    key: str = ""
    unit: str = "records"
    records: int = 0
    nulls: int = 0
    skipped: int = 0
    shape: Sequence[float] = ()

    def closing(self) -> list[str]:
        """The closing line, and the histogram of the scores."""
        if not self.key:
            return []
        line = f"ranked {self.records:,} records; {self.nulls:,} unscored"
        return [line, *charts.histogram(self.key, self.shape, self.unit)] if self.shape else [line]


@dataclass(frozen=True)
class RankJob:
    """Rank the records of `inputs`."""

    inputs: tuple[str, ...]
    ranking: Ranking
    streams: Streams

    def run(self) -> RankReport:
        """Write the ranked stream, or with `check` only look at the order. Raises PruneError."""
        sizes.parse(self.ranking.buffer_size)  # a wrong size is an error before anything is read
        if self.ranking.check and self.ranking.merge:
            raise UsageError("--check and --merge exclude each other")
        if self.ranking.check:
            return self._check()
        # The second pass of the bar is writing: when all is read, half is still to be done.
        with streams.open_streams("rank", self.inputs, self.streams, passes=2) as (source, output):
            order = settled(source, self.ranking)
            with _spool(self.ranking, self.streams.threads or processors(), order) as spool:
                ranked = (
                    self._merged(source, order, spool) if order.is_merge else _sorted(source, order, spool)
                )
                head = streams.head_after(source, "rank", order.group_by, rank=ranked.head)
                shown = streams.OutputProgress(source, ranked.head.n + (ranked.head.nulls or 0))
                with streams.open_sink(self.streams, output, head) as sink:
                    for lines in stage.lines(ranked, order):
                        sink.write_lines(lines)
                        shown.wrote(len(lines.sizes))
                    sink.facts |= ranked.facts
        return _report(order, ranked.head, ranked.facts, source.skipped)

    def _merged(self, source: Source, order: Order, spool: Spool) -> stage.Ranked:
        """Merge rankings. Raises DataError if parts of one are missing."""
        # Each dataset has a manifest, which vouches for its parts.
        has_datasets = any(dataset.directory_of(operand) for operand in self.inputs)
        return _merged(source, order, spool, is_whole=has_datasets)

    def _check(self) -> RankReport:
        with streams.open_source("rank", self.inputs, self.streams) as source:
            order = to_check(source, self.ranking)
            stage.check(source, order, RankedParts(dataset.manifest_of(self.inputs)))
        return RankReport(skipped=source.skipped)


@dataclass(frozen=True)
class RankOnEngine:
    """Rank with the workers of an engine, if there are several and the job can be divided."""

    job: RankJob
    engine: Engine

    def run(self) -> RankReport | NothingToDo:
        """As `RankJob.run`: it writes the same records. Raises PruneError."""
        job = self.job
        if job.ranking.output_directory is not None:
            return self._make_dataset()
        is_alone = self.engine.workers == 1 or job.ranking.check or job.ranking.merge
        if is_alone or not can_be_divided(job.inputs):
            return job.run()
        divided = rank_divided(job.inputs, job.ranking, job.streams, self.engine)
        return _report(divided.order, divided.head, divided.facts, divided.skipped)

    def _make_dataset(self) -> RankReport | NothingToDo:
        job = self.job
        made = rank_dataset(job.inputs, job.ranking, job.streams, self.engine)
        if isinstance(made, NothingToDo):
            return made
        return _report(made.order, made.head, made.facts, made.skipped)


def ranked_parts(source: Source, ranking: Ranking) -> Iterator[tuple[tuple[str, ...], stage.Placed]]:
    """The names of the new fields, and records in order; for records that are Python objects.

    Raises PruneError.
    """
    order = settled(source, ranking)
    with _spool(ranking, processors(), order) as spool:
        ranked = stage.rank(source, order, spool)
        for part in ranked.parts:
            yield order.added_fields, part
    _warn(order, ranked.head)


def _spool(ranking: Ranking, threads: int, order: Order) -> Spool:
    directories = ranking.temporary_directory or [tempfile.gettempdir()]
    return Spool(sizes.parse(ranking.buffer_size), directories, threads, order.reverse)


def _warn(order: Order, head: RankSection) -> None:
    if head.nulls and not head.n:
        log.warning("none of %d records has a score in `%s`", head.nulls, order.key)


def _report(order: Order, head: RankSection, facts: dict[str, Any], skipped: int) -> RankReport:
    _warn(order, head)
    return RankReport(
        key=order.key,
        unit=order.by.value,
        records=head.n,
        nulls=head.nulls or 0,
        skipped=skipped,
        shape=facts.get("shape") or (),
    )


def _sorted(source: Source, order: Order, spool: Spool) -> stage.Ranked:
    spool.check(storage.total_size(source.inputs) or 0)
    return stage.rank(source, order, spool)


def _merged(source: Source, order: Order, spool: Spool, *, is_whole: bool) -> stage.Ranked:
    """Merge rankings: without sorting if each is a whole file in the right order, or a dataset of such.

    Unless `is_whole`, raises DataError if a part of a dataset is missing.
    """
    tables = list(index.read_tables(source.inputs))
    mergeable = [each for each in tables if each and stage.is_mergeable(each.head, each.totals, order)]
    rankings = rankings_of([each.head for each in mergeable], source.name, is_whole=is_whole)
    # Options that count or skip records need a pass over all records in order of the operands.
    is_plain = source.reading == replace(source.reading, expect_records=None, skip_bad=False)
    if is_plain and len(mergeable) == len(tables) and len(rankings) <= spool.fan_in(MERGE_MEMORY):
        sources = [source.only(*(mergeable[number].file for number in parts)) for parts in rankings]
        return stage.merge(sources, [each.totals for each in mergeable], order)
    ranked = _sorted(source, order, spool)
    if not all(head and head.rank for head in source.heads):
        raise no_ranking("")
    rankings_of(source.heads, source.name, is_whole=is_whole)
    return ranked
