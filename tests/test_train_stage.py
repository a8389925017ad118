"""The trainer: losses of a plain loop, reproducible, unchanged by interruptions, in a Hugging Face folder."""

import json
import math
import os
import resource
import shutil
import signal

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig

from prune_cli.errors import CannotCreateError, ConfigurationError, DataError, TryAgainError
from prune_cli.models import fast_training
from prune_cli.models.text.loading import load_tokenizer
from prune_cli.models.text.tokenizer import encode
from prune_cli.training import token_file
from prune_cli.training.model import (
    gpt2_config,
    load_model,
    new_model,
    save_tensors,
    summed_loss,
)
from prune_cli.training.step import TrainState, accumulate_gradients, adamw

from .conftest import SHARED, shared
from .training import (
    Killed,
    batches,
    documents,
    furnished,
    killed_at,
    losses,
    metrics,
    plain_training,
    settings,
    train,
    weights,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return furnished(tmp_path_factory.mktemp("train"))


# Compared with plain torch and transformers


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


def test_initial_weights_follow_gpt2(home):
    tokenizer = load_tokenizer(home / "tokenizer")
    model = new_model(gpt2_config(tokenizer, layers=8, width=64, heads=2, context=32, entries=300), seed=0)
    deviations = {
        name: parameter.std().item()
        for name, parameter in model.named_parameters()
        if name.endswith("weight")
    }
    for name, deviation in deviations.items():
        wanted = 0.0 if "ln_" in name else 0.02
        # The last projection of each sublayer is scaled by the number of sublayers.
        if "c_proj" in name:
            wanted /= math.sqrt(16)
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
    ours = summed_loss(load_model(home / "run"), ids, torch.float32, 1 / (8 * 31))[0].item()
    assert ours == pytest.approx(theirs, abs=1e-6)
    assert theirs < losses(home / "run")[0] - 1
    assert tokenizer.decode(tokenizer.encode(documents()[0])) == documents()[0]
    assert (tokenizer.eos_token_id, tokenizer.model_max_length, model.config.eos_token_id) == (0, 32, 0)


def test_the_run_is_a_hugging_face_folder_without_leftovers(home):
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


def test_bfloat16_losses_are_close_to_float32(home, tmp_path):
    train(documents(), settings(home, dtype="bfloat16"), tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(home / "run"), rel=1e-2)


def test_a_compiled_model_is_the_same_model(home, tmp_path):
    """As on a GPU, but for the generated code: the backend runs the traced operations one by one."""
    ids, found = batches(home, tmp_path, 1, 8)[0], []
    for compiled in (False, True):
        model = load_model(home / "run")
        if compiled:
            fast_training.compile_layers(model, backend="aot_eager")
        loss = accumulate_gradients(TrainState(model, adamw(model), torch.float32, 3), ids, len(ids))
        found.append([loss, *(parameter.grad for parameter in model.parameters())])
        assert list(model.state_dict()) == list(load_model(home / "run").state_dict())
    torch.testing.assert_close(*found)


def test_the_size_of_the_micro_batch_does_not_change_the_gradients(home, tmp_path):
    ids = batches(home, tmp_path, 1, 8)[0]
    found = []
    for micro_batch in (8, 3, 1):
        model = load_model(home / "run")
        loss = accumulate_gradients(
            TrainState(model, adamw(model), torch.float32, micro_batch), ids, len(ids)
        )
        found.append([loss, *(parameter.grad for parameter in model.parameters())])
    for other in found[1:]:
        torch.testing.assert_close(found[0], other)


# Reproducible, and resumed


def test_the_same_seed_gives_the_same_bits_in_whatever_order_documents_come(home, tmp_path):
    train(reversed(documents()), settings(home), tmp_path / "run")
    assert losses(tmp_path / "run") == losses(home / "run")
    assert weights(tmp_path / "run") == weights(home / "run")


@pytest.mark.parametrize("other", [{"seed": 1}, {"data_seed": 1}])
def test_other_seeds_give_other_losses(home, tmp_path, other):
    train(documents(), settings(home, **other), tmp_path / "run")
    assert losses(tmp_path / "run") != losses(home / "run")


def interrupted(home, run, step, **more):
    with pytest.raises(Killed):
        train(documents(), settings(home, save_every=3, **more), run, resume=True, report=killed_at(step))


def test_a_resumed_run_ends_with_the_same_bits(home, tmp_path):
    for step in (8, 11, 20):
        interrupted(home, tmp_path / "run", step)
    assert len(losses(tmp_path / "run.partial")) == 20
    train(documents(), settings(home, save_every=3), tmp_path / "run", resume=True)
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


def test_a_killed_run_resumes(home, tmp_path):
    def kill(step, values):
        if step == 8:
            os.kill(os.getpid(), signal.SIGKILL)

    # A fork has torch, which a fresh process would import for seconds.
    child = os.fork()
    if child == 0:
        try:
            train(documents(), settings(home, save_at="3,30%"), tmp_path / "run", source="a", report=kill)
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == -signal.SIGKILL
    assert not (tmp_path / "run").exists()
    unread = (pytest.fail("the documents were read again") for _ in range(1))
    train(unread, settings(home, save_at="3,30%"), tmp_path / "run", source="a", resume=True)
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
    with pytest.raises(ConfigurationError, match=f"was started with {named} "):
        train(corpus, settings(home, **{"save_every": 3, **other}), tmp_path / "run", resume=True)


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?")]
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(home, tmp_path, caplog, damage):
    interrupted(home, tmp_path / "run", 8)
    damage(tmp_path / "run.partial" / "step-6" / "model.safetensors")
    train(documents(), settings(home, save_every=3), tmp_path / "run", resume=True)
    assert "step-6 is damaged" in caplog.text
    assert losses(tmp_path / "run") == losses(home / "run")
    assert weights(tmp_path / "run") == weights(home / "run")


def test_a_run_that_trains_its_tokenizer_resumes_with_it(home, tmp_path):
    trained = settings(home, tokenizer=None, train_tokenizer=300, save_every=3)
    with pytest.raises(Killed):
        train(documents(), trained, tmp_path / "run", resume=True, report=killed_at(4))
    train(documents(), trained, tmp_path / "run", resume=True)
    assert losses(tmp_path / "run") == losses(home / "run")
    assert not (tmp_path / "run" / "tokenizer").exists()


# Failures, and the files that they leave


def test_a_failure_leaves_nothing_unless_there_is_a_checkpoint(home, tmp_path):
    run, partial = tmp_path / "run", tmp_path / "run.partial"
    with pytest.raises(Killed):
        train(documents(), settings(home), run, report=killed_at(4))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(Killed):
        train(documents(), settings(home, save_at="3"), run, report=killed_at(4))
    assert list(tmp_path.iterdir()) == [partial]
    with pytest.raises(CannotCreateError, match="holds an unfinished run; --resume"):
        train(documents(), settings(home), run)
    train(documents(), settings(home), run, force=True)
    assert list(tmp_path.iterdir()) == [run]


def test_a_file_that_cannot_be_written_is_an_os_error(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_tensors({"a": torch.zeros(1000)}, tmp_path / "a.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_force_replaces_only_a_run(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    (tmp_path / "precious").mkdir()
    with pytest.raises(CannotCreateError, match="exists; -f"):
        train(documents(), settings(home), tmp_path / "run")
    with pytest.raises(CannotCreateError, match="is not a directory with train"):
        train(documents(), settings(home), tmp_path / "precious", force=True)
    with pytest.raises(TryAgainError, match="another run"):
        train(
            documents(),
            settings(home),
            tmp_path / "run",
            force=True,
            report=lambda step, values: again(home, tmp_path),
        )
    train(documents(), settings(home, steps=1), tmp_path / "run", force=True)
    assert len(losses(tmp_path / "run")) == 1


def again(home, tmp_path):
    train(documents(), settings(home), tmp_path / "run", force=True)


def test_a_loss_that_is_not_finite_stops_the_run(home, tmp_path):
    with pytest.raises(ConfigurationError, match=r"step 2 has a loss of (nan|inf)"):
        train(documents(), settings(home, lr=1e38, warmup=0), tmp_path / "run")


def test_less_than_a_block_is_an_error(home, tmp_path):
    with pytest.raises(DataError, match="1 documents have 7 tokens, less than one block of 32"):
        train([[1, 2, 3, 4, 5, 6, 7]], settings(home), tmp_path / "run")


def test_many_epochs_give_a_warning(home, tmp_path, caplog):
    summary = train(documents(8), settings(home, steps=2, batch_tokens=4096), tmp_path / "run")
    assert summary.passes == summary.tokens / summary.unique_tokens > 4
    assert summary.repeated_tokens == 2 * 4096 - summary.unique_tokens
    assert "beyond 4 epochs a repeated token" in caplog.text


def test_a_model_of_another_architecture(home, tmp_path):
    config = LlamaConfig(
        vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    values = {**config.to_dict(), "max_position_embeddings": 32, "attention_dropout": 0.5}
    (tmp_path / "config.json").write_text(json.dumps(values))
    theirs = settings(home, config=tmp_path / "config.json", batch_tokens=256, lr=1e-2)
    train(documents(), theirs, tmp_path / "run")
    assert losses(tmp_path / "run")[-1] < losses(tmp_path / "run")[0] - 1
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run").config.model_type == "llama"


def test_a_head_that_is_more_than_a_matrix_product_is_refused(home, tmp_path):
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
        train(
            documents(), settings(home, config=tmp_path / "config.json", batch_tokens=256), tmp_path / "run"
        )


@shared
def test_the_bare_gpt2_tokenizer_is_read():
    tokenizer = load_tokenizer(SHARED / "data" / "gpt2-tokenizer")
    assert encode(tokenizer, ["Hello world<|endoftext|>"])[0].tolist()[:2] == [15496, 995]
    assert tokenizer.eos_token_id == 50256 not in encode(tokenizer, ["Hello world<|endoftext|>"])[0]
