"""Order records by a score, and tell each its rank and its quantile."""

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
from ...statistics.correlation import LengthCorrelation
from ...statistics.quantile_grid import QuantileGrid
from ...stream.batch import Lines
from ...stream.schema import Head, RankSection, Totals
from ...stream.writer import GROUPS

ADDED = ("rank", "quantile")
# What a head says about scores that decides no number: where and how fast they were computed, and what they are called.
BESIDE = ("fields", "names", "only", "device", "batch_tokens", "shard", "versions")


def added_fields(ranking: Ranking) -> tuple[str, ...]:
    """The names of the fields that ranking adds."""
    return tuple(ranking.prefix + name for name in ADDED)


def fields_of(ranking: Ranking) -> Wanted:
    """The fields that ranking reads. The key and, by tokens, the count are required."""
    key = key_of(ranking)
    fields = {ranking.group_by: Anything, ranking.tokens_field: Count, key: Number}
    required = {key, *([ranking.tokens_field] if ranking.by == "tokens" else [])}
    if ranking.within:
        fields[ranking.within] = Label
        required.add(ranking.within)
    optional = tuple(name for name in fields if name not in required)
    return Wanted(fields, optional, (key,), added_fields(ranking), ranking.overwrite or ranking.merge)


def key_of(ranking: Ranking) -> str:
    """The score that is ranked; it is settled before anything is read."""
    assert ranking.key is not None
    return ranking.key


@dataclass(frozen=True)
class Ranked:
    """What is known before the first record is written: the part of the head that other verbs need; and the records in order.

    `facts` are what the trailer says of the whole; they are there when the last record is.
    """

    head: RankSection
    records: Iterator[Lines]
    facts: dict[str, Any]


def rank(source: Source, ranking: Ranking, sorter: spool.Spool) -> Ranked:
    """Read everything, then give the records out in order: score first, input order among equals, `null` last.

    `rank` counts scored records from 0 for the lowest score; `quantile` is (rank + 1/2) / N by records, and (tokens of lower
    records + half its own) / all tokens by tokens; both within the records of one value where `within` says so. `reverse` turns
    the file's order, not the ranks. Keys are compared as doubles, as JSON readers do: whole numbers beyond 2^53 may tie.

    Raises DataError for what is no score or no count of tokens, naming the record, and for scores that were made unlike.
    """
    reader, shares, nulls = _Reader(ranking), _Shares(ranking), 0
    for batch in source.batches(fields_of(ranking)):
        _check_alike(source.heads, batch.file, ranking)
        rows = reader.rows(batch)
        scored = rows[~np.isnan(rows["key"])]
        shares.expect(scored["within"], scored["tokens"])
        nulls += len(rows) - len(scored)
        sorter.add(batch.text, rows)
    return _ranked(sorter.parts(), ranking, reader, shares, nulls)


def merge(sources: Sequence[Source], counts: Sequence[Totals], ranking: Ranking) -> Ranked:
    """Several rankings by one key as one, in memory for a few blocks of each. `counts` are the totals of their trailers.

    Raises DataError where one of them is not in order.
    """
    reader, shares = _Reader(ranking), _Shares(ranking)
    for source in sources:
        source.peek()
    _check_alike([head for source in sources for head in source.heads], sources[0].inputs[0].name, ranking)
    nulls = sum(totals.nulls for totals in counts)
    shares.n[0] = sum(totals.records for totals in counts) - nulls
    shares.tokens[0] = sum(totals.tokens - (totals.unscored_tokens or 0) for totals in counts)
    inputs = [_Sorted(source, ranking, reader) for source in sources]

    def parts() -> Iterator[Part]:
        yield from spool.merge([one.scored() for one in inputs], ranking.reverse)
        for one in inputs:
            yield from one.unscored()

    return _ranked(parts(), ranking, reader, shares, nulls)


def is_mergeable(head: Head, totals: Totals, ranking: Ranking) -> bool:
    """Whether a whole file with this head and these totals can be merged as it is: ranked by the key, in the same direction."""
    if head.rank is None or ranking.within or totals.unscored_tokens is None:
        return False
    return all(
        getattr(head.rank, name) == getattr(ranking, name) for name in ("key", "reverse", "tokens_field")
    )


