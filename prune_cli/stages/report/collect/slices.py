"""What did a slice keep? Its own records say it: amounts by group, and where its scores lie."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ....records.columns import Labels, counts
from ....records.reader import MISSING, Anything, Count, Number, Source, Wanted
from ....stream.schema import Head
from ....stream.writer import GROUPS
from .. import provenance
from ..content import CutEnd, SliceFacts, Volume
from .histograms import GroupHistograms


@dataclass
class SliceReading:
    """The records of a slice: amounts, and the histogram of its scores in each of the fields."""

    name: str
    head: Head | None
    key: str | None
    groups: dict[str, Volume] = field(default_factory=dict)
    histograms: dict[str, GroupHistograms] = field(default_factory=dict)
    amount: Volume = Volume()
    least: float = np.inf
    most: float = -np.inf


def read_slice(source: Source, fields: list[str], tokens: str, group: str) -> SliceReading:
    """Read a slice of a stream with these scores. Raises DataError."""
    head, present = source.peek()
    named = [name for name in fields if name in present]
    reading = SliceReading(source.name, head, _key(head, named))
    reading.histograms = {name: GroupHistograms() for name in named}
    labels = Labels(str, most=GROUPS)
    wanted = {group: Anything, tokens: Count, **dict.fromkeys(named, Number)}
    sums = np.zeros((GROUPS + 1, 2), np.int64)
    for batch in source.batches(Wanted(wanted, tuple(wanted))):
        amounts = counts(batch[tokens])
        # The last row is that of records without a group.
        codes = labels.codes(batch[group])
        np.add.at(sums[:, 0], codes, 1)
        np.add.at(sums[:, 1], codes, amounts)
        for name in named:
            scores = scores_column(batch[name])
            reading.histograms[name].add(scores, amounts, codes)
            if name == reading.key and not np.isnan(scores).all():
                reading.least = min(reading.least, float(np.nanmin(scores)))
                reading.most = max(reading.most, float(np.nanmax(scores)))
    reading.amount = Volume(*sums.sum(0).tolist())
    reading.groups = {name: Volume(*sums[code].tolist()) for code, name in enumerate(labels.names)}
    return reading


def scores_column(values: list[Any]) -> np.ndarray:
    """A column of scores as float64, NaN for none."""
    return np.array([None if value is MISSING else value for value in values], dtype=float)


def _key(head: Head | None, fields: list[str]) -> str | None:
    """The score that was cut, if the records have it."""
    cut = head.settings("slice") if head else {}
    ranked_by = head.rank.key if head and head.rank else None
    key = cut.get("key") or ranked_by or (fields[0] if len(fields) == 1 else None)
    return key if key in fields and "scores" not in cut else None


def facts(reading: SliceReading, least: float, most: float) -> SliceFacts:
    """What the page says of a slice of records whose scores lie between `least` and `most`."""
    label = provenance.slice_label(reading.head)
    ranking = reading.head.rank if reading.head else None
    unit = f" by {ranking.unit}" if ranking and "%" in label else ""
    return SliceFacts(
        name=reading.name,
        label=label + unit,
        key=reading.key,
        amount=reading.amount,
        groups=reading.groups,
        edges=[edge for edge in edges(reading) if least < edge.score < most],
        steps=provenance.steps(reading.head),
        ranked=ranking.n if ranking else None,
    )


def edges(reading: SliceReading) -> list[CutEnd]:
    """Where the kept scores begin and end. None for a slice that is no interval of scores.

    An end of all scores is among them: only the whole corpus shows that it is one.
    """
    cut = reading.head.settings("slice") if reading.head else {}
    is_interval = not any(cut.get(name) for name in ("invert", "sample", "within"))
    is_interval = is_interval and cut.get("keep") != "random"
    within = bool(reading.head and reading.head.rank and reading.head.rank.within)
    if reading.key is None or not is_interval or within or not np.isfinite(reading.least):
        return []
    return [CutEnd(reading.least, "above"), CutEnd(reading.most, "below")]
