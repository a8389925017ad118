"""Run `rank`: from inputs and settings to a ranked stream."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ... import charts, sizes, storage
from ...errors import UsageError
from ...records.reader import Source
from ...records.spool import Spool
from ...settings.rank import Ranking
from ...settings.streams import Streams, processors
from ...stream import index
from .. import streams
from . import ranking as stage
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
                ranked = (_merged if order.is_merge else _sorted)(source, order, spool)
                head = streams.head_after(source, "rank", order.group_by, rank=ranked.head)
                shown = streams.OutputProgress(source, ranked.head.n + (ranked.head.nulls or 0))
                with streams.open_sink(self.streams, output, head) as sink:
                    for lines in stage.lines(ranked, order):
                        sink.write_lines(lines)
                        shown.wrote(len(lines.sizes))
                    sink.facts |= ranked.facts
        return _report(order, ranked, source.skipped)

    def _check(self) -> RankReport:
        with streams.open_source("rank", self.inputs, self.streams) as source:
            stage.check(source, to_check(source, self.ranking))
        return RankReport(skipped=source.skipped)


def ranked_parts(source: Source, ranking: Ranking) -> Iterator[tuple[tuple[str, ...], stage.Placed]]:
    """The names of the new fields, and records in order; for records that are Python objects.

    Raises PruneError.
    """
    order = settled(source, ranking)
    with _spool(ranking, processors(), order) as spool:
        ranked = stage.rank(source, order, spool)
        for part in ranked.parts:
            yield order.added_fields, part
    _warn(order, ranked)


def _spool(ranking: Ranking, threads: int, order: Order) -> Spool:
    directories = ranking.temporary_directory or [tempfile.gettempdir()]
    return Spool(sizes.parse(ranking.buffer_size), directories, threads, order.reverse)


def _warn(order: Order, ranked: stage.Ranked) -> None:
    if ranked.head.nulls and not ranked.head.n:
        log.warning("none of %d records has a score in `%s`", ranked.head.nulls, order.key)


def _report(order: Order, ranked: stage.Ranked, skipped: int) -> RankReport:
    _warn(order, ranked)
    return RankReport(
        key=order.key,
        unit=order.by.value,
        records=ranked.head.n,
        nulls=ranked.head.nulls or 0,
        skipped=skipped,
        shape=ranked.facts.get("shape") or (),
    )


def _sorted(source: Source, order: Order, spool: Spool) -> stage.Ranked:
    spool.check(storage.total_size(source.inputs) or 0)
    return stage.rank(source, order, spool)


def _merged(source: Source, order: Order, spool: Spool) -> stage.Ranked:
    """Merge rankings: without sorting if each is a whole file in the right order."""
    indexes = [index.read_table(file) for file in source.inputs]
    mergeable = [each for each in indexes if each and stage.is_mergeable(each.head, each.totals, order)]
    # Options that count or skip records need a pass over all records in order of the operands.
    is_plain = source.reading == replace(source.reading, expect_records=None, skip_bad=False)
    if is_plain and len(mergeable) == len(indexes) <= spool.fan_in(MERGE_MEMORY):
        sources = [source.only(each.file) for each in mergeable]
        return stage.merge(sources, [each.totals for each in mergeable], order)
    ranked = _sorted(source, order, spool)
    if not all(head and head.rank for head in source.heads):
        raise no_ranking("")
    return ranked
