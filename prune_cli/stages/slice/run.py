"""Keep a part of a score's distribution: exact counts, bytes unchanged, order unchanged."""

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any

import numpy as np

from ...errors import DataError, InputOutputError, UsageError
from ...records.columns import Labels, counts, selected
from ...records.lines import Block, line_ends
from ...records.reader import MISSING, Anything, Batch, Content, Count, Label, Number, Source, Wanted
from ...records.splice import uniform
from ...statistics.correlation import LengthCorrelation
from ...statistics.cuts import Cut, choose, gumbel
from ...statistics.quantile_grid import grid_of
from ...stream.batch import Lines
from ...stream.index import Table
from ...stream.schema import RankSection
from ...stream.writer import GROUPS
from .counts import CUT, KEPT, UNSCORED, Tally, Ties
from .ranked import Places, not_ranked

AT_ONCE = 1 << 18  # records of which something is found out: it takes five times what a score takes


@dataclass(frozen=True)
class Slicing:
    """What is kept, and what is read of each record for it. `by` and `prefix` are None where the stream's head is to say."""

    cut: Cut
    by: str | None = None
    key: str | None = None
    within: str | None = None
    tokens_field: str = "n_scored"
    text_field: str = "text"
    group: str = "source"
    prefix: str | None = None
    keep_unscored: bool = False
    invert: bool = False
    seed: int = 0
    temperature: float | None = None


@dataclass
class Findings:
    """What is learned on the way: where the records went, which ties the cut splits, how scores go with lengths."""

    tally: Tally = field(default_factory=Tally)
    ties: Ties = field(default_factory=Ties)
    lengths: LengthCorrelation = field(default_factory=LengthCorrelation)
    length_correlation: float | None = None
    shape: list[float] | None = None  # of all scores, as statistics/shape.py has it
    between: tuple[float, float] | None = (
        None  # the quantiles of the cut, where they are known only when all is read
    )

    def ordered(self, scores: np.ndarray, tokens: np.ndarray, inside: np.ndarray) -> None:
        """Take records in the order of their scores."""
        self.ties.add(scores, inside)
        self.lengths.add(scores, tokens)


@dataclass(frozen=True)
class Parted:
    """Some records in input order: those that are kept and those that are not, either of them None where there are none."""

    kept: Lines | None
    rejected: Lines | None


@dataclass(frozen=True)
class Whole:
    """A frame of a file of ours of which every record is kept, or none."""

    index: int
    kept: bool


class _Parter:
    """Parts batches by a mask, counting every record."""

    def __init__(self, slicing: Slicing, tally: Tally, grouped: bool = True) -> None:
        self.slicing, self.tally, self.groups = slicing, tally, Labels(str, most=GROUPS + 1 if grouped else 0)

    def part(
        self,
        batch: Batch,
        inside: np.ndarray,
        scored: np.ndarray,
        ranks: np.ndarray,
        tokens: np.ndarray | None = None,
    ) -> Parted:
        kept = scored & (inside != self.slicing.invert)
        if self.slicing.keep_unscored:
            kept |= ~scored
        tokens = counts(batch[self.slicing.tokens_field]) if tokens is None else tokens
        groups = self.groups.codes(batch[self.slicing.group])
        self.tally.add(
            np.where(kept, KEPT, np.where(scored, CUT, UNSCORED)), groups, self.groups.names, tokens
        )

        def lines(mask: np.ndarray) -> Lines | None:
            if not mask.any():
                return None
            text, sizes = selected(batch.text, batch.ends, mask)
            return Lines(
                text, sizes, tokens[mask], ~scored[mask], ranks[mask], groups[mask], self.groups.names
            )

        return Parted(lines(kept), lines(~kept))


# A ranked stream: one pass in constant memory.


def ranked(source: Source, slicing: Slicing, findings: Findings) -> Iterator[Parted]:
    """A ranked stream parted by its records' rank (by records), quantile (by tokens) or score, in one pass.

    Raises UsageError where the stream has lost its head and `by` does not say what it was ranked by; DataError where the stream
    is not one ranking in order.
    """
    head, fields = source.peek()
    ranking = head.rank if head else None
    unit = (
        _unit(ranking, slicing.by) if fields or ranking else "records"
    )  # of nothing at all, half is nothing
    return _ranked(source, _places(slicing, ranking, unit), slicing, findings)


