"""What `prune-cli slice` is asked to keep."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar

from ..errors import UsageError
from .options import option

if TYPE_CHECKING:
    from ..statistics.cuts import Cut


class Keep(StrEnum):
    bottom = "bottom"
    middle = "middle"
    top = "top"
    random = "random"
    easy = "easy"
    hard = "hard"


@dataclass(frozen=True)
class Wish:
    """What is to be kept, in the words of the command line."""

    GROUP: ClassVar[str] = "What to keep"
    keep: Annotated[
        Keep | None,
        option(
            "--keep",
            metavar="PART",
            help="bottom, middle, top, random, easy or hard. The ends that are easy and hard are declared by the metric.",
        ),
    ] = None
    frac: Annotated[
        str | None,
        option(
            "--frac",
            metavar="F",
            help="How much of it, from 0 to 1. Of the unit that the stream was ranked by.",
        ),
    ] = None
    tokens: Annotated[
        int | None,
        option(
            "--tokens",
            metavar="N",
            min=0,
            help="Or N tokens of it, at most. From the bottom or top, or from the median record outwards, until one does not fit.",
        ),
    ] = None
    range_: Annotated[
        str | None, option("--range", metavar="LO:HI", help="What lies between two quantiles instead.")
    ] = None
    least: Annotated[float | None, option("--min", metavar="SCORE", help="Scores from this one on.")] = None
    most: Annotated[float | None, option("--max", metavar="SCORE", help="Scores up to this one.")] = None
    sample: Annotated[
        float | None,
        option(
            "--sample",
            metavar="TEMPERATURE",
            help="Draw in proportion to exp(score/TEMPERATURE). Without replacement; with --frac or --tokens.",
        ),
    ] = None
    invert: Annotated[bool, option("--invert", help="Keep the other scored records.")] = False
    keep_unscored: Annotated[
        bool, option("--keep-unscored", help="Keep records whose score is null, too.")
    ] = False
    seed: Annotated[int, option("--seed", metavar="N", help="Which random records.")] = 0

    @property
    def draws(self) -> bool:
        return self.keep is Keep.random or self.sample is not None

    def cut(self) -> "Cut":
        """The cut that the options ask for; UsageError where they ask for none or for two."""
        from ..statistics.cuts import Cut, fraction

        part, between, scores = (
            self.keep or self.sample,
            self.range_,
            self.least is not None or self.most is not None,
        )
        asked = [part is not None, between is not None, scores].count(True)
        if asked > 1:
            raise UsageError("--keep, --range and --min or --max exclude each other", remedy="name one")
        if asked == 0:
            raise UsageError(
                "say what to keep",
                remedy="--keep PART with --frac F or --tokens N; or --range LO:HI; or --min, --max",
            )
        if part is None and (self.frac is not None or self.tokens is not None):
            raise UsageError("--frac and --tokens go with --keep")
        if between is not None:
            return Cut("range", *_range(between))
        if scores:
            least, most = _score(self.least, "-inf"), _score(self.most, "inf")
            if least > most:
                raise UsageError(
                    f"no score is at least {least:g} and at most {most:g}", remedy="give --min the lower one"
                )
            return Cut("scores", least=least, most=most)
        keep = (self.keep or Keep.top).value
        if self.frac is not None and self.tokens is not None:
            raise UsageError("--frac and --tokens exclude each other", remedy="name one")
        if self.frac is None and self.tokens is None:
            raise UsageError(f"--keep {keep} needs --frac F or --tokens N", remedy="for example --frac 0.5")
        if self.sample is not None and (not 0 < self.sample < float("inf") or keep in ("middle", "random")):
            raise UsageError(
                "--sample takes a TEMPERATURE above 0, and draws from the top (or --keep bottom)"
            )
        return (
            fraction(keep, _share(self.frac, "--frac"))
            if self.frac is not None
            else Cut(keep, tokens=self.tokens)
        )

    def settled(self, score: Callable[[], str]) -> "Wish":
        """The same with `easy` and `hard` as the end of the scale of that score; UsageError where its metric declares none."""
        if self.keep not in (Keep.easy, Keep.hard):
            return self
        from .. import metrics

        field = score()
        metric = metrics.of_field(field)
        easy = metric.easy if metric else None
        if easy is None:
            raise UsageError(
                f"no end of `{field}` is known to be the easy one", remedy="say --keep bottom or --keep top"
            )
        return replace(self, keep=Keep.bottom if (easy == "low") == (self.keep is Keep.easy) else Keep.top)


def _range(text: str) -> tuple[Decimal, Decimal]:
    low, colon, high = text.partition(":")
    if not colon or _share(low, "--range") > _share(high, "--range"):
        raise UsageError(f"'{text}' is not a range", remedy="for example --range 0.25:0.75")
    return _share(low, "--range"), _share(high, "--range")


def _score(given: float | None, default: str) -> float:
    score = float(default) if given is None else given
    if score != score:
        raise UsageError("NaN is no score for --min or --max")
    return score


def _share(text: str, name: str) -> Decimal:
    try:
        share = Decimal(text)
    except InvalidOperation:
        share = Decimal(-1)
    if not share.is_finite() or not 0 <= share <= 1:
        raise UsageError(f"'{text}' is no share for {name}", remedy="a share lies between 0 and 1")
    return share
