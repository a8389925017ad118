"""The start of a corpus, and how large a share of the whole it is, told by the bytes of its files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import zstandard

from ... import storage
from ...errors import UsageError
from ...records.documents import Document
from ...records.reader import Source
from ...storage.base import Input

ENOUGH = (
    4 << 20
)  # bytes of the first file: then the end of the last read, to which the records are told, is a small part
FIELD_BYTES = 10  # that a number takes in a compressed stream: its digits hardly compress


@dataclass(frozen=True)
class Sample:
    """Records from the start of the first file; `share` of all files they are, and `bytes` they take compressed."""

    documents: list[Document]
    share: float
    bytes: int


def sampled(
    inputs: list[Input],
    source: Source,
    documents: Callable[[Source], Iterator[Document]],
    *,
    fields: int,
    level: int,
) -> Sample:
    """The records that the first megabytes of the first of `inputs` hold, which `source` reads; `fields` will be added to each.

    Raises UsageError where the inputs have no size.
    """
    total = storage.total_size(inputs)
    if total is None:
        raise UsageError("a pipe does not tell how much will come", remedy="name files")
    found: list[Document] = []
    marks = [(0, 0)]  # bytes that were read and used up, and the records that they held
    read = 0

    def note(size: int) -> None:
        nonlocal read
        marks.append((read, len(found)))
        read += size

    inputs[0].progress = note
    for document in documents(source):
        found.append(document)
        if marks[-1][0] >= ENOUGH:
            break
    used, count = marks[-1] if marks[-1][0] >= ENOUGH else (read, len(found))
    text = b"\n".join(document.line for document in found[:count])
    size = len(zstandard.ZstdCompressor(level=level).compress(text)) + FIELD_BYTES * fields * count
    return Sample(found[:count], used / total if total else 1.0, size)
