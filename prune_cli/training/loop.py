"""Train a causal language model, from scratch or from a checkpoint: documents in, a Hugging Face directory
out.

    DIR.partial/   during the run: the token file, metrics.jsonl, train.json, step-N/ to resume from
    DIR/           at the end: the model, its tokenizer, train.json, metrics.jsonl, documents.npy, step-N/

A batch is a function of the data seed and the step, and once the weights are initialised nothing is random.
So the state of a run is its weights, the two moments of the optimizer and the number of the step, and a
resumed run has the same losses, bit for bit, as one without interruption. With --adapt a batch also depends
on the losses of earlier passes; then the state has the last loss of every block, too.
"""

import dataclasses
import json
import logging
import math
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TextIO

import numpy as np
import torch

from ..errors import ConfigurationError, DataError, UsageError
from ..models.device import matrix_rate, resolve_device
from ..models.fast_training import make_fast
from ..settings.train import Training
from ..storage import checksums, directories
from . import checkpoints, setup, token_file
from .distributed import SINGLE, Processes
from .held_out import mean_loss
from .model import (
    PreTrainedModel,
    checkpoint_activations,
    load_model,
    new_model,
    transformer_blocks,
)
from .passes.adaptive import AdaptivePasses, StepBlocks
from .recipe import DESCRIPTION, choose, learning_rate
from .setup import Callback, Corpora, Corpus, TrainingRun
from .step import CPU_TOKENS, Loss, StepResult, TrainState, adamw, fitting_tokens, train_step
from .summary import Summary, check_same_run, summarize, write_description

METRICS = "metrics.jsonl"
STEP = re.compile(rb'{"step": (\d+),')  # how a line of METRICS begins
NAMED_DOCUMENTS = 20  # of a batch, in an error message; the log has all of them

log = logging.getLogger(__name__)
Clock = Callable[[], float]


def train(
    corpus: Corpus,
    settings: Training,
    *,
    held_out: Corpus | None = None,
    measured: bool = False,
    report: Callback = lambda step, values: None,
    clock: Clock = time.perf_counter,
    processes: Processes = SINGLE,
) -> Summary:
    """Train on the documents of `corpus`, in any order, and leave the run in `settings.directory`.

    `report` is called with step 0 while the documents are tokenized (`documents`, `tokens`) and once with the
    summary so far, then after each step with its line of metrics.jsonl. With `measured` the summary has the
    peak speed of the device. Of several `processes` rank 0 alone reads documents and writes; all of them need
    to see the directory.

    Raises UsageError if the settings do not make a run, ConfigurationError for models, tokenizers and runs
    that do not fit, DataError for documents that do not, OutOfMemoryError if one block does not fit in
    memory.
    """
    recipe = choose(settings)
    device = resolve_device(processes.device(settings.device))
    if settings.eval_every and not held_out:
        raise UsageError("--eval-every needs held-out documents", remedy="name them with --eval-data")
    with _working_directory(settings, processes) as work:
        run = setup.prepare(
            Corpora(corpus, held_out),
            settings,
            recipe,
            work=work,
            device=device,
            processes=processes,
            report=report,
        )
        processes.on_rank_zero(lambda: check_same_run(run))
        state = _initial_state(run)
        peak_flops = matrix_rate(run.device, run.dtype) if measured else 0.0
        summary = summarize(run, state.model.num_parameters(), peak_flops)
        processes.on_rank_zero(lambda: write_description(run, summary))
        report(0, asdict(summary))
        last = _train_steps(run, state, report, clock)
        _finish(run, state)
    held_out_loss = last.get("held_out_loss", math.nan)
    return dataclasses.replace(summary, loss=last["loss"], held_out_loss=held_out_loss)


# --- before the first step ---


@contextmanager
def _working_directory(settings: Training, processes: Processes) -> Iterator[Path]:
    """DIR.partial, which rank 0 makes, locks and at the end renames to DIR."""
    with ExitStack() as on_rank_zero:
        directory = directories.working(
            settings.directory,
            resume=settings.resume,
            replace=settings.force,
            mark=DESCRIPTION,
            keep="step-*",
        )
        work = processes.on_rank_zero(lambda: on_rank_zero.enter_context(directory))
        if not work.is_dir():
            fault = "does not exist on every machine"
            raise ConfigurationError(fault, place=str(work), remedy="use a folder that all machines share")
        yield work
        # Renamed inside of a collective call: if that fails, it fails on all ranks.
        processes.on_rank_zero(on_rank_zero.close)


