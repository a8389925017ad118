"""Where the records of a stream went: how many, how many tokens, from which group, and which equal scores a cut tells apart."""

from typing import Any

import numpy as np

from ...stream.schema import Groups
from ...stream.writer import GROUPS

FATES = ("kept", "cut", "unscored")
KEPT, CUT, UNSCORED = range(3)


class Tally:
    """Counts records and tokens by fate and by group; in = kept + cut + unscored, or the run fails."""

    def __init__(self) -> None:
        self.table = np.zeros((len(FATES), 1, 2), np.int64)  # the last group is that of records without one
        self.names: list[str] = []
        self.codes: dict[str, int] = {}

    def add(self, fates: np.ndarray, groups: np.ndarray, names: list[str], tokens: np.ndarray) -> None:
        """Count records: their fates, their groups as places in `names` (-1: none), their tokens."""
        codes = np.array([*map(self._code, names), -1], np.int64)[groups]
        np.add.at(self.table, (fates, codes), np.stack((np.ones_like(tokens), tokens), -1))

    def add_frame(self, fate: int, records: int, tokens: int, groups: Groups) -> None:
        """Count records of one fate of whom their trailer tells."""
        for name, counts in groups.items():
            code = self._code(name)  # first, since it may make the table anew
            self.table[fate, code] += counts
        grouped = np.sum([*groups.values(), [0, 0]], axis=0)
        self.table[fate, -1] += np.array([records, tokens]) - grouped

    def _code(self, name: str) -> int:
        if name not in self.codes:
            self.codes[name] = len(self.names)
            self.names.append(name)
            self.table = np.insert(self.table, -1, 0, axis=1)
        return self.codes[name]

    def records(self, fate: int) -> int:
        return int(self.table[fate, :, 0].sum())

    def check(self, records: int) -> None:
        if self.table[..., 0].sum() != records:
            raise AssertionError(
                f"{records} records in, {self.table.sum(1)[:, 0].tolist()} kept, cut, unscored: some are unaccounted for"
            )

    def summary(self) -> dict[str, Any]:
        """The counts as the summary shows them; by group only where there are groups, and not more than a trailer counts."""
        groups = {
            name: _shown(self.table[:, code])
            for name, code in sorted(self.codes.items())
            if len(self.names) <= GROUPS
        }
        if groups and self.table[:, -1].any():
            groups[""] = _shown(self.table[:, -1])
        return {"in": int(self.table[..., 0].sum()), **_shown(self.table.sum(1)), "groups": groups}


def _shown(table: np.ndarray) -> dict[str, dict[str, int]]:
    return {
        fate: {"records": int(row[0]), "tokens": int(row[1])} for fate, row in zip(FATES, table, strict=True)
    }


class Ties:
    """Finds the runs of equal scores of which a cut keeps a part, from records in the order of their scores."""

    def __init__(self) -> None:
        self.split: list[dict[str, Any]] = []
        self.score, self.records, self.kept = np.nan, 0, 0

    def add(self, scores: np.ndarray, inside: np.ndarray) -> None:
        """Records that follow those before, and whether each is inside the cut."""
        starts = np.flatnonzero(np.concatenate((scores[:1] != self.score, scores[1:] != scores[:-1])))
        first = int(starts[0]) if len(starts) else len(scores)
        self.records, self.kept = self.records + first, self.kept + int(inside[:first].sum())
        if not len(starts):
            return
        self._close(self.score, self.records, self.kept)
        sizes, kept = np.diff(np.append(starts, len(scores))), np.add.reduceat(inside, starts, dtype=np.int64)
        for run in np.flatnonzero((kept > 0) & (kept < sizes)).tolist():
            if run < len(starts) - 1:
                self._close(scores[starts[run]], int(sizes[run]), int(kept[run]))
        self.score, self.records, self.kept = scores[-1], int(sizes[-1]), int(kept[-1])

    def _close(self, score: float, records: int, kept: int) -> None:
        if 0 < kept < records:
            self.split.append({"score": float(score), "records": records, "inside": kept})

    def found(self) -> list[dict[str, Any]]:
        """The score, the number of records that tie at it, and how many of them are inside the cut."""
        self._close(self.score, self.records, self.kept)
        self.records = self.kept = 0
        return self.split
