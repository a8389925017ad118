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
from ...records.reader import MISSING, Anything, Batch, Count, Label, Number, Source, Wanted
from ...settings.rank import Ranking
from ...settings.streams import Unit
from ...statistics.correlation import LengthCorrelation
from ...statistics.quantile_grid import QuantileGrid
from ...stream.batch import Lines, Text
from ...stream.schema import Head, RankSection, Totals
from ...stream.writer import GROUPS
from .quantiles import Quantiles

ADDED = ("rank", "quantile")
# Keys of the score section that change no score: names of things, and where and how fast scores were
# computed.
NEUTRAL_KEYS = ("fields", "names", "only", "device", "batch_tokens", "shard", "versions")


def added_fields(ranking: Ranking) -> tuple[str, ...]:
    """The names of the fields that ranking adds."""
    return tuple(ranking.prefix + name for name in ADDED)


def fields_of(ranking: Ranking) -> Wanted:
    """The fields that ranking reads. The key is required and, by tokens, so is the token count."""
    key = key_of(ranking)
    fields = {ranking.group_by: Anything, ranking.tokens_field: Count, key: Number}
    required = {key}
    if ranking.by == Unit.tokens:
        required.add(ranking.tokens_field)
    if ranking.within:
        fields[ranking.within] = Label
        required.add(ranking.within)
    return Wanted(
        fields,
        optional=tuple(name for name in fields if name not in required),
        single=(key,),
        fresh=added_fields(ranking),
        # Merging replaces the ranks of the inputs by those of the whole.
        overwrite=ranking.overwrite or ranking.merge,
    )


def key_of(ranking: Ranking) -> str:
    """The score that is ranked. It is settled before the first record is read."""
    assert ranking.key is not None
    return ranking.key


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


def rank(source: Source, ranking: Ranking, sorter: spool.Spool) -> Ranked:
    """Read everything, then yield the records in order: by score, equal scores in input order, null last.

    Ranks count scored records from 0 for the lowest score, within the records of one value if `within` is
    given. `reverse` turns the order of the file, not the ranks. Scores are compared as doubles, as JSON
    readers do: integers beyond 2^53 can tie.

    Raises DataError for a record whose score or token count is none, and for scores that were made
    differently.
    """
    reader = _RowReader(ranking)
    quantiles = Quantiles(ranking)
    nulls = 0
    for batch in source.batches(fields_of(ranking)):
        _check_alike(source.heads, batch.file, ranking)
        rows = reader.rows(batch)
        scored = rows[~np.isnan(rows["key"])]
        quantiles.expect(scored["within"], scored["tokens"])
        nulls += len(rows) - len(scored)
        sorter.add(batch.text, rows)
    return _ranked(sorter.parts(), ranking, reader, quantiles, nulls=nulls)


def merge(sources: Sequence[Source], totals: Sequence[Totals], ranking: Ranking) -> Ranked:
    """Merge rankings by one key, with a few blocks of each in memory. `totals` are those of their trailers.

    Raises DataError if one of them is not in order.
    """
    reader = _RowReader(ranking)
    quantiles = Quantiles(ranking)
    for source in sources:
        source.peek()
    _check_alike([head for source in sources for head in source.heads], sources[0].inputs[0].name, ranking)
    # The trailers say how many records will come, so that nothing has to be read twice.
    nulls = sum(each.nulls for each in totals)
    quantiles.n[0] = sum(each.records for each in totals) - nulls
    quantiles.tokens[0] = sum(each.tokens - (each.unscored_tokens or 0) for each in totals)
    inputs = [_RankedInput(source, ranking, reader) for source in sources]
    return _ranked(_merged(inputs, ranking), ranking, reader, quantiles, nulls=nulls)


def _merged(inputs: Sequence["_RankedInput"], ranking: Ranking) -> Iterator[Part]:
    yield from spool.merge([each.scored() for each in inputs], ranking.reverse)
    for each in inputs:
        yield from each.unscored()


def is_mergeable(head: Head, totals: Totals, ranking: Ranking) -> bool:
    """Whether a file can be merged as it is: ranked by the same key and tokens, in the same direction."""
    if head.rank is None or ranking.within or totals.unscored_tokens is None:
        return False
    compared = ("key", "reverse", "tokens_field")
    return all(getattr(head.rank, name) == getattr(ranking, name) for name in compared)


