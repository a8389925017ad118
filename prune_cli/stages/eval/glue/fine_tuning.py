"""How is a model fine-tuned on one task of GLUE, with one seed?

A run is a function of model, data, protocol and seed: the seed draws the new layer and the order of the
examples, there is no dropout, and the weights after the last epoch count.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ....errors import ConfigurationError
from ....models.load import LoadedModel, versions
from ....models.memory import keep_freed_memory
from ....models.safety import directory_hash
from ....models.text.tokenizer import tokenizer_hash
from ....settings.eval import FineTuning
from ....training.step import EPSILON, adamw
from ....version import __version__
from .classifier import Classifier, Floats, Ids, rows
from .tasks import TASKS, Data

log = logging.getLogger(__name__)

BETAS = (0.9, 0.999)  # of AdamW: its defaults

# Called with a number of optimizer steps, and with text that says what they were for.
Progress = Callable[[int, str], object]


@dataclass(frozen=True)
class Protocol:
    """How a model is fine-tuned.

    Epochs and learning rate are those of Marion et al. 2023, who do not state the rest: batch, weight decay
    and initial weights are those of BERT (Devlin et al. 2019), the warm-up is RoBERTa's (Liu et al. 2019).
    """

    epochs: int = FineTuning.epochs
    lr: float = FineTuning.lr
    batch: int = FineTuning.batch  # examples
    length: int = 256  # tokens of an example, EOS tokens included
    decay: float = 0.01  # weight decay of matrices; vectors have none
    warmup: float = 0.06  # fraction of the steps over which the rate rises, before it falls linearly to 0
    deviation: float = 0.02  # of the new layer's normally distributed initial weights

    def steps(self, examples: int) -> int:
        """Optimizer steps of a run; the last batch of an epoch may be short."""
        return self.epochs * math.ceil(examples / self.batch)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, counted from 0."""
        warmup = math.ceil(self.warmup * steps)
        rising = (step + 1) / max(1, warmup)
        falling = (steps - step) / max(1, steps - warmup)
        return self.lr * min(rising, falling)


@dataclass(frozen=True)
class StartingPoint:
    """A model with the weights that every run starts from, and the hashes that identify it."""

    name: str
    loaded: LoadedModel
    weights: Mapping[str, Tensor]
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class Experiment:
    """A model and a task: all that is the same for every seed.

    `rows` are the token ids of the examples, by part: train, and those that are held out.
    """

    start: StartingPoint
    task: str
    data: Data
    rows: Mapping[str, list[Ids]]
    protocol: Protocol
    provenance: dict[str, Any]

    @property
    def steps(self) -> int:
        """Optimizer steps of a run."""
        return self.protocol.steps(len(self.rows["train"]))


def starting_point(name: str, loaded: LoadedModel) -> StartingPoint:
    """A model that was loaded to be trained. Raises ConfigurationError if its tokenizer has no EOS token."""
    if loaded.tokenizer.eos_token_id is None:
        raise ConfigurationError("its tokenizer has no EOS token", place=name, remedy="set eos_token")
    if loaded.settings.device == "cpu":
        _speed_up_cpu(loaded)
    # Copies, because training changes the originals in place.
    weights = {key: value.to("cpu", copy=True) for key, value in loaded.network.state_dict().items()}
    hashes = {
        "model": directory_hash(loaded.directory),
        "tokenizer": tokenizer_hash(loaded.tokenizer),
    }
    return StartingPoint(name, loaded, weights, hashes)


def _speed_up_cpu(loaded: LoadedModel) -> None:
    keep_freed_memory()
    if loaded.settings.dtype == "bfloat16":
        # On short rows torch's fused attention is slow: a step of CoLA takes 68 ms with it, 52 ms without.
        loaded.network.set_attn_implementation("eager")


def experiment(start: StartingPoint, task: str, data: Data, protocol: Protocol) -> Experiment:
    """The experiment of a model and a task, with its examples tokenized.

    Examples that are longer than the context are cut off, with a warning.
    """
    loaded = start.loaded
    context = loaded.settings.context or protocol.length
    if context < protocol.length:
        log.warning("%s reads %d tokens: longer examples are cut off", start.name, context)
        protocol = replace(protocol, length=context)
    examples = {"train": data.train, **data.held_out}
    ids = {part: rows(loaded.tokenizer, each.texts, protocol.length) for part, each in examples.items()}
    return Experiment(start, task, data, ids, protocol, _provenance(start, data, protocol))


def _provenance(start: StartingPoint, data: Data, protocol: Protocol) -> dict[str, Any]:
    """Everything but the seed that a result depends on.

    A resumed run reuses results whose provenance is equal, so a new key makes it repeat all of them.
    """
    optimizer = {
        "optimizer": "AdamW",
        "betas": list(BETAS),
        "epsilon": EPSILON,
        "dtype": str(start.loaded.settings.dtype),
    }
    return {
        **start.hashes,
        "data": data.hash,
        "protocol": {**asdict(protocol), **optimizer},
        "versions": {"prune_cli": __version__, **versions()},
    }


def fine_tune(experiment: Experiment, seed: int, progress: Progress) -> dict[str, Floats]:
    """Fine-tune with one seed, and predict the labels of each held-out part.

    Raises ConfigurationError if the loss is not finite.
    """
    start = experiment.start
    start.loaded.network.load_state_dict(start.weights)
    # A task without classes predicts one number.
    outputs = len(TASKS[experiment.task].labels) or 1
    model = Classifier(start.loaded, outputs, experiment.protocol.deviation, seed)
    _train(model, experiment, seed, progress)
    return {part: model.predictions(experiment.rows[part]) for part in experiment.data.held_out}


def _train(model: Classifier, experiment: Experiment, seed: int, progress: Progress) -> None:
    protocol = experiment.protocol
    optimizer = adamw(model, BETAS, protocol.decay)
    ids = experiment.rows["train"]
    labels = experiment.data.train.labels
    for step, batch in enumerate(batches(len(ids), protocol, seed)):
        # Set by hand: the rate depends on the step alone, without a scheduler that has state.
        for group in optimizer.param_groups:
            group["lr"] = protocol.rate(step, experiment.steps)
        loss = model.gradients([ids[index] for index in batch], labels[batch])
        if not math.isfinite(loss):
            raise ConfigurationError(
                f"{experiment.task}: step {step + 1} has a loss of {loss}",
                place=experiment.start.name,
                remedy="lower --lr",
            )
        optimizer.step()
        optimizer.zero_grad()
        progress(1, f"{experiment.task}, seed {seed}: loss {loss:.3f}")


def batches(examples: int, protocol: Protocol, seed: int) -> Iterator[NDArray[np.int64]]:
    """The indices of each step's examples: every example once per epoch.

    The order depends on seed and epoch alone, so that two models see the same examples in the same order.
    """
    for epoch in range(protocol.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(examples)
        yield from (order[first : first + protocol.batch] for first in range(0, examples, protocol.batch))