def _ranked(source: Source, places: Places, slicing: Slicing, findings: Findings) -> Iterator[Parted]:
    parter = _Parter(slicing, findings.tally)
    for batch in source.batches(places.wanted()):
        if len(source.heads) > 1 and any(source.heads):
            raise not_ranked(batch, 0, "several streams follow each other")
        yield _placed(batch, places, parter, findings)
    found = findings.lengths.value()
    findings.length_correlation = -found if found is not None and places.reverse else found
    findings.shape = source.trailers[0].totals.shape if source.trailers else None


def _places(slicing: Slicing, ranking: RankSection | None, unit: str) -> Places:
    return Places(
        slicing.cut, ranking, unit, slicing.key, slicing.prefix, (slicing.group, slicing.tokens_field)
    )


def _placed(batch: Batch, places: Places, parter: _Parter, findings: Findings) -> Parted:
    """A batch of a ranking, parted by where its records lie."""
    ranks, scores, where = places.of(batch)
    scored, tokens = ranks >= 0, counts(batch[parter.slicing.tokens_field])
    if not places.within and not np.isnan(scores[scored]).any():
        findings.ordered(scores[scored], tokens[scored], where[scored] == 0)
    return parter.part(batch, where == 0, scored, ranks, tokens)


def _unit(ranking: RankSection | None, by: str | None) -> str:
    if ranking and by not in (None, ranking.unit):
        raise UsageError(
            f"the stream was ranked by {ranking.unit}, not by {by}", remedy=f"rank it again with --by {by}"
        )
    unit = ranking.unit if ranking else by
    if unit is None:
        raise UsageError(
            "the input is not known to be ranked: it has no head that says so",
            remedy="rank it first; or, if it lost its head on the way, say what it was ranked by: --by records|tokens",
        )
    return unit


# A ranked file of ours: only the frames at the cut are decoded.


