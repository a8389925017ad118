"""Keep a part of a score's distribution: exact counts, bytes unchanged, order unchanged."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import numpy as np

from ..errors import DataError, UsageError
from ..io.records import MISSING, Anything, Batch, Content, Count, Number, Record, Source, Wanted, uniform

HALF = Decimal("0.5")


@dataclass(frozen=True)
class Cut:
    """The shares of the distribution between which records are kept, low ≤ share < high; `keep` is how the user put it."""

    keep: str
    low: Decimal
    high: Decimal

    def ranks(self, n: int) -> tuple[int, int]:
        """First kept rank and the one after the last, of n: k = ⌊f·n + ½⌋ records, in exact decimal arithmetic."""
        if self.keep == "range":
            return _nearest(self.low * n), _nearest(self.high * n)
        k = _nearest((self.high - self.low) * n)
        first = {"middle": (n - k) // 2, "top": n - k}.get(self.keep, 0)
        return first, first + k


def _nearest(number: Decimal) -> int:
    return int((number + HALF).to_integral_value(ROUND_FLOOR))


def fraction(keep: str, share: Decimal) -> Cut:
    """A share of the distribution by where it lies: bottom, middle or top; random shares are the bottom of random numbers."""
    low = {"middle": HALF - share / 2, "top": 1 - share}.get(keep, Decimal(0))
    return Cut(keep, low, low + share)


@dataclass
class Tally:
    """Where the records went; in = kept + cut + unscored, or the run fails."""

    kept: int = 0
    cut: int = 0
    unscored: int = 0
    tokens: int = 0
    groups: Counter[str] = field(default_factory=Counter)

    def check(self, records: int) -> None:
        if self.kept + self.cut + self.unscored != records:
            raise AssertionError(f"{records} records in, {self}: some are unaccounted for")


@dataclass(frozen=True)
class Slicing:
    """What is read of each record, whichever cut is made."""

    tokens_field: str = "n_scored"
    group: str = "source"
    keep_unscored: bool = False


def ranked(source: Source, cut: Cut, slicing: Slicing, by: str | None, prefix: str | None, tally: Tally) -> Iterator[Record]:
    """The records of a ranked stream whose rank (by records) or quantile (by tokens) lies inside the cut, in one pass.

    Raises UsageError where the stream has lost its head and `by` does not say what it was ranked by; DataError where the stream
    is not one ranking in order.
    """
    head, fields = source.peek()
    known = (head or {}).get("rank")
    unit = _unit(known, by) if fields or known else "records"  # of nothing at all, half is nothing
    return _ranked(source, cut, slicing, known, unit, prefix, tally)


def _ranked(
    source: Source, cut: Cut, slicing: Slicing, known: dict[str, Any] | None, unit: str, prefix: str | None, tally: Tally
) -> Iterator[Record]:
    prefix = prefix if prefix is not None else (known or {}).get("prefix", "")
    rank, quantile = prefix + "rank", prefix + "quantile"
    fields = {slicing.group: Anything, slicing.tokens_field: Count, rank: Count, quantile: Number}
    order = _Order(known["n"] if known and unit == "records" else None, known["reverse"] if known else None)
    for batch in source.batches(Wanted(fields, (slicing.group, slicing.tokens_field), (rank, quantile))):
        if len(source.heads) > 1 and any(source.heads):
            raise _not_ranked(batch, 0, "several streams follow each other")
        ranks = np.array([-1 if value is None else value for value in batch[rank]])
        quantiles = np.array([np.nan if value is None else value for value in batch[quantile]])
        n = order.check(batch, ranks, quantiles, unit)
        if unit == "records":
            low, high = cut.ranks(n)
            inside = (ranks >= low) & (ranks < high)
        else:
            inside = (quantiles >= float(cut.low)) & (quantiles < float(cut.high))
        yield from _chosen(batch, inside, ranks >= 0, ranks.tolist(), slicing, tally)


def _unit(known: dict[str, Any] | None, by: str | None) -> str:
    if known and by not in (None, known["unit"]):
        raise UsageError(f"the stream was ranked by {known['unit']}, not by {by}", remedy=f"rank it again with --by {by}")
    unit = known["unit"] if known else by
    if unit is None:
        raise UsageError(
            "the input is not known to be ranked: it has no head that says so",
            remedy="rank it first; or, if it lost its head on the way, say what it was ranked by: --by records|tokens",
        )
    return unit


class _Order:
    """Holds a stream to be one ranking: ranks that rise (or all fall) and one N throughout, recovered from rank and quantile."""

    def __init__(self, n: int | None, reverse: bool | None) -> None:
        self.n, self.step, self.last = n, {None: 0, False: 1, True: -1}[reverse], -1

    def check(self, batch: Batch, ranks: np.ndarray, quantiles: np.ndarray, unit: str) -> int:
        scored = np.flatnonzero(ranks >= 0)
        if not len(scored):
            return self.n or 0
        if np.isnan(quantiles[scored]).any() or (quantiles[scored] <= 0).any() or (quantiles[scored] >= 1).any():
            raise _not_ranked(batch, 0, "a rank without a quantile between 0 and 1")
        if unit == "records":
            found = np.rint((ranks[scored] + 0.5) / quantiles[scored]).astype(np.int64)
            self.n = self.n or int(found[0])
            if (found != self.n).any():
                raise _not_ranked(
                    batch, int(scored[np.flatnonzero(found != self.n)[0]]), f"rank and quantile belong to another N than {self.n}"
                )
        before = np.concatenate(([self.last], ranks[scored][:-1])) if self.last >= 0 else ranks[scored][:-1]
        steps = np.sign(ranks[scored][-len(before) :] - before) if len(before) else before
        self.step = self.step or (int(steps[0]) if len(steps) else 0)
        if (steps != self.step).any() or (len(steps) and not self.step):
            wrong = int(scored[-len(before) :][np.flatnonzero(steps != self.step)[0]]) if self.step else int(scored[0])
            raise _not_ranked(batch, wrong, "the ranks are out of order")
        self.last = int(ranks[scored][-1])
        return self.n or 0


def _not_ranked(batch: Batch, index: int, fault: str) -> DataError:
    return DataError(f"{fault}: this is not one ranking", place=batch.place(index), remedy="rank the whole again: prune-cli rank")


def scored(source: Source, key: str, cut: Cut, by: str, slicing: Slicing, tally: Tally, again: Source) -> Iterator[Record]:
    """The records whose place in the order of `key` lies inside the cut, in input order. `again` reads the same input once more."""
    scores: list[float | None] = []
    tokens: list[int] = []
    for batch in source.batches(_wanted(slicing, by, {key: Number})):
        scores += batch[key]
        tokens += _counts(batch, slicing)
    values = np.array([np.nan if score is None else score for score in scores])
    inside = choose(values, np.array(tokens), ~np.isnan(values), cut, by)
    yield from _again(again, inside, ~np.isnan(values), slicing, tally)


def at_random(
    source: Source, seed: int, text_field: str, cut: Cut, by: str, slicing: Slicing, tally: Tally, again: Source
) -> Iterator[Record]:
    """A random share, in input order: the records with the lowest hashes of (seed, id, text or ids). Records that a ranking left
    unscored stay outside; for one seed a smaller share is part of a larger one, whatever the order of the input."""
    fields = {"id": Anything, text_field: str | None, "input_ids": Content | None, "rank": Count}
    hashes: list[int] = []
    tokens: list[int] = []
    eligible: list[bool] = []
    for batch in source.batches(_wanted(slicing, by, fields, tuple(fields))):
        for identity, text, ids in zip(batch["id"], batch[text_field], batch["input_ids"], strict=True):
            content = text if ids is MISSING else ids
            hashes.append(uniform(seed, None if identity is MISSING else identity, None if content is MISSING else content))
        tokens += _counts(batch, slicing)
        eligible += [rank is not None for rank in batch["rank"]]
    present = np.array(eligible, dtype=bool)
    inside = choose(np.array(hashes, dtype=np.uint64), np.array(tokens), present, cut, by)
    yield from _again(again, inside, present, slicing, tally)


def _wanted(slicing: Slicing, by: str, fields: dict[str, Any], optional: tuple[str, ...] = ()) -> Wanted:
    """The verb's own fields beside those that are always read; tokens are required only where they decide."""
    optional += (slicing.group,) if by == "tokens" else (slicing.group, slicing.tokens_field)
    everything = {slicing.group: Anything, slicing.tokens_field: Count, **fields}
    return Wanted(everything, optional, tuple(name for name in fields if name not in optional))


