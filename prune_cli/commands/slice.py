"""prune-cli slice"""

from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

from .. import terminal
from ..errors import UsageError
from . import options
from .options import Files, GroupBy, Streams, Unit, expanded, option

if TYPE_CHECKING:
    from ..stages.slice import Cut


class Keep(StrEnum):
    bottom = "bottom"
    middle = "middle"
    top = "top"
    random = "random"


@expanded
def slice(
    files: Files = None,
    keep: Annotated[Keep | None, option("--keep", help="Which part of the distribution to keep.")] = None,
    frac: Annotated[str | None, option("--frac", metavar="F", help="How much of it, between 0 and 1.")] = None,
    range_: Annotated[str | None, option("--range", metavar="LO:HI", help="Keep what lies between two quantiles instead.")] = None,
    key: Annotated[str | None, option("--key", "-k", metavar="FIELD", help="Slice an unranked stream by this score, order kept.")] = None,
    by: Annotated[Unit | None, option("--by", help="What F is a share of; a ranked stream knows.")] = None,
    tokens_field: Annotated[str, option("--tokens-field", metavar="FIELD", help="The count of tokens.")] = "n_scored",
    text_field: Annotated[str, option("--text-field", metavar="FIELD", help="The text that --keep random hashes.")] = "text",
    prefix: Annotated[
        str | None, option("--prefix", metavar="STR", help="What stands before `rank` and `quantile`.", show_default=False)
    ] = None,
    keep_unscored: Annotated[bool, option("--keep-unscored", help="Keep records whose score is null, too.")] = False,
    seed: Annotated[int, option("--seed", help="Which random records.")] = 0,
    group_by: GroupBy = "source",
    streams: Streams = Streams(),
) -> None:
    """Keep the bottom, middle or top of a ranked stream, or a random part.

    Counts are exact, ties are broken by input order, records pass through byte for byte. A ranked stream is read once in
    constant memory; -k and --keep random read twice (a pipe is kept in a temporary file meanwhile).

    Example: prune-cli slice --keep middle --frac 0.5 ranked.jsonl.zst -o shard.jsonl.zst
    """
    from ..stages import slice as stage

    cut = _cut(keep, frac, range_, key)
    slicing, tally = stage.Slicing(tokens_field, group_by, keep_unscored), stage.Tally()
    with streams.opened("slice", files, replay=key is not None or keep is Keep.random) as (source, output):
        head, _ = source.peek()
        unit = by.value if by else None
        if keep is Keep.random:
            unit = unit or ((head or {}).get("rank") or {}).get("unit", "records")
            records = stage.at_random(source, seed, text_field, cut, unit, slicing, tally, source.again())
        elif key:
            unit = unit or "records"
            records = stage.scored(source, key, cut, unit, slicing, tally, source.again())
        else:
            records = stage.ranked(source, cut, slicing, unit, prefix, tally)
        history = {"keep": cut.keep, "low": str(cut.low), "high": str(cut.high), "key": key, "seed": seed if keep is Keep.random else None}
        with streams.sink(output, options.head_after(source, "slice", group_by, ("score", "rank"), slice=history)) as sink:
            sink.write(records)
        tally.check(source.records)
    total = tally.kept + tally.cut + tally.unscored
    terminal.closing(f"kept {tally.kept:,} of {total:,} records; {tally.cut:,} cut, {tally.unscored:,} unscored", quiet=streams.quiet)


def _cut(keep: Keep | None, frac: str | None, between: str | None, key: str | None) -> "Cut":
    """The cut that the options ask for; UsageError where they ask for none or for two."""
    from ..stages.slice import Cut, fraction

    if (keep is None) == (between is None):
        raise UsageError("say what to keep", remedy="--keep bottom|middle|top|random with --frac F, or --range LO:HI")
    if keep is not None:
        if frac is None:
            raise UsageError(f"--keep {keep.value} needs --frac F", remedy="for example --frac 0.5")
        return fraction(keep.value, _share(frac, "--frac"))
    if frac is not None:
        raise UsageError("--frac goes with --keep, not with --range")
    low, colon, high = (between or "").partition(":")
    if not colon or _share(low, "--range") > _share(high, "--range"):
        raise UsageError(f"'{between}' is not a range", remedy="for example --range 0.25:0.75")
    return Cut("range", _share(low, "--range"), _share(high, "--range"))


def _share(text: str, name: str) -> Decimal:
    try:
        share = Decimal(text)
    except InvalidOperation:
        share = Decimal(-1)
    if not share.is_finite() or not 0 <= share <= 1:
        raise UsageError(f"'{text}' is no share for {name}", remedy="a share lies between 0 and 1")
    return share
