"""Which records of a ranked stream are inside the cut?

One pass, in constant memory, that also checks the ranking.
"""

from collections.abc import Iterator

import numpy as np

from ...errors import DataError, UsageError
from ...records.columns import Labels
from ...records.reader import MISSING, Anything, Batch, Count, Label, Number, Source, Wanted
from ...settings.streams import Unit
from ...stream.schema import RankSection
from .selection import Request
from .split import SliceStatistics, Split, Splitter, Verdicts, tokens_of

# Sides of the cut. A record below the cut has a lower score, whichever way the file runs.
BELOW, INSIDE, ABOVE = -1, 0, 1


def ranked(source: Source, request: Request, statistics: SliceStatistics) -> Iterator[Split]:
    """Split a ranked stream by rank (by records), by quantile (by tokens) or by score.

    Raises UsageError if the stream has lost its head and --by does not say its unit, DataError if the stream
    is not one ranking in order.
    """
    head, fields = source.peek()
    ranking = head.rank if head else None
    # An empty stream need not say its unit: half of nothing is nothing.
    unit = _unit(ranking, request.slicing.by) if fields or ranking else Unit.records
    return _ranked(source, RankedReader(request, ranking, unit), request, statistics)


def _ranked(
    source: Source, reader: "RankedReader", request: Request, statistics: SliceStatistics
) -> Iterator[Split]:
    splitter = Splitter(request, statistics.counts)
    for batch in source.batches(reader.wanted()):
        if len(source.heads) > 1 and any(source.heads):
            raise not_ranked(batch, 0, "several streams follow each other")
        yield split_ranked(batch, reader, splitter, statistics)
    correlation = statistics.lengths.value()
    # The file runs from high scores to low ones, and so did the records that were correlated.
    statistics.length_correlation = (
        -correlation if correlation is not None and reader.reverse else correlation
    )
    statistics.shape = source.trailers[0].totals.shape if source.trailers else None


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
    if by not in (None, ranking.unit):
        fault = f"the stream was ranked by {ranking.unit}, not by {by}"
        raise UsageError(fault, remedy=f"rank it again with --by {by}")
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
        self.optional_fields = {slicing.group_by: Anything, slicing.tokens_field: Count}
        self.rank = prefix + "rank"
        self.quantile = prefix + "quantile"
        self.key = slicing.key or (ranking.key if ranking else None)
        self.within = ranking.within if ranking else None
        self.reverse = ranking.reverse if ranking else None
        self.by_records = unit == Unit.records
        self.values = Labels(str, int)
        n = ranking.n if ranking and self.by_records and not self.within else None
        self.order = RankCheck(n, self.reverse)

    @property
    def by_rank(self) -> bool:
        """Whether a rank alone says on which side its record lies."""
        return self.by_records and self.cut.keep != "scores"

    def wanted(self) -> Wanted:
        """The fields to read."""
        fields = {**self.optional_fields, self.rank: Count, self.quantile: Number}
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
        ranks = np.array([-1 if rank is None else rank for rank in batch[self.rank]])
        quantiles = np.array(batch[self.quantile], dtype=float)
        column = batch[self.key] if self.key else [None] * len(batch)
        scores = np.array([None if score is MISSING else score for score in column], dtype=float)
        codes = self.values.codes(batch[self.within]) if self.within else np.zeros(len(batch), np.int64)
        n = self.order.check(batch, ranks, quantiles, codes, by_records=self.by_records)
        return ranks, scores, self.cut.places(scores, ranks, quantiles, n if self.by_records else None)

    def side_of_first(self, batch: Batch) -> int:
        """The side of a batch's first record, by score or quantile alone."""
        score, quantile = ([batch[name][0]] if name else [0] for name in (self.key, self.quantile))
        return int(self.cut.places(np.array(score, dtype=float), np.zeros(1), np.array(quantile), None)[0])

    def side_of_rank(self, rank: int) -> int:
        """The side of the record with that rank, by records."""
        return int(self.cut.places(np.zeros(1), np.array([rank]), np.zeros(1), self.order.n)[0])


