"""Which metrics there are: one a file of this folder, and those that installed packages add.

A metric is a module with a function of the same name. The function's parameters say what it needs of a
record, and it returns a number, or None for a record that has no score. Only what a chosen metric needs is
computed. A new number for each token is computed in models/head.py. The parameters are, by name:

    nll_sum, n_scored                Σ nll of the scored tokens in nats (float64), and their number, 1 or more
    nll, error_norm, entropy, rank   of each scored token (`rank` in the vocabulary), float32 (T,), T ≥ 1;
                                     formulas in models/head.py
    n_bytes                          UTF-8 bytes of the scored tokens; None if the tokenizer cannot tell
    against_nll_sum, against_nll, against_n_bytes
                                     the same of the second model (`--against`), over its own scored tokens
    unprompted_nll                   nll of the scored tokens without the prompt of --prompt-field or --chat
    tokens, n_prefix                 the record's ids, int, behind `n_prefix` (0 or 1) that were put in front
    continuation                     ids that the model generates after the first 32, int (32,), or None
    identity, content                the record's `id` (None if it has none), and its text or ids
    n_ngrams, n_held_out_ngrams      sequences of `--ngram` words in the text, and those that occur in
                                     `--held-out` (texts/words.py says what a word is)
    log_prior_moments                mean and variance of ln(prior) over the tokens of `--tokenizer`, with the
                                     priors of `--priors`; None if there is no token
    label_probability                of `--label`, by the fastText model `--classifier`
    seed, top_k                      as the user set them

A record that is a block of ids has no word sequences, and no score that needs one.

The module's docstring describes the metric in its first line. `EASY` is "low" or "high", the end of the scale
where records are easy, or None if neither is. A module may define `over_models`, which makes one score of an
ensemble's; otherwise it is their mean.

A package adds a metric by an entry point in the group `prune_cli.metrics`, from the metric's name to its
module:

    [project.entry-points."prune_cli.metrics"]
    words = "my_package.words"

A metric of this folder comes before one of the same name in a package.
"""

import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from importlib import import_module
from statistics import fmean
from types import ModuleType

from ..errors import ConfigurationError, UsageError

# What the output layer computes of each token.
STATISTICS = ("nll", "error_norm", "entropy", "rank")
# What an n-gram model gives, too.
OF_ANY_MODEL = frozenset({"nll_sum", "n_scored", "n_bytes", "against_nll_sum", "against_n_bytes"})
# What is computed from a text and a file, with the option that names the file (stages/score/resources.py).
OF_TEXTS = {
    "n_ngrams": "--held-out",
    "n_held_out_ngrams": "--held-out",
    "log_prior_moments": "--priors",
    "label_probability": "--classifier",
}
# A metric that needs nothing else is computed without loading torch.
WITHOUT_MODEL = frozenset({"identity", "content", "seed", *OF_TEXTS})
UNPROMPTED = "unprompted_nll"
PARAMETERS = (
    *STATISTICS,
    *OF_TEXTS,
    "nll_sum",
    "n_scored",
    "n_bytes",
    UNPROMPTED,
    "against_nll_sum",
    "against_nll",
    "against_n_bytes",
    "tokens",
    "n_prefix",
    "continuation",
    "identity",
    "content",
    "seed",
    "top_k",
)
GROUP = "prune_cli.metrics"  # of entry points


@dataclass(frozen=True)
class Metric:
    """A metric: `score` turns the values that it `needs` into a number; `easy` is the end of its scale where
    easy records lie.
    """

    name: str
    description: str
    easy: str | None
    score: Callable[..., float | None]
    over_models: Callable[[Sequence[float]], float] = fmean

    @cached_property
    def needs(self) -> frozenset[str]:
        """The names of the parameters of `score`."""
        return frozenset(inspect.signature(self.score).parameters)

    @property
    def needs_model(self) -> bool:
        return not self.needs <= WITHOUT_MODEL

    @property
    def needs_causal_model(self) -> bool:
        """Whether an n-gram model gives less than it needs."""
        return self.needs_model and not self.needs <= WITHOUT_MODEL | OF_ANY_MODEL | {"top_k"}

    @property
    def needs_second_model(self) -> bool:
        return any(name.startswith("against_") for name in self.needs)

    @property
    def needs_prompt(self) -> bool:
        return UNPROMPTED in self.needs

    @property
    def wants_training_data(self) -> bool:
        """Whether it measures how well a model remembers what it was trained on.

        Any other metric that uses a model is spoiled by documents that the model was trained on.
        """
        return "continuation" in self.needs


