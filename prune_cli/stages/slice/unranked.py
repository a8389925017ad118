"""Which records of a stream in any order are inside the cut?

One pass over the scores, then one over the records.
"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from ...errors import DataError, InputOutputError
from ...records.columns import Labels, counts
from ...records.documents import content_fields, contents
from ...records.reader import MISSING, Anything, Batch, Count, Label, Number, Source, Wanted
from ...records.splice import uniform
from ...settings.streams import Unit
from ...statistics.cuts import choose, gumbel
from ...statistics.drift import DriftWatch
from ...statistics.quantile_grid import grid_of
from ..measured_cut import MeasuredCut
from ..score_file import IdCheck
from .cutting.whole import ScoredAmount, before_slicing, of_all
from .report import warn_of_windows
from .selection import Request, group_field, tokens_field
from .split import SliceStatistics, Split, Splitter, Verdicts

CHUNK = 1 << 18  # records a chunk for correlation and tie counts, whose peak memory is five times the chunk


def unranked(source: Source, again: Source, request: Request, statistics: SliceStatistics) -> Iterator[Split]:
    """Split a stream by a score and keep its order. `again` is the same input from the start.

    A record takes some 40 bytes of memory while the cut is made, 70 if tokens are counted.
    """
    [columns] = read_columns(source, request)
    scored = ~np.isnan(columns.scores)
    amount = ScoredAmount(int(scored.sum()), int(columns.tokens[scored].sum()))
    statistics.unsliced = before_slicing(source, amount)
    request = of_all(request, source, amount)
    decision = decide(columns, request, statistics, source.name)
    return split(again, [decision], request, statistics)


def split(
    source: Source, decisions: Iterable["Decision"], request: Request, statistics: SliceStatistics
) -> Iterator[Split]:
    """Split the records of a source as it was decided, for all of them or for some after others.

    Raises InputOutputError if they are not as many as before.
    """
    splitter = Splitter(request, statistics.counts)
    rank = _rank_field(request)
    group = group_field(request)
    decided = _InBatches(decisions)
    is_changed = False
    for batch in source.batches(_wanted_again(source, request, group, rank)):
        decision = decided.next(len(batch))
        if is_changed := len(decision.inside) < len(batch):
            break
        # Only counted in the trailer, so that a rank of any other type is no error here.
        ranks = np.array([value if type(value) is int else -1 for value in batch[rank]])
        yield splitter.split(batch, decision.verdicts(0, len(batch), ranks))
    if is_changed or len(decided.next(1).inside):
        place = source.inputs[0].name
        raise InputOutputError(
            "changed while reading", place=place, remedy="run again when nothing writes to it"
        )


def one_by_one(
    source: Source, request: Request, measured: MeasuredCut, statistics: SliceStatistics
) -> Iterator[Split]:
    """Split a stream at thresholds that were measured before, in one pass and constant memory."""
    splitter = Splitter(request, statistics.counts)
    rank = _rank_field(request)
    first = _wanted(request)
    fields = {group_field(request): Anything, **first.fields}
    wanted = Wanted(fields, (group_field(request), *first.optional), first.single)
    if request.selection.drift:
        statistics.drift = DriftWatch(measured.share, measured.records)
    amounts = np.zeros(2, np.int64)  # of scored records and their tokens
    for batch in source.batches(wanted):
        scores = _scores(batch, request)
        scored = ~np.isnan(scores)
        inside = (scores >= request.cut.least) & (scores <= request.cut.most)
        if statistics.drift:
            warn_of_windows(statistics.drift, inside[scored])
        ranks = np.array([value if type(value) is int else -1 for value in batch[rank]])
        tokens = counts(batch[tokens_field(request)])
        amounts += int(scored.sum()), int(tokens[scored].sum())
        yield splitter.split(batch, Verdicts(inside, scored, ranks, tokens))
    statistics.unsliced = before_slicing(source, ScoredAmount(*amounts.tolist()))


def joined(
    scores: Source, again: Source, corpus: Source, request: Request, statistics: SliceStatistics
) -> Iterator[Split]:
    """Split a corpus by scores of another file, record by record.

    `again` is the file of scores from the start.

    Raises DataError if an id differs, or a file has more records than the other.
    """
    [columns] = read_columns(scores, request)
    decision = decide(columns, request, statistics, scores.name)
    wanted = _wanted_again(again, request, "id")
    ids = chain.from_iterable(batch["id"] for batch in again.batches(wanted))
    check = IdCheck(ids, again.inputs[0].name)
    splitter = Splitter(request, statistics.counts)
    group = group_field(request)
    start = 0
    for batch in corpus.batches(Wanted({"id": Anything, group: Anything}, ("id", group))):
        end = start + len(batch)
        check.follow(batch)
        # The ranks of a file of scores are not ranks of this output.
        yield splitter.split(batch, decision.verdicts(start, end, np.full(len(batch), -1)))
        start = end
    check.finish()


@dataclass(frozen=True)
class Decision:
    """What was decided of all records of the input, or of a part: inside the cut, has a score, tokens."""

    inside: np.ndarray
    scored: np.ndarray
    tokens: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["Decision"]) -> "Decision":
        """That of the records of all parts."""
        names = ("inside", "scored", "tokens")
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def part(self, start: int, end: int | None = None) -> "Decision":
        """That of consecutive records."""
        rows = slice(start, end)
        return Decision(self.inside[rows], self.scored[rows], self.tokens[rows])

    def verdicts(self, start: int, end: int, ranks: np.ndarray) -> Verdicts:
        """Those of a batch."""
        rows = slice(start, end)
        return Verdicts(self.inside[rows], self.scored[rows], ranks, self.tokens[rows])


class _InBatches:
    """Deals out decisions by as many records as are asked for."""

    def __init__(self, decisions: Iterable[Decision]) -> None:
        self.decisions = iter(decisions)
        self.rest = Decision(np.zeros(0, bool), np.zeros(0, bool), np.zeros(0, np.int64))

    def next(self, records: int) -> Decision:
        """Those of the next records: of fewer, if there are no more."""
        while len(self.rest.inside) < records and (following := next(self.decisions, None)):
            # A decision on all records at once is not copied.
            self.rest = Decision.joined([self.rest, following]) if len(self.rest.inside) else following
        result = self.rest.part(0, records)
        self.rest = self.rest.part(records)
        return result


def _wanted_again(source: Source, request: Request, *fields: str) -> Wanted:
    """Fields for the second pass over a source, of which records may have none."""
    wanted = Wanted(dict.fromkeys(fields, Anything), fields)
    if not source.reading.skip_bad:
        return wanted
    # The records that the first pass skipped have to be skipped again.
    first = _wanted(request)
    optional = tuple(name for name in fields if name not in first.fields)
    return Wanted({**wanted.fields, **first.fields}, (*optional, *first.optional), first.single)


def decide(columns: "ScoreColumns", request: Request, statistics: SliceStatistics, place: str) -> Decision:
    """Decide on every record. `place` is named in errors."""
    values = columns.sort_values(request)
    scored = ~np.isnan(columns.scores)
    unit = str(request.slicing.by or Unit.records)
    if unit == Unit.tokens and request.cut.divides_quantiles:
        groups = np.zeros(len(scored), np.int64) if columns.within is None else columns.within
        unique, codes = np.unique(groups[scored], return_inverse=True)
        sums = np.zeros(len(unique), np.int64)
        np.add.at(sums, codes, columns.tokens[scored])
        check_tokens(sums, is_grouped=columns.within is not None, place=place)
    inside, order = choose(values, columns.tokens, scored, request.cut, unit, columns.within)
    if request.slicing.key and columns.within is None:
        is_drawn = values is not columns.scores
        if is_drawn:
            # `order` is that of the draw; the correlation needs that of the scores.
            order = order[np.argsort(columns.scores[order], kind="stable")]
        _measure(columns, order, None if is_drawn else inside, statistics)
        if draws_picture(request):
            statistics.shape = grid_of(columns.scores, order)
            statistics.quantiles = None if is_drawn else _quantiles(inside[order])
    statistics.length_correlation = statistics.lengths.value()
    return Decision(inside, scored, columns.tokens)


def check_tokens(tokens: np.ndarray, *, is_grouped: bool, place: str) -> None:
    """Raise DataError where `rank` does: quantiles by tokens would be fractions of nothing.

    `tokens` are those of the scored records of each group that has any: int64 (groups).
    """
    if not tokens.all():
        raise DataError(
            "no scored record" + (" of a group" if is_grouped else "") + " has any tokens",
            place=place,
            remedy="slice --by records, or name the count with --tokens-field",
        )


def draws_picture(request: Request) -> bool:
    """Whether the distribution of the scores is shown."""
    # Ranks are spread evenly whatever the scores are: a picture of them would show nothing.
    return request.slicing.key != _rank_field(request)


def _measure(
    columns: "ScoreColumns", order: np.ndarray, inside: np.ndarray | None, statistics: SliceStatistics
) -> None:
    """Correlation with length, and ties unless `inside` is None: a random draw splits ties on purpose."""
    for start in range(0, len(order), CHUNK):
        rows = order[start : start + CHUNK]
        statistics.lengths.add(columns.scores[rows], columns.tokens[rows])
        if inside is not None:
            statistics.ties.add(columns.scores[rows], inside[rows])


def _quantiles(inside: np.ndarray) -> tuple[float, float] | None:
    """The quantiles between which the records inside lie; None if there are none."""
    n = len(inside)
    if not inside.any():
        return None
    return int(inside.argmax()) / n, 1 - int(inside[::-1].argmax()) / n


@dataclass(frozen=True)
class ScoreColumns:
    """What was read of all records, or of some.

    `bits` are random, and empty unless records are drawn; `within` holds codes of values, which are `names`.
    """

    scores: np.ndarray
    bits: np.ndarray
    tokens: np.ndarray
    within: np.ndarray | None
    names: list[Any]

    def sort_values(self, request: Request) -> np.ndarray:
        """The numbers that order the records: the scores themselves (the same array), or a random draw."""
        if not request.selection.is_random:
            return self.scores
        if request.selection.sample is None:
            return self.bits
        # The Gumbel trick: the top k of log weight + noise are k draws without replacement.
        drawn: np.ndarray = self.scores / request.selection.sample + gumbel(self.bits)
        return drawn


def read_columns(source: Source, request: Request, most: int = sys.maxsize) -> Iterator[ScoreColumns]:
    """Read the scores of a source, or draw random numbers, for about `most` records at a time, at least once.

    Raises DataError for a record without a score.
    """
    slicing = request.slicing
    labels = Labels(str, int)
    parts = [_NOTHING]
    records = 0
    for batch in source.batches(_wanted(request)):
        bits = _random_bits(batch, request) if request.selection.is_random else np.zeros(0, np.uint64)
        codes = labels.codes(batch[slicing.within]) if slicing.within else np.zeros(0, np.int32)
        parts.append((_scores(batch, request), bits, counts(batch[tokens_field(request)]), codes))
        records += len(batch)
        if records >= most:
            yield _joined(parts, request, labels)
            parts = [_NOTHING]
            records = 0
    yield _joined(parts, request, labels)


_Columns = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
# Before all others, so that a stream without records has columns, too.
_NOTHING: _Columns = (np.zeros(0), np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int32))


def _joined(parts: Sequence[_Columns], request: Request, labels: Labels) -> ScoreColumns:
    scores, bits, tokens, codes = (np.concatenate(column) for column in zip(*parts, strict=True))
    return ScoreColumns(scores, bits, tokens, codes if request.slicing.within else None, labels.names)


def _wanted(request: Request) -> Wanted:
    """The fields to read of each record; tokens are required only where the cut counts them."""
    slicing = request.slicing
    fields: dict[str, Any] = {tokens_field(request): Count, _rank_field(request): Anything}
    required = set()
    if slicing.by == Unit.tokens or request.cut.tokens is not None:
        required.add(tokens_field(request))
    if request.selection.is_random:
        fields |= {"id": Anything, **content_fields(slicing.text_field, nullable=True)}
    if slicing.key:
        fields[slicing.key] = Number
        required.add(slicing.key)
    if slicing.within:
        fields[slicing.within] = Label
        required.add(slicing.within)
    return Wanted(fields, tuple(name for name in fields if name not in required), tuple(required))


def _scores(batch: Batch, request: Request) -> np.ndarray:
    """The scores of a batch, NaN for null. Without a key, records that a ranking left unscored have none."""
    if request.slicing.key:
        return np.array(batch[request.slicing.key], dtype=float)
    ranks = batch[_rank_field(request)]
    return np.array([None if rank is None else 0 for rank in ranks], dtype=float)


def _random_bits(batch: Batch, request: Request) -> np.ndarray:
    """64 random bits a record. They depend on the seed, its id and its text or token ids, on nothing else."""
    selection = request.selection
    # Another seed for --sample: the records of a random part would be the first to be drawn from it.
    seed = selection.seed if selection.sample is None else ("sample", selection.seed)
    bits = []
    columns = (batch["id"], contents(batch, request.slicing.text_field))
    for identity, content in zip(*columns, strict=True):
        bits.append(
            uniform(seed, None if identity is MISSING else identity, None if content is MISSING else content)
        )
    return np.array(bits, dtype=np.uint64)


def _rank_field(request: Request) -> str:
    return (request.slicing.prefix or "") + "rank"
