"""A record with its scores: how it is written, and how it is known again in an output that broke off."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from ...errors import DataError
from ...records.documents import Document
from ...records.reader import Record
from ...records.splice import members, only, splice, spliced

TOKENS = "n_scored"
NUMBER_BYTES = 24  # of the longest that is written: -2.2250738585072014e-308


def names(metrics: Iterable[tuple[str, bool]], models: int) -> list[str]:
    """The fields that scores are written to: each metric's name and, where it takes a model and each of `models` is told, its
    score by each: `perplexity`, `perplexity_1`, `perplexity_2`."""
    return [
        name
        for metric, of_model in metrics
        for name in (metric, *(f"{metric}_{number + 1}" for number in range(models if of_model else 0)))
    ]


def counts(of_model: bool, against: bool) -> tuple[str, ...]:
    """The fields that stand beside scores of models, so that every other convention can be computed from them."""
    return (*(("nll_sum", TOKENS, "n_bytes") if of_model else ()), *(("against_nll_sum",) if against else ()))


@dataclass(frozen=True)
class Layout:
    """How scores are written: the fields `scores` and `counts`, each with `prefix` before its name, behind what `only` keeps of a record.

    The trailer adds up tokens and counts records by the field `group`; it says what the written records say, so that it can be made
    again from them: where `only` leaves out the count of tokens, a stream holds none.
    """

    scores: Sequence[str]
    counts: Sequence[str] = ()
    prefix: str = ""
    group: str = "source"
    only: Sequence[str] = ()

    @cached_property
    def fresh(self) -> tuple[str, ...]:
        """The names of all new fields."""
        return tuple(self.prefix + name for name in (*self.scores, *self.counts))

    @cached_property
    def added(self) -> list[str]:
        """Those that are written."""
        return [name for name in self.fresh if not self.only or name in self.only]

    @property
    def added_scores(self) -> list[str]:
        """Those of them that are scores."""
        return [self.prefix + name for name in self.scores if self.prefix + name in self.added]

    @property
    def counts_tokens(self) -> bool:
        return self.prefix + TOKENS in self.added

    def most_bytes(self, document: Document) -> int:
        """As many as the record will take at most, line end included."""
        return len(document.line) + 1 + self._most_added

    @cached_property
    def _most_added(self) -> int:
        return sum(len(orjson.dumps(name)) + 2 + NUMBER_BYTES for name in self.added)

    def record(self, document: Document, fields: dict[str, Any]) -> Record:
        """The record with its new fields. Raises DataError where it lacks one that is to be kept."""
        chosen = {name: fields[name.removeprefix(self.prefix)] for name in self.added}
        base = self._base(document)
        return self._counted(splice(base, members(chosen)) if chosen else base, document, chosen)

    def read_back(self, document: Document, line: bytes) -> Record | None:
        """What `record` made of a document, from the line that was written of it; None where that is not the document's."""
        found = spliced(line, self._base(document))
        return (
            self._counted(line, document, found) if found is not None and list(found) == self.added else None
        )

    def _base(self, document: Document) -> bytes:
        if not self.only:
            return document.line
        line, missing = only(document.line, [name for name in self.only if name not in self.added])
        if missing:
            raise DataError(
                f"no field `{missing[0]}`",
                place=str(document),
                remedy="--only names fields that every record has",
            )
        return line

    def _counted(self, line: bytes, document: Document, fields: dict[str, Any]) -> Record:
        scores = [
            value for name, value in fields.items() if name.removeprefix(self.prefix) not in self.counts
        ]
        null = bool(scores) and all(score is None for score in scores)
        group = document[self.group]
        return Record(
            line, fields.get(self.prefix + TOKENS, 0), null, None, group if isinstance(group, str) else None
        )
