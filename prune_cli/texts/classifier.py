"""How likely is it that a text has a label, by a fastText classifier?"""

from collections.abc import Iterator, Sequence
from hashlib import file_digest
from pathlib import Path

from ..errors import ConfigurationError
from . import fasttext_file
from .linear_classifier import LinearClassifier, can_compute

PREFIX = "__label__"


class TextClassifier:
    """A supervised fastText model and one of its labels, with or without the prefix __label__.

    Raises ConfigurationError if the file is no such model, is truncated, or lacks the label, and if it is of
    a kind that needs fastText where that is not installed.
    """

    def __init__(self, path: Path, label: str) -> None:
        self.label = label if label.startswith(PREFIX) else PREFIX + label
        # fastText takes a truncated file for a whole one.
        model = fasttext_file.read(path)
        if self.label not in model.labels:
            listed = ", ".join(sorted(model.labels)) or "none"
            fault = f"has no label {self.label}: it has {listed}"
            raise ConfigurationError(fault, place=str(path), remedy="choose one with --label")
        self._path = path
        self._classifier: LinearClassifier | FastTextClassifier
        if can_compute(model):
            self._classifier = LinearClassifier(path, model, model.labels.index(self.label))
        else:
            self._classifier = FastTextClassifier(path, self.label)

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        with self._path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    def probabilities(self, texts: Sequence[str]) -> Iterator[float | None]:
        """The probability of the label for each text; None for one in which nothing is known.

        Lines are joined by spaces, as DCLM does it, and datatrove but for its separators: fastText reads one.
        """
        return self._classifier.probabilities(texts)


class FastTextClassifier:
    """The probability of a label, by fastText itself. Raises ConfigurationError if it is not installed."""

    def __init__(self, path: Path, label: str) -> None:
        try:
            import fasttext
        except ImportError as error:
            remedy = "pip install 'prune-cli[fasttext]'"
            fault = f"a classifier of this kind needs {error.name}"
            raise ConfigurationError(fault, place=str(path), remedy=remedy) from None
        self._label = label
        self._model = fasttext.load_model(str(path))

    def probabilities(self, texts: Sequence[str]) -> Iterator[float | None]:
        """The probability of the label for each text; None for one in which nothing is known."""
        for text in texts:
            line = " ".join(text.strip().splitlines())
            # Of all labels: the one that is asked for need not be the most likely.
            labels, probabilities = self._model.predict(line, k=-1)
            yield dict(zip(labels, probabilities, strict=True)).get(self._label)
