"""Is an output that exists the one that this run would write?

Its name proves nothing: the input may have been replaced, and the metric, model or seed be another one.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from ...errors import ConfigurationError
from ...records.documents import Document
from ...records.reader import Source, Wanted
from ...storage.base import Input
from ...stream import index
from ...stream.batch import Record
from ...stream.index import Table
from ...stream.resume import changed_settings
from ...stream.schema import UNRELATED_TO_SCORES
from ..input_digests import digests

REMEDY = "-f makes it again, another -O DIR keeps it"

log = logging.getLogger(__name__)
ReadBack = Callable[[Document, bytes], Record | None]


@dataclass(frozen=True)
class Expected:
    """How this run would make an output: `provenance` is the score section of its head."""

    provenance: dict[str, Any]
    group: str | None  # None: what the head of the input says, which is the same for the same input
    headless: bool  # plain lines or a single frame, which have no head


def is_proven(output: Input, inputs: list[Input], expected: Expected) -> bool:
    """Whether the output is known to come from these inputs; if not, its records have to be compared.

    Raises ConfigurationError if it was made with other settings, or is not a finished stream of `score`.
    """
    table = index.read_table(output)
    if table is None and expected.headless:
        log.warning(
            "%s exists, and does not say how it was made: only its records were compared with the input",
            output.name,
        )
        return False
    if table is None or table.head.verb != "score":
        raise _refused(output, "exists, and is not a finished stream of score")
    _check_settings(output, table, expected)
    # A pipe has no digest, and neither have streams that were written without -O or by version 0.1.0.
    return bool(table.inputs) and digests(inputs) == list(table.inputs)


def compare_records(output: Source, documents: Iterator[Document], read_back: ReadBack) -> None:
    """Raise ConfigurationError unless the output holds the records of the documents, with new fields.

    Digests differ as well where the same records were compressed anew, which is no reason to score again.
    """
    written = (line for batch in output.batches(Wanted({})) for line in batch.lines)
    file = output.inputs[0]
    for number, (line, document) in enumerate(zip_longest(written, documents), 1):
        if document is None:
            raise _refused(file, f"holds more than the {number - 1} records of the input")
        if line is None:
            raise _refused(file, f"lacks the record {document}")
        if read_back(document, bytes(line)) is None:
            raise _refused(file, f"its record {number} is not made from {document}")


def _check_settings(output: Input, table: Table, expected: Expected) -> None:
    before = {**table.head.settings("score"), "group": table.head.group}
    now = {**expected.provenance, "group": expected.group or table.head.group}
    for settings in (before, now):
        for name in UNRELATED_TO_SCORES:
            settings.pop(name, None)
    if before != now:
        raise _refused(output, f"was made with {changed_settings(before, now)}")


def _refused(output: Input, fault: str) -> ConfigurationError:
    return ConfigurationError(fault, place=output.name, remedy=REMEDY)
