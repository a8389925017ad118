"""Which documents a model was trained on: the hashes of their contents, which `train` leaves beside its weights."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from ..errors import ConfigurationError
from .token_file import Document, Hashes, content_hash, is_known

SEEN = "documents.npy"


class Seen:
    """What any of some models is known to have been trained on; the hashes are mapped, not read."""

    def __init__(self, models: Iterable[str]) -> None:
        found = {name: _hashes(Path(name) / SEEN) for name in models if (Path(name) / SEEN).is_file()}
        self.names, self._hashes = ", ".join(found), list(found.values())

    def count(self, contents: Sequence[Document]) -> int:
        """How many of these texts or blocks the models have seen."""
        if not self._hashes:
            return 0
        ours = np.fromiter(map(content_hash, contents), np.uint64, len(contents))
        return int(np.count_nonzero(np.any([is_known(ours, theirs) for theirs in self._hashes], axis=0)))

    def words(self, found: int, records: int) -> str:
        """What there is to say where so many of the records were seen."""
        known = f"{found:,} of {records:,} documents were in the training data of {self.names}"
        return f"{known}: their scores are lower than those of documents it has not seen"


def _hashes(path: Path) -> Hashes:
    try:
        hashes = np.load(path, mmap_mode="r")
    except (ValueError, OSError):
        hashes = np.empty(0)
    if hashes.dtype != np.uint64 or hashes.ndim != 1:
        raise ConfigurationError(
            "is damaged", place=str(path), remedy="remove it: without it nobody knows what the model has seen"
        )
    return np.asarray(hashes)