class RankCheck:
    """Checks that a stream is one ranking: a single N, and ranks that only rise or only fall.

    With `within`, each value of that field is a ranking. N is the number of ranked records, recovered from
    rank and quantile: a stream that lost its head has it still. `n` is N if the head says it; `reverse` is
    None if nothing says in which direction the ranks run.
    """

    def __init__(self, n: int | None, reverse: bool | None) -> None:
        # One entry a value of the `within` field: its N (0: not known yet), and its last rank (-1: none yet).
        self.n = np.array([n or 0])
        self.last = np.array([-1])
        # The sign of rank differences; 0 until the first difference shows it.
        self.step = {None: 0, False: 1, True: -1}[reverse]

    def check(
        self, batch: Batch, ranks: np.ndarray, quantiles: np.ndarray, codes: np.ndarray, *, by_records: bool
    ) -> np.ndarray:
        """Check the next batch. Returns each record's N; that of an unscored record means nothing."""
        scored = np.flatnonzero(ranks >= 0)
        self._check_quantiles(batch, scored, quantiles[scored])
        self._grow(int(codes.max(initial=0)) + 1)
        if by_records:
            self._check_n(batch, scored, ranks[scored], quantiles[scored], codes[scored])
        self._check_steps(batch, scored, ranks[scored], codes[scored])
        n: np.ndarray = self.n[codes]
        return n

    def _grow(self, values: int) -> None:
        new = values - len(self.n)
        if new > 0:
            self.n = np.append(self.n, np.zeros(new, np.int64))
            self.last = np.append(self.last, np.full(new, -1))

    def _check_quantiles(self, batch: Batch, scored: np.ndarray, quantiles: np.ndarray) -> None:
        # Written as "not between", so that NaN is wrong, too.
        wrong = np.flatnonzero(~((quantiles > 0) & (quantiles < 1)))
        if wrong.size:
            raise not_ranked(batch, int(scored[wrong[0]]), "a rank without a quantile between 0 and 1")

    def _check_n(
        self,
        batch: Batch,
        scored: np.ndarray,
        ranks: np.ndarray,
        quantiles: np.ndarray,
        codes: np.ndarray,
    ) -> None:
        # quantile = (rank + 1/2) / N. Doubles give N back exactly as long as it is below 2^52.
        n = np.rint((ranks + 0.5) / quantiles).astype(np.int64)
        new, firsts = np.unique(codes, return_index=True)
        self.n[new] = np.where(self.n[new], self.n[new], n[firsts])
        wrong = np.flatnonzero(n != self.n[codes])
        if wrong.size:
            first = int(wrong[0])
            fault = f"rank and quantile belong to another N than {self.n[codes[first]]}"
            raise not_ranked(batch, int(scored[first]), fault)

    def _check_steps(self, batch: Batch, scored: np.ndarray, ranks: np.ndarray, codes: np.ndarray) -> None:
        # Sorted by value, so that the record before is the one before of the same value.
        order = np.argsort(codes, kind="stable")
        ordered = ranks[order]
        values = codes[order]
        is_first = np.concatenate(([True], values[1:] != values[:-1]))[: len(values)]
        shifted = np.concatenate(([0], ordered[:-1]))[: len(values)]
        before = np.where(is_first, self.last[values], shifted)
        steps = np.where(before < 0, self.step, np.sign(ordered - before))
        self.step = self.step or int(next(iter(steps[before >= 0]), 0))
        wrong = np.flatnonzero((steps != self.step) & (before >= 0))
        if wrong.size:
            raise not_ranked(batch, int(scored[order[wrong].min()]), "the ranks are out of order")
        # Of several records of a value the last one is assigned last, and stays.
        self.last[values] = ordered


def not_ranked(batch: Batch, index: int, fault: str) -> DataError:
    """The error for a record that cannot follow the ones before in one ranking."""
    return DataError(
        f"{fault}: the input is not one ranking",
        place=batch.place(index),
        remedy="rank all of it again: prune-cli rank (with --merge if it is several rankings)",
    )
