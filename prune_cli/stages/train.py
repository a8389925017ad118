"""Train a causal language model from scratch: documents in, a Hugging Face directory out.

    DIR.partial/   while it runs: the token file, metrics.jsonl, and step-N/ with what resuming needs
    DIR/           when it is done: the model, its tokenizer, train.json, metrics.jsonl, documents.npy, step-N/

A batch is a function of (data seed, step) alone and nothing is drawn at random once the weights are, so the state of a run is its
weights, the optimizer's two moments and the number of the step.
"""

import dataclasses
import json
import logging
import math
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import __version__, checkpoints, pretrained
from ..errors import ConfigurationError, DataError, UsageError
from ..fast_training import make_fast
from ..io import folders, tokens
from ..learning import BETAS, CLIP, DECAY, EPSILON, Learner, adamw, learn
from ..pretrained import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from ..recipes import SHAPE, Plan, Recipe, Settings, choose, learning_rate, plan

MANY_PASSES = 4  # Muennighoff et al. 2023: up to here a repeated token is nearly as good as a fresh one
CPU_TOKENS = 4096  # through the model at a time: from 2,048 to 16,384 the speed is the same, the memory is not
GPU_TOKENS = 64 << 10
DESCRIPTION, METRICS = "train.json", "metrics.jsonl"
TRAINED, COPY = "tokenizer", "documents.jsonl"  # only while it runs: a tokenizer of our own, and what it is trained on

log = logging.getLogger(__name__)
Documents = Iterable[tokens.Document]
Report = Callable[[int, Mapping[str, float]], object]


@dataclass(frozen=True)
class Summary:
    """What a run comes to. `passes` is how often the data is gone through, `loss` the last batch's in nats a token."""

    steps: int
    tokens: int
    unique_tokens: int
    repeated_tokens: int
    passes: float
    parameters: int
    loss: float = math.nan


@dataclass(frozen=True)
class Job:
    """All that is settled before the first step."""

    work: Path
    recipe: Recipe
    plan: Plan
    manifest: tokens.Manifest
    blocks: tokens.Blocks
    config: PretrainedConfig
    shape: str  # the configuration's fingerprint, taken before a model that is made of it writes into it
    tokenizer: PreTrainedTokenizerFast
    device: torch.device
    dtype: torch.dtype


