"""Do the scored documents suit the metrics: are they, or are they not, what the models were trained on?"""

import logging
from collections.abc import Sequence

from ...metrics import Metric
from ...records.documents import PromptedContent, without_prompt
from ...training.training_hashes import TrainingHashes
from .progress import ScoreReport

log = logging.getLogger(__name__)


class TrainingData:
    """The metrics of a run, and the training documents of its models as far as they are known.

    `ensemble` are the models without the second model of metrics that compare two. Raises
    ConfigurationError if a file of hashes is damaged.
    """

    def __init__(self, metrics: Sequence[Metric], ensemble: Sequence[str], models: Sequence[str]) -> None:
        self.remembering = [metric.name for metric in metrics if metric.wants_training_data]
        self.spoiled = [
            metric.name for metric in metrics if metric.needs_model and not metric.wants_training_data
        ]
        # Only the models of the ensemble generate continuations.
        self.remembered = TrainingHashes(ensemble if self.remembering else ())
        self.seen = TrainingHashes(models)

    def counts(self, prompted: Sequence[PromptedContent]) -> ScoreReport:
        """How many documents are in the training data, and how many are not although they should be."""
        contents = [without_prompt(content) for content in prompted]
        seen = self.seen.count(contents)
        # Without hashes nothing is known to be missing: models of others come without them.
        return ScoreReport(trained_on=seen, not_trained_on=self.remembered.count_missing(contents))

    def warn(self, report: ScoreReport) -> None:
        """Log which metrics of a run mean less than they seem to."""
        if self.spoiled and report.trained_on:
            log.warning(self.seen.warning(report.trained_on, report.records, self.spoiled))
        if self.remembering and report.not_trained_on:
            missing = report.not_trained_on
            log.warning(self.remembered.warning_of_missing(missing, report.records, self.remembering))
