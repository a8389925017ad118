"""Do scores agree? Correlation and overlaps of what slices would keep, as `stat --agree` writes them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any

import numpy as np

from ...records.reader import Anything, Batch, Number, Source, Wanted
from ...statistics import agreement
from ...statistics.agreement import Overlap, ScorePlaces
from ..score_file import IdCheck
from .columns import RecordTable, score_rows


class JoinedScores:
    """The scores of a file, read beside the records that they belong to."""

    def __init__(self, source: Source, fields: Sequence[str]) -> None:
        self.source = source
        self.fields = list(fields)
        self._parts = [np.zeros((len(fields), 0))]
        self._check = IdCheck(self._ids(), source.name)

    def _ids(self) -> Iterator[Any]:
        numbers = dict.fromkeys(self.fields, Number)
        for batch in self.source.batches(Wanted({"id": Anything, **numbers}, ("id",), tuple(numbers))):
            self._parts.append(score_rows(batch, self.fields))
            yield from batch["id"]

    def follow(self, batch: Batch) -> None:
        """Read the scores of the next records, which have the column `id`.

        Raises DataError as IdCheck does.
        """
        self._check.follow(batch)

    def finish(self) -> np.ndarray:
        """All scores, a row for each field, once all records are read. Raises DataError for more of them."""
        self._check.finish()
        return np.concatenate(self._parts, axis=1)


@dataclass(frozen=True)
class _Pair:
    """Two scores of the same records."""

    names: tuple[str, str]
    scores: tuple[np.ndarray, np.ndarray]


def describe(
    table: RecordTable, compared: Sequence[str], joined: JoinedScores | None
) -> list[dict[str, Any]]:
    """The agreement of each pair of the `compared` scores of a table.

    With `joined` ones the first is of the table, and is compared with each of these.
    """
    if joined is None:
        rows = {name: table.scores[table.names.index(name)] for name in compared}
        pairs = [_Pair(two, (rows[two[0]], rows[two[1]])) for two in combinations(compared, 2)]
    else:
        own = table.scores[table.names.index(compared[0])]
        others = zip(joined.fields, joined.finish(), strict=True)
        pairs = [_Pair((compared[0], name), (own, scores)) for name, scores in others]
    return [_agreement(pair, table) for pair in pairs]


def _agreement(pair: _Pair, table: RecordTable) -> dict[str, Any]:
    """The agreement over the records that have both scores."""
    has_both = ~(np.isnan(pair.scores[0]) | np.isnan(pair.scores[1]))
    first, second, tokens, groups = (*pair.scores, table.tokens, table.groups)
    if not has_both.all():
        first, second, tokens, groups = (each[has_both] for each in (first, second, tokens, groups))
    counts_tokens = table.has_tokens and bool(tokens.any())
    names = table.group_names if table.has_few_groups else []
    # Groups that are too many to be shown are counted nowhere.
    codes = groups if names else np.full_like(groups, -1)
    contents = [{"spearman": agreement.spearman(first, second)}, *_in_groups(first, second, codes, names)]
    by_first, by_second = (
        ScorePlaces(scores, tokens if counts_tokens else None) for scores in (first, second)
    )
    for each in agreement.overlaps(by_first, by_second, tokens, codes, len(names)):
        for content, overlap in zip(contents, (each.whole, *each.groups), strict=True):
            units = content.setdefault("overlap", {})
            units.setdefault(each.unit, {}).setdefault(each.part, {})[each.size] = _json(overlap)
    whole, *of_groups = contents
    return {
        "fields": list(pair.names),
        "records": len(first),
        "one_score_only": int((~has_both & ~np.isnan(pair.scores).all(axis=0)).sum()),
        **whole,
        "groups": dict(sorted(zip(names, of_groups, strict=True))),
    }


def _in_groups(
    first: np.ndarray, second: np.ndarray, codes: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The number of records and the correlation of each group."""
    # One sort for all groups, instead of a look at every record for each.
    order = np.argsort(codes, kind="stable")
    ends = np.searchsorted(codes[order], np.arange(-1, len(names)), side="right")
    return [
        {
            "records": end - start,
            "spearman": agreement.spearman(first[order[start:end]], second[order[start:end]]),
        }
        for start, end in pairwise(ends.tolist())
    ]


def _json(overlap: Overlap) -> dict[str, Any]:
    counts = {"first": overlap.first, "second": overlap.second, "both": overlap.both}
    return {**counts, "jaccard": overlap.jaccard, "share": overlap.share}
