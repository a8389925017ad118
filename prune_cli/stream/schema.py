"""The head and the trailer of a stream, typed: which of their keys do verbs rely on?

A key that is not named here may hold anything: a later version can add keys, and this one passes them on
unread.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from ..errors import DataError
from ..version import __version__
from .lookahead import REMEDY

FORMAT = 1  # of heads, trailers and their order; a reader of format 1 refuses all others

# Counts stay below 2^62 so that their sums fit into the 64 bits of numpy's integers.
Whole = Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
Groups = dict[str, tuple[Whole, Whole]]  # records and tokens of each value of the group field

SUMMED = ("text", "records", "nulls", "tokens")  # columns of the frames whose sums are totals

Form = TypeVar("Form")

# Keys of the score section of a head that change no score beyond rounding: what the models are called, and
# where and how fast the scores were computed.
UNRELATED_TO_SCORES = ("names", "device", "batch_tokens", "versions")


class ScoreSection(msgspec.Struct, frozen=True):
    """How scores were made.

    Only the names of their fields are typed; the settings are compared, never computed with.
    """

    fields: list[str] = []


class PackSection(msgspec.Struct, frozen=True):
    """How blocks were packed.

    `tokenizer` is a hash; it is left untyped because only a string of it means anything.
    """

    tokenizer: Any = None


class RankSection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a stream is ranked by, in the order in which the keys are written.

    `n` and `nulls` count the scored and the unscored records of the whole ranking, `tokens` those of its
    scored records.
    """

    key: str
    n: Whole
    nulls: Whole | None = None
    unit: Literal["records", "tokens"]
    reverse: bool
    prefix: str
    tokens: Whole | None = None
    tokens_field: str | None = None
    within: str | None = None


class PartSection(msgspec.Struct, frozen=True):
    """Which part of a dataset a stream is: `number` (from 1) `of` so many, of the plan with that digest."""

    plan: str
    number: Whole
    of: Whole


@dataclass(frozen=True)
class Head:
    """The start of a stream: the verb that wrote it, and a section for each verb whose settings still matter.

    `json` is the head as it stands in the file. Sections are passed on from there, so that keys that this
    version does not know survive it.
    """

    json: dict[str, Any] = field(repr=False)
    verb: str | None = None
    group: str | None = None
    pack: PackSection | None = None
    score: ScoreSection | None = None
    rank: RankSection | None = None
    part: PartSection | None = None

    @classmethod
    def parse(cls, content: dict[str, Any]) -> "Head":
        """The head that a JSON object spells.

        Raises DataError for another format, and where prune-cli cannot have written it.
        """
        if content.get("format") != FORMAT:
            raise DataError(
                f"a prune-cli stream of format {content.get('format')}; this version reads {FORMAT}",
                remedy="upgrade prune-cli",
            )
        return _convert({**content, "json": content}, cls, kind="head")

    def settings(self, verb: str) -> dict[str, Any]:
        """A copy of the section of a verb, for comparing every setting in it; empty if there is none."""
        return dict(self.json.get(verb, {}))

    def of_part(self, part: PartSection) -> "Head":
        """The head of that part of a dataset, of which this is the head that all parts have in common."""
        return Head.parse({**self.json, "part": _plain(part)})

    @classmethod
    def compose(
        cls,
        verb: str,
        group: str,
        *,
        previous: "Head | None" = None,
        keep: Sequence[str] = (),
        **sections: dict[str, Any] | msgspec.Struct,
    ) -> "Head":
        """The head of an output: the sections `keep` of the `previous` stream, then this verb's own.

        The order of the keys is fixed by the arguments: the bytes of a head are part of the format, because a
        resumed run is recognised by them.
        """
        kept = {name: previous.json[name] for name in keep if previous and name in previous.json}
        added = {name: _plain(section) for name, section in sections.items()}
        content = {"format": FORMAT, "version": __version__, "verb": verb, **kept, **added, "group": group}
        return cls.parse(content)


class FrameCounts(msgspec.Struct, frozen=True):
    """A value for each data frame. `first` and `last` are the ranks of its first and last ranked record."""

    size: list[Whole]
    text: list[Whole]
    crc: list[Whole]
    records: list[Whole]
    nulls: list[Whole]
    tokens: list[Whole]
    first: list[Whole | None]
    last: list[Whole | None]
    groups: list[Groups]

    def __len__(self) -> int:
        """The number of data frames."""
        return len(self.size)


