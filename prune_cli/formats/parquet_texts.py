"""How are the texts of a column escaped as JSON does, all at once and without Python for each?

numpy finds the characters to escape, and pyarrow joins the pieces between them with backslashes. Neither
holds the interpreter lock meanwhile, so that other threads decode; `bytes.replace` would hold it.
"""

from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# The type of every spelled column, with offsets of 64 bits. The functions used here take bytes as they are.
TEXT = pa.large_string()
BACKSLASH = ord("\\")
QUOTE = ord('"')
CACHED = 256 << 10  # bytes that are searched at once: the intermediate results stay in the processor's cache
SPACE = ord(" ")  # all control characters are below it
# What stands behind the backslash, by character. Control characters without a letter stay as they are, until
# a code takes their place, spelled as DuckDB does.
LETTERS = np.arange(256, dtype=np.uint8)
for _character, _letter in zip(b"\n\t\r\b\f", b"ntrbf", strict=True):
    LETTERS[_character] = _letter
CODES = np.array([list(b"u%04X" % character) for character in range(SPACE)], np.uint8)


def escaped(texts: pa.Array) -> pa.Array:
    """An array of TEXT with each value escaped; a null value becomes an empty one."""
    offsets, content = buffers(texts)
    start = int(offsets[0])
    data = np.frombuffer(content, np.uint8)[start:]
    marks = _marks(data)
    if not len(marks):
        return texts
    marks, letters = _spelled(data, marks)
    joined = pc.binary_join(_cut(data, offsets - start, marks), constant(b"\\"))
    _write(joined, marks + np.arange(1, len(marks) + 1), letters)
    return joined


def _spelled(data: np.ndarray, marks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The marks, each as often as it has letters, and the letters that go behind the backslash.

    A mark that is repeated begins empty pieces. Its letters take the place of the backslashes between these,
    and the last one that of the character.
    """
    characters = data.take(marks)
    letters = LETTERS.take(characters)
    has_code = letters < SPACE
    if not has_code.any():
        return marks, letters
    counts = np.where(has_code, CODES.shape[1], 1)
    letters = np.repeat(letters, counts)
    letters[np.repeat(has_code, counts)] = CODES[characters[has_code]].ravel()
    return np.repeat(marks, counts), letters


def _marks(data: np.ndarray) -> np.ndarray:
    """The offsets of the characters to escape."""
    marks = [start + _marks_in(data[start : start + CACHED]) for start in range(0, len(data), CACHED)]
    return np.concatenate(marks) if marks else np.zeros(0, np.int64)


def _marks_in(data: np.ndarray) -> np.ndarray:
    # With this bit turned, the quote and all control characters are at most as large as a space, and no other
    # character is: one comparison finds them.
    is_marked = np.less(data ^ (QUOTE ^ SPACE), SPACE + 1)
    np.logical_or(is_marked, data == BACKSLASH, out=is_marked)
    return np.flatnonzero(is_marked)


def _cut(data: np.ndarray, offsets: np.ndarray, marks: np.ndarray) -> pa.Array:
    """The pieces of each value: every character to escape begins one."""
    count = len(offsets) - 1 + len(marks)
    # Among all pieces, the first ones of the values.
    firsts = np.searchsorted(marks, offsets[:-1]) + np.arange(len(offsets) - 1)
    is_first = np.zeros(count, np.bool_)
    is_first[firsts] = True
    starts = np.empty(count + 1, np.int64)
    starts[:-1][is_first] = offsets[:-1]
    starts[:-1][~is_first] = marks
    starts[-1] = offsets[-1]
    lists = pa.py_buffer(np.append(firsts, count))
    pieces = [_texts_of(starts, data)]
    return pa.Array.from_buffers(pa.large_list(TEXT), len(offsets) - 1, [None, lists], children=pieces)


def _write(texts: pa.Array, places: np.ndarray, letters: np.ndarray) -> None:
    """Put letters into texts that nobody else has."""
    _, content = buffers(texts)
    np.frombuffer(content, np.uint8)[places] = letters


def escaped_name(name: str) -> bytes:
    """One text, escaped."""
    _, content = buffers(escaped(_text_of(name.encode())))
    return bytes(content)


@lru_cache(maxsize=100_000)
def constant(value: bytes) -> pa.Scalar:
    """A text that is the same in each row."""
    return _text_of(value)[0]


def _text_of(value: bytes) -> pa.Array:
    return _texts_of(np.array([0, len(value)]), value)


def _texts_of(offsets: np.ndarray, content: bytes | np.ndarray) -> pa.Array:
    # pa.array and pa.scalar would import pandas: a quarter of a second and 40 MB.
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(content)]
    return pa.Array.from_buffers(TEXT, len(offsets) - 1, buffers)


NULL = pa.nulls(1, TEXT)[0]


def buffers(texts: pa.Array) -> tuple[np.ndarray, memoryview]:
    """The offsets of the values of an array of TEXT, one more than there are values, and the bytes up to the
    last.
    """
    _, offsets, content = texts.buffers()
    # An array without values need not have buffers.
    if not len(texts) or offsets is None:
        return np.zeros(1, np.int64), memoryview(b"")
    places = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return places, memoryview(content or b"").cast("B")[: int(places[-1])]