def check(source: Source, ranking: Ranking) -> None:
    """Raise CheckFailed at the first record that is out of order: by key, or by rank where the stream has ranks."""
    rank_field = added_fields(ranking)[0]
    fields = {key_of(ranking): Number, rank_field: Count}
    head, _ = source.peek()
    within = head.rank.within if head and head.rank else None
    keys, ranks = _Order(ranking.reverse), _Order(ranking.reverse)
    for batch in source.batches(Wanted(fields, (rank_field,), tuple(fields))):
        wrong = keys.broken(np.array(batch[key_of(ranking)], dtype=float))
        if wrong is None and not within and MISSING not in batch[rank_field]:
            wrong = ranks.broken(np.array(batch[rank_field], dtype=float))
        if wrong is not None:
            raise CheckFailed(
                f"not in the order of `{key_of(ranking)}`",
                place=batch.place(wrong),
                remedy="prune-cli rank puts it in order",
            )


class _Order:
    """Holds numbers to one order, nulls last."""

    def __init__(self, reverse: bool) -> None:
        self.sign, self.last = -1 if reverse else 1, -np.inf

    def broken(self, numbers: np.ndarray) -> int | None:
        """Where the order is broken first, if it is."""
        signed = np.where(np.isnan(numbers), np.inf, self.sign * numbers)
        falls = np.flatnonzero(signed < np.concatenate(([self.last], signed[:-1])))
        self.last = signed[-1]
        return int(falls[0]) if len(falls) else None


class _Sorted:
    """A ranked input on its way into a merge: first its scored records, then, once all inputs' were read, the others."""

    def __init__(self, source: Source, ranking: Ranking, reader: "_Reader") -> None:
        self.blocks = self._blocks(source, ranking, reader)
        self.rest: list[spool.Block] = []

    def _blocks(self, source: Source, ranking: Ranking, reader: "_Reader") -> Iterator[spool.Block]:
        order = _Order(ranking.reverse)
        for batch in source.batches(fields_of(ranking)):
            rows = reader.rows(batch)
            wrong = order.broken(rows["key"])
            if wrong is not None:
                raise DataError(
                    f"not in the order of `{key_of(ranking)}`",
                    place=batch.place(wrong),
                    remedy="rank without --merge",
                )
            yield rows, batch.text

    def scored(self) -> Iterator[spool.Block]:
        for rows, text in self.blocks:
            nulls = np.isnan(rows["key"])
            yield rows[~nulls], text
            if nulls.any():
                self.rest.append((rows[nulls], text))
                return

    def unscored(self) -> Iterator[Part]:
        for rows, text in chain(self.rest, self.blocks):
            yield rows, [text]


def _check_alike(heads: Sequence[Head | None], place: str, ranking: Ranking) -> None:
    """Raise DataError where two streams' heads say that their scores were made differently."""
    made = [head.json["score"] for head in heads if head and head.score]
    for other in [] if ranking.mixed else made[1:]:
        for name in sorted(made[0].keys() | other.keys()):
            if name not in BESIDE and made[0].get(name) != other.get(name):
                raise DataError(
                    f"unlike scores: {name} is {other.get(name)} here, {made[0].get(name)} in what came before",
                    place=place,
                    remedy="score all of it alike; --mixed ranks it as it is",
                )


def _ranked(
    parts: Iterator[Part], ranking: Ranking, reader: "_Reader", shares: "_Shares", nulls: int
) -> Ranked:
    shares.check(reader.values.names)
    facts: dict[str, Any] = {}
    return Ranked(
        _head(ranking, shares, nulls), _written(parts, ranking, shares, reader.groups.names, facts), facts
    )


def _head(ranking: Ranking, shares: "_Shares", nulls: int) -> RankSection:
    return RankSection(
        key=key_of(ranking),
        n=int(shares.n.sum()),
        nulls=nulls,
        unit="tokens" if ranking.by == "tokens" else "records",
        reverse=ranking.reverse,
        prefix=ranking.prefix,
        tokens=int(shares.tokens.sum()),
        tokens_field=ranking.tokens_field,
        within=ranking.within or None,
    )


