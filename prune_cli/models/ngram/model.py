"""N-gram models of KenLM, as CCNet scores with them: no torch and no GPU.

Each line of a text is a sentence: its words, or pieces of sentencepiece, and the end of sentence are tokens.
The beginning of sentence is context and not scored. A text's log-likelihood is the sum over its lines, so its
perplexity is 10^(−Σ log10 p / T), T tokens. An empty line is a sentence of one token. KenLM splits at ASCII
white space.
"""

import logging
import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import file_digest, sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ConfigurationError, DataError, NoInputError
from ...settings.score import WORDS, Normalization
from ..memory import keep_freed_memory
from .binary_file import BinaryFile
from .normalization import normalized
from .probing import SEPARATORS, ProbingModel

log = logging.getLogger(__name__)

SUFFIXES = (".arpa", ".bin")
LN_10 = math.log(10)
LogLikelihoods = Callable[[Sequence[bytes]], list[float]]
_SPACES = bytes(code in SEPARATORS for code in range(256))  # of every byte, whether KenLM splits there


def is_ngram(name: str) -> bool:
    """Whether a model's name is that of an n-gram model: a file, whatever is in it."""
    return Path(name).is_file() or name.endswith(SUFFIXES)


@dataclass(frozen=True)
class Sentences:
    """A text as an n-gram model reads it. Every token is scored."""

    text: bytes
    tokens: range  # of their numbers
    n_bytes: int
    # What only causal models have.
    n_unknown: int = 0
    n_prefix: int = 0
    is_unfit: bool = False

    @property
    def n_scored(self) -> int:
        return len(self.tokens)


class NgramModel:
    """A KenLM model, an ARPA file or a binary one, whose memory all processes share.

    Raises NoInputError or ConfigurationError if the file, or that of the tokenizer, cannot be used.
    """

    flops_per_token = 0  # a few look-ups

    def __init__(self, name: str, tokenizer: str = WORDS, normalization: str = Normalization.none) -> None:
        self.name = name
        self._path = Path(name)
        self._tokenizer = tokenizer
        self._normalization = normalization
        self._log_likelihoods = _load(self._path)
        self._pieces = None if tokenizer == WORDS else _load_sentencepiece(Path(tokenizer))

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the file."""
        return _hash(self._path)

    @cached_property
    def tokenizer_hash(self) -> str:
        """The same for two models that read the same tokens."""
        return tokenizer_hash(self._tokenizer, self._normalization)

    def recorded(self) -> dict[str, Any]:
        """The tokenizer, settings and versions that decide the scores, for the head of a stream."""
        return _recorded(self._tokenizer, self._normalization)

    def encode_many(self, contents: Sequence[Any], place: Callable[[int], str]) -> list[Sentences]:
        """The sentences of each text. Raises DataError for a record that is none, but a block of ids."""
        texts = [self._text(content, place, index) for index, content in enumerate(contents)]
        return [
            Sentences(text, range(count if content else 0), n_bytes)
            for content, (text, n_bytes), count in zip(contents, texts, _count_tokens(texts), strict=True)
        ]

    def _text(self, content: Any, place: Callable[[int], str], index: int) -> tuple[bytes, int]:
        """The text as KenLM reads it, line by line, and the bytes of the text as it is."""
        if not isinstance(content, str):
            fault = "an n-gram model reads texts, and this is a block of token ids"
            raise DataError(fault, place=place(index), remedy="score the documents that were packed")
        encoded = content.encode()
        # KenLM takes a zero byte for the end of a line.
        text = encoded.replace(b"\0", b" ")
        if self._normalization == Normalization.ccnet:
            lines = map(normalized, text.decode().split("\n"))
            text = "\n".join(lines).encode()
        if self._pieces is not None:
            pieces = self._pieces.encode(text.decode().split("\n"), out_type=str)
            text = "\n".join(map(" ".join, pieces)).encode()
        return text, len(encoded)

    def statistics(
        self,
        documents: Sequence[Sentences],
        wanted: Collection[str] = (),
        pulse: Callable[[int], object] = lambda tokens: None,
    ) -> list[dict[str, Any]]:
        """Σ nll of each text, in nats. `pulse` is called with the number of scored tokens."""
        scored = [document for document in documents if document.tokens]
        sums = iter(self._log_likelihoods([document.text for document in scored]) if scored else ())
        pulse(sum(document.n_scored for document in scored))
        return [{"nll_sum": -LN_10 * next(sums) if document.tokens else 0.0} for document in documents]


def _count_tokens(texts: Sequence[tuple[bytes, int]]) -> list[int]:
    """How many tokens each text has: words, as KenLM takes it apart, and an end of sentence for each line."""
    data = b" " + b" ".join(text for text, _ in texts) + b" "
    is_space = np.frombuffer(data.translate(_SPACES), np.uint8)
    bounds = np.cumsum([0, *(len(text) + 1 for text, _ in texts)])
    # A word begins between a space and another character.
    words = np.add.reduceat(is_space[:-1] > is_space[1:], bounds[:-1], dtype=np.int64).tolist()
    return [count + text.count(b"\n") + 1 for count, (text, _) in zip(words, texts, strict=True)]


def provenance(name: str, tokenizer: str, normalization: str) -> dict[str, Any]:
    """Everything that the numbers of a model depend on, without loading it."""
    return {"model": _hash(Path(name)), **_recorded(tokenizer, normalization)}


def _recorded(tokenizer: str, normalization: str) -> dict[str, Any]:
    from importlib.metadata import version  # 20 ms, which other models can do without

    return {
        "tokenizer": tokenizer_hash(tokenizer, normalization),
        "normalize": str(normalization),
        "versions": {} if find_spec("kenlm") is None else {"kenlm": version("kenlm")},
    }


def tokenizer_hash(tokenizer: str, normalization: str) -> str:
    """A hash of what makes the tokens."""
    content = WORDS if tokenizer == WORDS else _hash(Path(tokenizer))
    return sha256(f"{content} {normalization}".encode()).hexdigest()


# --- Files ---


def check(name: str) -> None:
    """Raise NoInputError or ConfigurationError if a model's file cannot be one."""
    path = Path(name)
    if not path.is_file():
        raise NoInputError("no such file", place=name, remedy="name a model of KenLM: .arpa or .bin")


