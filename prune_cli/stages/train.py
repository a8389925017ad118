"""How does `train` run, from inputs and settings to a run directory?"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

from .. import charts, terminal
from ..models.text.loading import load_tokenizer
from ..models.text.tokenizer import tokenizer_hash
from ..records.documents import documents
from ..records.reader import Content, Source
from ..settings.streams import Reading
from ..settings.train import Training
from ..storage.base import Input
from ..training import loop
from ..training.distributed import Processes, join
from ..training.setup import Corpus
from ..training.summary import Summary
from . import streams

FLOPS_PER_PARAMETER = 6  # per token: 2 in the forward pass, 4 in the backward pass (Kaplan et al. 2020)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainReport:
    """The directory of a run, and its counts and last losses. `summary` is None except on rank 0."""

    output: Path
    summary: Summary | None = None
    skipped: int = 0

    def closing(self) -> list[str]:
        """A line about the run, and on a terminal a chart of its loss."""
        if self.summary is None:
            return []
        lines = [f"{_sentence(self.summary)}: {self.output}"]
        # The chart reads the metrics of every step again, so it is drawn only if somebody sees it.
        return [*lines, *_curve(self.output)] if terminal.is_interactive() else lines


@dataclass(frozen=True)
class TrainJob:
    """Train a model on the records of `inputs`."""

    inputs: tuple[str, ...]
    settings: Training
    reading: Reading

    def run(self) -> TrainReport:
        """Write the run to `settings.directory`; under torchrun, together with the other processes."""
        settings = self.settings
        directory = settings.directory
        with join(settings.device, sharded=settings.fsdp) as processes:
            if not processes.is_rank_zero:
                self._follow(processes)
                return TrainReport(directory)
            if settings.fsdp and processes.world == 1:
                log.warning("--fsdp has no effect on a single process; start several with torchrun")
            return self._lead(processes)

    def _lead(self, processes: Processes) -> TrainReport:
        """Train as rank 0, which reads the documents and writes the run."""
        with streams.open_source("train", self.inputs, self.reading, bar=False) as source:
            return self.train_on(source, processes)

    def train_on(self, source: Source, processes: Processes) -> TrainReport:
        """Train on the records of a source."""
        with (
            self._held_out() as held_out,
            streams.VerbProgress("train", self.reading).bar(None, "steps") as bar,
        ):
            summary = loop.train(
                self._corpus(source),
                self.settings,
                held_out=self._corpus(held_out) if held_out else None,
                measured=self.reading.shows_progress(),
                report=ProgressLine(bar),
                processes=processes,
            )
        # A bad record of either source makes the exit status 3.
        skipped = source.skipped + (held_out.skipped if held_out else 0)
        return TrainReport(self.settings.directory, summary, skipped)

    def _follow(self, processes: Processes) -> None:
        """Train as a rank other than 0, which computes but neither reads documents nor writes messages."""
        terminal.configure("train", quiet=True, verbose=self.reading.verbose)
        # Rank 0 makes the token files. Here the corpus is only a sign that there is held-out data.
        empty = Corpus(())
        loop.train(
            empty,
            self.settings,
            held_out=empty if self.settings.eval_data else None,
            processes=processes,
        )

    def _held_out(self) -> AbstractContextManager[Source | None]:
        if not self.settings.eval_data:
            return nullcontext()
        # --expect-records is about the training data alone.
        reading = replace(self.reading, expect_records=None)
        return streams.open_source("train", [self.settings.eval_data], reading, bar=False)

    def _corpus(self, source: Source) -> Corpus:
        return Corpus(self._documents(source), fingerprint(source.inputs, self.settings.text_field))

    def _documents(self, source: Source) -> Iterator[Content]:
        """The texts or blocks of a source. Raises ConfigurationError for blocks of another tokenizer."""
        location = self.settings.tokenizer or self.settings.init_from
        # A tokenizer that is not trained yet has no hash: then any packed block is refused.
        expected = tokenizer_hash(load_tokenizer(location)) if location else ""
        for document in documents(source, self.settings.text_field, tokenizer=expected):
            yield document.own_content


def fingerprint(inputs: list[Input], text_field: str) -> str | None:
    """Fingerprint of the inputs (paths and identities) and of the text field; None if an input is a pipe.

    A resumed run with the same fingerprint does not read its inputs again.
    """
    if not inputs:  # records of an iterator
        return None
    identities = []
    for file in inputs:
        if file.identity is None:
            return None
        identities.append((file.path, *file.identity))
    return json.dumps([text_field, identities])


@dataclass
class ProgressLine:
    """Progress of a run on a terminal: documents during tokenization, then loss and speed of each step."""

    bar: terminal.Progress
    peak_per_rate: float = 0.0  # fraction of the device's peak FLOP/s for each token per second; 0 if unknown
    step: int = 0
    held_out: str = ""

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Show a report of `loop.train`. Step 0 is everything before the first step."""
        if step:
            self._show_step(step, values)
        elif "steps" in values:  # the summary, before the first step
            self.bar.expect(values["steps"])
            if values["peak_flops"]:
                self.peak_per_rate = FLOPS_PER_PARAMETER * values["parameters"] / values["peak_flops"]
        else:
            self.bar.describe(f"{values['documents']:,} documents, {values['tokens']:,} tokens")

    def _show_step(self, step: int, values: Mapping[str, float]) -> None:
        # A resumed run starts in the middle of the bar: its first advance may be many steps.
        self.bar.advance(step - self.step)
        self.step = step
        if "held_out_loss" in values:
            self.held_out = f"  held-out {values['held_out_loss']:.3f}"
        rate = values["tokens_per_second"]
        utilization = f" ({self.peak_per_rate * rate:.0%} of peak FLOP/s)" if self.peak_per_rate else ""
        loss = f"loss {values['loss']:.3f}{self.held_out}"
        self.bar.describe(f"{loss}  lr {values['lr']:.1e}  {rate:,.0f} tokens/s{utilization}")


def _curve(run: Path) -> list[str]:
    """A chart of the loss over the steps of a run."""
    steps = [json.loads(line) for line in (run / "metrics.jsonl").read_bytes().splitlines()]
    return charts.curve("loss", [step["loss"] for step in steps], [step["step"] for step in steps])


def _sentence(summary: Summary) -> str:
    epochs = f"{summary.passes:.2f} epochs of {summary.unique_tokens:,}, {summary.repeated_tokens:,} repeated"
    held_out = "" if isnan(summary.held_out_loss) else f", held-out {summary.held_out_loss:.3f}"
    budget = f"{summary.steps:,} steps on {summary.tokens:,} tokens ({epochs})"
    return f"trained {budget}; loss {summary.loss:.3f}{held_out}"
