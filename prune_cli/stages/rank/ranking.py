"""How are records put in order and given rank and quantile?

By sorting all of them, or by merging rankings.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from ...errors import CheckFailed, DataError
from ...records import spool
from ...records.columns import Labels, Part, counts, numbers, spliced, table
from ...records.field_checks import LARGEST_SUM
from ...records.reader import MISSING, Anything, Batch, Count, Label, Number, Rank, Source, Wanted
from ...settings.streams import Unit
from ...statistics.correlation import LengthCorrelation
from ...statistics.quantile_grid import QuantileGrid
from ...stream.batch import Lines, Text
from ...stream.schema import Head, RankSection, Totals
from ...stream.writer import GROUPS
from ..ranked_parts import RankedParts
from ..ranking_check import RankCheck, ranks_of
from .order import Order, check_alike
from .quantiles import Quantiles


def fields_of(order: Order) -> Wanted:
    """The fields that ranking reads. The key is required and, by tokens, so is the token count."""
    fields = {order.group_by: Anything, order.tokens_field: Count, order.key: Number}
    required = {order.key}
    if order.by == Unit.tokens:
        required.add(order.tokens_field)
    if order.within:
        fields[order.within] = Label
        required.add(order.within)
    return Wanted(
        fields,
        optional=tuple(name for name in fields if name not in required),
        single=(order.key,),
        fresh=order.added_fields,
        # Merging replaces the ranks of the inputs by those of the whole.
        overwrite=order.overwrite or order.is_merge,
    )


@dataclass(frozen=True)
class Ranked:
    """A ranking: the section of the head, complete before the first record, and the records in order.

    `facts` are measured of the whole for the trailer, and complete after the last record.
    """

    head: RankSection
    parts: Iterator["Placed"]
    group_names: list[str]
    facts: dict[str, Any]


@dataclass(frozen=True)
class Placed:
    """Records in order, all scored or all unscored. Unscored ones have rank -1 and no quantiles."""

    rows: np.ndarray
    blocks: Sequence[Text]  # of text, in which the rows say where each record is
    ranks: np.ndarray
    quantiles: np.ndarray | None


def rank(source: Source, order: Order, sorter: spool.Spool) -> Ranked:
    """Read everything, then yield the records in order: by score, equal scores in input order, null last.

    Ranks count scored records from 0 for the lowest score, within the records of one value if `within` is
    given. `reverse` turns the order of the file, not the ranks. Scores are compared as doubles, as JSON
    readers do: integers beyond 2^53 can tie.

    Raises DataError for a record with an invalid score or token count, and for scores made with different
    settings.
    """
    reader = RowReader(order)
    quantiles = Quantiles(order)
    nulls = 0
    for batch in source.batches(fields_of(order)):
        check_alike(source.heads, batch.file, order)
        rows = reader.rows(batch)
        scored = rows[~np.isnan(rows["key"])]
        quantiles.expect(scored["within"], scored["tokens"])
        nulls += len(rows) - len(scored)
        sorter.add(batch.text, rows)
    return _ranked(sorter.parts(), order, reader, quantiles, nulls=nulls)


def merge(sources: Sequence[Source], totals: Sequence[Totals], order: Order) -> Ranked:
    """Merge rankings by one key, with a few blocks of each in memory. `totals` are those of their trailers.

    Raises DataError if one of them is not in order.
    """
    reader = RowReader(order)
    quantiles = Quantiles(order)
    for source in sources:
        source.peek()
    check_alike([head for source in sources for head in source.heads], sources[0].inputs[0].name, order)
    # The trailers say how many records will come, so that nothing has to be read twice.
    nulls = sum(each.nulls for each in totals)
    quantiles.n[0] = sum(each.records for each in totals) - nulls
    tokens = sum(each.tokens - (each.unscored_tokens or 0) for each in totals)
    if tokens >= LARGEST_SUM:
        fault = f"the sum of `{order.tokens_field}` is beyond 2^62"
        raise DataError(fault, place=sources[0].inputs[0].name, remedy="are these counts of tokens?")
    quantiles.tokens[0] = tokens
    inputs = [_RankedInput(source, order, reader) for source in sources]
    return _ranked(_merged(inputs, order), order, reader, quantiles, nulls=nulls)


def _merged(inputs: Sequence["_RankedInput"], order: Order) -> Iterator[Part]:
    yield from spool.merge([each.scored() for each in inputs], order.reverse)
    for each in inputs:
        yield from each.unscored()


def is_mergeable(head: Head, totals: Totals, order: Order) -> bool:
    """Whether a file can be merged as it is: a ranking, and not one within the values of a field."""
    return head.rank is not None and not order.within and totals.unscored_tokens is not None


def check(source: Source, order: Order, parts: RankedParts) -> None:
    """Raise CheckFailed at the first record that is out of order, or whose rank is not of one ranking.

    Raises DataError if the input has `parts` of a dataset that are not all of it, in order.
    """
    head, _ = source.peek()
    ranking = head.rank if head and head.rank and head.rank.key == order.key else None
    is_counted = ranking is not None and ranking.unit == Unit.records and not ranking.within
    scores = _OrderCheck(order.reverse)
    ranks = RankCheck(
        unit=order.by if ranking else None,
        n=ranking.n if ranking and is_counted else None,
        reverse=order.reverse,
    )
    values = Labels(str, int)
    for batch in source.batches(_checked_fields(order)):
        if any(head and head.part for head in source.heads):
            parts.follow(source.heads, batch.file)
        wrong = scores.first_wrong(np.array(batch[order.key], dtype=float))
        if wrong is not None:
            fault = f"not in the order of `{order.key}`"
            raise CheckFailed(fault, place=batch.place(wrong), remedy="prune-cli rank puts it in order")
        _check_ranks(batch, order, ranks, values)
    if any(head and head.part for head in source.heads):
        parts.finish(source.heads, source.inputs[-1].name)


def _checked_fields(order: Order) -> Wanted:
    fields = {order.key: Number, **dict(zip(order.added_fields, (Rank, Number), strict=True))}
    if order.within:
        fields[order.within] = Label
    return Wanted(fields, order.added_fields, (order.key, *order.added_fields))


def _check_ranks(batch: Batch, order: Order, ranks: RankCheck, values: Labels) -> None:
    """Raise CheckFailed unless the ranks of a batch, if it has any, continue those of the batches before."""
    rank, quantile = order.added_fields
    if MISSING in batch[rank] or MISSING in batch[quantile]:
        return
    codes = values.codes(batch[order.within]) if order.within else np.zeros(len(batch), np.int64)
    fault = ranks.first_fault(ranks_of(batch[rank]), np.array(batch[quantile], dtype=float), codes)
    if fault:
        place = batch.place(fault.at)
        raise CheckFailed(fault.text, place=place, remedy="prune-cli rank puts it in order")


class _OrderCheck:
    """Checks that numbers never fall (never rise, if reversed) and that nulls come last."""

    def __init__(self, reverse: bool) -> None:
        self.sign = -1 if reverse else 1
        self.last = -np.inf

    def first_wrong(self, numbers: np.ndarray) -> int | None:
        """The index of the first number that is out of order, if there is one."""
        signed = np.where(np.isnan(numbers), np.inf, self.sign * numbers)
        falls = np.flatnonzero(signed < np.concatenate(([self.last], signed[:-1])))
        self.last = signed[-1]
        return int(falls[0]) if len(falls) else None


class _RankedInput:
    """An input of a merge.

    Its scored records are read first; its unscored ones when those of all inputs are through.
    """

    def __init__(self, source: Source, order: Order, reader: "RowReader") -> None:
        self.blocks = self._blocks(source, order, reader)
        self.mixed: list[spool.Block] = []  # the unscored records of the block in which they begin

    def _blocks(self, source: Source, order: Order, reader: "RowReader") -> Iterator[spool.Block]:
        scores = _OrderCheck(order.reverse)
        for batch in source.batches(fields_of(order)):
            rows = reader.rows(batch)
            wrong = scores.first_wrong(rows["key"])
            if wrong is not None:
                fault = f"not in the order of `{order.key}`"
                raise DataError(fault, place=batch.place(wrong), remedy="rank without --merge")
            yield rows, batch.text

    def scored(self) -> Iterator[spool.Block]:
        for rows, text in self.blocks:
            nulls = np.isnan(rows["key"])
            yield rows[~nulls], text
            if nulls.any():
                self.mixed.append((rows[nulls], text))
                return

    def unscored(self) -> Iterator[Part]:
        for rows, text in chain(self.mixed, self.blocks):
            yield rows, [text]


def _ranked(
    parts: Iterator[Part], order: Order, reader: "RowReader", quantiles: Quantiles, *, nulls: int
) -> Ranked:
    quantiles.start(reader.values.names)
    facts: dict[str, Any] = {}
    placed = _placed(parts, order, quantiles, facts)
    return Ranked(section(order, quantiles, nulls), placed, reader.groups.names, facts)


def section(order: Order, quantiles: Quantiles, nulls: int) -> RankSection:
    return RankSection(
        key=order.key,
        n=int(quantiles.n.sum()),
        nulls=nulls,
        unit="tokens" if order.by == Unit.tokens else "records",
        reverse=order.reverse,
        prefix=order.prefix,
        tokens=int(quantiles.tokens.sum()),
        tokens_field=order.tokens_field,
        within=order.within,
    )


class RowReader:
    """Makes rows of batches. Values of the group field and of the `within` field become numbers."""

    def __init__(self, order: Order) -> None:
        self.order = order
        # One label more than the trailer allows, so that an overflow can be detected.
        self.groups = Labels(str, most=GROUPS + 1)
        self.values = Labels(str, int)

    def rows(self, batch: Batch) -> np.ndarray:
        """A row for each record; the key is NaN for a record without a score."""
        rows = table(batch)
        rows["key"] = np.array(batch[self.order.key], dtype=float)  # None becomes NaN
        rows["tokens"] = counts(batch[self.order.tokens_field])
        rows["group"] = self.groups.codes(batch[self.order.group_by])
        if self.order.within:
            rows["within"] = self.values.codes(batch[self.order.within])
        return rows


def lines(ranked: Ranked, order: Order) -> Iterator[Lines]:
    """The records in order as lines with their new fields."""
    names = order.added_fields
    for part in ranked.parts:
        rows = part.rows
        values = [[b"null"] * len(rows)] * 2
        if part.quantiles is not None:
            values = [numbers(part.ranks), numbers(part.quantiles)]
        text, sizes = spliced(rows, part.blocks, dict(zip(names, values, strict=True)))
        unscored = np.isnan(rows["key"])
        yield Lines(text, sizes, rows["tokens"], unscored, part.ranks, rows["group"], ranked.group_names)


def _placed(
    parts: Iterator[Part], order: Order, quantiles: Quantiles, facts: dict[str, Any]
) -> Iterator[Placed]:
    """Rank and quantile of each record, in order; `facts` are filled in at the end."""
    correlation = LengthCorrelation()
    grid = QuantileGrid(order.reverse, by_tokens=order.by == Unit.tokens)
    yield from placed(parts, order, quantiles, correlation, grid)
    quantiles.check_complete()
    facts |= facts_of(order, correlation, grid)


def placed(
    parts: Iterator[Part],
    order: Order,
    quantiles: Quantiles,
    correlation: LengthCorrelation,
    grid: QuantileGrid,
) -> Iterator[Placed]:
    """Rank and quantile of each record, in order; they are added to `correlation` and `grid`, too."""
    for rows, blocks in parts:
        # A part has either scored records or unscored ones.
        if np.isnan(rows["key"]).any():
            yield Placed(rows, blocks, np.full(len(rows), -1), None)
            continue
        ranks, fractions = quantiles.next(rows["within"], rows["tokens"])
        correlation.add(rows["key"], rows["tokens"])
        # Within the values of a field quantiles do not rise with the scores, and a grid of them means
        # nothing.
        if not order.within:
            grid.add(rows["key"], fractions)
        yield Placed(rows, blocks, ranks, fractions)


def facts_of(order: Order, correlation: LengthCorrelation, grid: QuantileGrid) -> dict[str, Any]:
    """What the trailer says of the whole ranking."""
    facts: dict[str, Any] = {"shape": grid.value(), "thresholds": grid.thresholds() or None}
    spearman = correlation.value()
    if spearman is not None:
        # Records came from the highest score on: the correlation has the opposite sign.
        facts["length_correlation"] = round(-spearman if order.reverse else spearman, 6)
    return facts
