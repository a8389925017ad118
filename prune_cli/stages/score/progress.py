"""What a scoring run has done so far, and how fast: for the bar, the closing line and the summary."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # nothing is loaded before the command line is looked at
    from ...records.reader import Record


@dataclass
class Throughput:
    """What this run has done so far; `resumed` records and `finished` outputs were there before it."""

    records: int = 0
    nulls: int = 0
    tokens: int = 0
    bytes: int = 0
    resumed: int = 0
    outputs: int = 0
    finished: int = 0
    seen: int = 0  # records that a model was trained on
    flops: float = 0.0
    self_check: float | None = None  # the largest relative difference that was found
    scoring: float = 0.0  # seconds
    started: float = field(default_factory=time.perf_counter)

    def begin(self) -> None:
        """Scoring begins: what was loaded and passed over until now took another kind of time."""
        self.since = time.perf_counter()

    def add(
        self,
        records: "Sequence[Record]",
        fields: Sequence[dict[str, Any]],
        spent: Callable[[dict[str, int]], float],
    ) -> None:
        now = time.perf_counter()
        self.scoring, self.since = self.scoring + now - self.since, now
        nulls, tokens = sum(record.null for record in records), sum(new.get("n_scored", 0) for new in fields)
        self.flops += spent({"records": len(records), "nulls": nulls, "tokens": tokens})
        self.records += len(records)
        self.nulls += nulls
        self.tokens += tokens
        self.bytes += sum(new.get("n_bytes") or 0 for new in fields)

    @property
    def rate(self) -> float:
        """Tokens a second."""
        return self.tokens / self.scoring if self.scoring else 0.0

    def progress(self) -> str:
        return f"{self.records:,} records  {self.rate:,.0f} tokens/s"

    def closing(self) -> str:
        checked = f"; self-check: {self.self_check:.1e} at most" if self.self_check is not None else ""
        resumed = f"; {self.resumed:,} were there before" if self.resumed else ""
        finished = (
            f"; {self.finished} of {self.finished + self.outputs} outputs were finished before"
            if self.finished
            else ""
        )
        return f"scored {self.records:,} records, {self.tokens:,} tokens ({self.rate:,.0f} a second){checked}{resumed}{finished}"

    def summary(self) -> dict[str, Any]:
        counts = {
            name: value for name, value in vars(self).items() if name not in ("scoring", "started", "since")
        }
        return counts | {"seconds": time.perf_counter() - self.started, "tokens_per_second": self.rate}
