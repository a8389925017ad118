"""Run `train`: from inputs and settings to a run directory."""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

from .. import charts, terminal
from ..errors import UsageError
from ..models.tokenizer import load_tokenizer, tokenizer_hash
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
    """Where a run is, and its counts and last losses. `summary` is None on all ranks but 0."""

    output: Path
    summary: Summary | None = None
    skipped: int = 0

    def closing(self) -> list[str]:
        """One line about the run, and on a terminal the curve of its loss."""
        if self.summary is None:
            return []
        lines = [f"{_sentence(self.summary)}: {self.output}"]
        # The curve takes another look at the line of every step, so only if somebody sees it.
        return [*lines, *_curve(self.output)] if terminal.is_interactive() else lines


@dataclass(frozen=True)
class TrainJob:
    """Train a model on the records of `inputs`."""

    inputs: tuple[str, ...]
    settings: Training
    reading: Reading

    def run(self) -> TrainReport:
        """Write the run to `settings.directory`, under torchrun together with the other processes."""
        settings = self.settings
        if settings.eval_data == "-":
            raise UsageError("--eval-data cannot be standard input", remedy="name a file")
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
        # Either source makes the exit status 3.
        skipped = source.skipped + (held_out.skipped if held_out else 0)
        return TrainReport(self.settings.directory, summary, skipped)

    def _follow(self, processes: Processes) -> None:
        """Train as another rank, which computes, but neither reads documents nor writes messages."""
        terminal.configure("train", quiet=True, verbose=self.reading.verbose)
        # The token files come from rank 0; this only says whether there is held-out data.
        nothing = Corpus(())
        loop.train(
            nothing,
            self.settings,
            held_out=nothing if self.settings.eval_data else None,
            processes=processes,
        )

    def _held_out(self) -> AbstractContextManager[Source | None]:
        if not self.settings.eval_data:
            return nullcontext()
        # --expect-records counts the training data.
        reading = replace(self.reading, expect_records=None)
        return streams.open_source("train", [self.settings.eval_data], reading, bar=False)

    def _corpus(self, source: Source) -> Corpus:
        return Corpus(self._documents(source), fingerprint(source.inputs, self.settings.text_field))

    def _documents(self, source: Source) -> Iterator[Content]:
        """The texts or blocks of a source. Raises ConfigurationError for blocks of another tokenizer."""
        location = self.settings.tokenizer or self.settings.init_from
        # A tokenizer that is yet to be trained has no hash: then all blocks are refused.
        expected = tokenizer_hash(load_tokenizer(location)) if location else ""
        for document in documents(source, self.settings.text_field, tokenizer=expected):
            yield document.content


def fingerprint(inputs: list[Input], text_field: str) -> str | None:
    """Fingerprint of the inputs (paths and identities) and of the field that is read; None if one is a pipe.

    A resumed run whose inputs have the same fingerprint does not read them again.
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
    """The progress of a run on a terminal: documents while they are tokenized, then loss and speed of every
    step.
    """

    bar: terminal.Progress
    peak_per_rate: float = 0.0  # fraction of the device's peak FLOP/s for each token per second; 0 if unknown
    step: int = 0
    held_out: str = ""

    def __call__(self, step: int, values: Mapping[str, float]) -> None:
        """Take a report of `loop.train`."""
        if step:
            self._show_step(step, values)
        elif "steps" in values:  # the summary, before the first step
            self.bar.expect(values["steps"])
            if values["peak_flops"]:
                self.peak_per_rate = FLOPS_PER_PARAMETER * values["parameters"] / values["peak_flops"]
        else:
            self.bar.describe(f"{values['documents']:,} documents, {values['tokens']:,} tokens")

    def _show_step(self, step: int, values: Mapping[str, float]) -> None:
        # A resumed run begins in the middle of the bar, so the first advance may be many steps.
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
