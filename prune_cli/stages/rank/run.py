"""Run `rank`: from inputs and settings to a ranked stream."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ... import charts, sizes, storage
from ...errors import DataError, UsageError
from ...records.reader import Source
from ...records.spool import Spool
from ...settings.rank import Ranking
from ...settings.streams import Streams, processors
from ...stream import index
from .. import streams
from . import ranking as stage

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
        with streams.open_streams("rank", self.inputs, self.streams) as (source, output):
            ranking = settled(source, self.ranking)
            with _spool(ranking, self.streams.threads or processors()) as spool:
                ranked = (_merged if ranking.merge else _sorted)(source, ranking, spool)
                head = streams.head_after(source, "rank", ranking.group_by, rank=ranked.head)
                with streams.open_sink(self.streams, output, head) as sink:
                    for lines in stage.lines(ranked, ranking):
                        sink.write_lines(lines)
                    sink.facts |= ranked.facts
        return _report(ranking, ranked, source.skipped)

    def _check(self) -> RankReport:
        with streams.open_source("rank", self.inputs, self.streams) as source:
            key = self.ranking.key or _ranked_by(source) or streams.the_score(source)
            stage.check(source, replace(self.ranking, key=key))
        return RankReport(skipped=source.skipped)


def ranked_parts(source: Source, ranking: Ranking) -> Iterator[tuple[tuple[str, ...], stage.Placed]]:
    """The names of the new fields, and records in order; for records that are Python objects.

    Raises PruneError.
    """
    ranking = settled(source, ranking)
    with _spool(ranking, processors()) as spool:
        for part in stage.rank(source, ranking, spool).parts:
            yield stage.added_fields(ranking), part


def settled(source: Source, ranking: Ranking) -> Ranking:
    """The settings with the key that the input itself names.

    Raises UsageError if rank would replace that key.
    """
    merged = _ranked_by(source) if ranking.merge else None
    ranking = replace(ranking, key=ranking.key or merged or streams.the_score(source))
    if ranking.key in stage.added_fields(ranking):
        fault = f"rank would replace the field `{ranking.key}`"
        raise UsageError(fault, remedy="--prefix STR names the new fields differently")
    return ranking


def _spool(ranking: Ranking, threads: int) -> Spool:
    directories = ranking.temporary_directory or [tempfile.gettempdir()]
    return Spool(sizes.parse(ranking.buffer_size), directories, threads, ranking.reverse)


def _report(ranking: Ranking, ranked: stage.Ranked, skipped: int) -> RankReport:
    return RankReport(
        key=stage.key_of(ranking),
        unit=ranking.by.value,
        records=ranked.head.n,
        nulls=ranked.head.nulls or 0,
        skipped=skipped,
        shape=ranked.facts.get("shape") or (),
    )


def _ranked_by(source: Source) -> str | None:
    """The key of the first stream, if it is a ranking."""
    head, _ = source.peek()
    return head.rank.key if head and head.rank else None


def _sorted(source: Source, ranking: Ranking, spool: Spool) -> stage.Ranked:
    spool.check(storage.total_size(source.inputs) or 0)
    return stage.rank(source, ranking, spool)


def _merged(source: Source, ranking: Ranking, spool: Spool) -> stage.Ranked:
    """Merge rankings: without sorting if each is a whole file in the right order."""
    indexes = [index.of(file) for file in source.inputs]
    mergeable = [each for each in indexes if each and stage.is_mergeable(each.head, each.totals, ranking)]
    # Options that count or skip records need a pass over all records in order of the operands.
    is_plain = source.reading == replace(source.reading, expect_records=None, skip_bad=False)
    if is_plain and len(mergeable) == len(indexes) <= spool.fan_in(MERGE_MEMORY):
        sources = [source.only(each.file) for each in mergeable]
        return stage.merge(sources, [each.totals for each in mergeable], ranking)
    ranked = _sorted(source, ranking, spool)
    if not all(head and head.rank for head in source.heads):
        raise DataError("not every input is a ranking: a head is missing", remedy="rank without --merge")
    return ranked
