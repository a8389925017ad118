"""A cut at two scores that were measured once: `stat --thresholds` writes it, `slice --cut` applies it."""

from dataclasses import asdict, dataclass
from math import inf, nextafter
from typing import Any

import orjson

from .. import storage
from ..errors import DataError, UsageError
from ..statistics.cuts import Cut

NAME = "cut"  # of its object in the output of `stat`
REMEDY = "write one with prune-cli stat -k FIELD --thresholds LO,HI"


@dataclass(frozen=True)
class MeasuredCut:
    """A score of the field `key` is inside if it is at least `least` and below `below`; None is no bound.

    The two are the scores at the fractions `low` and `high` of the distribution, counted in `unit`. `share`
    of the `records` that were measured lies inside.
    """

    key: str
    low: str
    high: str
    unit: str
    least: float | None
    below: float | None
    share: float
    records: int

    def cut(self) -> Cut:
        """The cut, whose upper bound is the last number below `below`."""
        least = -inf if self.least is None else self.least
        return Cut("scores", least=least, most=inf if self.below is None else nextafter(self.below, -inf))

    def to_json(self) -> dict[str, Any]:
        """The object that `read` reads."""
        return asdict(self)


def read(path: str) -> MeasuredCut:
    """The cut in a file that `stat` has written.

    Raises UsageError for standard input, NoInputError, and DataError for a file without a cut.
    """
    if path == "-":
        raise UsageError("--cut needs a file", remedy="standard input has the records")
    file = storage.input_at(path)
    file.check()
    with file.open():
        text = file.read_all()
    try:
        return _checked(orjson.loads(text)[NAME])
    except (ValueError, TypeError, KeyError):
        raise DataError("holds no cut", place=file.name, remedy=REMEDY) from None


def _checked(content: Any) -> MeasuredCut:
    """The cut that an object spells. Raises ValueError or TypeError if it spells none."""
    measured = MeasuredCut(**content)
    bounds = (measured.least, measured.below)
    are_numbers = all(bound is None or isinstance(bound, float | int) for bound in bounds)
    if not (isinstance(measured.key, str) and are_numbers and 0 <= measured.share <= 1):
        raise ValueError(content)
    if not isinstance(measured.records, int) or measured.records < 1:
        raise ValueError(content)
    return measured