def _load(path: Path) -> LogLikelihoods:
    """What gives Σ log10 p of each of many texts: KenLM, or a faster reader of its hash tables."""
    check(str(path))
    tables = BinaryFile.of(path)
    if tables:
        probing = ProbingModel(tables)
        if _agrees(probing, tables.sample, path):
            keep_freed_memory()
            return probing.sums
    model = _load_library(path)
    return lambda texts: [sum(map(model.score, text.split(b"\n"))) for text in texts]


def _agrees(probing: ProbingModel, sample: bytes, path: Path) -> bool:
    """Whether the first words of the file get the scores that KenLM gives them, if it is installed."""
    if find_spec("kenlm") is None:
        return True
    words = sample.replace(b"\0", b" ").decode(errors="ignore")
    scores = [score for score, _, _ in _load_library(path).full_scores(words)]
    if probing.sums([words.encode()]) == [math.fsum(scores)]:
        return True
    log.warning("%s: KenLM reads it differently, and scores in our place, which takes longer", path)
    return False


def _load_library(path: Path) -> Any:
    try:
        import kenlm
    except ImportError as error:
        raise ConfigurationError(
            f"an n-gram model without hash tables needs {error.name}",
            place=str(path),
            remedy="pip install 'prune-cli[ngram]' on Python 3.12 at most, or make tables with build_binary",
        ) from None
    config = kenlm.Config()
    # Mapped into memory, so that processes share it; standard error is for our own messages.
    config.load_method = kenlm.LoadMethod.POPULATE_OR_LAZY
    config.arpa_complain = kenlm.ARPALoadComplain.NONE
    config.show_progress = False
    try:
        return kenlm.Model(str(path), config)
    except (OSError, RuntimeError) as error:
        raise _unusable(path, f"KenLM cannot load it: {_reason(error)}") from None


def _load_sentencepiece(path: Path) -> Any:
    if not path.is_file():
        raise NoInputError("no such file", place=str(path), remedy="name a model of sentencepiece")
    try:
        import sentencepiece
    except ImportError as error:
        fault = f"a tokenizer of this kind needs {error.name}"
        raise ConfigurationError(fault, remedy="pip install 'prune-cli[ngram]'") from None
    try:
        return sentencepiece.SentencePieceProcessor(model_file=str(path))
    except (OSError, RuntimeError) as error:
        raise _unusable(path, f"sentencepiece cannot load it: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    """What the libraries say, without their own files and lines."""
    text = re.sub(r".*? threw \w+(?: because `.*?')?\.?\s*", "", str(error).replace("\n", " "))
    return text.strip(" ).")[:200]


def _unusable(path: Path, fault: str) -> ConfigurationError:
    return ConfigurationError(fault, place=str(path), remedy="copy it again, or make it anew with KenLM")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return file_digest(file, "sha256").hexdigest()
