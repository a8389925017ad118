"""Which metrics are computed, and with which models?"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

from ... import metrics, reference
from ...errors import ConfigurationError, UsageError
from ...metrics import STATISTICS, Metric
from ...models import safety
from ...models.ngram import model as ngram
from ...settings.model import Dtype, ModelSettings
from ...settings.score import WORDS, Normalization, Scores, Trial
from . import resources
from .resources import Resource

if TYPE_CHECKING:
    from ...models.language_model import LanguageModel
    from ...models.ngram.model import NgramModel

# Tokens of the prompt and of the continuation of `memorization`: Marion et al. 2023, section 3.2.
PROMPT = CONTINUED = 32


@dataclass(frozen=True)
class Scoring:
    """The metrics, and the loaded models that they need.

    Several models are an ensemble; `against` is the second model of metrics that compare two. Raises
    ConfigurationError if the models do not fit together.
    """

    metrics: Sequence[Metric]
    models: Sequence[LanguageModel | NgramModel] = ()
    against: LanguageModel | NgramModel | None = None
    per_model: bool = False
    min_tokens: int = 1
    top_k: int = 5
    seed: int = 0
    resources: Sequence[Resource] = ()  # of metrics of texts
    chat_template: str | None = None  # its hash, if conversations are scored

    def __post_init__(self) -> None:
        for model in self.models[1:]:
            self._check_same_tokenizer(
                model, "all models of an ensemble must have the same", "score with each on its own"
            )
        if "continuation" in self.needs:
            for model in self.models:
                cast("LanguageModel", model).check_reads(PROMPT + CONTINUED)
        # Losses of two models are subtracted token by token, so the tokens have to be the same.
        # A metric that compares bits per byte does without a common tokenizer.
        by_token = [
            metric.name
            for metric in self.metrics
            if metric.needs_second_model and "against_n_bytes" not in metric.needs
        ]
        if self.against and by_token:
            self._check_same_tokenizer(
                self.against, f"{by_token[0]} compares token by token", "use -m excess_bits_per_byte"
            )

    def _check_same_tokenizer(self, model: LanguageModel | NgramModel, reason: str, remedy: str) -> None:
        if model.tokenizer_hash != self.models[0].tokenizer_hash:
            fault = f"its tokenizer differs from that of {self.models[0].name}: {reason}"
            raise ConfigurationError(fault, place=model.name, remedy=remedy)

    @cached_property
    def needs(self) -> frozenset[str]:
        """The names of everything that the metrics are computed from."""
        return needs(self.metrics)

    @cached_property
    def statistics(self) -> list[str]:
        """The statistics of each token that a model has to compute; `nll` is always written."""
        return [name for name in STATISTICS if name == "nll" or name in self.needs]

    @property
    def all_models(self) -> list[LanguageModel | NgramModel]:
        """The models of the ensemble, then the second model."""
        # The second model has the last place here, in provenance and among the names to load.
        return [*self.models, *([self.against] if self.against else [])]

    @property
    def tokenizer(self) -> str | None:
        """The hash of the tokenizer that blocks have to be packed with; None if ids are not looked at."""
        if self.models:
            return self.models[0].tokenizer_hash
        return next((each.tokenizer for each in self.resources if each.tokenizer), None)

    @property
    def dtype(self) -> str:
        """The number format of causal models."""
        return cast("LanguageModel", self.models[0]).settings.dtype

    @property
    def flops_per_token(self) -> float:
        """FLOPs of one forward pass of every model. Generating a token costs the same again."""
        # Twice the parameters, for each model: a multiplication and an addition for each weight.
        return float(sum(model.flops_per_token for model in self.all_models))

    @property
    def flops_per_continuation(self) -> float:
        """FLOPs to read a prompt and generate its continuation."""
        if "continuation" not in self.needs:
            return 0.0
        return sum(model.flops_per_token for model in self.models) * float(PROMPT + CONTINUED)

    def flops(self, *, tokens: int, scored: int) -> float:
        """FLOPs for `tokens` tokens in records of which `scored` have a score: only those were continued."""
        return tokens * self.flops_per_token + scored * self.flops_per_continuation

    def provenance(self) -> dict[str, Any]:
        """Names, hashes and settings of the models, and of the resources; empty without either."""
        return {**self._of_models(), **_of_resources(self.resources)}

    def _of_models(self) -> dict[str, Any]:
        if not self.models:
            return {}
        first = self.models[0]
        return _provenance(
            names=[model.name for model in self.all_models],
            hashes=[model.hash for model in self.all_models],
            against=self.against is not None,
            first=first.recorded() | _of_template(self.chat_template),
        )


def _of_template(digest: str | None) -> dict[str, Any]:
    return {"chat_template": digest} if digest else {}


def _of_resources(resources: Sequence[Resource]) -> dict[str, Any]:
    return {name: value for each in resources for name, value in each.provenance().items()}


def _provenance(
    names: Sequence[str], hashes: Sequence[str], *, against: bool, first: dict[str, Any]
) -> dict[str, Any]:
    """The models' part of a head; `first` is what the first model's tokenizer and settings are."""
    # The order is that of the heads of existing streams, whose bytes a resumed run compares.
    return {
        "names": [os.path.basename(os.path.normpath(name)) for name in names],
        "models": list(hashes),
        "against": against,
        **first,
    }


def needs(chosen: Sequence[Metric]) -> frozenset[str]:
    """The names of everything that the metrics are computed from."""
    return frozenset().union(*(metric.needs for metric in chosen))


def chosen_metrics(scores: Scores) -> list[Metric]:
    """The metrics that the user chose. Raises UsageError for an unknown one."""
    return [metrics.load(name) for name in scores.metrics]


def model_names(scores: Scores, chosen: Sequence[Metric]) -> list[str]:
    """The models to load, that of --against last; none if no metric needs one.

    Raises UsageError if --against is missing, or has no use.
    """
    comparing = [metric.name for metric in chosen if metric.needs_second_model]
    if comparing and not scores.against:
        raise UsageError(
            f"{comparing[0]} compares two models", remedy="name the second one with --against PATH"
        )
    if scores.against and not comparing:
        raise UsageError("no metric uses --against", remedy="for example -m excess_loss")
    _check_prompts(scores, chosen)
    if not any(metric.needs_model for metric in chosen):
        return []
    default = os.environ.get("PRUNE_CLI_MODEL") or str(reference.DIRECTORY)
    return [*(scores.model or [default]), *([scores.against] if scores.against else [])]


def _check_prompts(scores: Scores, chosen: Sequence[Metric]) -> None:
    """Raise UsageError if a metric needs prompts that there are not, or cannot use those that there are."""
    has_prompts = scores.chat or scores.prompt_field is not None
    for metric in chosen:
        if metric.needs_prompt and not has_prompts:
            fault = f"{metric.name} compares a text behind a prompt with the text alone"
            raise UsageError(fault, remedy="name the prompt with --prompt-field FIELD, or give --chat")
        if has_prompts and metric.wants_training_data:
            fault = f"{metric.name} continues what a model was trained on, and a prompt is not part of that"
            raise UsageError(fault, remedy="leave out --prompt-field and --chat")
    if scores.prompt_field == scores.text_field:
        raise UsageError(f"`{scores.prompt_field}` cannot be both prompt and text", remedy="name two fields")


def check_ngram_models(scores: Scores, chosen: Sequence[Metric], names: Sequence[str], trial: Trial) -> None:
    """Raise UsageError for what n-gram models cannot do, and for options that only they have.

    Raises NoInputError for a model whose file is not there.
    """
    found = [name for name in names if ngram.is_ngram(name)]
    if scores.normalize != Normalization.none and not found:
        raise UsageError("--normalize has no effect: no model is an n-gram model", remedy="leave it out")
    if scores.tokenizer and not found and not scores.priors:
        fault = "--tokenizer has no effect: there is no n-gram model, and no --priors"
        raise UsageError(fault, remedy="leave it out")
    if not found:
        return
    for name in found:
        ngram.check(name)
    causal = [metric.name for metric in chosen if metric.needs_causal_model]
    if causal:
        fault = f"{causal[0]} needs the probabilities of all tokens, which an n-gram model does not give"
        raise UsageError(fault, place=found[0], remedy="name a causal language model")
    if scores.chat or scores.prompt_field is not None:
        fault = "an n-gram model reads no prompts"
        raise UsageError(fault, place=found[0], remedy="leave out --prompt-field and --chat")
    if trial.self_check:
        fault = "--self-check compares with float32, and an n-gram model has one precision"
        raise UsageError(fault, place=found[0], remedy="leave it out")


def load_scoring(scores: Scores, settings: ModelSettings) -> Scoring:
    """Load the models that the chosen metrics need.

    Raises UsageError, ConfigurationError, UnavailableError or OutOfMemoryError.
    """
    chosen = chosen_metrics(scores)
    names = model_names(scores, chosen)
    # All models are looked at before the first is loaded, which may take minutes.
    for name in names:
        _check(name)
    loaded = resources.load(scores, chosen)
    if not names:
        return Scoring(chosen, seed=scores.seed, resources=loaded)
    template = _template_hash(names, settings) if scores.chat else None
    models = [_load(name, scores, settings) for name in names]
    # `model_names` has put it last.
    against = models.pop() if scores.against else None
    return Scoring(
        chosen,
        models,
        against,
        per_model=scores.per_model,
        min_tokens=scores.min_tokens,
        top_k=scores.top_k,
        seed=scores.seed,
        resources=loaded,
        chat_template=template,
    )


def _template_hash(names: Sequence[str], settings: ModelSettings) -> str:
    """The hash of the models' chat template, from their files.

    Raises ConfigurationError unless all have the same.
    """
    from ...models.language_model import chat_template

    first, *others = [chat_template(name, settings) for name in names]
    for name, digest in zip(names[1:], others, strict=True):
        if digest != first:
            fault = f"its chat template differs from that of {names[0]}"
            raise ConfigurationError(fault, place=name, remedy="score with each on its own")
    return first


def provenance(scores: Scores, settings: ModelSettings) -> dict[str, Any]:
    """As `Scoring.provenance` of the same models, from their files: no weights are loaded.

    Raises as `load_scoring` does.
    """
    chosen = chosen_metrics(scores)
    of_resources = _of_resources(resources.load(scores, chosen))
    names = model_names(scores, chosen)
    if not names:
        return of_resources
    for name in names:
        _check(name)
    models = [_provenance_of(name, scores, settings) for name in names]
    template = _template_hash(names, settings) if scores.chat else None
    first = {name: value for name, value in models[0].items() if name != "model"} | _of_template(template)
    hashes = [model["model"] for model in models]
    of_models = _provenance(names, hashes, against=scores.against is not None, first=first)
    return {**of_models, **of_resources}


def likelihoods(scoring: Scoring) -> Scoring:
    """The same models without metrics: only `nll_sum`, `n_scored` and `n_bytes` are computed."""
    return replace(scoring, metrics=(), against=None, resources=())


def likelihoods_in_float32(scoring: Scoring) -> Scoring:
    """As `likelihoods`, with the models loaded a second time, in float32."""
    # torch is loaded: the models are.
    from ...models.language_model import load

    loaded = cast("Sequence[LanguageModel]", scoring.models)  # see `check_ngram_models`
    models = [load(model.name, replace(model.settings, dtype=Dtype.float32)) for model in loaded]
    return replace(likelihoods(scoring), models=models)


def _check(name: str) -> None:
    check = ngram.check if ngram.is_ngram(name) else safety.check
    check(name)


def _load(name: str, scores: Scores, settings: ModelSettings) -> LanguageModel | NgramModel:
    if ngram.is_ngram(name):
        return ngram.NgramModel(name, scores.tokenizer or WORDS, scores.normalize)
    # torch takes seconds to load, and metrics that need no model run where it is not installed.
    from ...models.language_model import load

    return load(name, settings)


def _provenance_of(name: str, scores: Scores, settings: ModelSettings) -> dict[str, Any]:
    """All that the numbers of a model depend on, from its files."""
    if ngram.is_ngram(name):
        return ngram.provenance(name, scores.tokenizer or WORDS, scores.normalize)
    from ...models.language_model import provenance as of_model  # late for the same reason as in `_load`

    return of_model(name, settings)