def _initial_state(run: TrainingRun) -> TrainState:
    """The state of the newest undamaged checkpoint, or that before the first step."""
    checkpoint = run.processes.on_rank_zero(lambda: checkpoints.newest(run.work))
    start = checkpoint or run.parent
    model = load_model(start) if start else new_model(run.config, run.recipe["seed"].value)
    torch.nn.Module.to(model, run.device)  # the method of transformers has no usable types
    # Whether torch.compile and FSDP work together is not tested.
    make_fast(model, run.dtype, compiled=not run.processes.sharded)
    if "checkpoint_activations" in run.recipe:
        checkpoint_activations(model)
    # All ranks need the same number of micro-batches, so the GPU with the least memory decides.
    micro_batch = run.processes.all_reduce_min(_micro_batch(run, model))
    wrapped = None
    if run.processes.world > 1:
        wrapped = run.processes.wrap(Loss(model), transformer_blocks(model), run.device)
    # After wrapping: FSDP replaces the parameters, and the optimizer has to hold the new ones.
    optimizer = adamw(model)
    state = TrainState(model, optimizer, run.dtype, micro_batch, processes=run.processes, wrapped=wrapped)
    if run.plan.adapt:
        state.passes = AdaptivePasses(run.blocks, run.plan.adapt, run.plan.batch)
    if checkpoint:
        checkpoints.restore(state, checkpoint, run.device)
    return state


