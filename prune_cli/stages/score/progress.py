"""How much has been scored, and how fast?"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from ... import terminal
from ...records.documents import Document
from ...stream.batch import Record
from ..streams import RecordProgress

# Fields of a report that are not sums.
NOT_SUMMED = ("self_check", "provenance", "etags")


@dataclass(frozen=True)
class ScoreReport:
    """Counts of a window, an output or a whole run. Reports add up, so that those of shards can be summed."""

    records: int = 0
    nulls: int = 0  # records whose scores are all null
    tokens: int = 0
    bytes: int = 0  # UTF-8 bytes of the scored tokens
    resumed: int = 0  # records that an earlier run had written
    outputs: int = 0
    finished: int = 0  # outputs that an earlier run had finished
    trained_on: int = 0  # records that are in the training data of a model
    not_trained_on: int = 0  # records that are not in it, counted for metrics that want them there
    dropped_groups: int = 0  # outputs whose groups have too many values to be counted
    flops: float = 0.0
    blank: int = 0  # blank lines
    skipped: int = 0  # bad records
    scoring_seconds: float = 0.0  # without the time to load models and to read what an earlier run wrote
    seconds: float = 0.0
    self_check: float | None = None  # the largest relative difference
    provenance: dict[str, Any] = field(default_factory=dict)  # everything that the scores depend on
    etags: dict[str, str] = field(default_factory=dict)  # of the outputs that are objects, by URL

    def __add__(self, other: "ScoreReport") -> "ScoreReport":
        sums = {
            item.name: getattr(self, item.name) + getattr(other, item.name)
            for item in fields(self)
            if item.name not in NOT_SUMMED
        }
        differences = [each for each in (self.self_check, other.self_check) if each is not None]
        return ScoreReport(
            **sums,
            self_check=max(differences, default=None),
            # All outputs of a run have the same provenance; one that was finished before has none.
            provenance=other.provenance or self.provenance,
            etags=self.etags | other.etags,
        )

    @property
    def rate(self) -> float:
        """Tokens per second of scoring."""
        return self.tokens / self.scoring_seconds if self.scoring_seconds else 0.0

    def progress(self) -> str:
        """A note beside the progress bar."""
        return f"{self.records:,} records  {self.rate:,.0f} tokens/s"

    def closing(self) -> list[str]:
        """The line that ends a run on a terminal; none if nothing was written, as in a dry run."""
        outputs = self.outputs + self.finished
        if not outputs:
            return []
        notes = [
            f"scored {self.records:,} records, {self.tokens:,} tokens ({self.rate:,.0f} a second)",
            *(
                [f"self-check: differences up to {self.self_check:.1e}"]
                if self.self_check is not None
                else []
            ),
            *([f"{self.resumed:,} records were already there"] if self.resumed else []),
            *([f"{self.finished} of {outputs} outputs were already finished"] if self.finished else []),
        ]
        return ["; ".join(notes)]

    def summary(self) -> dict[str, Any]:
        """The JSON of --summary."""
        return {
            "records": self.records,
            "nulls": self.nulls,
            "tokens": self.tokens,
            "bytes": self.bytes,
            "resumed": self.resumed,
            "outputs": self.outputs,
            "finished": self.finished,
            "seen": self.trained_on,
            "flops": self.flops,
            "self_check": self.self_check,
            "seconds": self.seconds,
            "tokens_per_second": self.rate,
            "blank": self.blank,
            "skipped": self.skipped,
            "score": self.provenance,
            **({"etags": self.etags} if self.etags else {}),
        }


@dataclass(frozen=True)
class JobProgress:
    """What a job shows of itself: a bar that counts written records, and a note beside it."""

    bar: RecordProgress
    note: terminal.Progress

    def advance(self, documents: Sequence[Document]) -> None:
        """The documents are written."""
        # A byte more for each line end, which a line here does not have.
        self.bar.done(sum(len(document.line) + 1 for document in documents))

    def describe(self, total: ScoreReport) -> None:
        """Show the counts and the speed of all jobs so far."""
        self.note.describe(total.progress())


def counts_of(records: Sequence[Record], fields: Sequence[dict[str, Any]]) -> ScoreReport:
    """The counts of the records of a window, from what is written and from the new fields of each."""
    return ScoreReport(
        records=len(records),
        nulls=sum(record.null for record in records),
        # Metrics without a model add no counts, and a tokenizer may not say how many bytes a token has.
        tokens=sum(new.get("n_scored", 0) for new in fields),
        bytes=sum(new.get("n_bytes") or 0 for new in fields),
    )
