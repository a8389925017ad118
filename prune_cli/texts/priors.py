"""How often does each token occur in a corpus, and how frequent are the tokens of a text?

Token priors: Seo et al. 2025 (arXiv 2509.18577). The prior of a token is its share of the tokens of a corpus.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError, DataError
from ..models.text.tokenizer import tokenizer_hash, vocabulary_size
from ..records.batching import Bound, batched
from .token_lookup import MOST_PIECES, Pieces
from .words import Counts

Contents = Sequence[str | Sequence[int]]  # texts, or the token ids of blocks
Place = Callable[[int], str]  # of the record at an index, for errors
Floats = NDArray[np.float64]

FORMAT = "prune-cli token counts"
BATCH_CHARACTERS = 1 << 22  # of text that are looked up at once


@dataclass(frozen=True)
class TokenCounts:
    """How often each token id occurs in some documents, int64 (V,). Counts of parts of a corpus add up."""

    tokenizer: str  # its hash
    documents: int
    counts: Counts

    def __add__(self, other: "TokenCounts") -> "TokenCounts":
        """The counts of both. They are of the same tokenizer."""
        return TokenCounts(self.tokenizer, self.documents + other.documents, self.counts + other.counts)

    def to_json(self) -> bytes:
        """The content of a file."""
        content = {"format": FORMAT, "tokenizer": self.tokenizer, "documents": self.documents}
        return json.dumps({**content, "counts": self.counts.tolist()}).encode() + b"\n"

    @classmethod
    def from_json(cls, content: bytes, place: str) -> "TokenCounts":
        """The counts in a file. Raises DataError if it holds something else."""
        try:
            parsed = json.loads(content)
            counts = np.array(parsed["counts"], np.int64)
            if parsed["format"] != FORMAT or counts.ndim != 1 or counts.min() < 0:
                raise ValueError(parsed["format"])
            return cls(str(parsed["tokenizer"]), int(parsed["documents"]), counts)
        except (ValueError, TypeError, KeyError, OverflowError):
            remedy = "make one with prune-cli stat --token-counts FILE --tokenizer PATH"
            raise DataError("is no file of token counts", place=place, remedy=remedy) from None

    def check_tokenizer(self, tokenizer: str, place: str) -> None:
        """Raise ConfigurationError if the counts are those of a tokenizer of another hash."""
        if self.tokenizer != tokenizer:
            fault = f"its tokens were made by tokenizer {self.tokenizer[:12]}, not by {tokenizer[:12]}"
            raise ConfigurationError(fault, place=place, remedy="count them again, or name that tokenizer")

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the tokenizer and the counts."""
        return sha256(self.tokenizer.encode() + self.counts.astype("<i8").tobytes()).hexdigest()

    @property
    def log_priors(self) -> Floats:
        """ln(count / total) of each token id; a token that was never counted is taken as counted once."""
        return np.log(np.maximum(self.counts, 1) / max(1, int(self.counts.sum())))


