"""Fine-tune models on GLUE's tasks (Wang et al. 2019), and say beside each number what guessing would have got.

A result is a function of model, data, protocol and seed: the seed draws the new layer and the order of the examples, there is no
dropout, and what the last epoch leaves counts.
"""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ....errors import ConfigurationError
from ....models.cpu_kernels import keep_freed_memory
from ....models.load import LoadedModel, versions
from ....models.safety import directory_hash
from ....models.tokenizer import tokenizer_hash
from ....statistics import classification
from ....training.step import EPSILON, adamw
from ....version import __version__
from .classifier import Classifier, Floats, Ids, rows
from .tasks import TASKS, Data

log = logging.getLogger(__name__)

METRICS: Mapping[str, tuple[str, ...]] = {  # GLUE's own; accuracy for the tasks that are not named
    "cola": ("matthews",),
    "mrpc": ("accuracy", "f1"),
    "stsb": ("pearson", "spearman"),
    "qqp": ("accuracy", "f1"),
}
BETAS = (0.9, 0.999)

Result = dict[str, Any]
Known = Callable[[Result], Result | None]
Report = Callable[[int, str], object]


@dataclass(frozen=True)
class Protocol:
    """How a model is fine-tuned: epochs and rate are the paper's (Marion et al. 2023), which is silent about the rest."""

    epochs: int = 3
    lr: float = 1e-5
    batch: int = 32  # examples
    length: int = 256  # tokens of an example, ends included
    decay: float = 0.01  # of matrices
    warmup: float = 0.06  # share of the steps in which the rate rises; then it falls to 0 in a straight line
    deviation: float = 0.02  # of the new layer's first weights

    def steps(self, examples: int) -> int:
        """Steps of a run over so many examples; the last batch of an epoch may be short."""
        return self.epochs * math.ceil(examples / self.batch)

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, the first being 0."""
        warmup = math.ceil(self.warmup * steps)
        return self.lr * min((step + 1) / max(1, warmup), (steps - step) / max(1, steps - warmup))


@dataclass(frozen=True)
class Subject:
    """A model to fine-tune, the weights that every run starts from, and the hashes it is known by."""

    name: str
    loaded: LoadedModel
    start: Mapping[str, Tensor]
    hashes: Mapping[str, str]


@dataclass(frozen=True)
class Job:
    """A model and a task, all that is the same for every seed; `rows` are the ids of each part's examples."""

    subject: Subject
    task: str
    data: Data
    rows: Mapping[str, list[Ids]]
    protocol: Protocol
    provenance: Result


def evaluate(
    models: Sequence[tuple[str, Callable[[], LoadedModel]]],
    tasks: Mapping[str, Data],
    seeds: int,
    protocol: Protocol = Protocol(),
    *,
    known: Known = lambda identity: None,
    report: Report = lambda steps, text: None,
) -> Iterator[Result]:
    """For each model and task one result a seed and one of all seeds, then one of all tasks; one model is in memory at a time.

    The models are loaded to be trained. `known` is asked, with all that identifies a seed's result, for one that is there already;
    `report` is told of steps taken. Raises ConfigurationError.
    """
    for name, load in models:
        subject, scores = _subject(name, load()), []
        for task, data in tasks.items():
            job = _job(subject, task, data, protocol)
            results = []
            for seed in range(seeds):
                results.append(_result(job, seed, known, report))
                yield results[-1]
            scores.append([result["score"] for result in results])
            yield _of_all_seeds(job, results)
        averages = [fmean(each) for each in zip(*scores, strict=True)]
        yield {
            "result": "glue average",
            "model": name,
            "tasks": list(tasks),
            "seeds": seeds,
            "score": _spread(averages),
        }


# Before the first step


def _subject(name: str, loaded: LoadedModel) -> Subject:
    if loaded.tokenizer.eos_token_id is None:
        raise ConfigurationError(
            "its tokenizer names no end of a document", place=name, remedy="set eos_token"
        )
    if loaded.settings.device == "cpu":
        keep_freed_memory()
        if (
            loaded.settings.dtype == "bfloat16"
        ):  # torch's own attention takes a third of a step on short rows: 68 ms of CoLA, so 52
            loaded.network.set_attn_implementation("eager")
    start = {key: value.to("cpu", copy=True) for key, value in loaded.network.state_dict().items()}
    hashes = {
        "model": directory_hash(loaded.directory),
        "tokenizer": tokenizer_hash(loaded.tokenizer),
    }
    return Subject(name, loaded, start, hashes)


