"""What is in the file of a fastText model, and is it whole?

Read by its sizes, without its numbers. Version 12 of the format: header, words and labels, pruned features,
and two matrices, which may be quantized.
"""

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from ..errors import ConfigurationError

MAGIC, VERSION, SUPERVISED, LABEL = 793712314, 12, 3, 1
# Magic number and version; dim, ws, epoch, minCount, neg, wordNgrams, loss, model, bucket, minn, maxn,
# lrUpdateRate, t; numbers of entries, words and labels; numbers of tokens and of pruned features.
HEADER = struct.Struct("<2i12id3i2q")
DIM, WORD_NGRAMS, LOSS, MODEL, BUCKET, MAXN = 2, 7, 8, 9, 10, 12  # places in the header
ENTRIES, PRUNED = -5, -1
ENTRY = 9  # bytes behind a word and its zero byte: int64 how often it occurs, int8 whether it is a label
CHUNK = 1 << 20
CENTROIDS = 256  # of a quantizer


@dataclass(frozen=True)
class Matrix:
    """A matrix of float32, row by row."""

    offset: int  # in the file
    rows: int
    columns: int


@dataclass(frozen=True)
class FastTextModel:
    """A classifier without its numbers. A matrix is None if it is quantized."""

    header: tuple[int, ...]
    entries: list[tuple[bytes, bool]]  # words and labels, and whether each is a label
    input: Matrix | None
    output: Matrix | None

    @cached_property
    def labels(self) -> list[str]:
        """The names of the labels."""
        return [word.decode() for word, is_label in self.entries if is_label]


def read(path: Path) -> FastTextModel:
    """The classifier in a file. Raises ConfigurationError unless the file is one, and whole."""
    try:
        with path.open("rb") as file:
            model = _read_model(file, path)
            _ = model.labels  # which must be UTF-8
            return model
    except (struct.error, UnicodeDecodeError):
        raise _unusable(path, "is truncated or damaged") from None


def _read_model(file: BinaryIO, path: Path) -> FastTextModel:
    header = HEADER.unpack(file.read(HEADER.size))
    if header[:2] != (MAGIC, VERSION):
        raise _unusable(path, f"is no fastText model of version {VERSION}")
    if header[MODEL] != SUPERVISED:
        raise _unusable(path, "has word vectors, but is no classifier")
    entries = list(_read_entries(file, header[ENTRIES]))
    _skip(file, 8 * max(0, header[PRUNED]))  # pairs of pruned features
    is_quantized = _read(file, "<?")  # and so may be the second matrix
    first = _skip_matrix(file, is_quantized)
    second = _skip_matrix(file, _read(file, "<?") and is_quantized)
    end = file.tell()
    if file.seek(0, os.SEEK_END) < end:
        raise struct.error
    return FastTextModel(header, entries, first, second)


def _read_entries(file: BinaryIO, count: int) -> Iterator[tuple[bytes, bool]]:
    """Words and labels, and whether each is a label."""
    buffer = b""
    at = 0
    for _ in range(count):
        while (end := buffer.find(b"\0", at)) < 0 or len(buffer) <= end + ENTRY:
            more = file.read(CHUNK)
            if not more:
                raise struct.error
            buffer = buffer[at:] + more
            at = 0
        yield buffer[at:end], buffer[end + ENTRY] == LABEL
        at = end + ENTRY + 1
    # What was read ahead.
    file.seek(at - len(buffer), os.SEEK_CUR)


def _skip_matrix(file: BinaryIO, is_quantized: int) -> Matrix | None:
    has_norms = is_quantized and _read(file, "<?")
    rows, columns = _read(file, "<q"), _read(file, "<q")
    if not is_quantized:
        matrix = Matrix(file.tell(), rows, columns)
        _skip(file, 4 * rows * columns)
        return matrix
    _skip(file, _read(file, "<i"))  # codes
    _skip_quantizer(file)
    if has_norms:
        _skip(file, rows)
        _skip_quantizer(file)
    return None


def _skip_quantizer(file: BinaryIO) -> None:
    dimensions = _read(file, "<i")
    _skip(file, 12 + 4 * dimensions * CENTROIDS)


def _read(file: BinaryIO, form: str) -> int:
    value: int = struct.unpack(form, file.read(struct.calcsize(form)))[0]
    return value


def _skip(file: BinaryIO, size: int) -> None:
    if size < 0:
        raise struct.error
    file.seek(size, os.SEEK_CUR)


def _unusable(path: Path, fault: str) -> ConfigurationError:
    return ConfigurationError(fault, place=str(path), remedy="name a classifier that fastText trained")
