"""A small training run: its corpus, its settings, and a plain loop in torch to compare with."""

import dataclasses
import json
import math
import random

import torch
import torch.nn.functional as F

from prune_cli.models.text.loading import load_tokenizer, train_tokenizer
from prune_cli.models.text.tokenizer import encode
from prune_cli.settings.train import Training
from prune_cli.training import loop, token_file
from prune_cli.training.model import save_tokenizer
from prune_cli.training.setup import Corpus

SHAPE = "layers = 2\nwidth = 32\nheads = 2\ncontext = 32\nlr = 1e-2\nbatch_tokens = 256\n"


def train(documents, settings, directory, *, source=None, resume=False, force=False, **more):
    """Train on `documents` into `directory`."""
    settings = dataclasses.replace(settings, output=directory, resume=resume, force=force)
    return loop.train(Corpus(documents, source), settings, **more)


def documents(count=60, seed=1):
    dice = random.Random(seed)
    words = ["".join(dice.choices("abcdefghij", k=dice.randint(1, 8))) for _ in range(50)]
    return [" ".join(dice.choices(words, k=dice.randint(3, 60))) for _ in range(count)]


def furnished(home):
    """A folder with a configuration, a tokenizer and one finished run on `documents()`."""
    (home / "shape.toml").write_text(SHAPE)
    save_tokenizer(train_tokenizer(documents(), 300), home / "tokenizer")
    train(documents(), settings(home), home / "run")
    return home


def settings(home, **more):
    return Training(
        **{
            "config": home / "shape.toml",
            "tokenizer": home / "tokenizer",
            "steps": 20,
            "dtype": "float32",
            **more,
        }
    )


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    return [line["loss"] for line in metrics(run)]


def weights(run):
    return (run / "model.safetensors").read_bytes()


def batches(home, tmp_path, steps, size):
    tokenizer = load_tokenizer(home / "tokenizer")
    manifest = token_file.pack(
        documents(), lambda texts: encode(tokenizer, texts), tmp_path, vocabulary=300, separator=0
    )
    blocks = token_file.Blocks(tmp_path, manifest, 32, seed=0)
    return [torch.from_numpy(blocks.batch(step, size)) for step in range(steps)]


def plain_logits(weights, ids, heads=2, layers=2):
    """GPT-2 (Radford et al. 2019) in plain torch; B sequences of T positions, width D."""

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    def linear(x, name):
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    count, length = ids.shape
    x = weights["transformer.wte.weight"][ids] + weights["transformer.wpe.weight"][:length]
    for name in (f"transformer.h.{layer}" for layer in range(layers)):
        q, k, v = (
            part.view(count, length, heads, -1).transpose(1, 2)
            for part in linear(norm(x, f"{name}.ln_1"), f"{name}.attn.c_attn").chunk(3, -1)
        )
        scores = (q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])).masked_fill(
            torch.ones(length, length).triu(1).bool(), -math.inf
        )
        x = x + linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), f"{name}.attn.c_proj")
        x = x + linear(
            F.gelu(linear(norm(x, f"{name}.ln_2"), f"{name}.mlp.c_fc"), approximate="tanh"),
            f"{name}.mlp.c_proj",
        )
    return norm(x, "transformer.ln_f") @ weights["transformer.wte.weight"].T


def plain_training(weights, data, steps, peak, warmup=1, **shape):
    """AdamW (Loshchilov & Hutter 2019) written out: losses and gradient norms."""
    weights = {name: value.clone().requires_grad_() for name, value in weights.items()}
    first, second = ({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2))
    for step, ids in enumerate(data):
        done = (step - warmup) / (steps - 1 - warmup)
        rate = (
            peak * (step + 1) / warmup
            if step < warmup
            else peak * (0.1 + 0.9 * (1 + math.cos(math.pi * done)) / 2)
        )
        logits = plain_logits(weights, ids, **shape)
        loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
        gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients.values()))
        yield loss.item(), norm
        with torch.no_grad():
            for name, value in weights.items():
                gradient = gradients[name] * min(1, 1 / (norm + 1e-6))
                first[name].lerp_(gradient, 0.1)
                second[name].lerp_(gradient**2, 0.05)
                value *= 1 - rate * (0.1 if value.ndim > 1 else 0)
                estimate = first[name] / (1 - 0.9 ** (step + 1))
                value -= rate * estimate / ((second[name] / (1 - 0.95 ** (step + 1))).sqrt() + 1e-8)


class Killed(BaseException):
    pass


def killed_at(step):
    def report(at, values):
        if at == step:
            raise Killed

    return report
