"""The form of a head and of a trailer: what verbs rely on of what they say. What is not named here may be anything.

Their checksums have said that they are what was written; the form says that it was written by nobody else.
"""

from array import array
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec

from ..errors import DataError

Whole = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Groups = dict[str, tuple[Whole, Whole]]  # records and tokens of each value of the group field


class Scores(msgspec.Struct):
    """How scores were made: the fields that hold them, and all that they hang on."""

    fields: list[str] = []


class Ranking(msgspec.Struct):
    """What a stream is a ranking by."""

    key: str
    n: Whole
    unit: Literal["records", "tokens"]
    reverse: bool
    prefix: str
    tokens_field: str | None = None
    within: str | None = None


class Head(msgspec.Struct):
    """The verb that wrote the stream, and what the verbs before it did."""

    verb: str | None = None
    group: str | None = None
    score: Scores | None = None
    rank: Ranking | None = None
    pack: dict[str, Any] | None = None


class Columns(msgspec.Struct):
    """A value for each data frame; `first` and `last` are the ranks at its ends."""

    size: list[Whole]
    text: list[Whole]
    crc: list[Whole]
    records: list[Whole]
    nulls: list[Whole]
    tokens: list[Whole]
    first: list[Whole | None]
    last: list[Whole | None]
    groups: list[Groups]


class Totals(msgspec.Struct):
    """The sums over all frames."""

    text: Whole
    records: Whole
    nulls: Whole
    tokens: Whole
    groups: Groups
    unscored_tokens: Whole = 0
    length_correlation: float | None = None
    shape: list[float] | None = None


class Trailer(msgspec.Struct):
    """What the frames hold, and the CRC-32 of the head."""

    frames: Columns
    totals: Totals
    head: Whole = 0


def check_head(content: dict[str, Any]) -> None:
    """Raise DataError where the head is none that we write."""
    _formed(content, Head, "head")


def check_trailer(content: dict[str, Any], frames: int) -> None:
    """Raise DataError where the trailer is none that we write for so many data frames."""
    trailer: Trailer = _formed(content, Trailer, "trailer")
    columns, totals = trailer.frames, trailer.totals
    if any(len(getattr(columns, name)) != frames for name in Columns.__struct_fields__):
        raise DataError("the trailer and the frames before it disagree", remedy="fetch or make it again")
    if any(
        sum(getattr(columns, name)) != getattr(totals, name)
        for name in ("text", "records", "nulls", "tokens")
    ):
        raise DataError("the trailer's sums are not those of its frames", remedy="fetch or make it again")


def ranking_of(head: dict[str, Any] | None) -> Ranking | None:
    """The ranking that the head of a stream describes; None if there is none."""
    ranking = (head or {}).get("rank")
    return None if ranking is None else msgspec.convert(ranking, Ranking)


def _formed(content: dict[str, Any], form: Any, kind: str) -> Any:
    try:
        return msgspec.convert(content, form)
    except msgspec.ValidationError as error:
        raise DataError(
            f"its {kind} is none that prune-cli writes ({error})", remedy="fetch or make it again"
        ) from None


@dataclass
class Counts:
    """What the trailer says of each data frame; rows are appended as frames are closed."""

    size: "array[int]" = field(default_factory=lambda: array("Q"))
    text: "array[int]" = field(default_factory=lambda: array("Q"))
    crc: "array[int]" = field(default_factory=lambda: array("Q"))
    records: "array[int]" = field(default_factory=lambda: array("Q"))
    nulls: "array[int]" = field(default_factory=lambda: array("Q"))
    tokens: "array[int]" = field(default_factory=lambda: array("Q"))
    first: list[int | None] = field(default_factory=list)
    last: list[int | None] = field(default_factory=list)
    groups: list[dict[str, list[int]]] = field(default_factory=list)

    def columns(self) -> dict[str, list[Any]]:
        return {name: list(column) for name, column in vars(self).items()}

    def totals(self) -> dict[str, Any]:
        groups: dict[str, list[int]] = {}
        for frame in self.groups:
            for value, (records, tokens) in frame.items():
                total = groups.setdefault(value, [0, 0])
                total[0] += records
                total[1] += tokens
        sums = {name: sum(getattr(self, name)) for name in ("text", "records", "nulls", "tokens")}
        return {**sums, "groups": dict(sorted(groups.items()))}
