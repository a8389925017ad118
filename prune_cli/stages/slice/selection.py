"""Which cut does a selection describe? Options as they were typed become a `Cut`, or a usage error."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from ... import metrics
from ...errors import UsageError
from ...settings.slice import Keep, Selection, Slicing
from ...settings.streams import Unit
from ...sizes import parse_fraction
from ...statistics.cuts import Cut, fraction
from ...stream.schema import RankSection
from .. import measured_cut
from ..measured_cut import MeasuredCut

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """The settings of a slice with the cut that they describe; `measured` if --cut names it."""

    selection: Selection
    slicing: Slicing
    cut: Cut
    measured: MeasuredCut | None = None

    def settled(self, score: Callable[[], str]) -> "Request":
        """The same with `easy` and `hard` replaced by an end of that score, which is asked for only then.

        Raises UsageError if the metric of the score declares no easy end.
        """
        if self.selection.keep not in (Keep.easy, Keep.hard):
            return self
        is_easy = self.selection.keep == Keep.easy
        keep = Keep.bottom if (_easy_end(score()) == "low") == is_easy else Keep.top
        selection = replace(self.selection, keep=keep)
        return replace(self, selection=selection, cut=cut_of(selection))


def group_field(request: Request) -> str:
    """The field by which records are counted. `plan` has taken it from the head where no option names it."""
    assert request.slicing.group_by is not None
    return request.slicing.group_by


def tokens_field(request: Request) -> str:
    """The field that holds the token count. `plan` has taken it from the head where no option names it."""
    assert request.slicing.tokens_field is not None
    return request.slicing.tokens_field


def check_ranking(request: Request, ranking: RankSection) -> None:
    """Raise UsageError if an option contradicts the ranking that is cut.

    A score of its own (-k) and a random draw do not use the ranking.
    """
    slicing = request.slicing
    if slicing.key is not None or slicing.scores is not None or request.selection.is_random:
        return
    if slicing.by not in (None, ranking.unit):
        fault = f"the stream was ranked by {ranking.unit}, not by {slicing.by}"
        raise UsageError(fault, remedy=f"rank it again with --by {slicing.by}")
    if slicing.prefix not in (None, ranking.prefix):
        fault = f"the ranking has the prefix {ranking.prefix!r}, not {slicing.prefix!r}"
        raise UsageError(fault, remedy="leave out --prefix, or name another score with -k")
    if ranking.unit == Unit.tokens and slicing.tokens_field not in (None, ranking.tokens_field):
        fault = f"the ranking counts tokens in `{ranking.tokens_field}`, not in `{slicing.tokens_field}`"
        raise UsageError(fault, remedy="leave out --tokens-field, or rank again")


def request(selection: Selection, slicing: Slicing) -> Request:
    """The settings, checked. Raises UsageError for what is wrong before any input is looked at."""
    if selection.cut is not None:
        return _by_measured_cut(selection, slicing)
    cut = cut_of(selection)
    if slicing.within and cut.tokens is not None:
        raise UsageError(
            "--tokens is a budget for the whole, not for each value of --within",
            remedy="leave out --within, or use --frac",
        )
    if slicing.scores is not None and selection.is_random:
        raise UsageError(
            "random draws depend on the texts, and a file of --scores has none",
            remedy="put the scores into the corpus, and use -k",
        )
    return Request(selection, slicing, cut)


def _by_measured_cut(selection: Selection, slicing: Slicing) -> Request:
    """The request for a cut that `stat` has measured."""
    _check_choice(selection)
    measured = measured_cut.read(selection.cut or "")
    if slicing.key not in (None, measured.key):
        log.warning("%s was measured on `%s`, and cuts `%s`", selection.cut, measured.key, slicing.key)
    slicing = replace(slicing, key=slicing.key or measured.key)
    return Request(selection, slicing, measured.cut(), measured)


def cut_of(selection: Selection) -> Cut:
    """The cut that a selection describes. Raises UsageError if it describes none, or two."""
    _check_choice(selection)
    if selection.range_ is not None:
        return Cut("range", *_range(selection.range_))
    if selection.least is not None or selection.most is not None:
        return _between_scores(selection)
    keep = str(selection.keep or Keep.top)
    if selection.sample is not None:
        _check_sample(selection.sample, keep)
    if selection.frac is not None:
        return fraction(keep, _fraction(selection.frac))
    return Cut(keep, tokens=selection.tokens)


def _check_choice(selection: Selection) -> None:
    """Raise UsageError unless exactly one way to cut is given, and all that it needs."""
    has_part = selection.keep is not None or selection.sample is not None
    has_scores = selection.least is not None or selection.most is not None
    amounts = [selection.frac, selection.tokens].count(None)
    ways = [has_part, selection.range_ is not None, has_scores, selection.cut is not None].count(True)
    if not ways:
        raise UsageError(
            "nothing says what to keep",
            remedy="give --keep PART with --frac F or --tokens N, --range LO:HI, --min, --max or --cut FILE",
        )
    if ways > 1:
        raise UsageError("--keep, --range, --min or --max and --cut exclude each other", remedy="give one")
    if not has_part and amounts < 2:
        raise UsageError("--frac and --tokens need --keep")
    if amounts == 0:
        raise UsageError("--frac and --tokens exclude each other", remedy="give one")
    if has_part and amounts == 2:
        keep = selection.keep or Keep.top
        raise UsageError(f"--keep {keep} needs --frac F or --tokens N", remedy="for example --frac 0.5")


def _check_sample(temperature: float, keep: str) -> None:
    if not 0 < temperature < float("inf") or keep in (Keep.middle, Keep.random):
        raise UsageError(
            "--sample needs a TEMPERATURE above 0, and draws from the top (or with --keep bottom)"
        )


def _between_scores(selection: Selection) -> Cut:
    least = _score(selection.least, float("-inf"))
    most = _score(selection.most, float("inf"))
    if least > most:
        fault = f"no score is at least {least:g} and at most {most:g}"
        raise UsageError(fault, remedy="give --min the lower of the two")
    return Cut("scores", least=least, most=most)


def _score(value: float | None, default: float) -> float:
    if value is None:
        return default
    if value != value:  # NaN is the only number that differs from itself
        raise UsageError("--min and --max need a number, not NaN")
    return value


def _range(text: str) -> tuple[Decimal, Decimal]:
    low, _, high = text.partition(":")
    bounds = parse_fraction(low), parse_fraction(high)
    if not 0 <= bounds[0] <= bounds[1] <= 1:
        fault = f"invalid --range '{text}': expected LO:HI between 0 and 1, such as 0.25:0.75"
        # 25:75 can only mean per cent.
        is_percent = 1 < bounds[1] <= 100 and bounds[0] >= 0
        raise UsageError(fault, remedy=f"or per cent, {low}%:{high}%" if is_percent else "")
    return bounds


def _fraction(text: str) -> Decimal:
    number = parse_fraction(text)
    if not 0 <= number <= 1:
        fault = f"invalid --frac '{text}': expected a number between 0 and 1, such as 0.5"
        raise UsageError(fault, remedy=f"or per cent, {text}%" if 1 < number <= 100 else "")
    return number


def without_percent(text: str | None) -> str | None:
    """A fraction or range as numbers between 0 and 1, for the head: what reads it need not know per cent."""
    if text is None or "%" not in text:
        return text
    return ":".join(f"{parse_fraction(part):f}" for part in text.split(":"))


def _easy_end(field: str) -> str:
    """The end of a score that its metric calls easy: low or high."""
    # A score has the name of its metric, perhaps with a prefix; packages bring metrics, too.
    metric = metrics.of_field(field)
    end = metric.easy if metric else None
    if end is None:
        raise UsageError(f"`{field}` declares no easy end", remedy="give --keep bottom or --keep top")
    return end