def _job(subject: Subject, task: str, data: Data, protocol: Protocol) -> Job:
    loaded, context = subject.loaded, subject.loaded.settings.context or protocol.length
    if context < protocol.length:
        log.warning("%s reads %d tokens: the rest of longer examples is cut off", subject.name, context)
        protocol = replace(protocol, length=context)
    examples = {"train": data.train, **data.held_out}
    ids = {part: rows(loaded.tokenizer, some.texts, protocol.length) for part, some in examples.items()}
    optimizer = {
        "optimizer": "AdamW",
        "betas": list(BETAS),
        "epsilon": EPSILON,
        "dtype": loaded.settings.dtype,
    }
    provenance = {
        **subject.hashes,
        "data": data.hash,
        "protocol": {**asdict(protocol), **optimizer},
        "versions": {"prune_cli": __version__, **versions()},
    }
    return Job(subject, task, data, ids, protocol, provenance)


# A run


def _run(job: Job, seed: int, report: Report) -> dict[str, Floats]:
    """Fine-tune, and predict the labels of each held-out part."""
    job.subject.loaded.network.load_state_dict(job.subject.start)
    model = Classifier(job.subject.loaded, len(TASKS[job.task].labels) or 1, job.protocol.deviation, seed)
    optimizer = adamw(model, BETAS, job.protocol.decay)
    ids, labels = job.rows["train"], job.data.train.labels
    steps = job.protocol.steps(len(ids))
    for step, batch in enumerate(batches(len(ids), job.protocol, seed)):
        for group in optimizer.param_groups:
            group["lr"] = job.protocol.rate(step, steps)
        loss = model.gradients([ids[at] for at in batch], labels[batch])
        if not math.isfinite(loss):
            raise ConfigurationError(
                f"{job.task}: step {step + 1} has a loss of {loss}",
                place=job.subject.name,
                remedy="lower --lr",
            )
        optimizer.step()
        optimizer.zero_grad()
        report(1, f"{job.task}, seed {seed}: loss {loss:.3f}")
    return {part: model.predictions(job.rows[part]) for part in job.data.held_out}


def batches(examples: int, protocol: Protocol, seed: int) -> Iterator[NDArray[np.int64]]:
    """Which examples each step sees: every one once an epoch, in an order that (seed, epoch) decides."""
    for epoch in range(protocol.epochs):
        order = np.random.default_rng([seed, epoch]).permutation(examples)
        yield from (order[at : at + protocol.batch] for at in range(0, examples, protocol.batch))


# Results


def _result(job: Job, seed: int, known: Known, report: Report) -> Result:
    """One seed's result; what is not known is run."""
    found = known({"result": "glue", "task": job.task, "seed": seed, "provenance": job.provenance})
    if found:
        report(job.protocol.steps(len(job.rows["train"])), f"{job.task}, seed {seed}: is there already")
        return {**found, "model": job.subject.name}
    predictions = _run(job, seed, report)
    metrics = _by_metric(
        job, lambda metric, part, truth: classification.METRICS[metric](truth, predictions[part])
    )
    numbers = {"score": fmean(metrics.values()), "metrics": metrics}
    return {
        "result": "glue",
        "model": job.subject.name,
        "task": job.task,
        "seed": seed,
        **numbers,
        **_about(job),
    }


def _of_all_seeds(job: Job, results: Sequence[Result]) -> Result:
    metrics = {
        name: _spread([result["metrics"][name] for result in results]) for name in results[0]["metrics"]
    }
    numbers = {"score": _spread([result["score"] for result in results]), "metrics": metrics}
    return {
        "result": "glue task",
        "model": job.subject.name,
        "task": job.task,
        "seeds": len(results),
        **numbers,
        **_about(job),
    }


def _spread(values: Sequence[float]) -> Result:
    """Mean and sample deviation over seeds, of which one has none."""
    return {"mean": fmean(values), "deviation": stdev(values) if len(values) > 1 else None}


def _about(job: Job) -> Result:
    """What to hold a result to: the level of the training examples' most common class (of a score, their mean), and of chance."""
    labels, classes = job.data.train.labels, len(TASKS[job.task].labels)
    usual = float(np.bincount(labels.astype(int)).argmax()) if classes else float(labels.mean())
    return {
        "majority": _by_metric(
            job, lambda metric, part, truth: classification.constant(metric, truth, usual)
        ),
        "chance": _by_metric(job, lambda metric, part, truth: classification.chance(metric, truth, classes)),
        "examples": {part: len(ids) for part, ids in job.rows.items()},
        "provenance": job.provenance,
    }


def _by_metric(job: Job, measure: Callable[[str, str, Floats], float]) -> dict[str, float]:
    """`measure` of each metric, part and its labels: {"accuracy": …}, or {"accuracy_matched": …, "accuracy_mismatched": …}."""
    return {
        metric + part.removeprefix("dev"): measure(metric, part, examples.labels)
        for part, examples in job.data.held_out.items()
        for metric in METRICS.get(job.task, ("accuracy",))
    }
