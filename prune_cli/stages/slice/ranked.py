"""Where the records of a ranking lie beside a cut, and that it is one ranking, in order."""

import numpy as np

from ...errors import DataError
from ...records.columns import Labels
from ...records.reader import MISSING, Anything, Batch, Count, Label, Number, Wanted
from ...statistics.cuts import Cut
from ...stream.schema import RankSection


class Places:
    """Reads batches of a ranking. `ranking` is its head's section, None if that is lost; `also` are optional fields to read."""

    def __init__(
        self,
        cut: Cut,
        ranking: RankSection | None,
        unit: str,
        key: str | None,
        prefix: str | None,
        also: tuple[str, str],
    ) -> None:
        if prefix is None:
            prefix = ranking.prefix if ranking else ""
        self.rank, self.quantile = prefix + "rank", prefix + "quantile"
        self.key = key or (ranking.key if ranking else None)
        self.within = ranking.within if ranking else None
        self.reverse = ranking.reverse if ranking else None
        self.cut, self.also, self.by_records, self.values = cut, also, unit == "records", Labels(str, int)
        n = ranking.n if ranking and self.by_records and not self.within else None
        self.order = _Order(n, self.reverse)

    @property
    def by_rank(self) -> bool:
        """Whether a record's rank alone says where it lies."""
        return self.by_records and self.cut.keep != "scores"

    def wanted(self) -> Wanted:
        group, tokens = self.also
        fields = {group: Anything, tokens: Count, self.rank: Count, self.quantile: Number}
        required = {self.rank, self.quantile}
        if self.key:
            fields[self.key] = Number
            required |= {self.key} if self.cut.keep == "scores" else set()
        if self.within:
            fields[self.within] = Label
            required |= {self.within}
        return Wanted(fields, tuple(name for name in fields if name not in required), tuple(required))

    def of(self, batch: Batch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Each record's rank (-1: none), its score (NaN: none), and where it lies: -1 below the cut, 0 inside, 1 above.

        Raises DataError where the stream is not one ranking.
        """
        ranks = np.array([-1 if value is None else value for value in batch[self.rank]])
        quantiles = np.array(batch[self.quantile], dtype=float)
        found = batch[self.key] if self.key else [None] * len(batch)
        scores = np.array([None if score is MISSING else score for score in found], dtype=float)
        values = self.values.codes(batch[self.within]) if self.within else np.zeros(len(batch), np.int64)
        n = self.order.check(batch, ranks, quantiles, values, self.by_records)
        return ranks, scores, self.cut.places(scores, ranks, quantiles, n if self.by_records else None)

    def of_first(self, batch: Batch) -> int:
        """Where a batch's first record lies, by score or quantile alone."""
        score, quantile = ([batch[name][0]] if name else [0] for name in (self.key, self.quantile))
        return int(self.cut.places(np.array(score, dtype=float), np.zeros(1), np.array(quantile), None)[0])

    def of_rank(self, rank: int) -> int:
        """Where a record of that rank lies, by records."""
        return int(self.cut.places(np.zeros(1), np.array([rank]), np.zeros(1), self.order.n)[0])


class _Order:
    """Holds a stream to be one ranking: of each value of the `within` field ranks that rise (or all fall), and one N throughout,
    recovered from rank and quantile."""

    def __init__(self, n: int | None, reverse: bool | None) -> None:
        self.n, self.last = np.array([n or 0]), np.array([-1])
        self.step = {None: 0, False: 1, True: -1}[reverse]

    def check(
        self, batch: Batch, ranks: np.ndarray, quantiles: np.ndarray, values: np.ndarray, by_records: bool
    ) -> np.ndarray:
        """Each record's N; that of an unscored record is any."""
        scored = np.flatnonzero(ranks >= 0)
        found, ranks, values_of = quantiles[scored], ranks[scored], values[scored]
        if (wrong := np.flatnonzero(~((found > 0) & (found < 1)))).size:
            raise not_ranked(batch, int(scored[wrong[0]]), "a rank without a quantile between 0 and 1")
        if (more := int(values.max(initial=0)) + 1 - len(self.n)) > 0:
            self.n, self.last = (
                np.append(self.n, np.zeros(more, np.int64)),
                np.append(self.last, np.full(more, -1)),
            )
        if by_records:
            n = np.rint((ranks + 0.5) / found).astype(np.int64)
            fresh, firsts = np.unique(values_of, return_index=True)
            self.n[fresh] = np.where(self.n[fresh], self.n[fresh], n[firsts])
            if (wrong := np.flatnonzero(n != self.n[values_of])).size:
                index = int(wrong[0])
                raise not_ranked(
                    batch,
                    int(scored[index]),
                    f"rank and quantile belong to another N than {self.n[values_of[index]]}",
                )
        self._check_steps(batch, scored, ranks, values_of)
        each: np.ndarray = self.n[values]
        return each

    def _check_steps(self, batch: Batch, scored: np.ndarray, ranks: np.ndarray, values: np.ndarray) -> None:
        order = np.argsort(values, kind="stable")
        ordered, of = ranks[order], values[order]
        first = np.concatenate(([True], of[1:] != of[:-1]))[: len(of)]
        before = np.where(first, self.last[of], np.concatenate(([0], ordered[:-1]))[: len(of)])
        steps = np.where(before < 0, self.step, np.sign(ordered - before))
        self.step = self.step or int(next(iter(steps[before >= 0]), 0))
        wrong = np.flatnonzero((steps != self.step) & (before >= 0))
        if wrong.size:
            raise not_ranked(batch, int(scored[order[wrong].min()]), "the ranks are out of order")
        self.last[of] = ordered


def not_ranked(batch: Batch, index: int, fault: str) -> DataError:
    return DataError(
        f"{fault}: this is not one ranking",
        place=batch.place(index),
        remedy="rank the whole again: prune-cli rank (--merge, if it is several rankings)",
    )
