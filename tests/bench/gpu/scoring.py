"""Scores on the device: right, fast, and whole where memory runs out."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from prune_cli import metrics, reference
from prune_cli.models.device import matrix_rate
from prune_cli.models.language_model import LanguageModel, ModelSettings, load
from prune_cli.stages.score import windows
from prune_cli.training.model import load_model

from .machine import Machine

SIDE = 8192  # of the matrices whose product measures a card


def scores(machine: Machine) -> dict[str, Any]:
    """The largest relative difference of a perplexity from plain transformers in float64 on the processor."""
    texts = machine.texts[: machine.sizes.checked]
    expected = _in_float64(texts)
    differences = {}
    for dtype in ("float32", "bfloat16"):
        model = _loaded(machine, dtype, str(reference.DIRECTORY))
        actual = np.array([fields["perplexity"] for fields in _scored(model, texts)])
        differences[dtype] = float(np.abs(actual / expected - 1).max())
    return {"largest_relative_difference": differences, "documents": len(texts)}


def _in_float64(texts: list[str]) -> np.ndarray:
    """Perplexities, a document at a time, without a line of ours behind the tokenizer."""
    encoder = load(str(reference.DIRECTORY), ModelSettings(device="cpu", dtype="float32"))
    network = load_model(reference.DIRECTORY).double().eval()
    context = encoder.settings.context
    assert context is not None
    perplexities = []
    for document in encoder.encode_many(texts):
        tokens = torch.from_numpy(document.tokens.astype(np.int64))
        total = 0.0
        # lm-evaluation-harness's rolling windows: the last one reads as much before its tokens as fits.
        for start in range(0, len(tokens) - 1, context):
            end = min(start + context, len(tokens) - 1)
            with torch.inference_mode():
                logits = network(tokens[None, max(0, end - context) : end]).logits[0, start - end :]
            targets = tokens[start + 1 : end + 1]
            total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
        perplexities.append(np.exp(total / (len(tokens) - 1)))
    return np.array(perplexities)


def halving(machine: Machine) -> dict[str, Any]:
    """Whether scores stay the same when a batch is far larger than memory, and batches are halved."""
    texts = machine.texts
    model = _loaded(machine, "float32", batch_tokens=1 << 24)
    with _recorded() as messages, _little_memory(machine, model):
        halved = _scored(model, texts)
    usual = _scored(_loaded(machine, "float32"), texts)
    pairs = [(a["perplexity"], b["perplexity"]) for a, b in zip(halved, usual, strict=True)]
    halvings = sum("out of memory" in message for message in messages)
    return {"halvings": halvings, "largest_relative_difference": max(abs(a / b - 1) for a, b in pairs)}


@contextmanager
def _little_memory(machine: Machine, model: LanguageModel) -> Iterator[None]:
    """Leave the device 2 GiB beside what it holds; a processor pretends, since it would swap."""
    if machine.is_gpu:
        total = torch.cuda.get_device_properties(0).total_memory
        share = (torch.cuda.memory_allocated() + (2 << 30)) / total
        torch.cuda.empty_cache()
        torch.cuda.set_per_process_memory_fraction(min(1.0, share))
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        return
    trunk = model._trunk

    def small(tokens: torch.Tensor) -> torch.Tensor:
        if tokens.numel() > 1024:
            raise torch.OutOfMemoryError("out of memory")
        return trunk(tokens)

    model._trunk = small
    try:
        yield
    finally:
        model._trunk = trunk


@contextmanager
def _recorded() -> Iterator[list[str]]:
    """The warnings of the package while the block runs."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]
    log = logging.getLogger("prune_cli")
    log.addHandler(handler)
    try:
        yield messages
    finally:
        log.removeHandler(handler)


def speed(machine: Machine) -> dict[str, Any]:
    """Tokens a second of the measured shape, tokenizing included, and its shares of two rates.

    One is that of the data sheet, one that of a bare product of matrices on this very card.
    """
    model = _loaded(machine, "bfloat16")
    tokens = sum(document.n_scored for document in model.encode_many(machine.texts))
    _scored(model, machine.texts[:50])
    seconds = _timed(machine, lambda: _scored(model, machine.texts))
    flops = tokens / seconds * model.flops_per_token
    sold = matrix_rate(torch.device(machine.device), torch.bfloat16)
    return {
        "tokens_per_second": round(tokens / seconds),
        "share_of_data_sheet": round(flops / sold, 3) if sold else None,
        "share_of_matrix_product": round(flops / _product_rate(machine), 3),
        "tokens": tokens,
    }


def _product_rate(machine: Machine) -> float:
    """Floating-point operations a second of a product of square matrices in bfloat16."""
    side = SIDE if machine.is_gpu else 512
    matrix = torch.randn(side, side, device=machine.device).bfloat16()
    return 2 * side**3 / min(_timed(machine, lambda: matrix @ matrix) for _ in range(5))


def memorization(machine: Machine) -> dict[str, Any]:
    """Continuations in batches beside plain `generate`, in float32: equal ones, and their speed."""
    prompt, count = (32, 32) if machine.is_gpu else (8, 8)
    model = _loaded(machine, "float32")
    documents = [each for each in model.encode_many(machine.texts) if len(each.tokens) > prompt + count]
    documents = documents[: machine.sizes.recited]
    generated = model.continuations(documents, prompt, count)
    seconds = _timed(machine, lambda: model.continuations(documents, prompt, count))
    plain = load_model(machine.model).to(machine.device).eval()
    equal = 0
    for document, ours in zip(documents[:16], generated, strict=False):
        start = torch.from_numpy(document.tokens[: document.n_prefix + prompt].astype(np.int64))[None]
        theirs = plain.generate(
            start.to(machine.device),
            attention_mask=torch.ones_like(start).to(machine.device),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )[0, start.shape[1] :]
        equal += bool((torch.from_numpy(ours) == theirs.cpu()).all())
    compared = min(16, len(documents))
    return {"equal": equal, "compared": compared, "records_per_second": round(len(documents) / seconds, 1)}


# --- Shared ---


def _loaded(machine: Machine, dtype: str, path: str = "", **settings: Any) -> LanguageModel:
    return load(path or str(machine.model), ModelSettings(device=machine.device, dtype=dtype, **settings))


def _scored(model: LanguageModel, texts: list[str]) -> list[dict[str, Any]]:
    scoring = windows.Scoring([metrics.load("perplexity")], [model])
    return [fields for window in windows.score(enumerate(texts), scoring) for _, fields in window]


def _timed(machine: Machine, run: Callable[[], object]) -> float:
    """Seconds until the device has done it."""
    machine.synchronize()
    start = time.perf_counter()
    run()
    machine.synchronize()
    return time.perf_counter() - start
