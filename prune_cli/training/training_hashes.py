"""Which documents was a model trained on? `train` writes the hashes of their contents beside the weights."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigurationError
from .token_file import Document, Hashes, content_hash, is_known

DOCUMENT_HASHES = "documents.npy"


class TrainingHashes:
    """The training documents of some models, as far as they are known: models of others have no such file.

    Raises ConfigurationError for a damaged file. The hashes are mapped into memory, not read: of a large
    corpus they take gigabytes.
    """

    def __init__(self, models: Iterable[str]) -> None:
        files = {name: Path(name) / DOCUMENT_HASHES for name in models}
        hashes = {name: _map(path) for name, path in files.items() if path.is_file()}
        self.names = ", ".join(hashes)
        self._hashes = list(hashes.values())

    def count(self, contents: Sequence[Document]) -> int:
        """How many of these texts or blocks at least one of the models was trained on."""
        return int(np.count_nonzero(np.any(self._by_model(contents), axis=0))) if self._hashes else 0

    def count_missing(self, contents: Sequence[Document]) -> int:
        """How many of these texts or blocks at least one of the models was not trained on."""
        return int(np.count_nonzero(~np.all(self._by_model(contents), axis=0))) if self._hashes else 0

    def _by_model(self, contents: Sequence[Document]) -> list[NDArray[np.bool_]]:
        """For each model whose training documents are known: which of the contents are among them."""
        # By content, so that a document counts whatever its id and other fields are.
        wanted = np.fromiter(map(content_hash, contents), np.uint64, len(contents))
        return [is_known(wanted, trained) for trained in self._hashes]

    def warning(self, count: int, records: int, metrics: Sequence[str]) -> str:
        """The warning that `count` of the records are training data, which spoils these metrics."""
        return (
            f"{count:,} of {records:,} documents are in the training data of {self.names}: "
            f"their {', '.join(metrics)} cannot be compared with that of documents it was not trained on"
        )

    def warning_of_missing(self, count: int, records: int, metrics: Sequence[str]) -> str:
        """The warning that `count` of the records are not training data, which these metrics require."""
        return (
            f"{count:,} of {records:,} documents are not in the training data of {self.names}: "
            f"{', '.join(metrics)} means nothing for them; score documents that the model was trained on"
        )


def _map(path: Path) -> Hashes:
    try:
        hashes = np.load(path, mmap_mode="r")  # never unpickles: allow_pickle is off
    except (ValueError, OSError):
        hashes = np.empty(0)
    # A sorted array of 64-bit hashes: see token_file.py.
    if hashes.dtype != np.uint64 or hashes.ndim != 1:
        raise ConfigurationError(
            "is damaged", place=str(path), remedy="remove it; the training documents are then unknown"
        )
    return np.asarray(hashes)
