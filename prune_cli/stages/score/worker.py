"""Do jobs of `score`: from inputs to scored streams.

A job reads its inputs window by window, scores each window, and writes it as a frame of its own, after which
a stopped run can be resumed. A worker does jobs one after another and loads the models once.
"""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from functools import cached_property, partial
from itertools import chain, islice
from typing import Any

from ... import storage, terminal
from ...records.documents import Document, PromptedContent, documents
from ...records.reader import Source
from ...settings.model import ModelSettings
from ...settings.score import Scores, ScoreSettings
from ...settings.streams import Reading
from ...storage.base import Input, Output
from ...stream import resume
from ...stream.batch import Record
from ...stream.schema import Totals
from ...stream.writer import Sink
from .. import input_digests, streams
from . import finished, resources, windows
from . import scoring as scoring_of
from .job import ScoreJob
from .layout import Layout, count_fields, score_fields
from .progress import JobProgress, ScoreReport, counts_of
from .scoring import Scoring
from .training_data import TrainingData
from .trial.estimate import estimate
from .trial.sample import take_sample
from .trial.self_check import largest_difference

VERB = "score"

log = logging.getLogger(__name__)


class ScoreWorker:
    """Does jobs of the same settings, one after another.

    Raises UsageError or ConfigurationError if the settings are wrong, before any model is loaded.
    """

    def __init__(self, settings: ScoreSettings) -> None:
        self.settings = settings
        scores = settings.scores
        metrics = scoring_of.chosen_metrics(scores)
        self.model_names = scoring_of.model_names(scores, metrics)
        resources.check(scores, metrics)
        scoring_of.check_ngram_models(scores, metrics, self.model_names, settings.trial)
        settings.trial.check(settings.results, uses_models=bool(self.model_names))
        compares = scores.against is not None
        ensemble = len(self.model_names) - compares
        self.layout = Layout(
            scores=score_fields(metrics, ensemble if scores.per_model else 0),
            counts=count_fields(uses_models=bool(self.model_names), against=compares),
            prefix=scores.prefix,
            group=scores.group_by or "source",
            only=settings.results.fields,
        )
        self.training = TrainingData(metrics, self.model_names[:ensemble], self.model_names)
        # Of all jobs so far, for the note beside the progress bar.
        self.total = ScoreReport()

    @cached_property
    def scoring(self) -> Scoring:
        """The metrics and models: loaded for the first job whose output is not finished."""
        return scoring_of.load_scoring(self.settings.scores, self.settings.running)

    def do(self, job: ScoreJob, progress: terminal.Progress) -> ScoreReport:
        """Score the inputs of a job into its output, or print the estimate of a dry run. Raises PruneError.

        `progress` advances by the bytes of input whose records are written.
        """
        start = time.perf_counter()
        inputs = job.open_inputs()
        if self.settings.trial.dry_run:
            self._print_estimate(job, inputs)
            return ScoreReport()
        if job.is_finished():
            self._check_finished(job, inputs)
            if job.was_absent:
                # Nobody has heard what the worker counted that made it: it is made again, byte for byte.
                return self.do(job.anew(), progress)
            # The bar is over the bytes of all jobs, so a skipped file counts as read.
            progress.advance(storage.total_size(inputs) or 0)
            return ScoreReport(finished=1)
        report = self._scored(job, inputs, progress)
        return report + ScoreReport(outputs=1, seconds=time.perf_counter() - start)

    # --- Outputs of an earlier run ---

    def _check_finished(self, job: ScoreJob, inputs: list[Input]) -> None:
        """Raise ConfigurationError unless the job's output is what the job would write."""
        output = storage.input_at(job.output or "")
        headless = job.streams.plain or job.streams.single_frame
        with (
            terminal.progress(VERB, None, wanted=False) as silent,
            closing(streams.source_of(inputs, job.streams, silent)) as source,
            closing(streams.source_of([output], Reading(), silent)) as written,
        ):
            job.deal(source)
            # Without --group-by the field comes from the input's head, as it did when the output was written.
            group = streams.group_field_of(source, self.settings.scores.group_by)
            self.layout = replace(self.layout, group=group)
            expected = finished.Expected(
                self._provenance_of(job, self._models_without_weights), group, headless
            )
            if finished.is_proven(output, inputs, expected):
                return
            pending = self._documents(source, tokenizer=None)
            finished.compare_records(written, pending, self.layout.read_back)

    @cached_property
    def _models_without_weights(self) -> dict[str, Any]:
        """The models' provenance, from their files alone: most often there is nothing left to score."""
        return scoring_of.provenance(self.settings.scores, self.settings.running)

    # --- Scoring ---

    def _scored(self, job: ScoreJob, inputs: list[Input], progress: terminal.Progress) -> ScoreReport:
        # The output is opened before models are loaded, so that a second run on it fails at once.
        with job.open_output(inputs) as output, streams.failing_visibly(output, job.streams):
            provenance = self._provenance_of(job, self.scoring.provenance())
            digests = self._digests(inputs)
            source = streams.source_of(inputs, job.streams, progress)
            bar = streams.RecordProgress(source)
            job.deal(source)
            with closing(source):
                group = job.group or streams.group_field_of(source, self.settings.scores.group_by)
                self.layout = replace(self.layout, group=group)
                head = streams.head_after(source, VERB, group, keeps=(), score=provenance)
                trailer = partial(self._trailer, digests)
                with streams.open_sink(job.streams, output, head, trailer) as sink:
                    report = self._write(source, output, sink, JobProgress(bar, progress))
                report += ScoreReport(dropped_groups=sink.drops_groups)
            bar.finish()
        streams.warn_of_missing(source)
        return report + ScoreReport(
            blank=source.blank,
            skipped=source.skipped,
            provenance=provenance,
            etags=storage.etags(output),
        )

    def _write(self, source: Source, output: Output, sink: Sink, shown: JobProgress) -> ScoreReport:
        """Score the records of a source and write them, behind what an earlier run wrote."""
        # One iterator: first records of an earlier run are taken from it, then those of the self-check.
        pending = self.documents(source)

        def read_back(document: Document, line: bytes) -> Record | None:
            shown.advance([document])
            return self.layout.read_back(document, line)

        resumed = resume.take_up(output, sink, pending, read_back)
        report = ScoreReport(resumed=resumed)
        # Once for each worker, not for each job: the models are the same.
        if self.settings.trial.self_check and not self.total.records:
            first = list(islice(pending, self.settings.trial.self_check))
            report += ScoreReport(self_check=self._self_check(first))
            pending = chain(first, pending)
        # From here on: loading models and reading what an earlier run wrote is not scoring.
        start = time.perf_counter()
        for window in self._windows(pending, output):
            counts = self._write_window(sink, window)
            end = time.perf_counter()
            counts += ScoreReport(scoring_seconds=end - start)
            start = end
            report += counts
            self.total += counts
            shown.advance([document for document, _ in window])
            shown.describe(self.total)
        return report

    def _windows(
        self, pending: Iterator[Document], output: Output
    ) -> Iterator[list[tuple[Document, dict[str, Any]]]]:
        """Documents with their new fields, window by window."""
        return windows.score(
            ((document, document.content) for document in pending),
            self.scoring,
            identity=lambda document: document["id"],
            size=self.layout.most_bytes,
            # A window may take minutes: a reader that has left is noticed after a batch.
            on_batch=lambda tokens: output.check_reader(),
        )

    def _write_window(self, sink: Sink, window: list[tuple[Document, dict[str, Any]]]) -> ScoreReport:
        records = [self.layout.record(document, fields) for document, fields in window]
        # A frame of its own: results appear at once, and a resumed run makes the same windows behind it.
        sink.write(records, whole=True)
        sink.end_frame()
        counts = counts_of(records, [fields for _, fields in window])
        flops = self.scoring.flops(tokens=counts.tokens, scored=counts.records - counts.nulls)
        training = self.training.counts([document.content for document, _ in window])
        return counts + ScoreReport(flops=flops) + training

    def documents(self, source: Source) -> Iterator[Document]:
        """The documents to score. Raises ConfigurationError for blocks packed with another tokenizer."""
        return self._documents(source, tokenizer=self.scoring.tokenizer)

    def _documents(self, source: Source, *, tokenizer: str | None) -> Iterator[Document]:
        """The documents of a source. Raises DataError for a record without text."""
        scores = self.settings.scores
        # The id goes into the metric `random`.
        return documents(
            source,
            scores.content_field,
            *dict.fromkeys((self.layout.group, "id")),
            fresh=self.layout.new_fields,
            overwrite=scores.overwrite,
            tokenizer=tokenizer,
            prompt_field=scores.prompt_field,
            is_chat=scores.chat,
        )

    def _digests(self, inputs: Sequence[Input]) -> list[str]:
        """Digests of the inputs, for an output that a later run may skip; none if one is a pipe."""
        if self.settings.results.output_directory is None:
            return []
        return input_digests.digests(inputs) or []

    def _provenance_of(self, job: ScoreJob, models: dict[str, Any]) -> dict[str, Any]:
        """Everything that the scores depend on, for the head of the stream; `models` is the models' part."""
        return {**self.settings_of_scores(models), "shard": job.dealt}

    def settings_of_scores(self, models: dict[str, Any]) -> dict[str, Any]:
        """The settings that the scores depend on; `models` is the models' part of them."""
        scores = self.settings.scores
        parameters = {"top_k": scores.top_k, "seed": scores.seed}
        needs = scoring_of.needs(scoring_of.chosen_metrics(scores))
        # A resumed run compares the bytes of the head: the order is that of existing streams.
        return {
            "fields": self.layout.written_scores,
            **models,
            **{name: value for name, value in parameters.items() if name in needs},
            # Without a model nothing is counted in tokens, whatever --min-tokens says.
            "min_tokens": scores.min_tokens if self.model_names else 1,
            "text_field": scores.content_field,
            **({"prompt_field": scores.prompt_field} if scores.prompt_field else {}),
            **({"chat": True} if scores.chat else {}),
            "only": self.layout.only,
        }

    def _trailer(self, digests: list[str], totals: Totals) -> dict[str, Any]:
        """Digests of the inputs, and the tokens and FLOPs of the whole stream, with the records of earlier
        runs.
        """
        inputs = {"inputs": digests} if digests else {}
        if not self.layout.counts_tokens:
            return inputs
        tokens = totals.tokens
        flops = self.scoring.flops(tokens=tokens, scored=totals.records - totals.nulls)
        return {**inputs, "work": {"tokens": tokens, "flops": flops}}

    # --- Before the run ---

    def _self_check(self, first: list[Document]) -> float:
        return largest_difference(
            [document.content for document in first],
            [str(document) for document in first],
            partial(_new_fields, scoring_of.likelihoods(self.scoring)),
            partial(_new_fields, scoring_of.likelihoods_in_float32(self.scoring)),
            self.scoring.dtype,
        )

    def _print_estimate(self, job: ScoreJob, inputs: list[Input]) -> None:
        def first_documents(progress: terminal.Progress) -> Iterator[Document]:
            return self.documents(streams.source_of(inputs[:1], job.streams, progress))

        # Before the models are loaded, since a pipe is refused.
        sample = take_sample(
            storage.total_size(inputs),
            first_documents,
            fields=len(self.layout.written),
            level=job.streams.level,
        )
        scoring = self.scoring
        rates = (scoring.flops_per_token, scoring.flops_per_continuation)
        print(json.dumps(asdict(estimate(sample, partial(_new_fields, scoring), *rates))))


def score_source(
    source: Source, scores: Scores, running: ModelSettings
) -> Iterator[tuple[Document, dict[str, Any]]]:
    """Each document of a source with its new fields. Raises PruneError; logs what the command would."""
    worker = ScoreWorker(ScoreSettings(scores=scores, running=running))
    items = ((document, document.content) for document in worker.documents(source))
    report = ScoreReport()
    for window in windows.score(items, worker.scoring, identity=lambda document: document["id"]):
        report += worker.training.counts([document.content for document, _ in window])
        report += ScoreReport(records=len(window))
        for document, fields in window:
            yield document, {scores.prefix + name: value for name, value in fields.items()}
    worker.training.warn(report)


def _new_fields(scoring: Scoring, contents: Sequence[PromptedContent]) -> list[dict[str, Any]]:
    """The new fields of each content."""
    return [fields for window in windows.score(enumerate(contents), scoring) for _, fields in window]
