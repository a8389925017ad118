"""Which options have no effect beside others? To give such an option is a usage error.

What was typed counts, never a default or the environment: nobody means anything by those. Options that need
the input to say whether they have an effect are not here, and neither are those that only allow something,
such as --force.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import UsageError
from ..settings.score import METRICS, WITHOUT_MODEL

Given = Mapping[
    str, Any
]  # by the name of the field: the values as they were typed, of the given options alone


class Rule(NamedTuple):
    """The fields of options that have no effect if `when` holds, and the reason."""

    fields: tuple[str, ...]
    when: Callable[[Given], object]
    reason: str
    # What to do if it is not to leave out the option.
    remedy: str = ""


MESSAGES = (
    Rule(("verbose",), lambda given: given.get("quiet"), "--quiet suppresses what it would show"),
    Rule(
        ("progress",),
        lambda given: given.get("quiet") and given.get("progress"),
        "--quiet suppresses what it would show",
    ),
)
WORKERS = (
    Rule(
        ("ray_address",),
        lambda given: given.get("engine", "local") == "local",
        "the workers are on this machine",
        "add --engine ray",
    ),
)
# Not for a name that ends in .jsonl: there a script may fill in the name.
WRITING = (
    Rule(("single_frame", "level"), lambda given: given.get("plain"), "--plain output is not compressed"),
)
# The parts of a dataset are streams of ours: their heads and trailers say what belongs together.
DATASET = (
    Rule(
        ("output", "plain", "single_frame"),
        lambda given: given.get("output_directory"),
        "-O writes a dataset, whose parts are compressed streams",
    ),
)
NEEDS_GLUE = Rule(
    ("tasks", "seeds", "epochs", "lr", "batch"),
    lambda given: not given.get("glue"),
    "nothing is fine-tuned without --glue",
    "name the directory of GLUE's tasks with --glue DIR",
)
NEEDS_TEXTS = Rule(
    # All of these are about models that read texts, or about the texts.
    ("text_field", "expect_records", "skip_bad", "per_document", "context", "stride", "bos", "batch_tokens"),
    lambda given: not given.get("data") and not given.get("glue") and not given.get("samples"),
    "no document is read without --data",
    "name a test set with --data FILE",
)
OF_GLUE = Rule(
    (
        *("text_field", "seed", "stride", "bos"),
        *("expect_records", "allow_empty", "strip_bom", "ignore_trailing", "max_line", "long"),
    ),
    lambda given: given.get("glue"),
    "--glue has its own data and protocol",
)
OF_SAMPLES = Rule(
    (
        *("data", "against", "group_by", "cluster", "text_field", "resume"),
        *("glue", "tasks", "seeds", "epochs", "lr", "batch"),
        *("device", "dtype", "context", "stride", "bos", "batch_tokens"),
        *("expect_records", "skip_bad", "allow_empty", "strip_bom", "ignore_trailing", "columns"),
    ),
    lambda given: given.get("samples"),
    "--samples are results already, of the harness's own documents",
)
RULES: Mapping[str, tuple[Rule, ...]] = {
    "pack": (*WORKERS, *WRITING),
    "rank": (
        Rule(
            (
                *("output", "output_directory", "plain", "single_frame", "level", "overwrite"),
                *("group_by", "buffer_size", "temporary_directory"),
            ),
            lambda given: given.get("check"),
            "--check neither sorts nor writes",
        ),
        Rule(
            ("output_directory",),
            lambda given: given.get("merge"),
            "--merge writes one output",
            "rank the inputs of the rankings",
        ),
        *DATASET,
        *WORKERS,
        *WRITING,
    ),
    "score": (
        Rule(
            (
                *("model", "per_model", "context", "stride", "bos", "batch_tokens"),
                "min_tokens",
                "prompt_field",
            ),
            lambda given: _metrics(given) <= WITHOUT_MODEL,
            "no chosen metric uses a model",
        ),
        Rule(("prompt_field",), lambda given: given.get("chat"), "--chat scores turns behind those before"),
        Rule(
            ("seed",),
            lambda given: _metrics(given) <= {*METRICS} - {"random"},
            "no chosen metric is random",
            "add -m random",
        ),
        Rule(
            ("top_k",),
            lambda given: _metrics(given) <= {*METRICS} - {"top_k_accuracy"},
            "no chosen metric counts hits",
            "add -m top_k_accuracy",
        ),
        Rule(
            ("held_out", "ngram"),
            lambda given: _metrics(given) <= {*METRICS} - {"overlap"},
            "no chosen metric compares texts with others",
            "add -m overlap",
        ),
        Rule(
            ("priors",),
            lambda given: _metrics(given) <= {*METRICS} - {"token_prior_mean", "token_prior_std"},
            "no chosen metric counts tokens",
            "add -m token_prior_mean",
        ),
        Rule(
            ("classifier", "label"),
            lambda given: _metrics(given) <= {*METRICS} - {"quality"},
            "no chosen metric classifies texts",
            "add -m quality",
        ),
        *WORKERS,
        *WRITING,
    ),
    "slice": (
        *DATASET,
        Rule(
            ("rejects", "scores"),
            lambda given: given.get("output_directory"),
            "-O writes nothing but what is kept, and reads no other file",
            "use --invert -O OTHER for what is not kept, or write one output with -o",
        ),
        Rule(
            ("seed",),
            lambda given: given.get("keep") != "random" and "sample" not in given,
            "nothing is drawn at random",
            "give --keep random or --sample",
        ),
        Rule(
            ("within",),
            lambda given: "least" in given or "most" in given or "cut" in given,
            "a cut at scores is the same for every value",
        ),
        Rule(("by", "scores"), lambda given: "cut" in given, "--cut compares the scores of the records"),
        Rule(("of_all",), lambda given: "frac" not in given, "it is about --frac", "add --frac F"),
        Rule(
            ("of_all",),
            lambda given: not given.get("key") and given.get("keep") != "random" and "sample" not in given,
            "a slice of a ranking counts fractions of the whole ranking",
        ),
        Rule(
            ("of_all",),
            lambda given: "within" in given or "scores" in given,
            "the stream does not say how much each value of --within, or a file of --scores, had",
        ),
        Rule(("drift",), lambda given: "cut" not in given, "no share was measured", "add --cut FILE"),
        Rule(
            ("prefix",),
            lambda given: {"key", "scores", "cut"} & given.keys(),
            "it names fields of a ranking, and -k, --scores or --cut names another score",
        ),
        *WORKERS,
        *WRITING,
    ),
    "stat": (
        *WORKERS,
        Rule(
            ("text_field",),
            lambda given: not given.get("duplicates") and not given.get("token_counts"),
            "texts are only read for duplicates and token counts",
            "add --duplicates",
        ),
        Rule(
            ("tokenizer",),
            lambda given: not given.get("token_counts"),
            "no tokens are counted",
            "add --token-counts FILE",
        ),
        Rule(("scores",), lambda given: not given.get("agree"), "no scores are compared", "add --agree"),
    ),
    "train": (
        Rule(
            ("seed",),
            lambda given: given.get("init_from"),
            "--init-from brings the weights that it would draw",
            "--data-seed changes the order of the data",
        ),
    ),
    "eval": (OF_SAMPLES, OF_GLUE, NEEDS_GLUE, NEEDS_TEXTS),
}


def check(verb: str, given: Given, spelling: Callable[[str], str]) -> None:
    """Raise UsageError for the first option that has no effect beside the others that were given.

    `spelling` makes the name of an option, as its user knows it, of the name of its field.
    """
    for rule in (*MESSAGES, *RULES.get(verb, ())):
        useless = [field for field in rule.fields if field in given]
        if useless and rule.when(given):
            name = spelling(useless[0])
            raise UsageError(f"{name} has no effect: {rule.reason}", remedy=rule.remedy or "leave it out")


def _metrics(given: Given) -> set[str]:
    """The names of the chosen metrics of `score`; packages bring more than those in METRICS."""
    return set(given.get("metric") or ("perplexity",))
