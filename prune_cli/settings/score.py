"""Settings of `prune-cli score`."""

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, ClassVar

from ..errors import UsageError
from .model import ModelSettings
from .option import option
from .streams import FIELDS, OF_METRICS, RESULT, GroupBy, Overwrite, Prefix, Streams, TextField

# The files of metrics/, listed by name: importing the package here would be an import from a higher floor.
METRICS = sorted(file.stem for file in Path(__file__).parent.parent.joinpath("metrics").glob("[!_]*.py"))
# Those that are computed from texts alone: their options are checked before a metric is loaded.
WITHOUT_MODEL = frozenset(
    {"compression", "overlap", "quality", "random", "token_prior_mean", "token_prior_std"}
)
WORDS = "words"  # the tokenizer of an n-gram model that takes words as they are
# Six digits are plenty, and int() of a hostile string of digits is slow.
SHARD = re.compile(r"(\d{1,6})/(\d{1,6})", re.ASCII)


MESSAGES_FIELD = "messages"  # that --chat reads


class Normalization(StrEnum):
    """What is done to a text before an n-gram model reads it."""

    none = "none"
    ccnet = "ccnet"


@dataclass(frozen=True)
class Scores:
    """Which scores are computed, by which models, from which field, and what the new fields are called."""

    GROUP: ClassVar[str] = "What is computed"
    # None stands for the default, so that help can show it as a name instead of a list.
    metric: Annotated[
        list[str] | None,
        option(
            "--metric",
            "-m",
            metavar="NAME",
            help="Metric, such as el2n; repeatable. Several take one pass; Metrics, below, lists all.",
            shown_default="perplexity",
        ),
    ] = None
    text_field: TextField = "text"
    prompt_field: Annotated[
        str | None,
        option(
            "--prompt-field",
            metavar="FIELD",
            group=FIELDS,
            help="The field that holds a prompt. The text is scored behind it, and the prompt is not. What "
            "stands between the two, such as a line end, belongs into the prompt.",
        ),
    ] = None
    chat: Annotated[
        bool,
        option(
            "--chat",
            group=FIELDS,
            help="Score the assistant's turns in `messages`. The tokenizer's chat template writes the "
            "conversation; --text-field may name another field of messages.",
        ),
    ] = False
    prefix: Prefix = ""
    overwrite: Overwrite = False
    group_by: GroupBy = None
    model: Annotated[
        list[str] | None,
        option(
            "--model",
            metavar="PATH|HUB_ID",
            help="Model that scores. Repeat for an ensemble. A file is an n-gram model of KenLM; "
            "ARPA files and tries need pip install 'prune-cli[ngram]'. The default is PRUNE_CLI_MODEL, "
            "or else the small reference model that is shipped with the package.",
        ),
    ] = None
    against: Annotated[
        str | None,
        option(
            "--against",
            metavar="PATH|HUB_ID",
            help="Second model, for metrics that compare two. An example is excess_loss.",
        ),
    ] = None
    per_model: Annotated[
        bool,
        option(
            "--per-model",
            help="Also write the score of each model. "
            "The fields are called perplexity_1, perplexity_2 and so on.",
        ),
    ] = False
    min_tokens: Annotated[
        int,
        option(
            "--min-tokens",
            metavar="N",
            min=1,
            help="Score only records of N or more tokens. Shorter records get a null score.",
        ),
    ] = 1
    top_k: Annotated[
        int,
        option(
            "--top-k",
            metavar="K",
            min=1,
            group=OF_METRICS,
            help="Ranks that count as a hit of top_k_accuracy. "
            "A token is a hit if it is among the K most likely ones.",
        ),
    ] = 5
    held_out: Annotated[
        list[str] | None,
        option(
            "--held-out",
            metavar="FILE",
            group=OF_METRICS,
            help="Texts that overlap looks for, such as test sets. Repeat for more files.",
        ),
    ] = None
    ngram: Annotated[
        int,
        option(
            "--ngram", metavar="N", min=1, group=OF_METRICS, help="Words in a sequence that overlap counts."
        ),
    ] = 13
    priors: Annotated[
        list[str] | None,
        option(
            "--priors",
            metavar="FILE",
            group=OF_METRICS,
            help="Token counts of a corpus, made by `stat --token-counts`, for token_prior_mean and "
            "token_prior_std. Repeat for parts of the corpus, whose counts are added up.",
        ),
    ] = None
    tokenizer: Annotated[
        str | None,
        option(
            "--tokenizer",
            metavar="PATH",
            group=OF_METRICS,
            help="Tokenizer. That of --priors is the folder of a tokenizer; that of an n-gram model is a "
            "file of sentencepiece, or words, the default.",
        ),
    ] = None
    normalize: Annotated[
        Normalization,
        option(
            "--normalize",
            metavar="HOW",
            group=OF_METRICS,
            help="How texts are normalized for an n-gram model: none, or ccnet as for the models of CCNet, "
            "with lower case, without accents, every digit 0 and common punctuation in ASCII.",
        ),
    ] = Normalization.none
    classifier: Annotated[
        Path | None,
        option(
            "--classifier",
            metavar="FILE",
            group=OF_METRICS,
            help="fastText classifier of quality. Needs pip install 'prune-cli[fasttext]' unless it has a "
            "softmax, whole words and at most 8 labels, as DCLM's.",
        ),
    ] = None
    label: Annotated[
        str,
        option("--label", metavar="NAME", group=OF_METRICS, help="Label whose probability is the quality."),
    ] = "__label__hq"
    seed: Annotated[
        int, option("--seed", metavar="N", group=OF_METRICS, help="Seed of the metric random.")
    ] = 0

    @property
    def metrics(self) -> list[str]:
        """The names of the metrics, each once."""
        return list(dict.fromkeys(self.metric or ["perplexity"]))

    @property
    def content_field(self) -> str:
        """The field that is scored."""
        return MESSAGES_FIELD if self.chat and self.text_field == Scores.text_field else self.text_field