class TokenCounter:
    """Counts the tokens of texts and of blocks of ids. `tokenizer` is the hash of its tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer_hash(tokenizer)
        self._tokenizer = tokenizer
        self._pieces = Pieces(tokenizer)
        self._of_pieces = np.zeros(0, np.int64)
        self._counts = np.zeros(vocabulary_size(tokenizer), np.int64)
        self._documents = 0
        # Texts that are not counted yet. New pieces are learned three times as fast if there are many.
        self._waiting: list[str] = []
        self._characters = 0

    def add(self, contents: Contents, place: Place = str) -> None:
        """Count the tokens of these records. Raises DataError for ids that the tokenizer does not have."""
        self._documents += len(contents)
        for index, content in enumerate(contents):
            if not isinstance(content, str):
                np.add.at(self._counts, _checked(content, len(self._counts), index, place), 1)
                continue
            self._waiting.append(content)
            self._characters += len(content) + 1
            if self._characters >= BATCH_CHARACTERS:
                self._count_waiting()

    def take(self) -> TokenCounts:
        """The counts since the last call."""
        self._count_waiting()
        self._fold()
        taken = TokenCounts(self.tokenizer, self._documents, self._counts)
        self._documents = 0
        self._counts = np.zeros_like(self._counts)
        return taken

    def _count_waiting(self) -> None:
        if not self._waiting:
            return
        numbers, _ = self._pieces.numbers(self._waiting)
        self._waiting.clear()
        self._characters = 0
        self._of_pieces = _room(self._of_pieces, len(self._pieces))
        np.add.at(self._of_pieces, numbers, 1)
        if len(self._pieces) > MOST_PIECES:
            self._fold()
            self._pieces = Pieces(self._tokenizer)

    def _fold(self) -> None:
        """Turn counts of pieces into counts of tokens."""
        first = 0
        for ids, sizes in self._pieces.tokens:
            times = np.repeat(self._of_pieces[first : first + len(sizes)], sizes)
            np.add.at(self._counts, ids, times)
            first += len(sizes)
        self._of_pieces[:] = 0


class TokenPriors:
    """Mean and variance of ln(prior) over the tokens of texts."""

    def __init__(self, tokenizer: Any, counts: TokenCounts) -> None:
        self._tokenizer = tokenizer
        self._logs = counts.log_priors
        # Squares are of differences from the mean of the corpus, which keeps the digits of the variance.
        self._center = float(self._logs @ counts.counts) / max(1, int(counts.counts.sum()))
        self._forget()

    def _forget(self) -> None:
        self._pieces = Pieces(self._tokenizer)
        self._summed = 0  # pieces
        # Of each piece the tokens, Σ (ln prior − center), and Σ (ln prior − center)².
        self._of_pieces = [np.zeros(0)] * 3

    def moments(self, contents: Contents, place: Place = str) -> list[tuple[float, float] | None]:
        """Mean and variance (over n, not n − 1) for each record; None for one without tokens.

        Raises DataError for ids that the tokenizer does not have.
        """
        of_texts = (moments for texts in _batches(contents) for moments in self._of_texts(texts))
        return [
            next(of_texts)
            if isinstance(content, str)
            else self._of_ids(_checked(content, len(self._logs), index, place))
            for index, content in enumerate(contents)
        ]

    def _of_texts(self, texts: Sequence[str]) -> list[tuple[float, float] | None]:
        if len(self._pieces) > MOST_PIECES:
            self._forget()
        numbers, counts = self._pieces.numbers(texts)
        self._learn()
        return self._moments(_sums((terms.take(numbers) for terms in self._of_pieces), counts))

    def _learn(self) -> None:
        """Sum up the pieces that are new."""
        self._of_pieces = [_room(terms, len(self._pieces)) for terms in self._of_pieces]
        for ids, sizes in self._pieces.tokens:
            new = slice(self._summed, self._summed + len(sizes))
            for terms, sums in zip(self._of_pieces, self._sums(ids, sizes), strict=True):
                terms[new] = sums
            self._summed += len(sizes)
        self._pieces.tokens.clear()

    def _of_ids(self, ids: NDArray[np.int32]) -> tuple[float, float] | None:
        return self._moments(self._sums(ids, np.array([len(ids)])))[0]

    def _sums(self, ids: NDArray[np.int32], sizes: Counts) -> Floats:
        """The three sums of stretches of tokens, (3, stretches)."""
        logs = self._logs[ids] - self._center
        return _sums((np.ones(len(logs)), logs, logs * logs), sizes)

    def _moments(self, sums: Floats) -> list[tuple[float, float] | None]:
        count = np.maximum(sums[0], 1)
        means = sums[1] / count
        variances = np.maximum(sums[2] / count - means * means, 0)
        pairs = zip((means + self._center).tolist(), variances.tolist(), strict=True)
        return [pair if there else None for pair, there in zip(pairs, (sums[0] > 0).tolist(), strict=True)]


def _sums(terms: Iterable[Floats], sizes: Counts) -> Floats:
    """Of each of three arrays, the sums of stretches of so many terms, which may be none: (3, stretches)."""
    sums = np.zeros((3, len(sizes)))
    # reduceat takes an empty stretch for the term behind it.
    filled = sizes > 0
    if filled.any():
        starts = (np.cumsum(sizes) - sizes)[filled]
        for row, column in zip(sums, terms, strict=True):
            row[filled] = np.add.reduceat(column, starts)
    return sums


def _room(numbers: NDArray[Any], size: int) -> NDArray[Any]:
    """The array with room for `size` numbers; it doubles, so that growing costs little."""
    if len(numbers) >= size:
        return numbers
    larger = np.zeros(2 * size, numbers.dtype)
    larger[: len(numbers)] = numbers
    return larger


def _checked(ids: Sequence[int], vocabulary: int, index: int, place: Place) -> NDArray[np.int32]:
    if len(ids) and not 0 <= min(ids) <= max(ids) < vocabulary:
        fault = f"input_ids has an id that is not among the tokenizer's 0 to {vocabulary - 1}"
        remedy = "use the tokenizer that the blocks were packed with"
        raise DataError(fault, place=place(index), remedy=remedy)
    return np.asarray(ids, np.int32)


def _batches(contents: Contents) -> Iterable[list[str]]:
    """Texts of about BATCH_CHARACTERS together."""
    texts = (content for content in contents if isinstance(content, str))
    return batched(texts, Bound[str](lambda text: len(text) + 1, BATCH_CHARACTERS))