def is_copyable(table: Table, slicing: Slicing) -> bool:
    """Whether the file is one ranking whose table has all that a slice needs to know of the frames that it does not decode."""
    ranking = table.head.rank
    frames = table.frames
    if not ranking or ranking.within or slicing.within or slicing.key is not None:
        return False
    asked = (slicing.by, slicing.prefix, slicing.tokens_field, slicing.group)
    told = (ranking.unit, ranking.prefix, ranking.tokens_field, table.head.group)
    same = all(ours in (None, theirs) for ours, theirs in zip(asked, told, strict=True))
    edges = [rank for pair in zip(frames.first, frames.last, strict=True) for rank in pair]
    ranks = [rank for rank in edges if rank is not None]
    in_order = ranks == sorted(ranks, reverse=ranking.reverse) and None not in edges[: len(ranks)]
    unscored = zip(frames.records[len(ranks) // 2 :], frames.nulls[len(ranks) // 2 :], strict=True)
    return same and in_order and all(records == nulls for records, nulls in unscored)


def copied(table: Table, source: Source, slicing: Slicing, findings: Findings) -> Iterator[Parted | Whole]:
    """The same as `ranked` for a file with its table: frames of which all records are kept, or none; the others parted."""
    ranking = table.head.rank
    frames = table.frames
    assert ranking is not None  # is_copyable has looked
    places = _places(slicing, ranking, ranking.unit)
    parter = _Parter(slicing, findings.tally, grouped=bool(table.totals.groups))
    decoded = _Decoded(table, source, places)
    low, high, mixed = decoded.at_the_cut()
    for at in range(len(frames)):
        if at in mixed:
            yield from (_placed(batch, places, parter, findings) for batch in decoded[at])
            continue
        fate = UNSCORED if at >= decoded.scored else CUT if (low <= at < high) == slicing.invert else KEPT
        kept = fate == KEPT or (fate == UNSCORED and slicing.keep_unscored)
        findings.tally.add_frame(
            KEPT if kept else fate, frames.records[at], frames.tokens[at], frames.groups[at]
        )
        yield Whole(at, kept)
    findings.length_correlation = table.totals.length_correlation
    findings.shape = table.totals.shape


class _Decoded:
    """The frames of a ranked file that have to be decoded: those at the cut, and what ties with them."""

    def __init__(self, table: Table, source: Source, places: Places) -> None:
        self.table, self.source, self.places = table, source, places
        self.scored = sum(rank is not None for rank in table.frames.first)  # unscored records come last
        self.known: dict[int, list[Batch]] = {}

    def __getitem__(self, at: int) -> list[Batch]:
        if at not in self.known:
            text = self.table.text(at)
            block = Block(self.table.file.name, self.table.line(at), text, line_ends(text))
            self.known[at] = list(self.source.decoded([block], self.places.wanted()))
            if sum(map(len, self.known[at])) != self.table.frames.records[at]:
                raise DataError("the trailer and the frames before it disagree", place=self.table.file.name)
        return self.known[at]

    def at_the_cut(self) -> tuple[int, int, set[int]]:
        """The first frames that begin inside the cut and behind it, and all that have to be decoded."""
        low, high = (bisect_left(range(self.scored), place, key=self._place) for place in (0, 1))
        mixed = {at for at in range(self.scored) if self.table.frames.nulls[at]}
        for at in {low - 1, high - 1} & set(range(self.scored)):
            before, after = at, at + 1
            while before > 0 and self._score(before - 1, -1) == self._score(before, 0) is not None:
                before -= 1
            while after < self.scored and self._score(after - 1, -1) == self._score(after, 0) is not None:
                after += 1
            mixed.update(range(before, after))
        return low, high, mixed

    def _place(self, at: int) -> int:
        """Where a frame's first record lies in the order of the file: -1 before the cut, 0 inside, 1 behind it."""
        first = self.table.frames.first[at]
        assert first is not None  # only frames with ranks are asked about
        place = self.places.of_rank(first) if self.places.by_rank else self.places.of_first(self[at][0])
        return -place if self.places.reverse else place

    def _score(self, at: int, index: int) -> float | None:
        """The score of a frame's first or last scored record; None where there are no scores."""
        key = self.places.key
        found = (
            [score for batch in self[at] for score in batch[key] if isinstance(score, float)] if key else []
        )
        return found[index] if found else None


# Streams in any order: two passes.


def scored(source: Source, again: Source, slicing: Slicing, findings: Findings) -> Iterator[Parted]:
    """A stream parted by a score, its order kept: one pass over the scores, then `again`, the same input, from the start.

    A record takes some 40 bytes of memory while the cut is made, and 70 where tokens are counted.
    """
    return _again(again, _select(source, slicing, findings), slicing, findings)


def joined(
    scores: Source, again: Source, corpus: Source, slicing: Slicing, findings: Findings
) -> Iterator[Parted]:
    """A corpus parted by scores that lie in a file of their own, record by record in its order; ids are checked.

    Raises DataError where the two do not go together.
    """
    selection = _select(scores, slicing, findings)
    ids = chain.from_iterable(batch["id"] for batch in again.batches(Wanted({"id": Anything}, ("id",))))
    parter, at = _Parter(slicing, findings.tally), 0
    for batch in corpus.batches(Wanted({"id": Anything, slicing.group: Anything}, ("id", slicing.group))):
        theirs, end = list(islice(ids, len(batch))), at + len(batch)
        wrong = next(
            (
                index
                for index, pair in enumerate(zip(batch["id"], theirs, strict=False))
                if pair[0] != pair[1]
            ),
            len(theirs),
        )
        if wrong < len(batch):
            fault = (
                f"its id is not that of record {at + wrong + 1} of the scores"
                if wrong < len(theirs)
                else "there is no score for it"
            )
            raise DataError(
                fault, place=batch.place(wrong), remedy="use the scores of this very corpus, in its order"
            )
        yield parter.part(batch, *selection.of(slice(at, end), np.full(len(batch), -1)))
        at = end
    for _ in ids:
        raise DataError(f"there are more scores than the {at} records", place=again.inputs[0].name)


@dataclass(frozen=True)
class _Selection:
    """What was chosen, a value a record: inside the cut, has a score, tokens."""

    inside: np.ndarray
    scored: np.ndarray
    tokens: np.ndarray

    def of(self, rows: slice, ranks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        return self.inside[rows], self.scored[rows], ranks, self.tokens[rows]


def _select(source: Source, slicing: Slicing, findings: Findings) -> _Selection:
    """Read the scores, or draw them, and choose."""
    values, scores, tokens, within = _read(source, slicing)
    eligible = ~np.isnan(scores)
    inside, order = choose(values, tokens, eligible, slicing.cut, slicing.by or "records", within)
    if slicing.key and within is None:
        drawn = values is not scores
        order = order[np.argsort(scores[order], kind="stable")] if drawn else order
        for at in range(0, len(order), AT_ONCE):
            rows = order[at : at + AT_ONCE]
            findings.lengths.add(scores[rows], tokens[rows])
            if not drawn:
                findings.ties.add(scores[rows], inside[rows])
        if slicing.key != (slicing.prefix or "") + "rank":  # ranks are spread evenly, whatever the scores are
            findings.shape, findings.between = (
                grid_of(scores, order),
                None if drawn else _ends(inside[order]),
            )
    findings.length_correlation = findings.lengths.value()
    return _Selection(inside, eligible, tokens)


def _ends(inside: np.ndarray) -> tuple[float, float] | None:
    """The quantiles between which the records inside lie."""
    n = len(inside)
    return (int(inside.argmax()) / n, 1 - int(inside[::-1].argmax()) / n) if inside.any() else None


def _read(source: Source, slicing: Slicing) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """What records are ordered by, their scores, their tokens, and numbers for the values of the `within` field."""
    draws = slicing.cut.keep == "random" or slicing.temperature is not None
    rank = (slicing.prefix or "") + "rank"  # without a key, records that a ranking left unscored stay outside
    fields: dict[str, Any] = {slicing.tokens_field: Count, rank: Anything}
    required = {slicing.tokens_field} if slicing.by == "tokens" or slicing.cut.tokens is not None else set()
    if draws:
        fields |= {"id": Anything, slicing.text_field: str | None, "input_ids": Content | None}
    if slicing.key:
        fields[slicing.key], required = Number, required | {slicing.key}
    if slicing.within:
        fields[slicing.within], required = Label, required | {slicing.within}
    labels, parts = Labels(str, int), []
    for batch in source.batches(
        Wanted(fields, tuple(name for name in fields if name not in required), tuple(required))
    ):
        scores = np.array(
            batch[slicing.key] if slicing.key else [None if one is None else 0 for one in batch[rank]],
            dtype=float,
        )
        bits = _bits(batch, slicing) if draws else np.zeros(0, np.uint64)
        codes = labels.codes(batch[slicing.within]) if slicing.within else np.zeros(0, np.int32)
        parts.append((scores, bits, counts(batch[slicing.tokens_field]), codes))
    empty = (np.zeros(0), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int32))
    scores, bits, tokens, codes = (np.concatenate(column) for column in zip(empty, *parts, strict=True))
    values = (
        scores
        if not draws
        else bits
        if slicing.temperature is None
        else scores / slicing.temperature + gumbel(bits)
    )
    return values, scores, tokens, codes if slicing.within else None


def _bits(batch: Batch, slicing: Slicing) -> np.ndarray:
    """Random bits that depend on the seed, a record's id and its text or token ids, and on nothing else."""
    seed = (
        slicing.seed if slicing.temperature is None else ("sample", slicing.seed)
    )  # or a random part decides
    drawn = []
    for identity, text, ids in zip(batch["id"], batch[slicing.text_field], batch["input_ids"], strict=True):
        content = text if ids is MISSING else ids
        drawn.append(
            uniform(seed, None if identity is MISSING else identity, None if content is MISSING else content)
        )
    return np.array(drawn, dtype=np.uint64)


def _again(source: Source, selection: _Selection, slicing: Slicing, findings: Findings) -> Iterator[Parted]:
    parter, at, rank = _Parter(slicing, findings.tally), 0, (slicing.prefix or "") + "rank"
    for batch in source.batches(Wanted({slicing.group: Anything, rank: Anything}, (slicing.group, rank))):
        end = at + len(batch)
        if end > len(selection.inside):
            break
        ranks = np.array([value if type(value) is int else -1 for value in batch[rank]])
        yield parter.part(batch, *selection.of(slice(at, end), ranks))
        at = end
    if at != len(selection.inside):
        raise InputOutputError(
            "changed while reading", place=source.inputs[0].name, remedy="run again when nothing writes to it"
        )
