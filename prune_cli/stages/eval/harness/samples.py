"""What is kept of the samples of a task: for each filter its documents, and their values of each metric.

A task may filter one answer in several ways. Then each document has a sample for each filter.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from .... import sizes, storage
from ....errors import DataError
from ....records.lines import blocks
from ....settings.streams import Reading
from ....stream.lookahead import Limits

log = logging.getLogger(__name__)

# Fields that every sample has since version 0.4.7 of the harness.
NEEDED = {"doc_hash": str, "filter": str, "metrics": list}
REMEDY = "evaluate again with lm_eval 0.4.7 or newer"


class SampleDocument(NamedTuple):
    """A document of a task: its number in the task, and the hashes of itself, its prompt and its answer."""

    number: Any
    hash: str
    prompt: str | None
    target: str | None


@dataclass
class FilteredSamples:
    """The documents of one filter, and what each metric measured of each; None where it measured nothing."""

    documents: list[SampleDocument] = field(default_factory=list)
    values: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, sample: dict[str, Any]) -> None:
        """Add a sample, whose fields were checked."""
        hashes = (sample["doc_hash"], sample.get("prompt_hash"), sample.get("target_hash"))
        for metric in sample["metrics"]:
            column = self.values.setdefault(metric, [])
            # A task may measure a metric of some documents alone.
            column += [None] * (len(self.documents) - len(column))
            column.append(sample.get(metric))
        self.documents.append(SampleDocument(sample.get("doc_id"), *hashes))

    def column(self, metric: str) -> list[Any]:
        """The values of a metric, one for each document."""
        values = self.values[metric]
        return values + [None] * (len(self.documents) - len(values))


def read(path: str, reading: Reading) -> dict[str, FilteredSamples]:
    """The samples in a file by filter, in the harness's order.

    Raises DataError for a line that is no sample, and if there is none.
    """
    filters: dict[str, FilteredSamples] = {}
    for place, line in _lines(path, reading):
        sample = _parsed(line, place)
        filters.setdefault(sample["filter"], FilteredSamples()).add(sample)
    if not filters:
        raise DataError("holds no samples", place=path, remedy="evaluate again with lm_eval")
    return filters


def _lines(path: str, reading: Reading) -> Iterator[tuple[str, bytes]]:
    """The lines of a file, each with its place for messages."""
    [file] = storage.operands([path])
    # An empty file has a message of its own: here no option accepts one.
    limits = Limits(window_log=reading.long, allow_empty=True)
    whole = blocks(file, limits, sizes.parse(reading.max_line), log.warning, lambda event: None)
    # Closed when a line is refused, too: a thread reads ahead.
    with closing(whole):
        for block in whole:
            for number, line in enumerate(bytes(block.text).split(b"\n"), block.number):
                if line.strip():
                    yield f"{path}:{number}", line


def _parsed(line: bytes, place: str) -> dict[str, Any]:
    """A sample. Raises DataError if it is none."""
    try:
        # Python's own parser: documents may hold NaN, which strict JSON does not know.
        sample = json.loads(line)
    except (ValueError, RecursionError):
        remedy = "the file was cut or damaged: evaluate again"
        raise DataError("not JSON", place=place, remedy=remedy) from None
    for name, kind in NEEDED.items():
        if not isinstance(sample, dict) or not isinstance(sample.get(name), kind):
            raise DataError(f"is no sample: it has no `{name}`", place=place, remedy=REMEDY)
    if not all(isinstance(metric, str) for metric in sample["metrics"]):
        raise DataError("`metrics` are no names", place=place, remedy=REMEDY)
    return dict(sample)