@dataclass(frozen=True)
class ScoreResults:
    """Which records are scored, which fields are written and where, and whether a stopped run is resumed."""

    GROUP: ClassVar[str] = RESULT
    output_directory: Annotated[
        str | None,
        option(
            "--output-directory",
            "-O",
            metavar="DIR",
            help="Write a dataset into DIR. Each FILE gets an output of its name, and a large one several. "
            "A finished output is skipped if it is of the same input, models and settings, and refused "
            "otherwise.",
        ),
    ] = None
    resume: Annotated[
        bool,
        option(
            "--resume",
            help="Resume a run that was stopped. A run with --resume writes to FILE.partial "
            "and keeps it when it is stopped.",
        ),
    ] = False
    shard: Annotated[
        str | None,
        option(
            "--shard",
            metavar="I/N",
            help="Score shard I of N. With -O, the shards are the parts of the dataset, dealt in turn; "
            "without it, records are, 4,096 at a time.",
        ),
    ] = None
    only: Annotated[
        str | None,
        option("--only", metavar="FIELD,...", help="Write only these fields. An example is id,perplexity."),
    ] = None
    summary: Annotated[
        str | None, option("--summary", metavar="FILE", help="Write the counts of the run to FILE, as JSON.")
    ] = None

    # Names are not checked here: a field may be a record's own, which only the records can tell.
    @property
    def fields(self) -> list[str]:
        """The fields to write; an empty list means all of them."""
        return [name for name in (self.only or "").split(",") if name]

    @property
    def shard_of(self) -> tuple[int, int] | None:
        """The number of the shard, from 1, and how many there are. Raises UsageError."""
        if self.shard is None:
            return None
        match = SHARD.fullmatch(self.shard)
        if not match or not 1 <= int(match[1]) <= int(match[2]):
            raise UsageError(
                f"invalid --shard '{self.shard}'", remedy="for example --shard 1/4, the first of four"
            )
        return int(match[1]), int(match[2])

    def check(self, streams: Streams) -> None:
        """Raise UsageError for options that exclude each other."""
        if self.output_directory and streams.output:
            raise UsageError(
                "-o and -O exclude each other",
                remedy="name one output, or a directory for one output per input",
            )
        # Each output would have to have the same number of records.
        if self.output_directory and streams.expect_records is not None:
            raise UsageError(
                "--expect-records counts the records of a single output",
                remedy="leave it out, or write a single output with -o FILE",
            )
        if self.resume:
            self._check_resume(streams)
        # The property itself raises if the shard is invalid.
        _ = self.shard_of

    # The last whole frame of FILE.partial is where a run is resumed.
    def _check_resume(self, streams: Streams) -> None:
        if not self.output_directory and streams.output in (None, "-"):
            raise UsageError(
                "--resume needs an output file",
                remedy="name a file with -o FILE, or a directory with -O DIR",
            )
        if streams.plain or streams.single_frame or (streams.output or "").endswith(".jsonl"):
            raise UsageError(
                "--resume continues after the last whole frame; plain and single-frame output have none"
            )


@dataclass(frozen=True)
class Trial:
    """What is tried on a sample of the records before the run begins."""

    GROUP: ClassVar[str] = "Before the run"
    dry_run: Annotated[
        bool,
        option("--dry-run", help="Only estimate the run. Prints tokens, FLOPs, hours and bytes, as JSON."),
    ] = False
    self_check: Annotated[
        int | None,
        option(
            "--self-check",
            metavar="N",
            min=1,
            help="Verify the first N scores, one by one in float32. "
            "The run fails with status 1 if they differ.",
        ),
    ] = None

    # Both options work on a sample; --summary counts a whole run.
    def check(self, results: ScoreResults, *, uses_models: bool) -> None:
        """Raise UsageError for options that exclude each other."""
        if self.self_check and not uses_models:
            raise UsageError(
                "--self-check verifies the scores of models, and no chosen metric uses a model",
                remedy="leave it out",
            )
        if self.dry_run and (self.self_check or results.summary):
            raise UsageError(
                "--dry-run scores only a sample and writes no output",
                remedy="leave out --summary and --self-check",
            )


@dataclass(frozen=True)
class ScoreSettings:
    """Everything that the user can set."""

    scores: Scores = Scores()
    results: ScoreResults = ScoreResults()
    trial: Trial = Trial()
    running: ModelSettings = ModelSettings()
    streams: Streams = Streams()
