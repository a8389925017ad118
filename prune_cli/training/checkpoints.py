"""Checkpoints of a run, `step-N` in its folder: a Hugging Face directory each, and while they last what resuming needs, sealed."""

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..models.tokenizer import PreTrainedTokenizerFast
from ..storage import directories
from .distributed import part
from .model import opened_tensors, save_model, save_tensors
from .step import Learner
from .training_hashes import DOCUMENT_HASHES

KEPT = 2  # to resume from: the newest, and the one before in case it is damaged
OPTIMIZER, MOMENTS = "optimizer.safetensors", ("exp_avg", "exp_avg_sq")

log = logging.getLogger(__name__)
Hashes = NDArray[np.uint64]
Tensors = dict[str, Tensor]


def save(learner: Learner, tokenizer: PreTrainedTokenizerFast, documents: Hashes, work: Path) -> None:
    """Leave `step-N` in `work`, whole or absent, and make of all but the last few no more than models.

    All processes take part; the files are the same for one and for many.
    """
    weights, moments = _weights(learner), learner.processes.whole(_moments(learner))
    learner.processes.first(lambda: _save(learner, weights, moments, tokenizer, documents, work))


def _save(
    learner: Learner,
    weights: Tensors,
    moments: Tensors,
    tokenizer: PreTrainedTokenizerFast,
    documents: Hashes,
    work: Path,
) -> None:
    with directories.whole(work / f"step-{learner.step}") as folder:
        _write(learner, weights, tokenizer, documents, folder)
        save_tensors(moments, folder / OPTIMIZER)
        directories.seal(folder, {"step": learner.step})
    for folder in resumable(work)[KEPT:]:
        forget(folder)


def write(learner: Learner, tokenizer: PreTrainedTokenizerFast, documents: Hashes, folder: Path) -> None:
    """A Hugging Face directory, and the hashes of the documents that the model was trained on."""
    weights = _weights(learner)
    learner.processes.first(lambda: _write(learner, weights, tokenizer, documents, folder))


def _write(
    learner: Learner, weights: Tensors, tokenizer: PreTrainedTokenizerFast, documents: Hashes, folder: Path
) -> None:
    save_model(learner.model, tokenizer, folder, weights)
    np.save(folder / DOCUMENT_HASHES, documents)


def with_parents(documents: Hashes, parent: Path) -> Hashes:
    """The hashes of documents, and of those that the run before had seen where that is known."""
    return (
        np.union1d(documents, np.load(parent / DOCUMENT_HASHES))
        if (parent / DOCUMENT_HASHES).exists()
        else documents
    )


def thin(work: Path, lasting: frozenset[int], keep: int | None) -> None:
    """Delete the checkpoints that are not `lasting`, all but the last `keep`; None is none."""
    passing = [folder for folder in work.glob("step-*") if _step(folder) not in lasting]
    for folder in sorted(passing, key=_step, reverse=True)[keep:] if keep is not None else ():
        directories.remove(folder)


def _weights(learner: Learner) -> Tensors:
    return learner.processes.whole(learner.model.state_dict(keep_vars=True))


def _moments(learner: Learner) -> Tensors:
    state = learner.optimizer.state
    return {
        f"{name}.{moment}": state[each][moment]
        for name, each in learner.model.named_parameters()
        for moment in MOMENTS
    }


def resumable(work: Path) -> list[Path]:
    """What can be resumed from, the newest first."""
    return sorted((seal.parent for seal in work.glob(f"step-*/{directories.SEAL}")), key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def newest(work: Path) -> Path | None:
    """The newest that is what it was when it was written."""
    for folder in resumable(work):
        if directories.sealed(folder):
            return folder
        log.warning("%s is damaged: going on from the one before", folder)
    return None


def restore(learner: Learner, folder: Path, device: torch.device) -> None:
    """Give a learner whose model was loaded from `folder` its optimizer's moments and its step."""
    learner.step = _step(folder)
    with opened_tensors(folder / OPTIMIZER, device) as read:
        for name, parameter in learner.model.named_parameters():
            step = torch.tensor(float(learner.step), device=device)
            moments = {moment: part(read(f"{name}.{moment}"), parameter) for moment in MOMENTS}
            learner.optimizer.state[parameter] = {"step": step, **moments}


def forget(folder: Path) -> None:
    """Leave of a checkpoint what a finished model is; the seal goes first."""
    for name in (directories.SEAL, OPTIMIZER):
        (folder / name).unlink()