def names() -> list[str]:
    """The names of the metrics in this folder."""
    # A name with an underscore is a helper of other metrics.
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")


def installed() -> dict[str, str]:
    """The metrics that installed packages add: the module of each, by the metric's name.

    It looks at every package that is installed, which takes 20 ms and more, so it is called only where a name
    is not in this folder.

    Raises ConfigurationError if two packages add a metric of the same name.
    """
    from importlib.metadata import entry_points  # 10 ms, which `--help` can do without

    modules: dict[str, str] = {}
    for point in entry_points(group=GROUP):
        # The same package may be found twice, in an editable install for example.
        module = modules.setdefault(point.name, point.value)
        if module != point.value:
            fault = f"two packages add a metric named {point.name!r}: {module} and {point.value}"
            raise ConfigurationError(fault, remedy="uninstall one of them")
    return modules


def load(name: str) -> Metric:
    """The metric of that name. Raises UsageError, which lists the choices, or ConfigurationError if its
    module is no metric.
    """
    if name in names():  # without a look at the installed packages
        return _metric(name, import_module(f"{__name__}.{name}"))
    modules = installed()
    if name not in modules:
        raise _unknown(name, sorted({*names(), *modules}))
    try:
        module = import_module(modules[name])
    except Exception as error:  # a package of somebody else: anything may go wrong
        fault = f"the metric cannot be imported: {type(error).__name__}: {error}"
        raise ConfigurationError(fault, place=modules[name]) from error
    return _metric(name, module)


def of_field(field: str) -> Metric | None:
    """The metric whose score is in a field: the longest name that the field ends with, since scores may have
    a prefix.
    """
    matches = [name for name in {*names(), *installed()} if field.endswith(name)]
    return load(max(matches, key=len)) if matches else None


def _unknown(name: str, choices: list[str]) -> UsageError:
    fault = f"no metric is named {name!r}: there are {', '.join(choices)}"
    return UsageError(fault, place="--metric", remedy=_suggestion(name, choices))


def _suggestion(name: str, choices: Sequence[str]) -> str:
    nearest = get_close_matches(name, choices, 1)
    return f"did you mean {nearest[0]}?" if nearest else ""


def _metric(name: str, module: ModuleType) -> Metric:
    """The metric that a module defines. Raises ConfigurationError if it lacks something or asks for what
    nobody knows.
    """
    score = getattr(module, name, None)
    place = module.__name__
    if not callable(score):
        raise ConfigurationError(f"the metric's module has no function {name}", place=place)
    easy = getattr(module, "EASY", None)  # a package may leave it out
    if easy not in ("low", "high", None):
        raise ConfigurationError(f"EASY is {easy!r}: expected 'low', 'high' or None", place=place)
    description = (module.__doc__ or "").partition("\n")[0]
    metric = Metric(name, description, easy, score, getattr(module, "over_models", fmean))
    _check_parameters(metric, place)
    return metric


def _check_parameters(metric: Metric, place: str) -> None:
    # A misspelt name would otherwise be a KeyError at the first record, after the model was loaded.
    try:
        parameters = sorted(metric.needs)
    except (TypeError, ValueError):  # a compiled function need not say what its parameters are
        fault = f"the parameters of the metric {metric.name} cannot be read"
        raise ConfigurationError(fault, place=place, remedy="wrap it in a Python function") from None
    for parameter in parameters:
        if parameter not in PARAMETERS:
            fault = f"the metric {metric.name} asks for {parameter!r}: there are {', '.join(PARAMETERS)}"
            raise ConfigurationError(fault, place=place, remedy=_suggestion(parameter, PARAMETERS))