class _Reader:
    """Makes rows of batches; values of the group field and of the `within` field become numbers."""

    def __init__(self, ranking: Ranking) -> None:
        self.ranking, self.groups, self.values = ranking, Labels(str, most=GROUPS + 1), Labels(str, int)

    def rows(self, batch: Batch) -> np.ndarray:
        rows = table(batch)
        rows["key"] = np.array(batch[key_of(self.ranking)], dtype=float)  # None becomes NaN
        rows["tokens"] = counts(batch[self.ranking.tokens_field])
        rows["group"] = self.groups.codes(batch[self.ranking.group_by])
        if self.ranking.within:
            rows["within"] = self.values.codes(batch[self.ranking.within])
        return rows


class _Shares:
    """Ranks and quantiles of records that come in the order of the file; all numbers are held per value of the `within` field."""

    def __init__(self, ranking: Ranking) -> None:
        self.ranking = ranking
        self.n, self.tokens = np.zeros(1, np.int64), np.zeros(1, np.int64)

    def expect(self, values: np.ndarray, tokens: np.ndarray) -> None:
        """Count records that will come."""
        if len(values) and (more := int(values.max()) + 1 - len(self.n)) > 0:
            self.n, self.tokens = (
                np.concatenate((each, np.zeros(max(more, len(each)), np.int64)))
                for each in (self.n, self.tokens)
            )
        np.add.at(self.n, values, 1)
        np.add.at(self.tokens, values, tokens)

    def check(self, names: list[Any]) -> None:
        """Everything was counted. Raises DataError where quantiles would be shares of nothing."""
        self.n_before, self.tokens_before = np.zeros_like(self.n), np.zeros_like(self.tokens)
        empty = np.flatnonzero((self.n > 0) & (self.tokens == 0))
        if self.ranking.by == "tokens" and len(empty):
            whose = f" whose `{self.ranking.within}` is {names[empty[0]]}" if self.ranking.within else ""
            raise DataError(
                f"no scored record{whose} has any tokens",
                remedy="rank --by records, or name the count with --tokens-field",
            )

    def next(self, values: np.ndarray, tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rank and quantile of each record."""
        records = _before(values, np.ones_like(tokens), self.n_before)
        if self.ranking.reverse:
            records = self.n[values] - 1 - records
        if self.ranking.by == "records":
            return records, (records + 0.5) / self.n[values]
        lower = _before(values, tokens, self.tokens_before)
        if self.ranking.reverse:
            lower = self.tokens[values] - tokens - lower
        return records, (2 * lower + tokens) / (2 * self.tokens[values])


def _before(values: np.ndarray, amounts: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """For each record the sum of `amounts` over the earlier ones of its value; `seen` has the sums so far and goes on."""
    if len(seen) == 1:
        seen += amounts.sum()
        everything: np.ndarray = np.cumsum(amounts) - amounts + (seen - amounts.sum())
        return everything
    order = np.argsort(values, kind="stable")
    sums = np.cumsum(amounts[order]) - amounts[order]
    firsts = np.searchsorted(values[order], values[order])
    found: np.ndarray = np.empty_like(sums)
    found[order] = sums - sums[firsts] + seen[values[order]]
    np.add.at(seen, values, amounts)
    return found


def _written(
    parts: Iterator[Part], ranking: Ranking, shares: _Shares, names: list[str], facts: dict[str, Any]
) -> Iterator[Lines]:
    """The lines in order with their new fields, and the rows' own numbers for the trailer."""
    correlation, shape = LengthCorrelation(), QuantileGrid(ranking.reverse)
    for rows, blocks in parts:
        nulls = np.isnan(rows["key"])
        if nulls.any():
            ranks, shown = np.full(len(rows), -1), [[b"null"] * len(rows)] * 2
        else:
            ranks, quantiles = shares.next(rows["within"], rows["tokens"])
            shown = [numbers(ranks), numbers(quantiles)]
            correlation.add(rows["key"], rows["tokens"])
            if not ranking.within:  # else quantiles do not rise with the scores
                shape.add(rows["key"], quantiles)
        text, sizes = spliced(rows, blocks, dict(zip(added_fields(ranking), shown, strict=True)))
        yield Lines(text, sizes, rows["tokens"], nulls, ranks, rows["group"], names)
    if shares.n_before.sum() != shares.n.sum():
        raise DataError(
            f"{shares.n.sum()} scored records were counted, {shares.n_before.sum()} came",
            remedy="rank without --merge",
        )
    facts["shape"] = shape.value()
    found = correlation.value()
    if found is not None:
        facts["length_correlation"] = round(-found if ranking.reverse else found, 6)
