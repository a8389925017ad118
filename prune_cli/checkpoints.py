"""Checkpoints of a run, `step-N` in its folder: a Hugging Face directory each, and while they last what resuming needs, sealed."""

import logging
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from . import pretrained
from .io import folders
from .io.seen import SEEN
from .learning import Learner
from .pretrained import PreTrainedModel, PreTrainedTokenizerFast

KEPT = 2  # to resume from: the newest, and the one before in case it is damaged
OPTIMIZER, MOMENTS = "optimizer.safetensors", ("exp_avg", "exp_avg_sq")

log = logging.getLogger(__name__)
Hashes = NDArray[np.uint64]


def save(learner: Learner, tokenizer: PreTrainedTokenizerFast, documents: Hashes, work: Path) -> None:
    """Leave `step-N` in `work`, whole or absent, and make of all but the last few no more than models."""
    with folders.whole(work / f"step-{learner.step}") as folder:
        write(learner.model, tokenizer, documents, folder)
        state = learner.optimizer.state
        names = dict(learner.model.named_parameters())
        moments = {f"{name}.{moment}": state[names[name]][moment] for name in names for moment in MOMENTS}
        pretrained.save_tensors(moments, folder / OPTIMIZER)
        folders.seal(folder, {"step": learner.step})
    for folder in resumable(work)[KEPT:]:
        forget(folder)


def write(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, documents: Hashes, folder: Path) -> None:
    """A Hugging Face directory, and the hashes of the documents that the model was trained on."""
    pretrained.save(model, tokenizer, folder)
    np.save(folder / SEEN, documents)


def with_parents(documents: Hashes, parent: Path) -> Hashes:
    """The hashes of documents, and of those that the run before had seen where that is known."""
    return np.union1d(documents, np.load(parent / SEEN)) if (parent / SEEN).exists() else documents


def thin(work: Path, lasting: frozenset[int], keep: int | None) -> None:
    """Delete the checkpoints that are not `lasting`, all but the last `keep`; None is none."""
    passing = [folder for folder in work.glob("step-*") if _step(folder) not in lasting]
    for folder in sorted(passing, key=_step, reverse=True)[keep:] if keep is not None else ():
        folders.remove(folder)


def resumable(work: Path) -> list[Path]:
    """What can be resumed from, the newest first."""
    return sorted((seal.parent for seal in work.glob(f"step-*/{folders.SEAL}")), key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def newest(work: Path) -> Path | None:
    """The newest that is what it was when it was written."""
    for folder in resumable(work):
        if folders.sealed(folder):
            return folder
        log.warning("%s is damaged: going on from the one before", folder)
    return None


def restore(learner: Learner, folder: Path, device: torch.device) -> None:
    """Give a learner whose model was loaded from `folder` its optimizer's moments and its step."""
    moments = pretrained.load_tensors(folder / OPTIMIZER, device)
    learner.step = _step(folder)
    for name, parameter in learner.model.named_parameters():
        step = torch.tensor(float(learner.step), device=device)
        learner.optimizer.state[parameter] = {"step": step, **{moment: moments[f"{name}.{moment}"] for moment in MOMENTS}}


def forget(folder: Path) -> None:
    """Leave of a checkpoint what a finished model is; the seal goes first."""
    for name in (folders.SEAL, OPTIMIZER):
        (folder / name).unlink()