def check(source: Source, ranking: Ranking) -> None:
    """Raise CheckFailed at the first record that is out of order by its key, or by its rank if it has one."""
    key = key_of(ranking)
    rank_field = added_fields(ranking)[0]
    head, _ = source.peek()
    # Ranks within the values of a field do not rise along the file.
    has_file_ranks = not (head and head.rank and head.rank.within)
    keys = _OrderCheck(ranking.reverse)
    ranks = _OrderCheck(ranking.reverse)
    for batch in source.batches(Wanted({key: Number, rank_field: Count}, (rank_field,), (key, rank_field))):
        wrong = keys.first_wrong(np.array(batch[key], dtype=float))
        if wrong is None and has_file_ranks and MISSING not in batch[rank_field]:
            wrong = ranks.first_wrong(np.array(batch[rank_field], dtype=float))
        if wrong is not None:
            fault = f"not in the order of `{key}`"
            raise CheckFailed(fault, place=batch.place(wrong), remedy="prune-cli rank puts it in order")


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

    def __init__(self, source: Source, ranking: Ranking, reader: "_RowReader") -> None:
        self.blocks = self._blocks(source, ranking, reader)
        self.mixed: list[spool.Block] = []  # the unscored records of the block in which they begin

    def _blocks(self, source: Source, ranking: Ranking, reader: "_RowReader") -> Iterator[spool.Block]:
        order = _OrderCheck(ranking.reverse)
        for batch in source.batches(fields_of(ranking)):
            rows = reader.rows(batch)
            wrong = order.first_wrong(rows["key"])
            if wrong is not None:
                fault = f"not in the order of `{key_of(ranking)}`"
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


def _check_alike(heads: Sequence[Head | None], place: str, ranking: Ranking) -> None:
    """Raise DataError if two heads say that their scores were made differently, unless --mixed allows it."""
    if ranking.mixed:
        return
    sections = [head.json["score"] for head in heads if head and head.score]
    for section in sections[1:]:
        first = sections[0]
        for name in sorted(first.keys() | section.keys()):
            if name not in NEUTRAL_KEYS and first.get(name) != section.get(name):
                fault = f"unlike scores: {name} is {section.get(name)} here, {first.get(name)} before"
                remedy = "score all of it alike; --mixed ranks it as it is"
                raise DataError(fault, place=place, remedy=remedy)


def _ranked(
    parts: Iterator[Part], ranking: Ranking, reader: "_RowReader", quantiles: Quantiles, *, nulls: int
) -> Ranked:
    quantiles.start(reader.values.names)
    facts: dict[str, Any] = {}
    placed = _placed(parts, ranking, quantiles, facts)
    return Ranked(_head(ranking, quantiles, nulls), placed, reader.groups.names, facts)


def _head(ranking: Ranking, quantiles: Quantiles, nulls: int) -> RankSection:
    return RankSection(
        key=key_of(ranking),
        n=int(quantiles.n.sum()),
        nulls=nulls,
        unit="tokens" if ranking.by == Unit.tokens else "records",
        reverse=ranking.reverse,
        prefix=ranking.prefix,
        tokens=int(quantiles.tokens.sum()),
        tokens_field=ranking.tokens_field,
        within=ranking.within or None,
    )


class _RowReader:
    """Makes rows of batches. Values of the group field and of the `within` field become numbers."""

    def __init__(self, ranking: Ranking) -> None:
        self.ranking = ranking
        # One label more than a trailer counts shows that there are too many.
        self.groups = Labels(str, most=GROUPS + 1)
        self.values = Labels(str, int)

    def rows(self, batch: Batch) -> np.ndarray:
        """A row for each record; the key is NaN for a record without a score."""
        rows = table(batch)
        rows["key"] = np.array(batch[key_of(self.ranking)], dtype=float)  # None becomes NaN
        rows["tokens"] = counts(batch[self.ranking.tokens_field])
        rows["group"] = self.groups.codes(batch[self.ranking.group_by])
        if self.ranking.within:
            rows["within"] = self.values.codes(batch[self.ranking.within])
        return rows


def lines(ranked: Ranked, ranking: Ranking) -> Iterator[Lines]:
    """The records in order as lines with their new fields."""
    names = added_fields(ranking)
    for part in ranked.parts:
        rows = part.rows
        values = [[b"null"] * len(rows)] * 2
        if part.quantiles is not None:
            values = [numbers(part.ranks), numbers(part.quantiles)]
        text, sizes = spliced(rows, part.blocks, dict(zip(names, values, strict=True)))
        unscored = np.isnan(rows["key"])
        yield Lines(text, sizes, rows["tokens"], unscored, part.ranks, rows["group"], ranked.group_names)


def _placed(
    parts: Iterator[Part], ranking: Ranking, quantiles: Quantiles, facts: dict[str, Any]
) -> Iterator[Placed]:
    """Rank and quantile of each record, in order; `facts` are filled in at the end."""
    correlation = LengthCorrelation()
    grid = QuantileGrid(ranking.reverse)
    for rows, blocks in parts:
        # A part has either scored records or unscored ones.
        if np.isnan(rows["key"]).any():
            yield Placed(rows, blocks, np.full(len(rows), -1), None)
            continue
        ranks, fractions = quantiles.next(rows["within"], rows["tokens"])
        correlation.add(rows["key"], rows["tokens"])
        # Within the values of a field quantiles do not rise with the scores, and a grid of them means
        # nothing.
        if not ranking.within:
            grid.add(rows["key"], fractions)
        yield Placed(rows, blocks, ranks, fractions)
    quantiles.check_complete()
    facts["shape"] = grid.value()
    spearman = correlation.value()
    if spearman is not None:
        # Records came from the highest score on: the correlation has the opposite sign.
        facts["length_correlation"] = round(-spearman if ranking.reverse else spearman, 6)
