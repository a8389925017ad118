"""Which columns of a stream does `stat` read? Every record is read: 16 bytes of memory a record and score."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Protocol

import numpy as np

from ...errors import DataError
from ...records.columns import Labels, counts
from ...records.documents import content_fields, contents, no_content
from ...records.fields import nested_remedy
from ...records.reader import MISSING, Anything, Batch, Count, Label, Number, Rank, Source, Wanted
from ...settings.streams import Unit
from ...stream.schema import RankSection
from ...stream.writer import GROUPS
from ..ranked_parts import rankings_of
from ..ranking_check import RankCheck, not_ranked, ranks_of


class Follower(Protocol):
    """Reads another file beside the records."""

    def follow(self, batch: Batch) -> None:
        """Take the next records, which have the column `id`."""


@dataclass(frozen=True)
class Columns:
    """The fields that are read. `ranking` has ranks to verify, `duplicates` are those of `text`."""

    scores: Sequence[str]
    tokens: str
    group: str
    text: str | None = None
    duplicates: bool = False
    ranking: RankSection | None = None

    @property
    def rank_fields(self) -> tuple[str, ...]:
        """Rank and quantile, if they are verified."""
        if self.ranking is None:
            return ()
        return self.ranking.prefix + "rank", self.ranking.prefix + "quantile"


@dataclass(frozen=True)
class RecordTable:
    """All records as columns.

    `scores` has a row for each of `names`; `groups` has places in `group_names`, -1 for none.
    """

    names: Sequence[str]
    scores: np.ndarray
    tokens: np.ndarray
    groups: np.ndarray
    group_names: list[str]
    digests: list[np.ndarray] | None  # of the texts, for duplicates
    size: int  # bytes of text
    absent: Sequence[str]  # fields that no record has, of `names` and the token count

    @property
    def has_tokens(self) -> bool:
        """Whether the records say how many tokens they have."""
        return not self.absent

    @property
    def has_few_groups(self) -> bool:
        """Whether the values of the group field are counted.

        A field with more values than a trailer counts is no group field: a list of ids, for example.
        """
        return len(self.group_names) <= GROUPS


def read(source: Source, columns: Columns, followers: Sequence[Follower] = ()) -> RecordTable:
    """All records of a source; `followers` read along.

    Raises DataError if no record has one of the scores, and if ranks that are verified are not those of one
    ranking.
    """
    return checked(read_unchecked(source, columns, followers), columns, source.name)


def checked(table: RecordTable, columns: Columns, place: str) -> RecordTable:
    """The table. Raises DataError if no record has one of the scores."""
    absent = [name for name in table.absent if name != columns.tokens or name in columns.scores]
    if table.size and absent:
        fault = f"no record has a field `{absent[0]}`"
        raise DataError(fault, place=place, remedy=nested_remedy(absent[0]) or "name another score with -k")
    return table


def read_unchecked(source: Source, columns: Columns, followers: Sequence[Follower] = ()) -> RecordTable:
    """As `read`, of records that may be a part of all: others may have the scores."""
    names = columns.scores
    # One label more than a trailer counts shows that there are too many.
    labels = Labels(str, most=GROUPS + 1)
    # An empty part first, so that a stream without records has columns, too.
    parts = [(np.zeros((len(names), 0)), np.zeros(0, np.int64), np.zeros(0, np.int32))]
    digests: list[np.ndarray] = []
    size = 0
    absent = [*names, columns.tokens]
    ranks = _RankVerification(columns.ranking) if columns.ranking else None
    for batch in source.batches(_wanted(columns, ["id"] if followers else [])):
        absent = [name for name in absent if batch[name].count(MISSING) == len(batch)]
        parts.append(
            (
                score_rows(batch, names),
                counts(batch[columns.tokens]),
                labels.codes(batch[columns.group]),
            )
        )
        if columns.text:
            texts = _texts(batch, columns.text)
            if columns.duplicates:
                digests.append(np.array([_digest(text) for text in texts], dtype="V16"))
        # Other streams that follow each other are rankings of their own.
        if ranks and len(rankings_of(source.heads, source.name, is_whole=True)) == 1:
            ranks.verify(batch, columns.rank_fields)
        for follower in followers:
            follower.follow(batch)
        size += len(batch.text)
    scores, tokens, groups = (np.concatenate(column, axis=-1) for column in zip(*parts, strict=True))
    return RecordTable(
        names,
        scores,
        tokens,
        groups,
        labels.names,
        digests if columns.duplicates else None,
        size=size,
        absent=absent,
    )


class _RankVerification:
    """Holds the ranks of a stream to what its head says, with the check that `slice` makes."""

    def __init__(self, ranking: RankSection) -> None:
        self.within = ranking.within
        self.values = Labels(str, int)
        is_counted = ranking.unit == "records" and not ranking.within
        self.check = RankCheck(Unit(ranking.unit), ranking.n if is_counted else None, ranking.reverse)

    def verify(self, batch: Batch, names: Sequence[str]) -> None:
        """Raise DataError at the first record that cannot follow the ones before in one ranking."""
        rank, quantile = names
        codes = self.values.codes(batch[self.within]) if self.within else np.zeros(len(batch), np.int64)
        quantiles = np.array(batch[quantile], dtype=float)
        fault = self.check.first_fault(ranks_of(batch[rank]), quantiles, codes)
        if fault:
            raise not_ranked(batch, fault.at, fault.text)


def _wanted(columns: Columns, also: Sequence[str]) -> Wanted:
    fields: dict[str, Any] = {**dict.fromkeys((*also, columns.group), Anything), columns.tokens: Count}
    fields |= dict.fromkeys(columns.scores, Number)
    if columns.text:
        fields |= content_fields(columns.text, nullable=True)
    optional = tuple(fields)
    if columns.ranking:
        fields |= dict(zip(columns.rank_fields, (Rank, Number), strict=True))
        fields |= {columns.ranking.within: Label} if columns.ranking.within else {}
        optional = tuple(name for name in optional if name != columns.ranking.within)
    return Wanted(fields, optional, tuple(columns.scores))


def score_rows(batch: Batch, names: Sequence[str]) -> np.ndarray:
    """A row for each score; NaN for a record that has none."""
    rows = [[None if value is MISSING else value for value in batch[name]] for name in names]
    return np.array(rows, dtype=float).reshape(len(names), len(batch))


def _texts(batch: Batch, text_field: str) -> list[Any]:
    """Each text, or the list of token ids where there is one."""
    texts = contents(batch, text_field)
    for index, content in enumerate(texts):
        if content is MISSING or content is None:
            raise no_content(batch, index, text_field)
    return texts


def _digest(content: str | list[int]) -> bytes:
    """128 bits."""
    # `person` keeps a text and a list of ids with the same bytes apart.
    kind = type(content).__name__.encode()
    data = content.encode() if isinstance(content, str) else np.array(content, dtype=np.int64).tobytes()
    return blake2b(data, digest_size=16, person=kind).digest()
