"""Which records of a ranked stream are inside the cut?

One pass, in constant memory, that also checks the ranking.
"""

from collections.abc import Iterator

import numpy as np

from ...errors import UsageError
from ...records.columns import Labels
from ...records.reader import MISSING, Anything, Batch, Count, Label, Number, Rank, Source, Wanted
from ...settings.streams import Unit
from ...stream.dataset import DatasetManifest
from ...stream.schema import RankSection
from ..ranked_parts import RankedParts
from ..ranking_check import RankCheck, not_ranked, ranks_of
from .selection import Request, group_field, tokens_field
from .split import SliceStatistics, Split, Splitter, Verdicts, tokens_of

# Sides of the cut. A record below the cut has a lower score, whichever way the file runs.
BELOW, INSIDE, ABOVE = -1, 0, 1


def ranked(
    source: Source, request: Request, statistics: SliceStatistics, whole: DatasetManifest | None = None
) -> Iterator[Split]:
    """Split a ranked stream by rank (by records), by quantile (by tokens) or by score.

    `whole` is the manifest of the dataset that the source is, if it is one.

    Raises UsageError if the stream has lost its head and --by does not say its unit, DataError if the stream
    is not one ranking in order.
    """
    head, fields = source.peek()
    ranking = head.rank if head else None
    # An empty stream need not say its unit: half of nothing is nothing.
    unit = _unit(ranking, request.slicing.by) if fields or ranking else Unit.records
    return _ranked(source, RankedReader(request, ranking, unit), request, statistics, RankedParts(whole))


def _ranked(
    source: Source,
    reader: "RankedReader",
    request: Request,
    statistics: SliceStatistics,
    parts: RankedParts,
) -> Iterator[Split]:
    splitter = Splitter(request, statistics.counts)
    for batch in source.batches(reader.wanted()):
        parts.follow(source.heads, batch.file)
        yield split_ranked(batch, reader, splitter, statistics)
    # Records in memory have no files.
    last = source.inputs[-1].name if source.inputs else source.name
    parts.finish(source.heads, last)
    correlation = statistics.lengths.value()
    # The file runs from high scores to low ones, and so did the records that were correlated.
    statistics.length_correlation = (
        -correlation if correlation is not None and reader.reverse else correlation
    )
    shape = source.trailers[0].totals.shape if source.trailers else None
    statistics.shape = parts.manifest.facts.get("shape") if parts.manifest else shape


def _unit(ranking: RankSection | None, by: Unit | None) -> Unit:
    """The unit of fractions: that of the ranking, or --by if the ranking has lost its head."""
    if ranking is None:
        if by is None:
            raise UsageError(
                "the input has no head that says that it is ranked",
                remedy="rank it first; or, if it lost its head on the way, give the unit of its ranking: "
                "--by records|tokens",
            )
        return by
    return Unit(ranking.unit)


def split_ranked(
    batch: Batch, reader: "RankedReader", splitter: Splitter, statistics: SliceStatistics
) -> Split:
    """Split a batch of a ranking by the sides on which its records lie."""
    ranks, scores, sides = reader.sides(batch)
    scored = ranks >= 0
    tokens = tokens_of(batch, splitter.request)
    inside = sides == INSIDE
    # Ties and correlation need records in the order of their scores, all of which are present.
    if not reader.within and not np.isnan(scores[scored]).any():
        statistics.add_in_order(scores[scored], tokens[scored], inside[scored])
    return splitter.split(batch, Verdicts(inside, scored, ranks, tokens))


class RankedReader:
    """Reads ranks, quantiles and scores of a ranking, and checks that it is one.

    `ranking` is None if its head is lost.
    """

    def __init__(self, request: Request, ranking: RankSection | None, unit: Unit) -> None:
        slicing = request.slicing
        prefix = slicing.prefix
        if prefix is None:
            prefix = ranking.prefix if ranking else ""
        self.cut = request.cut
        self.optional_fields = {group_field(request): Anything, tokens_field(request): Count}
        self.rank = prefix + "rank"
        self.quantile = prefix + "quantile"
        self.key = slicing.key or (ranking.key if ranking else None)
        self.within = ranking.within if ranking else None
        self.reverse = ranking.reverse if ranking else None
        self.by_records = unit == Unit.records
        self.values = Labels(str, int)
        n = ranking.n if ranking and self.by_records and not self.within else None
        self.order = RankCheck(unit, n, self.reverse)

    @property
    def by_rank(self) -> bool:
        """Whether a rank alone says on which side its record lies."""
        return self.by_records and self.cut.keep != "scores"

    def wanted(self) -> Wanted:
        """The fields to read."""
        fields = {**self.optional_fields, self.rank: Rank, self.quantile: Number}
        required = {self.rank, self.quantile}
        if self.key:
            fields[self.key] = Number
            required |= {self.key} if self.cut.keep == "scores" else set()
        if self.within:
            fields[self.within] = Label
            required |= {self.within}
        return Wanted(fields, tuple(name for name in fields if name not in required), tuple(required))

    def sides(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each record its rank (-1 for none), its score (NaN for none) and its side of the cut.

        Raises DataError if the stream is not one ranking.
        """
        ranks, quantiles, scores = self._columns(batch)
        codes = self.values.codes(batch[self.within]) if self.within else np.zeros(len(batch), np.int64)
        fault = self.order.first_fault(ranks, quantiles, codes)
        if fault:
            raise not_ranked(batch, fault.at, fault.text)
        n = self.order.n[codes] if self.by_records else None
        return ranks, scores, self.cut.places(scores, ranks, quantiles, n)

    def _columns(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ranks (-1 for none), quantiles and scores (NaN for none) of a batch."""
        column = batch[self.key] if self.key else [None] * len(batch)
        return (
            ranks_of(batch[self.rank]),
            np.array(batch[self.quantile], dtype=float),
            np.array([None if score is MISSING else score for score in column], dtype=float),
        )

    def scored(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """Scores (NaN where they are not known) and sides of the scored records of a checked file."""
        ranks, quantiles, scores = self._columns(batch)
        n = np.full(len(batch), self.order.n[0]) if self.by_records else None
        has_score = ranks >= 0
        return scores[has_score], self.cut.places(scores, ranks, quantiles, n)[has_score]

    def side_of_first(self, batch: Batch) -> int:
        """The side of a batch's first record, by score or quantile alone."""
        score, quantile = ([batch[name][0]] if name else [0] for name in (self.key, self.quantile))
        return int(self.cut.places(np.array(score, dtype=float), np.zeros(1), np.array(quantile), None)[0])

    def side_of_rank(self, rank: int) -> int:
        """The side of the record with that rank, by records."""
        return int(self.cut.places(np.zeros(1), np.array([rank]), np.zeros(1), self.order.n)[0])
