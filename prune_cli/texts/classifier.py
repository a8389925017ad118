"""How likely is it that a text has a label, by a fastText classifier?"""

from hashlib import file_digest
from pathlib import Path

import fasttext

from ..errors import ConfigurationError
from . import fasttext_file

PREFIX = "__label__"


class TextClassifier:
    """A supervised fastText model and one of its labels, with or without the prefix __label__.

    Raises ConfigurationError if the file is no such model, is truncated, or lacks the label.
    """

    def __init__(self, path: Path, label: str) -> None:
        self.label = label if label.startswith(PREFIX) else PREFIX + label
        # fastText takes a truncated file for a whole one.
        labels = fasttext_file.labels(path)
        if self.label not in labels:
            listed = ", ".join(sorted(labels)) or "none"
            fault = f"has no label {self.label}: it has {listed}"
            raise ConfigurationError(fault, place=str(path), remedy="choose one with --label")
        self._path = path
        self._model = fasttext.load_model(str(path))

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        with self._path.open("rb") as file:
            return file_digest(file, "sha256").hexdigest()

    def probability(self, text: str) -> float | None:
        """The probability of the label; None for a text in which nothing is known."""
        # As DCLM does it, and datatrove but for its separators: fastText reads one line.
        line = " ".join(text.strip().splitlines())
        # Of all labels: the one that is asked for need not be the most likely.
        labels, probabilities = self._model.predict(line, k=-1)
        return dict(zip(labels, probabilities, strict=True)).get(self.label)
