"""What are the log-probabilities of many sentences, by a model of KenLM in hash tables?

They are those of KenLM, to the last bit of each word's. KenLM looks up one n-gram after the other, and waits
for the memory each time. Here those of many texts are looked up together, order by order, so that the
processor has many on the way.
"""

from collections.abc import Sequence
from itertools import chain, islice
from math import fsum

import numpy as np
from numpy.typing import NDArray

from ...records.batching import Bound, batched
from .binary_file import BinaryFile
from .hash_table import ABSENT, HashTable, Keys, Places

Flags = NDArray[np.bool_]
Floats = NDArray[np.float32]

# Of text that is scored together, if it is more than a line: meanwhile each byte takes 25 bytes more.
TOGETHER_BYTES = 1 << 20
HASHED_BYTES = 1 << 17  # of text whose words are hashed together, so that the arrays stay in the cache
FEW = 16  # words: one by one they are hashed as fast as all at once
SPACE, LETTER, END_OF_LINE = range(3)
# What bytes are to KenLM, which splits at ASCII white space.
SEPARATORS = {**dict.fromkeys(b"\t\v\f\r ", SPACE), ord("\n"): END_OF_LINE}
KIND_OF_BYTE = bytes(SEPARATORS.get(code, LETTER) for code in range(256))
MURMUR, MURMUR_SHIFT = np.uint64(0xC6A4A7935BD1E995), np.uint64(47)
ALL_BITS = (1 << 64) - 1
FIRST = np.array([(1 << 8 * count) - 1 for count in range(8)], np.uint64)  # masks: that many bytes of eight
# The key of an n-gram is made of the number of its last word, then of those before it, backwards.
OF_KEY, OF_WORD = np.uint64(8978948897894561157), np.uint64(17894857484156487943)
UNKNOWN = 0  # the number of words that the model does not have
SIGN = np.uint64(1 << 31)  # of the float32 in the lower half
# The backoff of an n-gram that no longer one begins with. Adding it changes nothing.
NONE_FOLLOWS = np.float32(-0.0)


class ProbingModel:
    """A model in the tables of a file."""

    def __init__(self, file: BinaryFile) -> None:
        self._file = file
        self._begin, self._end = self._numbers(_hash_batch(b"<s> </s>\n")[0]).tolist()
        _, [backoff] = _split(self._unigrams(np.array([self._begin])))
        self._backoff_of_begin = backoff + np.float32(0)  # not NONE_FOLLOWS

    def sums(self, texts: Sequence[bytes]) -> list[float]:
        """Σ log10 p of each text. A line is a sentence: its end is scored, its beginning is not."""
        parts = [_parts(text) for text in texts]
        batches = batched(chain.from_iterable(parts), most=Bound(lambda part: len(part), TOGETHER_BYTES))
        sums = chain.from_iterable(map(self._sums, batches))
        return [fsum(islice(sums, len(of_text))) for of_text in parts]

    # Numbers of a damaged file may overflow. Whoever gets the sums refuses those that are not finite.
    @np.errstate(over="ignore", invalid="ignore")
    def _sums(self, parts: Sequence[bytes]) -> list[float]:
        hashes, is_end = _tokens(parts)
        scores = self._scores(hashes, is_end)
        lines = np.cumsum([0, *(part.count(b"\n") + 1 for part in parts)])
        # Of each part, the end of the sentence before it.
        before = np.flatnonzero(is_end).take(lines[:-1])
        sums: list[float] = np.add.reduceat(scores, before + 1, dtype=np.float64).tolist()
        return sums

    def _scores(self, hashes: Keys, is_end: Flags) -> Floats:
        """log10 p of each token: of the longest n-gram that ends with it, and the backoffs of longer ones.

        They are added up in the order in which KenLM does it (`FullScore` in lm/model.cc).
        """
        numbers = np.full(len(is_end), self._end)
        numbers[~is_end] = self._numbers(hashes)
        values = self._unigrams(numbers)
        scores, backoffs = _split(values)
        # Where a sentence ends the next begins, and n-grams may follow: its backoff is not NONE_FOLLOWS.
        backoffs[is_end] = self._backoff_of_begin
        contexts = np.where(is_end, self._begin, numbers)
        of_context = (contexts + 1).view(np.uint64) * OF_WORD
        # The tokens that longer n-grams may end with, and the keys of those that they end with so far.
        tokens = 1 + np.flatnonzero(_is_extended(values[1:], backoffs[:-1]))
        keys = numbers.take(tokens).view(np.uint64)
        for distance, table in enumerate(self._file.ngrams, 1):
            keys = keys * OF_KEY ^ of_context.take(tokens - distance)
            tokens, keys, places = _present(table, tokens, keys)
            values = table.values(places)
            scores[1:] += backoffs[:-1]
            scores[tokens], of_present = _split(values)
            backoffs = np.full(len(scores), NONE_FOLLOWS)
            backoffs[tokens] = of_present
            left = np.flatnonzero(_is_extended(values, backoffs.take(tokens - 1)))
            tokens, keys = tokens.take(left), keys.take(left)
        keys = keys * OF_KEY ^ of_context.take(tokens - len(self._file.ngrams) - 1)
        tokens, _, places = _present(self._file.longest, tokens, keys)
        scores[1:] += backoffs[:-1]
        scores[tokens] = self._file.longest.values(places).view(np.float32)
        return scores

    def _numbers(self, hashes: Keys) -> Places:
        """The number of each word."""
        places = self._file.words.find(hashes)
        numbers = self._file.words.values(places).astype(np.int64)
        numbers[places == ABSENT] = UNKNOWN
        return numbers

    def _unigrams(self, numbers: Places) -> NDArray[np.uint64]:
        # A damaged file may have numbers that are too large.
        return self._file.unigrams.take(numbers, mode="clip")


