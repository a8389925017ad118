"""Train a causal language model, from scratch or from a checkpoint: documents in, a Hugging Face directory out.

    DIR.partial/   while it runs: the token file, metrics.jsonl, and step-N/ with what resuming needs
    DIR/           when it is done: the model, its tokenizer, train.json, metrics.jsonl, documents.npy, step-N/

A batch is a function of (data seed, step) alone and nothing is drawn at random once the weights are, so the state of a run is its
weights, the optimizer's two moments and the number of the step.
"""

import dataclasses
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import ConfigurationError, DataError, UsageError
from ..models import safety
from ..models.device import dtype_name, matrix_rate, resolve_device, resolve_dtype
from ..models.fast_training import make_fast
from ..models.tokenizer import PreTrainedTokenizerFast, tokenizer_hash
from ..settings.train import Training
from ..storage import directories
from ..version import __version__
from . import checkpoints, setup, token_file
from .distributed import ALONE, Processes
from .held_out import mean_loss
from .model import (
    PretrainedConfig,
    PreTrainedModel,
    checkpoint_activations,
    config_hash,
    load_model,
    new_model,
    transformer_blocks,
)
from .recipe import DESCRIPTION, HARMLESS, Plan, Recipe, choose, learning_rate, plan
from .setup import Corpus, Documents
from .step import BETAS, CLIP, DECAY, EPSILON, Learner, Loss, adamw, learn

MANY_PASSES = 4  # Muennighoff et al. 2023: up to here a repeated token is nearly as good as a fresh one
CPU_TOKENS = (
    4096  # through the model at a time: from 2,048 to 16,384 the speed is the same, the memory is not
)
GPU_TOKENS = 64 << 10
METRICS = "metrics.jsonl"
RESULTS = ("limit", "loss", "held_out_loss")  # of a summary: what is not known before
NAMED = 20  # documents of a batch that an error lists

log = logging.getLogger(__name__)
Report = Callable[[int, Mapping[str, float]], object]


@dataclass(frozen=True)
class Summary:
    """What a run comes to. `passes` is how often the data is gone through, losses are the last ones, in nats a token; `limit` is how
    many floating-point operations a second the device is known to do, and 0 where it is not known.
    """

    steps: int
    tokens: int
    unique_tokens: int
    repeated_tokens: int
    passes: float
    parameters: int
    limit: float = 0.0
    loss: float = math.nan
    held_out_loss: float = math.nan


@dataclass(frozen=True)
class Job:
    """All that is settled before the first step."""

    work: Path
    recipe: Recipe
    plan: Plan
    manifest: token_file.Manifest
    blocks: token_file.Blocks
    held_out: token_file.Blocks | None
    config: PretrainedConfig
    shape: str  # the configuration's fingerprint, taken before a model that is made of it writes into it
    tokenizer: PreTrainedTokenizerFast
    parent: str | None  # the hash of the checkpoint that it begins with
    device: torch.device
    dtype: torch.dtype
    processes: Processes


def train(
    documents: Documents,
    settings: Training,
    directory: Path,
    *,
    source: str | None = None,
    held_out: Corpus | None = None,
    resume: bool = False,
    replace: bool = False,
    measured: bool = False,
    report: Report = lambda step, values: None,
    clock: Callable[[], float] = time.perf_counter,
    processes: Processes = ALONE,
) -> Summary:
    """Train on `documents`, texts or blocks of ids in any order, and leave a run in `directory`.

    `source` is what the caller knows the documents by: a resumed run reads them again unless it is the same, and compares their
    hashes. On `held_out` the loss is taken every `eval_every` steps and at the end. `report` is told of step 0 while the documents
    are encoded (documents, tokens) and once with the summary to be, then of every step with what also goes to metrics.jsonl. With
    `measured` the summary has the limit of the device. Of many `processes` the first alone reads the documents and writes; all need
    to see the directory.
    """
    recipe, device = choose(settings), resolve_device(processes.device(settings.device))
    if settings.eval_every and not held_out:
        raise UsageError(
            "--eval-every has nothing to evaluate on", remedy="name held-out documents with --eval-data"
        )
    with _working(processes, directory, resume, replace) as work:
        job = _job(Corpus(documents, source), held_out, settings, recipe, device, work, report, processes)
        processes.first(lambda: _check_same_run(job))
        learner = _learner(job)
        summary = _summary(job, learner.model, matrix_rate(job.device, job.dtype) if measured else 0.0)
        processes.first(lambda: _describe(job, summary))
        report(0, asdict(summary))
        last = _learn(job, learner, report, clock)
        _finish(job, learner)
    return dataclasses.replace(summary, loss=last["loss"], held_out_loss=last.get("held_out_loss", math.nan))


