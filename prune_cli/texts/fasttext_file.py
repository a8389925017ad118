"""Is the file of a fastText model whole, and which labels does it have?

Read by its sizes, without its numbers. Version 12 of the format: header, words and labels, pruned features,
and two matrices, which may be quantized.
"""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from ..errors import ConfigurationError

MAGIC, VERSION, SUPERVISED, LABEL = 793712314, 12, 3, 1
HEADER = struct.Struct("<2i12id3i2q")  # magic, version; dim to lrUpdateRate, t; sizes of the vocabulary
MODEL = 9  # the place of the kind of model in the header
ENTRY = 9  # bytes behind a word and its zero byte: int64 how often it occurs, int8 whether it is a label
CHUNK = 1 << 20
CENTROIDS = 256  # of a quantizer


def labels(path: Path) -> list[str]:
    """The labels of a classifier. Raises ConfigurationError unless the file is one, and whole."""
    try:
        with path.open("rb") as file:
            return _labels(file, path)
    except (struct.error, UnicodeDecodeError):
        raise _unusable(path, "is truncated or damaged") from None


def _labels(file: BinaryIO, path: Path) -> list[str]:
    header = HEADER.unpack(file.read(HEADER.size))
    if header[:2] != (MAGIC, VERSION):
        raise _unusable(path, f"is no fastText model of version {VERSION}")
    if header[MODEL] != SUPERVISED:
        raise _unusable(path, "has word vectors, but is no classifier")
    found = list(_read_labels(file, entries=header[-5]))
    _skip(file, 8 * max(0, header[-1]))  # pairs of pruned features
    is_quantized = _read(file, "<?")  # and so may be the second matrix
    _skip_matrix(file, is_quantized)
    _skip_matrix(file, _read(file, "<?") and is_quantized)
    end = file.tell()
    if file.seek(0, os.SEEK_END) < end:
        raise struct.error
    return found


def _read_labels(file: BinaryIO, entries: int) -> Iterator[str]:
    buffer = b""
    at = 0
    for _ in range(entries):
        while (end := buffer.find(b"\0", at)) < 0 or len(buffer) <= end + ENTRY:
            more = file.read(CHUNK)
            if not more:
                raise struct.error
            buffer = buffer[at:] + more
            at = 0
        if buffer[end + ENTRY] == LABEL:
            yield buffer[at:end].decode()
        at = end + ENTRY + 1
    # What was read ahead.
    file.seek(at - len(buffer), os.SEEK_CUR)


def _skip_matrix(file: BinaryIO, is_quantized: int) -> None:
    has_norms = is_quantized and _read(file, "<?")
    rows, columns = _read(file, "<q"), _read(file, "<q")
    if not is_quantized:
        _skip(file, 4 * rows * columns)
        return
    _skip(file, _read(file, "<i"))  # codes
    _skip_quantizer(file)
    if has_norms:
        _skip(file, rows)
        _skip_quantizer(file)


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
