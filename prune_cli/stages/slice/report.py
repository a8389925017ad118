"""What did a slice keep? Counts, warnings, a picture for a terminal, and the JSON of --summary."""

import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ... import charts
from ...settings.slice import Keep
from ...statistics.drift import DriftWatch, ShareCheck
from .counts import Amounts
from .selection import Request
from .split import SliceStatistics
from .ties import Tie

log = logging.getLogger(__name__)

GROUPS_SHOWN = 8  # on a terminal; --summary has all of them


@dataclass(frozen=True)
class SliceReport:
    """Amounts by fate, in `total` and by group. They add up to what was read."""

    total: Amounts
    groups: dict[str, Amounts]
    ties: tuple[Tie, ...]
    length_correlation: float | None
    histogram: tuple[str, ...] = ()
    drift: ShareCheck | None = None
    skipped: int = 0

    @property
    def records(self) -> int:
        """Records that were read."""
        return _records(self.total)

    def summary(self) -> dict[str, Any]:
        """The counts as --summary writes them."""
        return {
            "in": self.records,
            **_json(self.total),
            "groups": {name: _json(amounts) for name, amounts in self.groups.items()},
            "ties": [asdict(tie) for tie in self.ties],
            "length_correlation": self.length_correlation,
            **({"drift": {"share": self.drift.share, **asdict(self.drift)}} if self.drift else {}),
        }

    def warn(self, budget: int | None) -> None:
        """Log what a user may not expect: split ties, an unused `budget` of tokens, an empty slice."""
        for tie in self.ties:
            log.warning(
                "%d records tie at %r, and %d of them are inside the cut: input order decides",
                tie.records,
                tie.score,
                tie.inside,
            )
        if self.drift and self.drift.is_outside:
            _warn_of_drift(self.drift)
        kept = self.total["kept"]
        cut = self.total["cut"].records
        # A budget is rarely met to the token; below 95 % a single long record stopped it.
        if budget is not None and cut and kept.tokens < 0.95 * budget:
            log.warning(
                "%d of %d tokens are kept: the next record would exceed the budget", kept.tokens, budget
            )
        elif cut and not kept.records:
            log.warning(
                "none of %d scored records are kept; a fraction of a slice is one of the whole ranking", cut
            )
        unscored = self.total["unscored"].records
        if unscored and not cut and not kept.records:
            log.warning(
                "nothing is kept: none of %d records has a score; --keep-unscored keeps them", unscored
            )

    def closing(self) -> list[str]:
        """The closing line, and the histogram of the scores with its kept part in black."""
        return ["; ".join([self._counts(), *self._groups(), *self._correlation()]), *self.histogram]

    def _counts(self) -> str:
        kept = self.total["kept"]
        cut = self.total["cut"]
        tokens = f"{kept.tokens:,} of {kept.tokens + cut.tokens:,} tokens"
        kept_text = f"kept {kept.records:,} of {self.records:,} records ({tokens})"
        return f"{kept_text}; {cut.records:,} cut, {self.total['unscored'].records:,} unscored"

    def _groups(self) -> list[str]:
        """The groups of which most was kept, first."""
        groups = sorted(self.groups.items(), key=lambda item: -item[1]["kept"].records)
        lines = [
            f"{name or '(none)'} {amounts['kept'].records:,} of {_records(amounts):,}"
            for name, amounts in groups[:GROUPS_SHOWN]
        ]
        return [*lines, "..."] if len(groups) > GROUPS_SHOWN else lines

    def _correlation(self) -> list[str]:
        if self.length_correlation is None:
            return []
        return [f"rank correlation of score with length {self.length_correlation:.2f}"]


def warn_of_windows(watch: DriftWatch, inside: np.ndarray) -> None:
    """Count records, bool (n), and log the windows that they fill and that are not as measured."""
    for check in watch.add(inside):
        _warn_of_drift(check)


def _warn_of_drift(check: ShareCheck) -> None:
    points = 100 * (check.share - check.expected)
    log.warning(
        "scored records %d to %d: %.2f %% are inside the cut, %.2f points %s than measured (%.2f to %.2f %% "
        "were expected); measure it again with stat --thresholds",
        check.first,
        check.first + check.records - 1,
        100 * check.share,
        abs(points),
        "more" if points > 0 else "less",
        100 * check.low,
        100 * check.high,
    )


def _records(amounts: Amounts) -> int:
    return sum(amount.records for amount in amounts.values())


def _json(amounts: Amounts) -> dict[str, dict[str, int]]:
    return {fate: amount._asdict() for fate, amount in amounts.items()}


def histogram(request: Request, statistics: SliceStatistics, key: str, unit: str) -> tuple[str, ...]:
    """A picture of the scores and of the part that was kept; nothing if it would not be one of the cut.

    --sample keeps some of everything, in proportions that nobody has measured.
    """
    if statistics.shape is None or request.selection.sample is not None:
        return ()
    kept = _kept_part(request, statistics, statistics.shape)
    return tuple(charts.histogram(key, statistics.shape, unit, kept))


def _kept_part(request: Request, statistics: SliceStatistics, shape: list[float]) -> charts.Share:
    if request.selection.keep == Keep.random:
        total = statistics.counts.total()
        kept = total["kept"].records
        return charts.evenly(kept / max(kept + total["cut"].records, 1))
    cut = request.cut
    low, high = float(cut.low), float(cut.high)
    if statistics.quantiles is not None:
        low, high = statistics.quantiles
    elif cut.keep == "scores":
        low, high = charts.quantiles(shape, cut.least, cut.most)
    return charts.between(low, high, invert=request.selection.invert)