# Before the first step


@contextmanager
def _working(processes: Processes, directory: Path, resume: bool, replace: bool) -> Iterator[Path]:
    """The folder to work in, which the first process makes, and gives its name when all are done."""
    with ExitStack() as first:
        made = directories.working(directory, resume=resume, replace=replace, mark=DESCRIPTION, keep="step-*")
        work = processes.first(lambda: first.enter_context(made))
        if not work.is_dir():
            raise ConfigurationError(
                "is not there on every machine", place=str(work), remedy="train in a folder that they share"
            )
        yield work
        processes.first(first.close)


def _job(
    corpus: Corpus,
    held_out: Corpus | None,
    settings: Training,
    recipe: Recipe,
    device: torch.device,
    work: Path,
    report: Report,
    processes: Processes,
) -> Job:
    dtype, parent = resolve_dtype(recipe["dtype"].value, device), settings.init_from
    manifest, other = processes.first(lambda: _read(corpus, held_out, settings, recipe, work, report))
    tokenizer, _ = setup.tokenizer(settings, (), work, known=True)
    config = setup.configuration(settings, recipe, tokenizer)
    shape = config_hash(config)
    blocks = token_file.Blocks(work, manifest, config.max_position_embeddings, recipe["data_seed"].value)
    kept = token_file.Blocks(work / setup.HELD_OUT, other, blocks.context, seed=0) if other else None
    known = processes.first(lambda: safety.directory_hash(parent)) if parent else None
    made = plan(recipe, blocks.context, blocks.count)
    if made.batch < processes.world:
        fault = f"a batch of {made.batch} blocks is less than one for each of {processes.world} processes"
        raise UsageError(fault, remedy="raise --batch-tokens")
    return Job(
        work, recipe, made, manifest, blocks, kept, config, shape, tokenizer, known, device, dtype, processes
    )


def _read(
    corpus: Corpus, held_out: Corpus | None, settings: Training, recipe: Recipe, work: Path, report: Report
) -> tuple[token_file.Manifest, token_file.Manifest | None]:
    """Make the token files of what is trained on and of what is held out."""
    tokenizer, documents = setup.tokenizer(
        settings, corpus.documents, work, known=(work / DESCRIPTION).exists()
    )
    context: int = setup.configuration(settings, recipe, tokenizer).max_position_embeddings
    manifest = setup.token_file(
        Corpus(setup.watched(documents, context), corpus.source), tokenizer, work, report
    )
    if manifest.tokens < context:
        fault = (
            f"{manifest.documents} documents hold {manifest.tokens} tokens, less than one block of {context}"
        )
        raise DataError(fault, remedy="train on more, or take a model with a shorter context")
    return manifest, setup.held_out_file(held_out, context, tokenizer, work) if held_out else None


def _run(job: Job) -> dict[str, Any]:
    """Everything that the numbers of a run hang on, but for the machine."""
    return {
        **{name: value for name, value in asdict(job.plan).items() if name not in HARMLESS},
        **{
            name: job.recipe[name].value if name in job.recipe else None
            for name in ("seed", "data_seed", "train_tokenizer")
        },
        "dtype": dtype_name(job.dtype),
        "model": job.shape,
        "tokenizer": tokenizer_hash(job.tokenizer),
        "documents": job.manifest.content,
        "held_out": job.held_out.manifest.content if job.held_out else None,
        "init_from": job.parent,
    }


def _machine(job: Job) -> dict[str, Any]:
    return {
        "device": str(job.device),
        "processes": job.processes.world,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "prune_cli": __version__,
    }


