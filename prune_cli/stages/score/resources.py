"""What do metrics of texts need besides the text? Files that options name, each loaded once a process."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ... import storage, terminal
from ...errors import DataError, UsageError
from ...metrics import OF_TEXTS, Metric
from ...records.batching import Bound, batched
from ...records.documents import documents
from ...records.fields import MISSING
from ...settings.score import WORDS, Scores
from ...settings.streams import Reading
from ...stream import dataset
from ...texts.classifier import TextClassifier
from ...texts.held_out import HeldOutSequences
from ...texts.words import ngrams
from .. import streams

if TYPE_CHECKING:  # their tokenizer takes time to import
    from ...texts.priors import TokenCounts, TokenPriors

log = logging.getLogger(__name__)

Contents = Sequence[str | Sequence[int]]  # texts, or the token ids of blocks
Quantities = dict[str, Sequence[Any]]  # by the names that metrics/__init__.py lists

BATCH_CHARACTERS = 1 << 20  # of held-out texts that are hashed at once


class Resource(Protocol):
    """A file, or several, that metrics of texts are computed from."""

    def provenance(self) -> dict[str, Any]:
        """Hashes and settings that the scores depend on, for the head of a stream."""

    @property
    def tokenizer(self) -> str | None:
        """The hash of its tokenizer, if it reads tokens: blocks must have been packed with the same."""

    def quantities(self, contents: Contents, place: Callable[[int], str]) -> Quantities:
        """What metrics are computed from: a value for each record, MISSING for one that has no text.

        `place` names the record at an index, for errors.
        """


def check(scores: Scores, chosen: Iterable[Metric]) -> None:
    """Raise UsageError if a metric lacks its file, NoInputError or DataError if the file is not there."""
    for metric in chosen:
        for option in sorted(_options([metric])):
            if not getattr(scores, _field(option)):
                raise UsageError(f"{metric.name} needs {option}", remedy=f"name a file with {option} FILE")
    for named in (scores.held_out, scores.priors):
        if named:
            dataset.expand(named)
    if scores.classifier:
        storage.operands([str(scores.classifier)])
    if scores.priors and not scores.tokenizer:
        raise UsageError("--priors needs --tokenizer", remedy="name the tokenizer that made the tokens")


def load(scores: Scores, chosen: Iterable[Metric]) -> list[Resource]:
    """Load what the metrics need. Raises NoInputError, DataError or ConfigurationError."""
    return [_LOADERS[option](scores) for option in sorted(_options(chosen))]


def paths(scores: Scores) -> list[str]:
    """The files that are read."""
    local = [str(path) for path in (scores.tokenizer, scores.classifier) if path and path != WORDS]
    return [*(scores.held_out or ()), *(scores.priors or ()), *local]


def _options(chosen: Iterable[Metric]) -> set[str]:
    """The options that name what the metrics need."""
    return {OF_TEXTS[name] for metric in chosen for name in metric.needs & OF_TEXTS.keys()}


def _field(option: str) -> str:
    return option.removeprefix("--").replace("-", "_")


def _spread(values: Iterable[Any], contents: Contents) -> list[Any]:
    """The values, which are those of texts, at the places of the texts; MISSING at the others."""
    following = iter(values)
    return [next(following) if isinstance(content, str) else MISSING for content in contents]


# --- Held-out texts ---


class HeldOut:
    """Word sequences of the files of --held-out."""

    tokenizer = None

    def __init__(self, sequences: HeldOutSequences) -> None:
        self.sequences = sequences

    def provenance(self) -> dict[str, Any]:
        """The hash of the sequences, and their length."""
        return {"held_out": self.sequences.digest, "ngram": self.sequences.n}

    def quantities(self, contents: Contents, place: Callable[[int], str]) -> Quantities:
        """The sequences of each text, and how many of them are held out."""
        texts = [content for content in contents if isinstance(content, str)]
        names = ("n_ngrams", "n_held_out_ngrams")
        return {
            name: _spread(counts.tolist(), contents)
            for name, counts in zip(names, self.sequences.counts(texts), strict=True)
        }


def _load_held_out(scores: Scores) -> HeldOut:
    inputs = dataset.expand(scores.held_out or ())
    source = streams.source_of(inputs, Reading(), terminal.silent())
    texts: Iterator[str] = (
        document.content
        for document in documents(source, scores.text_field)
        if isinstance(document.content, str)
    )
    parts = [np.zeros(0, np.uint64)]
    count = short = 0
    # Empty texts count, too, or they would make an endless batch.
    for batch in batched(texts, Bound[str](lambda text: len(text) + 1, BATCH_CHARACTERS)):
        hashes, sizes = ngrams(batch, scores.ngram)
        parts.append(hashes)
        count += len(batch)
        short += int((sizes == 0).sum())
    place = ", ".join(file.name for file in inputs)
    if short == count:
        fault = f"none of its {count} texts has {scores.ngram} words"
        raise DataError(fault, place=place, remedy="lower --ngram, or name the text with --text-field")
    if short:
        log.warning(
            "%s: %d of %d texts have fewer than %d words (--ngram): nothing overlaps with them",
            *(place, short, count, scores.ngram),
        )
    return HeldOut(HeldOutSequences(np.concatenate(parts), scores.ngram))


# --- Token priors ---


class Priors:
    """Token counts of the files of --priors, all together."""

    def __init__(self, priors: TokenPriors, counts: TokenCounts) -> None:
        self.priors = priors
        self.counts = counts

    @property
    def tokenizer(self) -> str | None:
        """The hash of the tokenizer."""
        return self.counts.tokenizer

    def provenance(self) -> dict[str, Any]:
        """The hash of the counts, and of the tokenizer with them."""
        return {"priors": self.counts.digest}

    def quantities(self, contents: Contents, place: Callable[[int], str]) -> Quantities:
        """Mean and variance of the logarithms of the priors."""
        return {"log_prior_moments": self.priors.moments(contents, place)}


def _load_priors(scores: Scores) -> Priors:
    # What other metrics of texts can do without.
    from ...models.text import tokenizer_file
    from ...models.text.tokenizer import tokenizer_hash
    from ...texts.priors import TokenCounts, TokenPriors

    assert scores.tokenizer is not None  # see `check`
    tokenizer = tokenizer_file.load(Path(scores.tokenizer))
    parts = []
    for file in storage.operands(scores.priors or ()):
        with file.open():
            part = TokenCounts.from_json(file.read_all(), file.name)
        part.check_tokenizer(tokenizer_hash(tokenizer), file.name)
        parts.append(part)
    counts = reduce(add, parts)
    return Priors(TokenPriors(tokenizer, counts), counts)


# --- Classifiers ---


class LabelProbabilities:
    """A fastText model and one of its labels."""

    tokenizer = None

    def __init__(self, classifier: TextClassifier) -> None:
        self.classifier = classifier

    def provenance(self) -> dict[str, Any]:
        """The hash of the model, and the label."""
        return {"classifier": self.classifier.digest, "label": self.classifier.label}

    def quantities(self, contents: Contents, place: Callable[[int], str]) -> Quantities:
        """The probability of the label for each text."""
        texts = [content for content in contents if isinstance(content, str)]
        return {"label_probability": _spread(self.classifier.probabilities(texts), contents)}


def _load_classifier(scores: Scores) -> LabelProbabilities:
    assert scores.classifier is not None  # see `check`
    return LabelProbabilities(TextClassifier(scores.classifier, scores.label))


_LOADERS: dict[str, Callable[[Scores], Resource]] = {
    "--held-out": _load_held_out,
    "--priors": _load_priors,
    "--classifier": _load_classifier,
}
