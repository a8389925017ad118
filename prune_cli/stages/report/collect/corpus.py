"""What do the records of the operands say? One pass tells, in memory that does not grow with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

from ....errors import DataError
from ....records.columns import Labels, counts
from ....records.documents import content_fields, contents
from ....records.fields import nested_remedy
from ....records.reader import MISSING, Anything, Batch, Count, Number, Source, Wanted
from ....stream.schema import Head
from ....stream.writer import GROUPS
from ..content import Volume
from .histograms import GroupHistograms
from .picking import DocumentSample, Picker, RecordFields, Spot
from .sampling import DuplicateCounter, RowSample
from .slices import scores_column

OTHER = -1  # the number of records without a group, or of one beyond GROUPS


@dataclass(frozen=True)
class Fields:
    """The fields that are read of each record."""

    scores: tuple[str, ...]
    tokens: str
    group: str
    text: str


class CorpusPass:
    """Takes the records batch by batch."""

    def __init__(self, fields: Fields, places: Sequence[Spot], documents: int, seed: int) -> None:
        self.fields = fields
        self.labels = Labels(str, most=GROUPS)
        self.histograms = [GroupHistograms() for _ in fields.scores]
        self.sums = np.zeros((GROUPS + 1, 2), np.int64)
        self.nulls = 0
        self.text_bytes = 0
        # Scores, tokens, bytes of the line.
        self.sample = RowSample(len(fields.scores) + 2, seed)
        self.duplicates = DuplicateCounter()
        reading = RecordFields(fields.scores, fields.text, fields.group, fields.tokens)
        self.picker = Picker(places, reading, most=-(-documents // max(1, len(places) + 1)))
        self.documents = DocumentSample(reading, seed)
        self.least = np.full(len(fields.scores), np.inf)
        self.most = np.full(len(fields.scores), -np.inf)

    def read(self, source: Source) -> Head | None:
        """Read all of a source; its first head. Raises DataError."""
        head, _ = source.peek()
        names = self.fields
        wanted = {names.group: Anything, names.tokens: Count, **content_fields(names.text, nullable=True)}
        wanted |= dict.fromkeys(names.scores, Number)
        absent = list(names.scores)
        for batch in source.batches(Wanted(wanted, tuple(wanted))):
            absent = [name for name in absent if batch[name].count(MISSING) == len(batch)]
            self._take(batch)
        if absent and source.records:
            raise DataError(
                f"no record has a field `{absent[0]}`",
                place=source.name,
                remedy=nested_remedy(absent[0]) or "name another score with --score",
            )
        return head

    def _take(self, batch: Batch) -> None:
        scores = np.stack([scores_column(batch[name]) for name in self.fields.scores])
        tokens = counts(batch[self.fields.tokens])
        codes = self.labels.codes(batch[self.fields.group])
        np.add.at(self.sums[:, 0], codes, 1)
        np.add.at(self.sums[:, 1], codes, tokens)
        for histograms, column in zip(self.histograms, scores, strict=True):
            histograms.add(column, tokens, codes)
        sizes = batch.ends + 1 - batch.starts
        self.text_bytes += int(sizes.sum())
        self.nulls += int(np.isnan(scores).all(0).sum())
        self.least = np.fmin(self.least, np.fmin.reduce(scores, axis=1))
        self.most = np.fmax(self.most, np.fmax.reduce(scores, axis=1))
        self.sample.add(np.concatenate([scores, [tokens], [sizes]]).T)
        self.duplicates.add(_hashes(batch, self.fields.text))
        self.picker.take(batch, scores, codes)
        if self.picker.most:
            self.documents.take(batch, scores, codes)

    @property
    def amount(self) -> Volume:
        """All records."""
        return Volume(*self.sums.sum(0).tolist())

    def groups(self) -> dict[str, Volume]:
        """The groups, the largest one first."""
        amounts = {name: Volume(*self.sums[code].tolist()) for code, name in enumerate(self.labels.names)}
        return dict(sorted(amounts.items(), key=lambda item: (-item[1].records, item[0])))

    def code(self, group: str) -> int:
        """The number of a group."""
        return int(self.labels.code_of[group])


def _hashes(batch: Batch, text_field: str) -> np.ndarray:
    """64 bits of each text, or list of token ids; records without either are left out."""
    digests = [
        blake2b(_bytes(content), digest_size=8).digest()
        for content in contents(batch, text_field)
        if content is not MISSING and content is not None
    ]
    return np.frombuffer(b"".join(digests), np.uint64)


def _bytes(content: str | list[int]) -> bytes:
    return content.encode() if isinstance(content, str) else np.array(content, np.int64).tobytes()