def _check_same_run(job: Job) -> None:
    """Hold a run that is resumed to what it was; on another machine it goes on, but the last bits of its numbers may differ."""
    if not (job.work / DESCRIPTION).exists():
        return
    before = json.loads((job.work / DESCRIPTION).read_text())
    for name, value in _run(job).items():
        if before["run"].get(name) != value:
            fault = f"was begun with {name} {before['run'].get(name)}, not {value}"
            raise ConfigurationError(
                fault, place=str(job.work), remedy="resume it as it was begun, or start over with -f"
            )
    for name, value in _machine(job).items():
        if (begun := before["machine"].get(name)) != value:
            log.warning("begun with %s %s, resumed with %s: the last digits may differ", name, begun, value)


def _summary(job: Job, model: PreTrainedModel, limit: float) -> Summary:
    plan, unique = job.plan, job.blocks.count * job.plan.context
    seen = plan.steps * plan.batch * plan.context
    if seen > MANY_PASSES * unique:
        log.warning(
            "%.1f passes over %d tokens; past %d a repeated token teaches ever less",
            seen / unique,
            unique,
            MANY_PASSES,
        )
    return Summary(
        plan.steps, seen, unique, max(0, seen - unique), seen / unique, model.num_parameters(), limit
    )


def _describe(job: Job, summary: Summary) -> None:
    """Write train.json: what the run is, each value and who chose it, and what it comes to."""
    description = {
        "run": _run(job),
        "chosen": {
            name: {"value": choice.value, "from": choice.origin} for name, choice in job.recipe.items()
        },
        "protocol": {
            "optimizer": "AdamW",
            "betas": BETAS,
            "epsilon": EPSILON,
            "weight_decay": DECAY,
            "clip": CLIP,
        },
        "data": asdict(job.manifest),
        "summary": {name: value for name, value in asdict(summary).items() if name not in RESULTS},
        "machine": _machine(job),
    }
    (job.work / DESCRIPTION).write_text(json.dumps(description, indent=2, default=str) + "\n")


# Steps


def _learner(job: Job) -> Learner:
    """The model at its newest whole checkpoint, or as it begins."""
    folder = job.processes.first(lambda: checkpoints.newest(job.work))
    begins = folder or (job.recipe["init_from"].value if job.parent else None)
    model = load_model(begins) if begins else new_model(job.config, job.recipe["seed"].value)
    torch.nn.Module.to(model, job.device)  # transformers' own is typed for nobody
    make_fast(model, job.dtype, compiled=not job.processes.sharded)
    checkpointed = "checkpoint_activations" in job.recipe
    if checkpointed:
        checkpoint_activations(model)
    rows = job.processes.least(_rows(job, model, checkpointed))
    shared = (
        job.processes.wrap(Loss(model), transformer_blocks(model), job.device)
        if job.processes.world > 1
        else None
    )
    learner = Learner(model, adamw(model), job.dtype, rows, processes=job.processes, shared=shared)
    if folder:
        checkpoints.restore(learner, folder, job.device)
    return learner


