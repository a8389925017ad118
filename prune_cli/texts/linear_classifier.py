"""How likely is a label for each of many texts, by a fastText classifier whose output is a softmax?

The mean of the rows of a text's features goes through a linear layer. So does each row, once, when the
classifier is loaded: a text then takes a sum of numbers, instead of vectors of hundreds from all over memory.
Sums are in double precision, and fastText's in float32: probabilities differ by some 1e-7, and by up to 1e-4
in long texts whose features are alike, where fastText's sums drift.

Features are words, and sequences of words by a hash. No step takes a Python operation for each word.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from ..records.batching import Bound, batched
from .fasttext_file import BUCKET, DIM, LOSS, MAXN, PRUNED, WORD_NGRAMS, FastTextModel, Matrix
from .hash_index import HashIndex
from .words import Counts, Hashes, hash_spans

SOFTMAX = 3  # the loss
MOST_LABELS = 8  # with more, the numbers take as much memory as the rows
ADDED = 1e-5  # to each probability, before fastText takes its logarithm
BATCH_BYTES = 1 << 19  # of texts: enough that words, and not calls, take the time
LABEL = b"__label__"
END = b"</s>"  # the word at the end of a line, and a text is one
AFTER = b" " + END + b" "

# A zero byte is white space to fastText. The three behind it, and SEPARATORS, end a line to Python.
SPACES = bytes(code in b" \t\n\v\f\r\0\x1c\x1d\x1e" for code in range(256))
SEPARATORS = "\x85\u2028\u2029"

FEW = 16  # words whose hash takes a Python operation for each byte, rather than calls for all at once
# FNV-1a, for which fastText takes bytes as signed numbers; and the factor of its hash of a sequence.
FNV_OFFSET, FNV_PRIME = np.uint32(2166136261), np.uint32(16777619)
SEQUENCE_FACTOR = np.uint64(116049371)


def can_compute(model: FastTextModel) -> bool:
    """Whether a `LinearClassifier` computes what fastText does with a model."""
    header, n_labels = model.header, len(model.labels)
    n_words = len(model.entries) - n_labels
    shapes = [matrix and (matrix.rows, matrix.columns) for matrix in (model.input, model.output)]
    return (
        header[LOSS] == SOFTMAX
        and header[MAXN] <= 0  # no parts of words
        and header[PRUNED] < 0
        and (header[BUCKET] > 0 or header[WORD_NGRAMS] < 2)
        and 1 < n_labels <= MOST_LABELS
        and shapes == [(n_words + header[BUCKET], header[DIM]), (n_labels, header[DIM])]
        and not any(is_label for _, is_label in model.entries[:n_words])
    )


class LinearClassifier:
    """The probability of the label with an index, by a model for which `can_compute` is true.

    Raises ConfigurationError if its numbers are not finite.
    """

    def __init__(self, path: Path, model: FastTextModel, label: int) -> None:
        assert model.input is not None
        assert model.output is not None
        words = [word for word, _ in model.entries]
        self._n_words = len(words) - len(model.labels)
        data = b" ".join([*words, b""])
        ends = np.cumsum([len(word) + 1 for word in words]) - 1
        starts = ends - [len(word) for word in words]
        self._numbers = HashIndex()
        self._numbers.add(hash_spans(data, starts, ends))
        self._fnv = _fnv(data, starts, ends)
        self._longest = model.header[WORD_NGRAMS]
        self._buckets = np.uint64(model.header[BUCKET])
        output = _rows(path, model.output).astype(np.float64)
        # What each feature says for every other label.
        self._others = _products(_rows(path, model.input), np.delete(output, label, 0) - output[label])
        if not np.isfinite(self._others).all():
            raise ConfigurationError("has weights that are not finite", place=str(path))

    def probabilities(self, texts: Sequence[str]) -> Iterator[float | None]:
        """The probability of the label for each text; None for one without features."""
        for batch in batched(map(_encoded, texts), Bound(lambda text: len(text) + 1, BATCH_BYTES)):
            yield from self._probabilities(batch)

    def _probabilities(self, texts: Sequence[bytes]) -> Iterator[float | None]:
        features, text_of = self._features(*self._words(texts))
        totals = np.bincount(text_of, minlength=len(texts))
        with np.errstate(over="ignore", invalid="ignore"):
            sums = (np.bincount(text_of, column.take(features), len(texts)) for column in self._others)
            odds = np.sum([np.exp(each / totals) for each in sums], axis=0)
        values = (1 / (1 + odds) + ADDED).astype(np.float32)
        for value, total in zip(values.tolist(), totals.tolist(), strict=True):
            yield value if total else None

    def _words(self, texts: Sequence[bytes]) -> tuple[Counts, Hashes, Counts]:
        """The words of all texts: number (-1 for an unknown one), FNV hash, and index of the text."""
        data, starts, ends = _spans(AFTER.join([*texts, b""]))
        numbers = self._numbers.numbers(hash_spans(data, starts, ends))
        unknown = np.flatnonzero(numbers < 0)
        fnv = self._fnv.take(numbers)
        fnv[unknown] = _fnv(data, starts[unknown], ends[unknown])
        bounds = np.cumsum([1, *(len(text) + len(AFTER) for text in texts)])
        text_of = np.repeat(np.arange(len(texts)), np.diff(np.searchsorted(starts, bounds)))
        is_read = numbers < self._n_words  # labels are not read
        if LABEL in data:
            for at in unknown[[data.startswith(LABEL, start) for start in starts[unknown].tolist()]]:
                is_read[at] = False
        if data.count(END) > len(texts):
            is_read &= _before_end(data, starts, ends, text_of)
        if is_read.all():
            return numbers, fnv, text_of
        return numbers[is_read], fnv[is_read], text_of[is_read]

    def _features(self, numbers: Counts, fnv: Hashes, text_of: Counts) -> tuple[Counts, Counts]:
        """The rows of all features, and the index of the text of each."""
        is_known = numbers >= 0
        rows, texts = [numbers[is_known]], [text_of[is_known]]
        hashes = fnv
        for length in range(2, self._longest + 1):
            # Sequences that begin in one text and end in the next are none.
            hashes = hashes[:-1] * SEQUENCE_FACTOR + fnv[length - 1 :]
            within = text_of[length - 1 :] == text_of[: len(hashes)]
            rows.append((hashes % self._buckets)[within].astype(np.int64) + self._n_words)
            texts.append(text_of[: len(hashes)][within])
        return np.concatenate(rows), np.concatenate(texts)


def _encoded(text: str) -> bytes:
    """The text without white space around it, and with spaces for what separates lines to Python."""
    # Among characters a separator is found twice as fast as among bytes.
    if not text.isascii():
        for separator in SEPARATORS:
            text = text.replace(separator, " ")
    return text.strip().encode()


def _spans(joined: bytes) -> tuple[bytes, Counts, Counts]:
    """The bytes with a space before and behind them, and where each word begins and ends there."""
    data = b" " + joined + b" "
    is_space = np.frombuffer(data.translate(SPACES), np.bool_)
    edges = np.flatnonzero(is_space[1:] != is_space[:-1]) + 1
    return data, edges[::2], edges[1::2]


def _before_end(data: bytes, starts: Counts, ends: Counts, text_of: Counts) -> NDArray[np.bool_]:
    """Which words fastText reads: those up to the first END of their text."""
    is_end = ends - starts == len(END)
    is_end[is_end] = [data.startswith(END, start) for start in starts[is_end].tolist()]
    before = np.cumsum(is_end) - is_end
    firsts = np.searchsorted(text_of, text_of)
    result: NDArray[np.bool_] = before == before[firsts]
    return result


def _fnv(data: bytes, starts: Counts, ends: Counts) -> Hashes:
    """The hash by which a word is part of a sequence: 32 bits, extended by their sign."""
    lengths = np.minimum(ends - starts, (1 << 16) - 1).astype(np.uint16)
    # The longest first: those that have another byte are a slice.
    order = np.argsort(~lengths, kind="stable")
    places = starts[order]
    codes = np.frombuffer(data, np.int8)
    state = np.full(len(order), FNV_OFFSET)
    # How many words are longer than 0, 1, 2, ... bytes.
    longer = len(order) - np.cumsum(np.bincount(lengths))
    steps = np.count_nonzero(longer >= FEW)
    for at, count in enumerate(longer[:steps].tolist()):
        state[:count] ^= codes.take(places[:count] + at).astype(np.int32).view(np.uint32)
        state[:count] *= FNV_PRIME
    for index, word in enumerate(order[:FEW].tolist()):
        rest = codes[starts[word] + steps : ends[word]].tolist()
        state[index] = _continued(int(state[index]), rest)
    hashes = np.empty(len(order), np.int64)
    hashes[order] = state.view(np.int32)
    return hashes.view(np.uint64)


def _continued(state: int, codes: Sequence[int]) -> int:
    """The state of a hash after more bytes."""
    for code in codes:
        state = (state ^ code) * int(FNV_PRIME) & 0xFFFFFFFF
    return state


def _rows(path: Path, matrix: Matrix) -> NDArray[np.float32]:
    """A matrix, mapped into memory."""
    return np.memmap(path, "<f4", "r", matrix.offset, (matrix.rows, matrix.columns))


def _products(rows: NDArray[np.float32], vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """The product of each row with each vector: (vectors, rows)."""
    # A fifth of the CPU time of BLAS, which would copy all rows in double precision.
    products: NDArray[np.float64] = np.einsum("vd,rd->vr", vectors, rows)
    return products.astype(np.float32)
