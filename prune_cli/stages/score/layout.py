"""How is a record written with its scores, and recognised again in the output of a run that was stopped?"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

from ...errors import DataError
from ...metrics import Metric
from ...records.documents import Document
from ...records.splice import members, only, splice, spliced
from ...stream.batch import Record

TOKENS = "n_scored"
NUMBER_BYTES = 24  # of the longest number that is written: -2.2250738585072014e-308


def score_fields(metrics: Iterable[Metric], models: int) -> list[str]:
    """The names of the fields that hold scores: `perplexity`, and for 2 `models` `perplexity_1` and `_2`.

    `models` is 0 unless each model of an ensemble gets a field of its own; metrics without a model have no
    such fields.
    """
    return [
        name
        for metric in metrics
        for name in (
            metric.name,
            *(f"{metric.name}_{number + 1}" for number in range(models if metric.needs_model else 0)),
        )
    ]


def count_fields(*, uses_models: bool, against: bool) -> list[str]:
    """The names of the fields from which every other convention of a score can be computed."""
    # nats, tokens and bytes: perplexity, bits per token and bits per byte follow from these three
    counts = ["nll_sum", TOKENS, "n_bytes"] if uses_models else []
    return [*counts, "against_nll_sum"] if against else counts


@dataclass(frozen=True)
class Layout:
    """How scores are written: the fields `scores` and `counts`, with `prefix` before their names.

    They stand behind the record's own fields, or behind those that `only` names. The trailer of the stream
    counts tokens, and records by the field `group`. It counts from the written records alone, so that a
    resumed run can count them again: if `only` leaves out the token count, a stream has no tokens.
    """

    scores: Sequence[str]
    counts: Sequence[str] = ()
    prefix: str = ""
    group: str = "source"
    only: Sequence[str] = ()

    @cached_property
    def new_fields(self) -> tuple[str, ...]:
        """The names of all new fields, written or not."""
        return tuple(self.prefix + name for name in (*self.scores, *self.counts))

    @cached_property
    def written(self) -> list[str]:
        """The names of the new fields that are written."""
        return [name for name in self.new_fields if not self.only or name in self.only]

    @cached_property
    def _written_fields(self) -> list[tuple[str, str]]:
        """The names of the new fields that are written, with and without the prefix."""
        return [(name, name.removeprefix(self.prefix)) for name in self.written]

    @cached_property
    def written_scores(self) -> list[str]:
        """The names of the scores that are written."""
        return [self.prefix + name for name in self.scores if self.prefix + name in self.written]

    @property
    def counts_tokens(self) -> bool:
        """Whether the written records say how many tokens they have."""
        return self.prefix + TOKENS in self.written

    def most_bytes(self, document: Document) -> int:
        """An upper bound of the length of the written record, with its line end."""
        return len(document.line) + 1 + self._most_added

    @cached_property
    def _most_added(self) -> int:
        # Two bytes for the colon and the comma.
        return sum(len(orjson.dumps(name)) + 2 + NUMBER_BYTES for name in self.written)

    def record(self, document: Document, fields: dict[str, Any]) -> Record:
        """The record with its new fields. Raises DataError if it lacks one that `only` names."""
        new = {name: fields[field] for name, field in self._written_fields}
        # --only may leave out every new field; then the record is written as it is.
        line = self._base(document)
        return self._counted(splice(line, members(new)) if new else line, document, new)

    def read_back(self, document: Document, line: bytes) -> Record | None:
        """The record that `record` made of a document, from a line of the output.

        None if the line was not made from this document.
        """
        # The new fields stand behind the record's own bytes, so that one comparison of bytes tells.
        new = spliced(line, self._base(document))
        if new is None or list(new) != self.written:
            return None
        return self._counted(line, document, new)

    def _base(self, document: Document) -> bytes:
        """The record before the new fields are added."""
        if not self.only:
            return document.line
        # A new field that `only` names is not among the record's own; it is added later.
        line, missing = only(document.line, [name for name in self.only if name not in self.written])
        if missing:
            raise DataError(
                f"no field `{missing[0]}`",
                place=str(document),
                remedy="--only takes fields that every record has",
            )
        return line

    def _counted(self, line: bytes, document: Document, new: dict[str, Any]) -> Record:
        """A line with what the trailer counts of it."""
        # A record counts as unscored only if all its scores are null: one model of an ensemble may have none.
        scores = list(map(new.get, self.written_scores))
        # Only strings are groups: numbers and lists could have as many values as there are records.
        group = document[self.group]
        return Record(
            line,
            tokens=new.get(self.prefix + TOKENS, 0),
            null=bool(scores) and scores.count(None) == len(scores),
            rank=None,
            group=group if isinstance(group, str) else None,
        )