def _counts(batch: Batch, slicing: Slicing) -> list[int]:
    return [count or 0 for count in batch[slicing.tokens_field]]


def choose(values: np.ndarray, tokens: np.ndarray, eligible: np.ndarray, cut: Cut, by: str) -> np.ndarray:
    """A mask of the records inside the cut: ordered by value, then by input order, among the eligible ones."""
    candidates = np.flatnonzero(eligible)
    order = candidates[np.argsort(values[candidates], kind="stable")]
    if by == "records":
        low, high = cut.ranks(len(order))
        kept = order[low:high]
    else:
        weights = tokens[order].astype(np.int64)
        quantiles = (2 * np.cumsum(weights) - weights) / max(2 * int(weights.sum()), 1)
        kept = order[(quantiles >= float(cut.low)) & (quantiles < float(cut.high))]
    mask = np.zeros(len(values), dtype=bool)
    mask[kept] = True
    return mask


def _again(source: Source, inside: np.ndarray, eligible: np.ndarray, slicing: Slicing, tally: Tally) -> Iterator[Record]:
    at = 0
    fields = {slicing.group: Anything, slicing.tokens_field: Count, "rank": Count}
    for batch in source.batches(Wanted(fields, tuple(fields))):
        end = at + len(batch)
        yield from _chosen(batch, inside[at:end], eligible[at:end], batch["rank"], slicing, tally)
        at = end


def _chosen(batch: Batch, inside: np.ndarray, eligible: np.ndarray, ranks: list[Any], slicing: Slicing, tally: Tally) -> Iterator[Record]:
    """The records to keep of a batch, each counted."""
    kept = (inside & eligible) | ~eligible if slicing.keep_unscored else inside & eligible
    groups, tokens = batch[slicing.group], _counts(batch, slicing)
    for at in np.flatnonzero(kept).tolist():
        group = groups[at] if isinstance(groups[at], str) else None
        rank = ranks[at] if isinstance(ranks[at], int) and eligible[at] else None
        yield Record(batch.lines[at], tokens[at], not eligible[at], rank, group)
        tally.tokens += tokens[at]
        tally.groups[group or ""] += 1
    tally.kept += int(kept.sum())
    tally.unscored += int((~eligible & ~kept).sum())
    tally.cut += int((eligible & ~kept).sum())
