"""The trainer: the numbers of a plain loop, the same ones every time and after every interruption, in a folder anyone can load."""

import json
import math
import os
import random
import resource
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from prune_cli.errors import CannotCreateError, ConfigurationError, DataError, TryAgainError, UsageError
from prune_cli.models import cpu_kernels as kernels
from prune_cli.models import fast_training
from prune_cli.models.fast_inference import has_packed_products
from prune_cli.models.tokenizer import encode, load_tokenizer, train_tokenizer
from prune_cli.settings.train import Training
from prune_cli.training import loop as stage
from prune_cli.training import step as learning
from prune_cli.training import token_file
from prune_cli.training.model import (
    gpt2_config,
    load_model,
    new_model,
    save_tensors,
    save_tokenizer,
    summed_loss,
)
from prune_cli.training.recipe import Plan, choose, learning_rate, plan

from .conftest import ROOT, SHARED, shared

SHAPE = "layers = 2\nwidth = 32\nheads = 2\ncontext = 32\nlr = 1e-2\nbatch_tokens = 256\n"


def documents(count=60, seed=1):
    dice = random.Random(seed)
    words = ["".join(dice.choices("abcdefghij", k=dice.randint(1, 8))) for _ in range(50)]
    return [" ".join(dice.choices(words, k=dice.randint(3, 60))) for _ in range(count)]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    """The models are so small that threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return furnished(tmp_path_factory.mktemp("train"))


def furnished(home):
    """A folder with a configuration, a tokenizer and one finished run on `documents()`."""
    (home / "shape.toml").write_text(SHAPE)
    save_tokenizer(train_tokenizer(documents(), 300), home / "tokenizer")
    stage.train(documents(), settings(home), home / "run")
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


# Against others


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


def test_the_losses_are_those_of_a_plain_loop(home, tmp_path):
    config = gpt2_config(
        load_tokenizer(home / "tokenizer"), layers=2, width=32, heads=2, context=32, entries=300
    )
    start = {name: value.detach() for name, value in new_model(config, seed=0).named_parameters()}
    expected = list(plain_training(start, batches(home, tmp_path, 20, 8), 20, 1e-2))
    assert losses(home / "run") == pytest.approx([loss for loss, _ in expected], abs=1e-5)
    assert [line["norm"] for line in metrics(home / "run")] == pytest.approx(
        [norm for _, norm in expected], abs=1e-4
    )


def test_weights_start_as_gpt2_says(home):
    tokenizer = load_tokenizer(home / "tokenizer")
    model = new_model(gpt2_config(tokenizer, layers=8, width=64, heads=2, context=32, entries=300), seed=0)
    deviations = {
        name: parameter.std().item()
        for name, parameter in model.named_parameters()
        if name.endswith("weight")
    }
    for name, deviation in deviations.items():
        wanted = 0 if "ln_" in name else 0.02 / math.sqrt(16) if "c_proj" in name else 0.02
        assert deviation == pytest.approx(wanted, rel=0.06), name
    assert model.lm_head.weight is model.transformer.wte.weight


def test_plain_transformers_loads_the_run_and_finds_the_same_loss(home, tmp_path):
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(home / "run"),
        AutoTokenizer.from_pretrained(home / "run"),
    )
    ids = batches(home, tmp_path, 1, 8)[0]
    with torch.no_grad():
        theirs = model(input_ids=ids, labels=ids).loss.item()
    ours = summed_loss(load_model(home / "run"), ids, torch.float32, 1 / (8 * 31)).item()
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert theirs < losses(home / "run")[0] - 1
    assert tokenizer.decode(tokenizer.encode(documents()[0])) == documents()[0]
    assert (tokenizer.eos_token_id, tokenizer.model_max_length, model.config.eos_token_id) == (0, 32, 0)


def test_the_run_is_a_hugging_face_folder_and_nothing_of_the_work_is_left(home):
    names = {path.name for path in (home / "run").iterdir()}
    theirs = {
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert names == theirs | {"train.json", "metrics.jsonl", "documents.npy"}
    assert {path.name for path in home.iterdir()} == {"shape.toml", "tokenizer", "run"}
    seen = np.load(home / "run" / "documents.npy")
    assert set(map(int, seen)) == {token_file.content_hash(document) for document in documents()}


def test_bfloat16_goes_the_same_way(home, tmp_path):
    stage.train(documents(), settings(home, dtype="bfloat16"), tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(home / "run"), rel=1e-2)


def test_attention_is_that_of_torch():
    packed = torch.randn(2, 600, 3 * 32, dtype=torch.float64, requires_grad=True)
    ours = kernels.causal_attention(packed, 2, 0.3)
    query, key, value = packed.unflatten(2, (3, 2, 16)).permute(2, 0, 3, 1, 4)
    theirs = (
        F.scaled_dot_product_attention(query, key, value, is_causal=True, scale=0.3)
        .transpose(1, 2)
        .flatten(2)
    )
    slope = torch.randn_like(ours)
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(ours, packed, slope), torch.autograd.grad(theirs, packed, slope)
    )


def test_long_attention_is_made_anew_with_the_same_gradients(monkeypatch):
    packed = torch.randn(2, 600, 3 * 32, requires_grad=True)
    found = [torch.autograd.grad(kernels.causal_attention(packed, 2, 0.3).square().sum(), packed)]
    monkeypatch.setattr(kernels, "LONGEST_KEPT", 512)
    found += [torch.autograd.grad(kernels.causal_attention(packed, 2, 0.3).square().sum(), packed)]
    torch.testing.assert_close(*found, rtol=0, atol=0)


@pytest.mark.skipif(not has_packed_products(torch.bfloat16), reason="oneDNN on x86")
@pytest.mark.parametrize("widths", [(24, 40), (40, 24), (24, 24)])
def test_products_are_those_of_torch_in_bfloat16(widths, monkeypatch):
    monkeypatch.setattr(kernels, "WIDE_COLUMNS", 32)
    inputs, weight, bias = (
        torch.randn(shape, requires_grad=True) for shape in ((3, 200, widths[0]), widths, widths[1:])
    )
    slope = torch.randn(3, 200, widths[1]).bfloat16()
    ours = kernels.linear(inputs, weight, bias)
    with torch.autocast("cpu", torch.bfloat16):
        theirs = F.linear(inputs, weight.T, bias)
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=0.05)
    exactly = torch.autograd.grad(
        inputs.double() @ weight.double() + bias.double(), (inputs, weight, bias), slope.double()
    )
    for found, exact in zip(torch.autograd.grad(ours, (inputs, weight, bias), slope), exactly, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, exact, rtol=1e-2, atol=0.3)


def test_a_compiled_model_is_the_same_model(home, tmp_path):
    """As on a card, but for the code that is made: what is traced of the layers and of their gradients runs one by one."""
    ids, found = batches(home, tmp_path, 1, 8)[0], []
    for compiled in (False, True):
        model = load_model(home / "run")
        if compiled:
            fast_training.compile_layers(model, backend="aot_eager")
        loss = learning._gradients(
            learning.Learner(model, learning.adamw(model), torch.float32, 3), ids, len(ids)
        )
        found.append([torch.tensor(loss), *(parameter.grad for parameter in model.parameters())])
        assert list(model.state_dict()) == list(load_model(home / "run").state_dict())
    torch.testing.assert_close(*found)


def test_the_loss_is_that_of_torch():
    hidden, weight = torch.randn(2500, 8, requires_grad=True), torch.randn(70, 8, requires_grad=True)
    targets = torch.randint(70, (2500,))
    ours, theirs = (
        kernels.head_loss(hidden, weight, targets, 1 / 2500),
        F.cross_entropy(hidden @ weight.T, targets),
    )
    torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(
        torch.autograd.grad(3 * ours, (hidden, weight)), torch.autograd.grad(3 * theirs, (hidden, weight))
    )


def test_rows_at_a_time_do_not_change_the_gradients(home, tmp_path):
    ids = batches(home, tmp_path, 1, 8)[0]
    found = []
    for rows in (8, 3, 1):
        model = load_model(home / "run")
        loss = learning._gradients(
            learning.Learner(model, learning.adamw(model), torch.float32, rows), ids, len(ids)
        )
        found.append([torch.tensor(loss), *(parameter.grad for parameter in model.parameters())])
    for other in found[1:]:
        torch.testing.assert_close(found[0], other)


# The same every time


def test_the_same_seed_gives_the_same_bits_in_whatever_order_documents_come(home, tmp_path):
    stage.train(reversed(documents()), settings(home), tmp_path / "run")
    assert losses(tmp_path / "run") == losses(home / "run")
    assert weights(tmp_path / "run") == weights(home / "run")


@pytest.mark.parametrize("other", [{"seed": 1}, {"data_seed": 1}])
def test_other_seeds_give_other_losses(home, tmp_path, other):
    stage.train(documents(), settings(home, **other), tmp_path / "run")
    assert losses(tmp_path / "run") != losses(home / "run")


class Killed(BaseException):
    pass


def killed_at(step):
    def report(at, values):
        if at == step:
            raise Killed

    return report


def interrupted(home, run, step, **more):
    with pytest.raises(Killed):
        stage.train(
            documents(), settings(home, save_every=3, **more), run, resume=True, report=killed_at(step)
        )


def test_a_resumed_run_ends_with_the_same_bits(home, tmp_path):
    for step in (8, 11, 20):
        interrupted(home, tmp_path / "run", step)
    assert len(losses(tmp_path / "run.partial")) == 20
    stage.train(documents(), settings(home, save_every=3), tmp_path / "run", resume=True)
    assert losses(tmp_path / "run") == losses(home / "run")
    assert weights(tmp_path / "run") == weights(home / "run")
    assert {path.name for path in (tmp_path / "run" / "step-18").iterdir()} == {
        *(
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "tokenizer.json",
            "tokenizer_config.json",
            "documents.npy",
        )
    }


def test_a_run_that_is_killed_goes_on(home, tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path; from tests.test_train_stage import documents, settings, stage\n"
        "kill = lambda step, values: step == 8 and os.kill(os.getpid(), signal.SIGKILL)\n"
        "stage.train(documents(), settings(Path(sys.argv[1]), save_at='3,30%'), Path(sys.argv[2]), source='a', report=kill)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, home, tmp_path / "run"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == -9
    assert not (tmp_path / "run").exists()
    unread = (pytest.fail("the documents were read again") for _ in range(1))
    stage.train(unread, settings(home, save_at="3,30%"), tmp_path / "run", source="a", resume=True)
    assert weights(tmp_path / "run") == weights(home / "run")


@pytest.mark.parametrize(
    ("other", "corpus", "named"),
    [
        ({"seed": 1}, documents(), "seed"),
        ({"lr": 1e-3}, documents(), "lr"),
        ({"steps": 21}, documents(), "steps"),
        ({"dtype": "bfloat16"}, documents(), "dtype"),
        ({}, documents(seed=2), "documents"),
    ],
)
def test_another_run_is_not_resumed(home, tmp_path, other, corpus, named):
    interrupted(home, tmp_path / "run", 4)
    with pytest.raises(ConfigurationError, match=f"was begun with {named} "):
        stage.train(corpus, settings(home, **{"save_every": 3, **other}), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?")]
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(home, tmp_path, caplog, damage):
    interrupted(home, tmp_path / "run", 8)
    damage(tmp_path / "run.partial" / "step-6" / "model.safetensors")
    stage.train(documents(), settings(home, save_every=3), tmp_path / "run", resume=True)
    assert "step-6 is damaged" in caplog.text
    assert losses(tmp_path / "run") == losses(home / "run")
    assert weights(tmp_path / "run") == weights(home / "run")


def test_a_tokenizer_of_ones_own_is_trained_and_resumed_with(home, tmp_path):
    trained = settings(home, tokenizer=None, train_tokenizer=300, save_every=3)
    with pytest.raises(Killed):
        stage.train(documents(), trained, tmp_path / "run", resume=True, report=killed_at(4))
    stage.train(documents(), trained, tmp_path / "run", resume=True)
    assert losses(tmp_path / "run") == losses(home / "run")
    assert not (tmp_path / "run" / "tokenizer").exists()


# What it refuses, and what it leaves


def test_a_failure_leaves_nothing_unless_there_is_a_checkpoint(home, tmp_path):
    run, partial = tmp_path / "run", tmp_path / "run.partial"
    with pytest.raises(Killed):
        stage.train(documents(), settings(home), run, report=killed_at(4))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Killed):
        stage.train(documents(), settings(home, save_at="3"), run, report=killed_at(4))
    assert list(tmp_path.iterdir()) == [partial]
    with pytest.raises(CannotCreateError, match="holds an unfinished run; --resume"):
        stage.train(documents(), settings(home), run)
    stage.train(documents(), settings(home), run, replace=True)
    assert list(tmp_path.iterdir()) == [run]


def test_a_file_that_cannot_be_written_is_the_systems_fault(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_tensors({"a": torch.zeros(1000)}, tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_only_a_run_is_replaced(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    (tmp_path / "precious").mkdir()
    with pytest.raises(CannotCreateError, match="exists; -f"):
        stage.train(documents(), settings(home), tmp_path / "run")
    with pytest.raises(CannotCreateError, match="is not a directory with train"):
        stage.train(documents(), settings(home), tmp_path / "precious", replace=True)
    with pytest.raises(TryAgainError, match="another run"):
        stage.train(
            documents(),
            settings(home),
            tmp_path / "run",
            replace=True,
            report=lambda step, values: again(home, tmp_path),
        )
    stage.train(documents(), settings(home, steps=1), tmp_path / "run", replace=True)
    assert len(losses(tmp_path / "run")) == 1


def again(home, tmp_path):
    stage.train(documents(), settings(home), tmp_path / "run", replace=True)


def test_a_loss_that_is_not_finite_stops_the_run(home, tmp_path):
    with pytest.raises(ConfigurationError, match=r"step 2 has a loss of (nan|inf)"):
        stage.train(documents(), settings(home, lr=1e38, warmup=0), tmp_path / "run")


def test_less_than_a_block_is_an_error(home, tmp_path):
    with pytest.raises(DataError, match="1 documents hold 7 tokens, less than one block of 32"):
        stage.train([[1, 2, 3, 4, 5, 6, 7]], settings(home), tmp_path / "run")


def test_many_passes_are_warned_of(home, tmp_path, caplog):
    summary = stage.train(documents(8), settings(home, steps=2, batch_tokens=4096), tmp_path / "run")
    assert summary.passes == summary.tokens / summary.unique_tokens > 4
    assert summary.repeated_tokens == 2 * 4096 - summary.unique_tokens
    assert "past 4 a repeated token" in caplog.text


def test_a_model_of_another_architecture(home, tmp_path):
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    values = {**config.to_dict(), "max_position_embeddings": 32, "attention_dropout": 0.5}
    (tmp_path / "config.json").write_text(json.dumps(values))
    theirs = settings(home, config=tmp_path / "config.json", batch_tokens=256, lr=1e-2)
    stage.train(documents(), theirs, tmp_path / "run")
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0] - 1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run").config.model_type == "llama"


def test_a_head_that_does_more_than_a_product_is_refused(home, tmp_path):
    values = {
        "model_type": "granite",
        "vocab_size": 300,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
    }
    values |= {
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 32,
        "logits_scaling": 8.0,
    }
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(ConfigurationError, match="GraniteForCausalLM does more in its head"):
        stage.train(
            documents(), settings(home, config=tmp_path / "config.json", batch_tokens=256), tmp_path / "run"
        )


@shared
def test_the_bare_gpt2_tokenizer_is_read():
    tokenizer = load_tokenizer(SHARED / "data" / "gpt2-tokenizer")
    assert encode(tokenizer, ["Hello world<|endoftext|>"])[0].tolist()[:2] == [15496, 995]
    assert tokenizer.eos_token_id == 50256 not in encode(tokenizer, ["Hello world<|endoftext|>"])[0]


# The recipe

MODEL = {"tokenizer": "t", "preset": "124m"}


def test_a_value_comes_from_the_user_the_paper_the_preset_or_the_default():
    recipe = choose(Training(**MODEL, protocol="paper", batch_tokens=4096))
    found = {
        name: (recipe[name].value, recipe[name].origin)
        for name in ("batch_tokens", "lr", "steps", "context", "schedule")
    }
    assert found == {
        "batch_tokens": (4096, "given"),
        "lr": (1.5e-4, "paper"),
        "steps": (8000, "paper"),
        "context": (2048, "preset"),
        "schedule": ("cosine", "default"),
    }
    paper = plan(choose(Training(**MODEL, protocol="paper")), 2048, 3_700_000)
    assert (paper.batch, paper.steps, paper.warmup) == (2048, 8000, 400)
    assert "steps" not in choose(Training(**MODEL, protocol="paper", epochs=2))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (MODEL, "needs one budget"),
        ({**MODEL, "steps": 1, "tokens": 1}, "needs one budget"),
        ({"steps": 1, "tokenizer": "t"}, "needs a model"),
        ({"steps": 1, "preset": "tiny"}, "needs a tokenizer"),
        ({**MODEL, "steps": 1, "preset": "huge"}, "--preset huge is unknown; use one of tiny, 124m, 1.5b"),
        ({**MODEL, "preset": "tiny", "protocol": "paper"}, "use --preset 124m or 1.5b"),
        ({**MODEL, "steps": 0}, "--steps 0 is not above zero"),
        ({**MODEL, "steps": 1, "save_at": "1,x"}, "--save-at x is not a number of steps"),
    ],
)
def test_options_that_make_no_run(options, message):
    with pytest.raises(UsageError, match=message):
        choose(Training(**options))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SHAPE + "dropout = 1", "unknown key, dropout"),
        ("layers = 2", "lacks the key width"),
        (SHAPE.replace("2", "'2'", 1), "its layers"),
        ("=", "is not TOML"),
    ],
)
def test_configuration_files_that_make_no_model(tmp_path, text, message):
    (tmp_path / "c.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=message):
        choose(Training(config=tmp_path / "c.toml", tokenizer=tmp_path, steps=1))


def test_budgets_and_saves_are_counted_in_steps():
    made = plan(
        choose(Training(**MODEL, epochs=4.4, save_at="250, 0.55ep,14%,100%", save_every=900)),
        2048,
        256 * 1000,
    )
    assert (made.batch, made.steps, made.warmup, made.saves) == (
        256,
        4400,
        220,
        {250, 550, 616, 900, 1800, 2700, 3600, 4400},
    )
    assert plan(choose(Training(**MODEL, tokens=(1 << 20) + 1)), 2048, 9).steps == 3
    with pytest.raises(UsageError, match="2ep is step 2000, beyond the last step, 100"):
        plan(choose(Training(**MODEL, steps=100, save_at="2ep")), 2048, 256 * 1000)
    with pytest.raises(UsageError, match="is less than one block of 2048"):
        plan(choose(Training(**MODEL, steps=1, batch_tokens=2047)), 2048, 9)


@pytest.mark.parametrize(("schedule", "middle"), [("cosine", 0.55), ("linear", 0.55), ("constant", 1.0)])
def test_the_learning_rate_rises_and_falls(schedule, middle):
    made = Plan(steps=111, batch=1, context=1, warmup=10, lr=2.0, schedule=schedule, saves=frozenset())
    rates = [learning_rate(made, step) / 2 for step in (0, 9, 10, 60, 110)]
    assert rates == pytest.approx([0.1, 1, 1, middle, 1 if schedule == "constant" else 0.1])
