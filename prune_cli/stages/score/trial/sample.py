"""Which records does an estimate look at, and what share of the corpus are they?

The records at the start of the first file; their share is that of the bytes that were read for them.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from ....errors import UsageError
from ....records.documents import Document
from ....stream.zstd_blocks import compressed_size
from ....terminal import Progress
from .estimate import Sample

# Bytes of the first file that are read. Records are counted whenever more bytes are read, and lag behind a
# reader that reads ahead; the more bytes, the less that matters.
ENOUGH = 4 << 20
FIELD_BYTES = 10  # of a number in a compressed stream: its digits hardly compress


@dataclass
class ReadMeter:
    """Counts the bytes that are read, and with each read the documents that the bytes before it held."""

    documents: list[Document] = field(default_factory=list)
    read: int = 0
    used: int = 0  # bytes whose records have all come out
    complete: int = 0  # documents in those bytes
    done: float = 0  # nothing is shown
    total: float | None = None

    def advance(self, amount: float) -> None:
        """More is read, so that the bytes before it are used up."""
        self.used = self.read
        self.complete = len(self.documents)
        self.read += int(amount)

    def describe(self, text: str) -> None:
        """Nothing is shown."""

    def expect(self, total: float) -> None:
        """Nothing is shown."""


def take_sample(
    total: int | None,
    documents: Callable[[Progress], Iterator[Document]],
    *,
    fields: int,
    level: int,
) -> Sample:
    """The records in the first ENOUGH bytes of a corpus of `total` bytes.

    Raises UsageError if `total` is None, as it is for a pipe. `documents` is called with a progress that
    counts the bytes that are read. `fields` is the number of fields that scoring adds to a record, and
    `level` the zstd level of the output.
    """
    if total is None:
        raise UsageError("the size of a pipe is unknown", remedy="name files")
    meter = ReadMeter()
    for document in documents(meter):
        meter.documents.append(document)
        if meter.used >= ENOUGH:
            break
    else:
        # All of the first file was read.
        meter.advance(0)
    return _sample(meter.documents[: meter.complete], meter.used / total if total else 1.0, fields, level)


def _sample(documents: Sequence[Document], share: float, fields: int, level: int) -> Sample:
    text = b"\n".join(document.line for document in documents)
    size = compressed_size(text, level) + FIELD_BYTES * fields * len(documents)
    return Sample([document.content for document in documents], share, size)