class Totals(msgspec.Struct, frozen=True, omit_defaults=True):
    """The sums over all frames, and what a verb measured of the whole (None where it did not)."""

    text: Whole
    records: Whole
    nulls: Whole
    tokens: Whole
    groups: Groups
    unscored_tokens: Whole | None = None
    length_correlation: float | None = None
    shape: list[float] | None = None
    thresholds: dict[str, float] | None = None  # of a ranking, at which fractions of it begin
    unsliced: tuple[Whole, Whole] | None = None  # scored records and their tokens before slices of a stream

    @classmethod
    def sum(cls, parts: Sequence["Totals"], facts: Mapping[str, Any]) -> "Totals":
        """The totals of streams that follow each other, with `facts` that were measured of the whole."""
        unscored = [part.unscored_tokens for part in parts]
        known = [tokens for tokens in unscored if tokens is not None]
        counts = {name: sum(getattr(part, name) for part in parts) for name in SUMMED}
        return cls(
            **counts,
            groups=_sum_of_groups(part.groups for part in parts),
            unscored_tokens=sum(known) if len(known) == len(unscored) else None,
            length_correlation=facts.get("length_correlation"),
            shape=facts.get("shape"),
            thresholds=facts.get("thresholds"),
        )


class Trailer(msgspec.Struct, frozen=True):
    """The end of a stream: what its frames hold, and the CRC-32 of its start and head.

    `inputs` are digests of the files that `score -O` made the stream from. They are here and not in the head,
    because a resumed run must have the same head, and its input may be compressed again or be a pipe.
    """

    frames: FrameCounts
    totals: Totals
    head: Whole = 0
    inputs: list[str] = []

    @classmethod
    def parse(cls, content: dict[str, Any], frames: int) -> "Trailer":
        """The trailer that a JSON object spells.

        Raises DataError where it cannot be that of so many data frames.
        """
        trailer = _convert(content, cls, kind="trailer")
        counts = trailer.frames
        totals = trailer.totals
        if any(len(getattr(counts, name)) != frames for name in FrameCounts.__struct_fields__):
            raise DataError("the trailer and the frames before it disagree", remedy=REMEDY)
        if any(sum(getattr(counts, name)) != getattr(totals, name) for name in SUMMED):
            raise DataError("the trailer's sums are not those of its frames", remedy=REMEDY)
        return trailer


Event = (
    bytes | Head | Trailer
)  # what a reader of a file yields: its text in pieces, heads and trailers where they stand


def _convert(content: dict[str, Any], form: type[Form], kind: str) -> Form:
    # The checksum has said that the bytes are those that were written; the types say that prune-cli wrote
    # them.
    try:
        return msgspec.convert(content, form)
    except msgspec.ValidationError as error:
        raise DataError(f"invalid {kind}: not written by prune-cli ({error})", remedy=REMEDY) from None


def _plain(section: dict[str, Any] | msgspec.Struct) -> dict[str, Any]:
    # A dict is left alone: msgspec refuses subclasses of str, such as the version of torch, which orjson
    # writes.
    if isinstance(section, msgspec.Struct):
        return dict(msgspec.to_builtins(section))
    return section


def _sum_of_groups(parts: Iterable[Mapping[str, Sequence[int]]]) -> Groups:
    """Records and tokens of each group, in the order of their names."""
    groups: Groups = {}
    for part in parts:
        for value, (records, tokens) in part.items():
            before = groups.get(value, (0, 0))
            groups[value] = (before[0] + records, before[1] + tokens)
    return dict(sorted(groups.items()))


def _whole_numbers() -> "array[int]":
    return array("Q")  # eight bytes a number: a list of Python integers takes five times that


@dataclass
class FrameCountsBuilder:
    """The counts of a stream that is being written or read, a row for each closed data frame."""

    size: "array[int]" = field(default_factory=_whole_numbers)
    text: "array[int]" = field(default_factory=_whole_numbers)
    crc: "array[int]" = field(default_factory=_whole_numbers)
    records: "array[int]" = field(default_factory=_whole_numbers)
    nulls: "array[int]" = field(default_factory=_whole_numbers)
    tokens: "array[int]" = field(default_factory=_whole_numbers)
    first: list[int | None] = field(default_factory=list)
    last: list[int | None] = field(default_factory=list)
    groups: list[Mapping[str, Sequence[int]]] = field(default_factory=list)

    def columns(self) -> dict[str, list[Any]]:
        """The counts as the trailer's JSON has them, a list for each."""
        return {name: list(column) for name, column in vars(self).items()}

    def totals(self) -> Totals:
        """The sums over all frames; groups in the order of their names."""
        return Totals(
            text=sum(self.text),
            records=sum(self.records),
            nulls=sum(self.nulls),
            tokens=sum(self.tokens),
            groups=_sum_of_groups(self.groups),
        )
