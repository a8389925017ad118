"""Settings of `prune-cli slice`."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, ClassVar

from .option import option
from .streams import FIELDS, RESULT, GroupBy, TextField, TokensField, Unit


class Keep(StrEnum):
    """The part of a distribution that is kept. The metric declares which end is `easy`, which `hard`."""

    bottom = "bottom"
    middle = "middle"
    top = "top"
    random = "random"
    easy = "easy"
    hard = "hard"


@dataclass(frozen=True)
class Selection:
    """Which records are kept, as it was typed; `stages/slice/selection.py` makes a cut of it."""

    GROUP: ClassVar[str] = "What to keep"
    keep: Annotated[
        Keep | None,
        option(
            "--keep",
            metavar="PART",
            help="Part: bottom, middle, top, random, easy or hard. "
            "The metric declares which end of its scores is easy.",
        ),
    ] = None
    frac: Annotated[
        str | None,
        option(
            "--frac",
            metavar="F",
            help="Fraction to keep, such as 0.5 or 50%. It counts in the unit that the stream was ranked by.",
        ),
    ] = None
    of_all: Annotated[
        bool,
        option(
            "--of-all",
            help="Count --frac of what there was before slicing. The stream says how much that was, if "
            "it comes from slice. Without it, --frac of -k is one of what is left.",
        ),
    ] = False
    tokens: Annotated[
        int | None,
        option(
            "--tokens",
            metavar="N",
            min=0,
            is_count=True,
            help="Keep at most N tokens. Fills from the bottom or the top, or from the median outwards, "
            "and stops before the first record that would exceed N. N may end in K, M or G (powers of 1000).",
        ),
    ] = None
    range_: Annotated[
        str | None,
        option(
            "--range",
            metavar="LO:HI",
            help="Keep records whose quantile is in [LO, HI). HI = 1 belongs to the range; both may be per "
            "cent, as in 25%:75%.",
        ),
    ] = None
    least: Annotated[
        float | None, option("--min", metavar="SCORE", help="Keep scores of at least SCORE.")
    ] = None
    most: Annotated[float | None, option("--max", metavar="SCORE", help="Keep scores of at most SCORE.")] = (
        None
    )
    cut: Annotated[
        str | None,
        option(
            "--cut",
            metavar="FILE",
            help="Keep scores within the thresholds in FILE. `stat --thresholds` has measured them; records "
            "are judged one by one, in one pass over a stream that may have no end.",
        ),
    ] = None
    drift: Annotated[
        bool,
        option(
            "--drift",
            help="Warn when the share inside --cut is not as measured. Each 131,072 scored records are "
            "judged, and all together: an interval of 4 standard deviations of the binomial distribution.",
        ),
    ] = False
    sample: Annotated[
        float | None,
        option(
            "--sample",
            metavar="TEMPERATURE",
            help="Draw in proportion to exp(score/TEMPERATURE). "
            "Draws without replacement; --frac or --tokens says how much.",
        ),
    ] = None
    invert: Annotated[bool, option("--invert", help="Keep the scored records outside the cut.")] = False
    keep_unscored: Annotated[
        bool, option("--keep-unscored", help="Also keep records whose score is null.")
    ] = False
    seed: Annotated[int, option("--seed", metavar="N", help="Seed for --keep random and --sample.")] = 0

    @property
    def is_random(self) -> bool:
        """Whether records are drawn at random."""
        return self.keep == Keep.random or self.sample is not None


@dataclass(frozen=True)
class Slicing:
    """The score that is cut, where it comes from, and what is written besides the records that are kept.

    `by` and `prefix` are None if the head of the stream is to say them.
    """

    GROUP: ClassVar[str] = "Options"
    key: Annotated[
        str | None,
        option(
            "--key",
            "-k",
            metavar="FIELD",
            help="Score to slice by. The stream need not be ranked, and keeps its order.",
        ),
    ] = None
    scores: Annotated[
        str | None,
        option(
            "--scores",
            metavar="FILE",
            help="Read the scores from FILE, one a record. FILE is written by `score --only` "
            "and has the order of the input; ids are compared.",
        ),
    ] = None
    by: Annotated[
        Unit | None,
        option(
            "--by",
            metavar="UNIT",
            help="Unit of --frac and --range: records or tokens. The head of a ranked stream names its unit, "
            "and any other is an error.",
        ),
    ] = None
    within: Annotated[
        str | None, option("--within", metavar="FIELD", help="Cut each value of FIELD on its own.")
    ] = None
    tokens_field: TokensField = None
    text_field: TextField = "text"
    prefix: Annotated[
        str | None,
        option(
            "--prefix",
            metavar="STR",
            group=FIELDS,
            help="Prefix of the fields `rank` and `quantile`. The default is that of the ranking.",
            shown_default=False,
        ),
    ] = None
    output_directory: Annotated[
        str | None,
        option(
            "--output-directory",
            "-O",
            metavar="DIR",
            group=RESULT,
            help="Write a dataset into DIR, or below URL/: a part for each file of a ranking, or for each "
            "256 MB of text that -k reads. Files of a ranking that are kept whole are copied unread. The "
            "same command makes what a stopped run left out. --invert -O OTHER writes what is not kept.",
        ),
    ] = None
    rejects: Annotated[
        str | None,
        option(
            "--rejects", metavar="FILE", group=RESULT, help="Write the records that are not kept to FILE."
        ),
    ] = None
    summary: Annotated[
        str | None,
        option(
            "--summary",
            metavar="FILE",
            group=RESULT,
            help="Write the cut and its counts to FILE, as JSON.",
        ),
    ] = None
    group_by: GroupBy = None
