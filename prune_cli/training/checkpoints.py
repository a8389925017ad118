"""How are checkpoints (DIR/step-N) written, kept and resumed from?

Each is a Hugging Face directory that any tool can load. While a run may resume from it, it also has the
optimizer's moments, with --adapt the losses of all blocks, and a seal (`storage.directories`): hashes of its
files, which reveal damage.
"""

import json
import logging
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.text.loading import PreTrainedTokenizerFast
from ..storage import directories
from .distributed import shard_like
from .model import opened_tensors, save_model, save_tensors
from .step import TrainState
from .training_hashes import DOCUMENT_HASHES

RESUMABLE = 2  # checkpoints to resume from: the newest, and the one before in case the newest is damaged
OPTIMIZER = "optimizer.safetensors"
PASSES = "passes.safetensors"  # with --adapt
NAME = re.compile(r"step-\d+")
METRICS_SUM = "metrics"  # in the seal
MOMENTS = ("exp_avg", "exp_avg_sq")  # torch's names for AdamW's first and second moment

log = logging.getLogger(__name__)
Hashes = NDArray[np.uint64]
Tensors = dict[str, Tensor]


def save(
    state: TrainState, tokenizer: PreTrainedTokenizerFast, documents: Hashes, work: Path, metrics: str
) -> None:
    """Write the checkpoint `work`/step-N, whole or not at all, and drop the moments of older checkpoints.

    `metrics` is the checksum of metrics.jsonl up to this step. All ranks have to call this. The files do not
    depend on the number of ranks.
    """
    # Gathering is collective, so it stands outside of `write`, which runs on rank 0 alone.
    weights = _gather_weights(state)
    moments = state.processes.gather(_moments(state))

    def write() -> None:
        with directories.whole(work / f"step-{state.step}") as folder:
            _write_model(state, weights, tokenizer, documents, folder)
            save_tensors(moments, folder / OPTIMIZER)
            if state.passes:
                save_tensors(state.passes.tensors(), folder / PASSES)
            directories.seal(folder, {"step": state.step, METRICS_SUM: metrics})
        for folder in resumable(work)[RESUMABLE:]:
            drop_resume_state(folder)

    state.processes.on_rank_zero(write)


def save_final(
    state: TrainState, tokenizer: PreTrainedTokenizerFast, documents: Hashes, folder: Path
) -> None:
    """Write the trained model into `folder`, with nothing to resume from. All ranks have to call this."""
    weights = _gather_weights(state)
    state.processes.on_rank_zero(lambda: _write_model(state, weights, tokenizer, documents, folder))


def _write_model(
    state: TrainState,
    weights: Tensors,
    tokenizer: PreTrainedTokenizerFast,
    documents: Hashes,
    folder: Path,
) -> None:
    """Write a Hugging Face directory, and the hashes of the model's training documents."""
    # `eval` compares the hashes with held-out documents, and so does a run that continues from this model.
    save_model(state.model, tokenizer, folder, weights)
    np.save(folder / DOCUMENT_HASHES, documents)


def with_parent(documents: Hashes, parent: Path) -> Hashes:
    """These hashes and those of the training documents of the model in `parent`, if it has any."""
    path = parent / DOCUMENT_HASHES
    return np.union1d(documents, np.load(path)) if path.exists() else documents


def delete_old(work: Path, lasting: frozenset[int], keep: int | None) -> None:
    """Delete all but the last `keep` checkpoints. None keeps all, and the steps in `lasting` always stay."""
    if keep is None:
        return
    deletable = [folder for folder in _named(work.glob("step-*")) if _step(folder) not in lasting]
    for folder in sorted(deletable, key=_step, reverse=True)[keep:]:
        directories.remove(folder)


def _gather_weights(state: TrainState) -> Tensors:
    # keep_vars: `gather` recognizes tied weights by identity, and detached tensors would all differ.
    return state.processes.gather(state.model.state_dict(keep_vars=True))


def _moments(state: TrainState) -> Tensors:
    optimizer = state.optimizer.state
    return {
        f"{name}.{moment}": optimizer[parameter][moment]
        for name, parameter in state.model.named_parameters()
        for moment in MOMENTS
    }


def resumable(work: Path) -> list[Path]:
    """The checkpoints of a run that can be resumed from, the newest first."""
    sealed = (seal.parent for seal in work.glob(f"step-*/{directories.SEAL}"))
    return sorted(_named(sealed), key=_step, reverse=True)


def _named(folders: Iterable[Path]) -> Iterator[Path]:
    """Those that are checkpoints by their names: a copy, such as step-4.bak, is somebody else's."""
    return (folder for folder in folders if NAME.fullmatch(folder.name))


def _step(folder: Path) -> int:
    # As a number: step-1000 comes before step-900 in the order of names.
    return int(folder.name.removeprefix("step-"))


def newest(work: Path) -> Path | None:
    """The newest undamaged checkpoint to resume from, or None."""
    for folder in resumable(work):
        if directories.sealed(folder):
            return folder
        log.warning("%s is damaged: trying the checkpoint before it", folder)
    return None


def metrics_sum(work: Path, step: int) -> str | None:
    """The checksum of metrics.jsonl up to this step; None before the first, or if version 0.1.0 wrote it."""
    path = work / f"step-{step}" / directories.SEAL
    # `newest` has just found the seal to be whole.
    value: str | None = json.loads(path.read_text()).get(METRICS_SUM) if step else None
    return value


def restore(state: TrainState, folder: Path, device: torch.device) -> None:
    """Restore all of `state` but the weights of its model, which were loaded from `folder`."""
    state.step = _step(folder)
    with opened_tensors(folder / OPTIMIZER, device) as read:
        for name, parameter in state.model.named_parameters():
            # torch keeps a step count for each parameter, as a tensor. AdamW's bias correction depends on it.
            step = torch.tensor(float(state.step), device=device)
            moments = {moment: shard_like(read(f"{name}.{moment}"), parameter) for moment in MOMENTS}
            state.optimizer.state[parameter] = {"step": step, **moments}
    if state.passes:
        with opened_tensors(folder / PASSES, torch.device("cpu")) as read:
            state.passes.restore(read)


def drop_resume_state(folder: Path) -> None:
    """Delete the files of a checkpoint that only resuming needs. The model stays."""
    # The seal first: a checkpoint that has lost only its moments would count as damaged.
    for name in (directories.SEAL, OPTIMIZER):
        (folder / name).unlink()
    (folder / PASSES).unlink(missing_ok=True)