def _micro_batch(run: TrainingRun, model: PreTrainedModel) -> int:
    """The number of blocks in a micro-batch: for a CPU a fixed number of tokens, for a GPU as many as fit."""
    tokens = CPU_TOKENS
    if run.device.type == "cuda":
        tokens = fitting_tokens(
            memory=torch.cuda.get_device_properties(run.device).total_memory,
            parameters=model.num_parameters(),
            shards=run.processes.world if run.processes.sharded else 1,
            config=run.config,
            dtype=run.dtype,
            checkpointed="checkpoint_activations" in run.recipe,
        )
    return max(1, min(run.processes.largest_part(run.plan.batch), tokens // run.plan.context))


# --- steps ---


def _train_steps(run: TrainingRun, state: TrainState, report: Callback, clock: Clock) -> dict[str, float]:
    """Take the remaining steps, with a line of metrics.jsonl for each. Returns the last line."""
    values = run.processes.on_rank_zero(lambda: _cut_metrics(run.work, state.step))
    path = run.work / METRICS if run.processes.is_rank_zero else Path(os.devnull)
    with path.open("a") as metrics:
        while state.step < run.plan.steps:
            values = _train_one_step(run, state, clock)
            _write_line(metrics, values)
            report(state.step, values)
            if state.step in run.plan.saves:
                _save_checkpoint(run, state, metrics)
    return values


def _train_one_step(run: TrainingRun, state: TrainState, clock: Clock) -> dict[str, float]:
    """Take one step; its line of metrics.jsonl, with the held-out loss if it is due."""
    plan = run.plan
    start = clock()
    rate = learning_rate(plan, state.step)
    batch = _next_batch(run, state)
    result = _train_on(run, state, batch, rate)
    values = {
        "step": state.step,
        "tokens": state.step * plan.batch * plan.context,
        "loss": result.loss,
        "norm": result.norm,
        "lr": rate,
        "tokens_per_second": round(plan.batch * plan.context / (clock() - start), 1),
        "passes": state.step * plan.batch / run.blocks.count,
    }
    if state.passes:
        state.passes.record(batch.indices, result.block_losses)
        values |= state.passes.description(state.step - 1)
    is_due = state.step == plan.steps or state.step % (plan.eval_every or plan.steps) == 0
    if run.held_out and is_due:
        values["held_out_loss"] = mean_loss(state, run.held_out)
    return values


def _write_line(metrics: TextIO, values: dict[str, float]) -> None:
    metrics.write(json.dumps(values) + "\n")
    metrics.flush()  # for whoever watches the run, and for a checkpoint that may follow


def _save_checkpoint(run: TrainingRun, state: TrainState, metrics: TextIO) -> None:
    def metrics_sum() -> str:
        # A checkpoint must not survive a power cut that its metrics do not.
        directories.sync_file(metrics)
        return checksums.of_file(run.work / METRICS)

    written = run.processes.on_rank_zero(metrics_sum)
    checkpoints.save(state, run.tokenizer, _training_hashes(run), run.work, written)
    # While the run goes on it keeps two checkpoints to resume from, also with --keep 0.
    keep = None if run.plan.keep is None else max(run.plan.keep, checkpoints.RESUMABLE)
    run.processes.on_rank_zero(lambda: checkpoints.delete_old(run.work, run.plan.lasting, keep))


def _next_batch(run: TrainingRun, state: TrainState) -> StepBlocks:
    """The blocks of the next step, of all ranks."""
    if state.passes:
        return state.passes.batch(state.step)
    return StepBlocks(run.blocks.indices(state.step, run.plan.batch))


def _train_on(run: TrainingRun, state: TrainState, batch: StepBlocks, rate: float) -> StepResult:
    """Take a step on this rank's part of a batch. An error of the step names the documents of the batch."""
    part = run.processes.local_part(run.plan.batch)
    blocks = torch.from_numpy(run.blocks.stack(batch.indices[part])).to(run.device)
    weights = None
    if batch.weights is not None:
        weights = torch.from_numpy(batch.weights[part]).to(run.device)
    try:
        return train_step(state, blocks, rate, run.plan.batch, weights)
    except ConfigurationError as error:
        fault = f"{error.fault}; {_batch_documents(run, state.step, batch)}"
        raise ConfigurationError(fault, remedy=error.remedy) from None


def _batch_documents(run: TrainingRun, step: int, batch: StepBlocks) -> str:
    """A sentence that names the documents in a batch, for errors that one of them may have caused."""
    numbers = [str(number) for number in run.blocks.documents(batch.indices)]
    log.info("the documents of step %d: %s", step + 1, ", ".join(numbers))
    omitted = len(numbers) - NAMED_DOCUMENTS
    more = f" and {omitted} more (-v lists them)" if omitted > 0 else ""
    return f"its batch has the documents {', '.join(numbers[:NAMED_DOCUMENTS])}{more} of the input"


def _training_hashes(run: TrainingRun) -> checkpoints.Hashes:
    """The hashes of the training documents, with those of the parent's run if known. On rank 0 only."""
    if not run.processes.is_rank_zero:
        return np.empty(0, np.uint64)
    hashes = token_file.document_hashes(run.work)
    return checkpoints.with_parent(hashes, run.parent) if run.parent else hashes


def _cut_metrics(work: Path, step: int) -> dict[str, float]:
    """Remove the lines after `step` from metrics.jsonl, as those steps are taken again. Returns the last line
    left.

    A line that was being written when the run was killed may be torn; it is always after the checkpoint.
    Raises DataError if the lines before it are not those of the checkpoint.
    """
    path = work / METRICS
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = lines[: _lines_up_to(lines, step)]
    expected = checkpoints.metrics_sum(work, step)
    # A file that is not there was removed on purpose, as the remedy says.
    is_whole = not expected or not path.exists() or checksums.of_bytes(b"".join(kept)) == expected
    try:
        last: dict[str, float] = json.loads(kept[-1]) if kept else {"loss": math.nan}
    except ValueError:
        is_whole = False
    if not is_whole:
        raise DataError(
            f"does not hold the lines of the first {step} steps as they were written",
            place=str(path),
            remedy="remove it to go on without them, or start over with -f",
        )
    path.write_bytes(b"".join(kept))
    return last


def _lines_up_to(lines: Sequence[bytes], step: int) -> int:
    """How many lines of metrics.jsonl are of this step or earlier ones."""
    # Not the number of the step: whoever removed a damaged file has fewer lines than steps.
    for count, line in enumerate(lines[:step]):
        match = STEP.match(line)
        if match and int(match[1]) > step:
            return count
    return min(step, len(lines))


# --- after the last step ---


def _finish(run: TrainingRun, state: TrainState) -> None:
    """Write the trained model, and delete all that only an unfinished run needs."""
    checkpoints.save_final(state, run.tokenizer, _training_hashes(run), run.work)
    run.processes.on_rank_zero(lambda: _clean_up(run))


def _clean_up(run: TrainingRun) -> None:
    checkpoints.delete_old(run.work, run.plan.lasting, run.plan.keep)
    for folder in checkpoints.resumable(run.work):
        checkpoints.drop_resume_state(folder)
    token_file.remove(run.work)
    # `.step-N.partial` is a checkpoint that was being written when the run was killed.
    for leftover in (*(run.work / name for name in setup.FOLDERS), *run.work.glob(".*.partial")):
        shutil.rmtree(leftover, ignore_errors=True)
