"""In which order are records ranked? The options of `rank`, completed by the heads of its inputs."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...errors import DataError, UsageError
from ...records.reader import Source
from ...settings.rank import Ranking
from ...settings.streams import Unit
from ...stream.schema import UNRELATED_TO_SCORES, Head, RankSection
from .. import streams

ADDED = ("rank", "quantile")
ANEW = "to rank from scratch, use `rank --overwrite` without --merge"
# What two rankings must have in common to be parts of one.
SHARED = ("key", "unit", "tokens_field", "within", "prefix", "reverse")
# Keys of the score section that two streams of one ranking may have unlike: which part, and which fields.
NEUTRAL_KEYS = ("fields", "only", "shard", *UNRELATED_TO_SCORES)


@dataclass(frozen=True)
class Order:
    """A ranking of which everything is settled. `is_merge` says that the inputs are rankings themselves."""

    key: str
    by: Unit
    reverse: bool
    within: str | None
    tokens_field: str
    prefix: str
    group_by: str
    is_merge: bool
    mixed: bool
    overwrite: bool

    @property
    def added_fields(self) -> tuple[str, ...]:
        """The names of the fields that ranking adds."""
        return tuple(self.prefix + name for name in ADDED)


def settled(source: Source, ranking: Ranking) -> Order:
    """The order that the options describe; where they say nothing, that of the ranking in the input's head.

    Raises UsageError if the options contradict the head, or if rank would replace the key itself.
    """
    head, fields = source.peek()
    before = head.rank if head else None
    if ranking.merge and fields and before is None:
        raise no_ranking(source.name)
    if before and ranking.merge:
        _check_agreement(ranking, before)
    is_renewed = before is not None and _is_renewed(ranking, before)
    order = _completed(source, ranking, before if is_renewed else None)
    if order.key in order.added_fields:
        fault = f"rank would replace the field `{order.key}`"
        raise UsageError(fault, remedy="--prefix STR names the new fields differently")
    return order


def no_ranking(place: str) -> DataError:
    """The error for an input of --merge that is not known to be a ranking."""
    return DataError(
        "not every input is a ranking: a head is missing", place=place, remedy="rank without --merge"
    )


def to_check(source: Source, ranking: Ranking) -> Order:
    """The order that --check looks for: that of the input's head, where no option says another."""
    head, _ = source.peek()
    before = head.rank if head else None
    is_same_key = before is not None and ranking.key in (None, before.key)
    return _completed(source, ranking, before if is_same_key else None)


def _is_renewed(ranking: Ranking, before: RankSection) -> bool:
    """Whether a ranking is merged or made again, by the same score."""
    return ranking.merge or (ranking.overwrite and ranking.key in (None, before.key))


def _completed(source: Source, ranking: Ranking, before: RankSection | None) -> Order:
    within = ranking.within or None
    reverse = ranking.reverse
    # Leaving out an option is the only way to drop `within` or to go back to ascending order when a ranking
    # is ranked again, so only --merge and --check inherit these two.
    if before and (ranking.merge or ranking.check):
        within = within or before.within
        reverse = before.reverse if reverse is None else reverse
    unit = before.unit if before else Unit.records
    prefix = before.prefix if before else ""
    return Order(
        key=ranking.key or (before.key if before else streams.the_score(source)),
        by=ranking.by or Unit(unit),
        reverse=bool(reverse),
        within=within,
        tokens_field=streams.tokens_field_of(source, ranking.tokens_field),
        prefix=prefix if ranking.prefix is None else ranking.prefix,
        group_by=streams.group_field_of(source, ranking.group_by),
        is_merge=ranking.merge,
        mixed=ranking.mixed,
        overwrite=ranking.overwrite,
    )


def _check_agreement(ranking: Ranking, before: RankSection) -> None:
    """Raise UsageError if an option contradicts the head of the first ranking that is merged."""
    pairs = (
        ("--key", ranking.key, before.key),
        ("--by", ranking.by, before.unit),
        ("--tokens-field", ranking.tokens_field, before.tokens_field),
        ("--within", ranking.within, before.within),
        ("--prefix", ranking.prefix, before.prefix),
    )
    for option, wanted, has in pairs:
        if wanted is not None and wanted != has:
            said = f"{option} {has}" if has else f"no {option}"
            raise UsageError(f"the rankings were made with {said}, not {option} {wanted}", remedy=ANEW)
    if ranking.reverse and not before.reverse:
        raise UsageError("the rankings begin with the lowest score, not with the highest (-r)", remedy=ANEW)


def check_alike(heads: Sequence[Head | None], place: str, order: Order) -> None:
    """Raise DataError if two heads say that their scores, or rankings that are merged, were made differently.

    --mixed allows other scores, but never other units or keys: those would make quantiles of nothing.
    """
    if order.is_merge:
        rankings = [head.rank for head in heads if head and head.rank]
        for ranking in rankings[1:]:
            _check_parts(rankings[0], ranking, place)
    if not order.mixed:
        sections = [head.settings("score") for head in heads if head and head.score]
        for section in sections[1:]:
            _check_scores(sections[0], section, place)


def _check_parts(first: RankSection, other: RankSection, place: str) -> None:
    for name in SHARED:
        before = getattr(first, name)
        here = getattr(other, name)
        if before != here:
            fault = f"the rankings differ: {name} is {here!r} here, {before!r} before"
            raise DataError(fault, place=place, remedy=ANEW)


def _check_scores(first: dict[str, object], other: dict[str, object], place: str) -> None:
    for name in sorted(first.keys() | other.keys()):
        if name not in NEUTRAL_KEYS and first.get(name) != other.get(name):
            difference = f"{name} is {other.get(name)} here, {first.get(name)} before"
            raise DataError(
                f"scores were made with different settings: {difference}",
                place=place,
                remedy="rescore with one setting, or rank them together with --mixed",
            )