def train(
    documents: Documents,
    settings: Settings,
    directory: Path,
    *,
    source: str | None = None,
    resume: bool = False,
    replace: bool = False,
    report: Report = lambda step, values: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Summary:
    """Train on `documents`, texts or blocks of ids in any order, and leave a run in `directory`.

    `source` is what the caller knows the documents by (names, sizes, times): a resumed run whose source is the same does not read
    them again; otherwise they are read, and their hashes compared. `report` is told of step 0 while the documents are encoded
    (documents, tokens) and once with the summary to be, then of every step with what also goes to metrics.jsonl.
    """
    recipe, device = choose(settings), _device(settings.device)
    with folders.working(directory, resume=resume, replace=replace, mark=DESCRIPTION, keep="step-*") as work:
        job = _job(documents, settings, recipe, device, work, source, report)
        _check_same_run(job)
        learner = _learner(job)
        summary = _summary(job, learner.model)
        _describe(job, summary)
        report(0, asdict(summary))
        loss = _learn(job, learner, report, clock)
        _finish(job, learner)
    return dataclasses.replace(summary, loss=loss)


# Before the first step


def _job(
    documents: Documents, settings: Settings, recipe: Recipe, device: torch.device, work: Path, source: str | None, report: Report
) -> Job:
    dtype = _dtype(recipe["dtype"].value, device)
    tokenizer, documents = _tokenizer(settings, documents, work)
    config = _configuration(settings, recipe, tokenizer)
    shape = pretrained.fingerprint(config)
    context: int = config.max_position_embeddings
    manifest = _token_file(_watched(documents, context), tokenizer, work, source, report)
    if manifest.tokens < context:
        fault = f"{manifest.documents} documents hold {manifest.tokens} tokens, less than one block of {context}"
        raise DataError(fault, remedy="train on more, or take a model with a shorter context")
    blocks = tokens.Blocks(work, manifest, context, recipe["data_seed"].value)
    return Job(work, recipe, plan(recipe, context, blocks.count), manifest, blocks, config, shape, tokenizer, device, dtype)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
    except RuntimeError:
        raise UsageError(f"--device {name} is unknown", remedy="take auto, cpu, cuda or cuda:N") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigurationError(f"there is no device {name}", remedy="take --device cpu")
    return device


def _dtype(name: str, device: torch.device) -> torch.dtype:
    """What products are computed in; bfloat16 by itself only where the processor multiplies it."""
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    if device.type == "cuda":
        has = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if has else torch.float32


def _tokenizer(settings: Settings, documents: Documents, work: Path) -> tuple[PreTrainedTokenizerFast, Documents]:
    """The tokenizer, and the documents again: to train one they are read, and written down, once."""
    if settings.tokenizer:
        return pretrained.load_tokenizer(settings.tokenizer), documents
    if (work / TRAINED).exists():
        return pretrained.load_tokenizer(work / TRAINED), documents
    wanted = settings.train_tokenizer or 0
    texts = (document for document in tokens.spool(documents, work / COPY) if isinstance(document, str))
    tokenizer = pretrained.train_tokenizer(texts, wanted)
    if (found := pretrained.vocabulary(tokenizer)) < wanted:
        log.warning("the text yields a vocabulary of %d, not %d", found, wanted)
    with folders.whole(work / TRAINED) as folder:
        pretrained.save_tokenizer(tokenizer, folder)
    return tokenizer, _read_once(work / COPY)


def _read_once(copy: Path) -> Iterator[tokens.Document]:
    yield from tokens.spooled(copy)
    copy.unlink()


def _configuration(settings: Settings, recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> PretrainedConfig:
    if "layers" not in recipe:
        return pretrained.read_config(settings.config or Path(), tokenizer)
    shape = {name: recipe[name].value for name in SHAPE}
    entries = settings.train_tokenizer or (recipe["vocabulary"].value if "vocabulary" in recipe else 0)
    return pretrained.gpt2(tokenizer, entries=entries, **shape)


def _token_file(
    documents: Documents, tokenizer: PreTrainedTokenizerFast, work: Path, source: str | None, report: Report
) -> tokens.Manifest:
    """The token file that is there, if it is known to come from the same source, or a new one."""
    found = tokens.find(work)
    if found and source and found.source == source:
        return found
    return tokens.pack(
        documents,
        lambda texts: pretrained.encode(tokenizer, texts),
        work,
        vocabulary=pretrained.vocabulary(tokenizer),
        separator=tokenizer.eos_token_id,
        source=source,
        report=lambda documents, tokens: report(0, {"documents": documents, "tokens": tokens}),
    )


def _watched(documents: Documents, context: int) -> Iterator[tokens.Document]:
    """The documents, and a word about blocks of ids that the model cannot take as they are; the last of a stream may be short."""
    unfit = 0
    for document in documents:
        unfit += isinstance(document, list) and len(document) % context != 0
        yield document
    if unfit > 1:
        log.warning("%d blocks are no multiple of the model's %d tokens of context: they are joined and cut anew", unfit, context)


def _run(job: Job) -> dict[str, Any]:
    """Everything that the numbers of a run hang on, but for the machine."""
    return {
        **{name: value for name, value in asdict(job.plan).items() if name != "saves"},
        **{name: job.recipe[name].value for name in ("seed", "data_seed")},
        "dtype": str(job.dtype).removeprefix("torch."),
        "model": job.shape,
        "tokenizer": pretrained.tokenizer_hash(job.tokenizer),
        "documents": job.manifest.content,
    }


def _machine(job: Job) -> dict[str, Any]:
    return {"device": str(job.device), "threads": torch.get_num_threads(), "torch": torch.__version__, "prune_cli": __version__}


def _check_same_run(job: Job) -> None:
    """Hold a run that is resumed to what it was; on another machine it goes on, but the last bits of its numbers may differ."""
    if not (job.work / DESCRIPTION).exists():
        return
    before = json.loads((job.work / DESCRIPTION).read_text())
    for name, value in _run(job).items():
        if before["run"][name] != value:
            fault = f"was begun with {name} {before['run'][name]}, not {value}"
            raise ConfigurationError(fault, place=str(job.work), remedy="resume it as it was begun, or start over with -f")
    for name, value in _machine(job).items():
        if before["machine"][name] != value:
            log.warning("begun with %s %s, resumed with %s: the last digits may differ", name, before["machine"][name], value)


def _summary(job: Job, model: PreTrainedModel) -> Summary:
    plan, unique = job.plan, job.blocks.count * job.plan.context
    seen = plan.steps * plan.batch * plan.context
    if seen > MANY_PASSES * unique:
        log.warning("%.1f passes over %d tokens; past %d a repeated token teaches ever less", seen / unique, unique, MANY_PASSES)
    return Summary(plan.steps, seen, unique, max(0, seen - unique), seen / unique, model.num_parameters())


def _describe(job: Job, summary: Summary) -> None:
    """Write train.json: what the run is, each value and who chose it, and what it comes to."""
    description = {
        "run": _run(job),
        "chosen": {name: {"value": choice.value, "from": choice.origin} for name, choice in job.recipe.items()},
        "protocol": {"optimizer": "AdamW", "betas": BETAS, "epsilon": EPSILON, "weight_decay": DECAY, "clip": CLIP},
        "data": asdict(job.manifest),
        "summary": {name: value for name, value in asdict(summary).items() if name != "loss"},
        "machine": _machine(job),
    }
    (job.work / DESCRIPTION).write_text(json.dumps(description, indent=2, default=str) + "\n")


# Steps


def _learner(job: Job) -> Learner:
    """The model at its newest whole checkpoint, or new."""
    folder = checkpoints.newest(job.work)
    model = pretrained.load_model(folder) if folder else pretrained.new_model(job.config, job.recipe["seed"].value)
    torch.nn.Module.to(model, job.device)  # transformers' own is typed for nobody
    make_fast(model, job.dtype)
    learner = Learner(model, adamw(model), job.dtype, _rows(job, model))
    if folder:
        checkpoints.restore(learner, folder, job.device)
    return learner


def _rows(job: Job, model: PreTrainedModel) -> int:
    """How many blocks fit through the model at once: on a CPU a fixed count of tokens, on a GPU what its memory has room for.

    A layer keeps about 34 numbers a position and unit of width for the backward pass (Korthikanti et al. 2022, without the
    attention matrix); weights, gradients and moments take 16 bytes a parameter, and the copy in bfloat16 two more.
    """
    size = CPU_TOKENS
    if job.device.type == "cuda":
        memory = 0.8 * torch.cuda.get_device_properties(job.device).total_memory - 18 * model.num_parameters()
        a_token = 34 * 2 * job.dtype.itemsize * job.config.num_hidden_layers * job.config.hidden_size
        size = min(GPU_TOKENS, int(memory / a_token))
    return max(1, min(job.plan.batch, size // job.plan.context))


def _learn(job: Job, learner: Learner, report: Report, clock: Callable[[], float]) -> float:
    """Take the steps that are left, with a line of metrics.jsonl each; the last loss."""
    plan = job.plan
    values = _cut_metrics(job.work / METRICS, learner.step)
    with (job.work / METRICS).open("a") as metrics:
        while learner.step < plan.steps:
            start, rate = clock(), learning_rate(plan, learner.step)
            loss, norm = learn(learner, _batch(job, learner.step), rate)
            values = {
                "step": learner.step,
                "tokens": learner.step * plan.batch * plan.context,
                "loss": loss,
                "norm": norm,
                "lr": rate,
                "tokens_per_second": round(plan.batch * plan.context / (clock() - start), 1),
                "passes": learner.step * plan.batch / job.blocks.count,
            }
            metrics.write(json.dumps(values) + "\n")
            metrics.flush()
            report(learner.step, values)
            if learner.step in plan.saves:
                checkpoints.save(learner, job.tokenizer, tokens.document_hashes(job.work), job.work)
    return values["loss"]


def _batch(job: Job, step: int) -> Tensor:
    return torch.from_numpy(job.blocks.batch(step, job.plan.batch)).to(job.device)


def _cut_metrics(path: Path, step: int) -> dict[str, float]:
    """Take out of a run's metrics what came after its checkpoint (a last line may be torn); the last line that stays."""
    lines = path.read_text().splitlines()[:step] if path.exists() else []
    path.write_text("".join(f"{line}\n" for line in lines))
    last: dict[str, float] = json.loads(lines[-1]) if lines else {"loss": math.nan}
    return last


def _finish(job: Job, learner: Learner) -> None:
    """Leave the model and its checkpoints, and nothing of what only a run needs."""
    checkpoints.write(learner.model, job.tokenizer, tokens.document_hashes(job.work), job.work)
    for folder in checkpoints.resumable(job.work):
        checkpoints.forget(folder)
    tokens.remove(job.work)
    shutil.rmtree(job.work / TRAINED, ignore_errors=True)