def _rows(job: Job, model: PreTrainedModel, checkpointed: bool) -> int:
    """How many blocks go through the model at once: on a CPU a fixed count of tokens, on a GPU what its memory has room for."""
    size = CPU_TOKENS
    if job.device.type == "cuda":
        memory = torch.cuda.get_device_properties(job.device).total_memory
        parts = job.processes.world if job.processes.sharded else 1
        size = fitting(memory, model.num_parameters(), parts, job.config, job.dtype, checkpointed)
    return max(1, min(job.processes.largest_share(job.plan.batch), size // job.plan.context))


def fitting(
    memory: int, parameters: int, parts: int, config: PretrainedConfig, dtype: torch.dtype, checkpointed: bool
) -> int:
    """How many tokens fit through a model at once on a GPU with so many bytes of memory that holds one of its `parts`.

    A layer keeps about 34 numbers a position and unit of width for the backward pass (Korthikanti et al. 2022, without the attention
    matrix); one that is computed once more keeps its input, in float32, and the 34 are needed for one layer at a time. Weights,
    gradients and moments take 16 bytes a parameter, and the copy in bfloat16 two more, which are not divided.
    """
    layers, width, a_layer = config.num_hidden_layers, config.hidden_size, 34 * 2 * dtype.itemsize
    a_token = width * (4 * layers + a_layer if checkpointed else a_layer * layers)
    return min(GPU_TOKENS, int((0.8 * memory - (16 / parts + 2) * parameters) / a_token))


def _learn(job: Job, learner: Learner, report: Report, clock: Callable[[], float]) -> dict[str, float]:
    """Take the steps that are left, with a line of metrics.jsonl each; the last line."""
    plan = job.plan
    kept = None if plan.keep is None else max(plan.keep, checkpoints.KEPT)
    values = job.processes.first(lambda: _cut_metrics(job.work / METRICS, learner.step))
    with (job.work / METRICS if job.processes.is_first else Path(os.devnull)).open("a") as metrics:
        while learner.step < plan.steps:
            start, rate = clock(), learning_rate(plan, learner.step)
            try:
                loss, norm = learn(learner, _batch(job, learner.step), rate, plan.batch)
            except ConfigurationError as error:
                raise ConfigurationError(
                    f"{error.fault}; {_origin(job, learner.step)}", remedy=error.remedy
                ) from None
            values = {
                "step": learner.step,
                "tokens": learner.step * plan.batch * plan.context,
                "loss": loss,
                "norm": norm,
                "lr": rate,
                "tokens_per_second": round(plan.batch * plan.context / (clock() - start), 1),
                "passes": learner.step * plan.batch / job.blocks.count,
            }
            if job.held_out and (
                learner.step == plan.steps or learner.step % (plan.eval_every or plan.steps) == 0
            ):
                values["held_out_loss"] = mean_loss(learner, job.held_out)
            metrics.write(json.dumps(values) + "\n")
            metrics.flush()
            report(learner.step, values)
            if learner.step in plan.saves:
                checkpoints.save(learner, job.tokenizer, _seen(job), job.work)
                job.processes.first(lambda: checkpoints.thin(job.work, plan.lasting, kept))
    return values


def _batch(job: Job, step: int) -> Tensor:
    """This process's share of the blocks of a step."""
    return torch.from_numpy(job.blocks.batch(step, job.plan.batch, job.processes.share(job.plan.batch))).to(
        job.device
    )


def _origin(job: Job, step: int) -> str:
    """Which documents a batch is made of, in words."""
    numbers = job.blocks.documents(step, job.plan.batch)
    log.info("the documents of step %d: %s", step + 1, ", ".join(map(str, numbers)))
    more = f" and {len(numbers) - NAMED} more (-v lists them)" if len(numbers) > NAMED else ""
    return f"its batch is of the documents {', '.join(map(str, numbers[:NAMED]))}{more} of the stream"


def _seen(job: Job) -> checkpoints.Hashes:
    """The hashes of the documents that the model was trained on, by its parent's run, too, where they are written down."""
    if not job.processes.is_first:
        return np.empty(0, np.uint64)
    ours = token_file.document_hashes(job.work)
    return checkpoints.with_parents(ours, job.recipe["init_from"].value) if job.parent else ours


def _cut_metrics(path: Path, step: int) -> dict[str, float]:
    """Take out of a run's metrics what came after its checkpoint (a last line may be torn); the last line that stays."""
    lines = path.read_text().splitlines()[:step] if path.exists() else []
    path.write_text("".join(f"{line}\n" for line in lines))
    last: dict[str, float] = json.loads(lines[-1]) if lines else {"loss": math.nan}
    return last


def _finish(job: Job, learner: Learner) -> None:
    """Leave the model and its checkpoints, and nothing of what only a run needs."""
    checkpoints.write(learner, job.tokenizer, _seen(job), job.work)
    job.processes.first(lambda: _clear(job))


def _clear(job: Job) -> None:
    checkpoints.thin(job.work, job.plan.lasting, job.plan.keep)
    for folder in checkpoints.resumable(job.work):
        checkpoints.forget(folder)
    token_file.remove(job.work)
    for rest in (*(job.work / name for name in setup.FOLDERS), *job.work.glob(".*.partial")):
        shutil.rmtree(rest, ignore_errors=True)