def _parts(text: bytes) -> list[bytes]:
    """The text, or whole lines of one that is too large. Where it is cut depends on nothing else."""
    parts = []
    start = 0
    while len(text) - start > TOGETHER_BYTES and (end := text.find(b"\n", start + TOGETHER_BYTES // 2)) >= 0:
        parts.append(text[start:end])
        start = end + 1
    return [*parts, text[start:]]


def _present(table: HashTable, tokens: Places, keys: Keys) -> tuple[Places, Keys, Places]:
    """Those tokens and keys whose keys are in the table, and where."""
    places = table.find(keys)
    present = np.flatnonzero(places != ABSENT)
    return tokens.take(present), keys.take(present), places.take(present)


def _split(values: NDArray[np.uint64]) -> tuple[Floats, Floats]:
    """The log-probabilities, whose signs say something else, and the backoffs."""
    halves = values.view(np.float32).reshape(-1, 2)
    return -np.abs(halves[:, 0]), halves[:, 1].copy()


def _is_extended(values: NDArray[np.uint64], before: Floats) -> Flags:
    """Whether a longer n-gram may end with each: it has no sign, and one follows what is before it."""
    is_extended: Flags = values & SIGN == 0
    is_extended &= before.view(np.uint32) != NONE_FOLLOWS.view(np.uint32)
    return is_extended


def _tokens(texts: Sequence[bytes]) -> tuple[Keys, Flags]:
    """The hashes of the words of the texts, and of every token whether it is the end of a sentence.

    The first token ends a sentence before the texts.
    """
    batches = batched(texts, Bound(lambda text: len(text) + 1, HASHED_BYTES))
    hashes, is_end = zip(*(_hash_batch(b"\n".join(batch) + b"\n") for batch in batches), strict=True)
    return np.concatenate(hashes), np.concatenate([[True], *is_end])


def _hash_batch(lines: bytes) -> tuple[Keys, Flags]:
    """The same for a few lines, without the first token."""
    data = b" " + lines
    kinds = np.frombuffer(data.translate(KIND_OF_BYTE), np.uint8)
    is_letter = kinds == LETTER
    edges = np.flatnonzero(is_letter[1:] != is_letter[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    line_ends = np.flatnonzero(kinds == END_OF_LINE)
    is_end = np.zeros(len(starts) + len(line_ends), np.bool_)
    # Before the end of a line come the words that begin before it, and the ends of other lines.
    is_end[np.searchsorted(starts, line_ends) + np.arange(len(line_ends))] = True
    return _hash_words(data, starts, ends - starts), is_end


def _hash_words(data: bytes, starts: Places, lengths: Places) -> Keys:
    """The hash of each word: MurmurHash64A (Appleby 2008) of its bytes, of eight at a time in all words."""
    # The eight bytes from every place on, as a number: `hash_spans` in texts/words.py says why.
    eights = np.ascontiguousarray(np.ndarray(len(data), "<u8", data + bytes(7), strides=(1,)))
    hashes = lengths.astype(np.uint64) * MURMUR
    whole, left = lengths >> 3, lengths & 7
    done = 0
    rest = np.flatnonzero(whole)
    while len(rest) > FEW:
        mixed = eights.take(starts.take(rest) + 8 * done) * MURMUR
        mixed = (mixed ^ mixed >> MURMUR_SHIFT) * MURMUR
        hashes[rest] = (hashes.take(rest) ^ mixed) * MURMUR
        done += 1
        rest = rest.take(np.flatnonzero(whole.take(rest) > done))
    for word in rest.tolist():
        start = int(starts[word])
        hashes[word] = _hash_on(int(hashes[word]), eights[start : start + int(lengths[word]) - 7 : 8][done:])
    # Behind the last word comes the end of its line, so that this place is one in the data.
    last = eights.take(starts + 8 * whole) & FIRST.take(left)
    hashes = np.where(left, (hashes ^ last) * MURMUR, hashes)
    hashes = (hashes ^ hashes >> MURMUR_SHIFT) * MURMUR
    return hashes ^ hashes >> MURMUR_SHIFT


def _hash_on(state: int, eights: Keys) -> int:
    """The state of a hash after more bytes."""
    factor, shift = int(MURMUR), int(MURMUR_SHIFT)
    for eight in eights.tolist():
        mixed = eight * factor & ALL_BITS
        mixed = (mixed ^ mixed >> shift) * factor & ALL_BITS
        state = (state ^ mixed) * factor & ALL_BITS
    return state
