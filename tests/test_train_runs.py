"""train: runs from a checkpoint, held-out losses, which checkpoints are kept, messages and warnings."""

import json
import os
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from prune_cli import storage
from prune_cli.errors import ConfigurationError, DataError, UsageError
from prune_cli.models import safety
from prune_cli.models.text.loading import load_tokenizer, train_tokenizer
from prune_cli.models.text.tokenizer import encode
from prune_cli.settings.train import Training
from prune_cli.stages.train import fingerprint
from prune_cli.training import setup, token_file
from prune_cli.training.model import gpt2_config, load_model, new_model, save_model, save_tokenizer
from prune_cli.training.recipe import Plan, choose, learning_rate
from prune_cli.training.setup import Corpus
from prune_cli.training.step import adamw

from .conftest import lines, on_a_terminal, records, scored
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


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return furnished(tmp_path_factory.mktemp("train"))


def packed(home, folder, corpus, context=32):
    tokenizer = load_tokenizer(home / "tokenizer")
    folder.mkdir()
    manifest = token_file.pack(
        corpus, lambda texts: encode(tokenizer, texts), folder, vocabulary=300, separator=0
    )
    return token_file.Blocks(folder, manifest, context, seed=0)


def steps(run):
    return sorted(int(path.name.removeprefix("step-")) for path in run.glob("step-*"))


# Compared with plain torch and transformers


def test_the_losses_of_tiny_are_those_of_a_plain_loop(home, tmp_path):
    tiny = Training(
        preset="tiny", tokenizer=home / "tokenizer", batch_tokens=512, steps=22, warmup=20, dtype="float32"
    )
    with pytest.raises(Killed):
        train(documents(), replace(tiny, save_at="1"), tmp_path / "run", report=killed_at(10))
    tokenizer = load_tokenizer(home / "tokenizer")
    config = gpt2_config(tokenizer, layers=4, width=256, heads=4, context=512, entries=0)
    start = {name: value.detach() for name, value in new_model(config, seed=0).named_parameters()}
    blocks = packed(home, tmp_path / "tokens", documents(), 512)
    data = [torch.from_numpy(blocks.batch(step, 1)) for step in range(10)]
    expected = [loss for loss, _ in plain_training(start, data, 22, 2e-3, warmup=20, heads=4, layers=4)]
    assert losses(tmp_path / "run.partial") == pytest.approx(expected, abs=1e-5)
    assert expected[-1] < expected[0] - 1


def test_steps_are_those_of_torch_with_decay_on_matrices_alone(home):
    model = load_model(home / "run")
    reference = AutoModelForCausalLM.from_pretrained(home / "run")
    matrices = [parameter for parameter in reference.parameters() if parameter.ndim > 1]
    vectors = [parameter for parameter in reference.parameters() if parameter.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    expected_optimizer = torch.optim.AdamW(groups, lr=1e-2, betas=(0.9, 0.95), eps=1e-8, foreach=False)
    optimizer = adamw(model)
    for group in optimizer.param_groups:
        group["lr"] = 1e-2
    for _ in range(4):
        for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
            expected.grad = torch.randn_like(expected)
            parameter.grad = expected.grad.clone()
        expected_optimizer.step()
        optimizer.step()
    for parameter, expected in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-7)


def test_wsd_is_constant_until_the_last_fifth():
    made = Plan(steps=100, batch=1, context=1, warmup=10, lr=1.0, schedule="wsd", saves=frozenset())
    rates = [learning_rate(made, step) for step in (0, 9, 50, 79, 84, 99)]
    assert rates == pytest.approx([0.1, 1, 1, 1, 0.1 + 0.9 * (1 - (5 / 20) ** 0.5), 0.1])
    assert learning_rate(Plan(1, 1, 1, 0, 1.0, "wsd", frozenset()), 0) == 1


# From a checkpoint


def from_run(home, **more):
    return Training(init_from=home / "run", batch_tokens=256, lr=1e-3, steps=5, dtype="float32", **more)


def test_a_run_begins_with_a_checkpoint(home, tmp_path):
    train(documents(seed=2), from_run(home), tmp_path / "run")
    first = torch.from_numpy(packed(home, tmp_path / "tokens", documents(seed=2)).batch(0, 8))
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(home / "run")(input_ids=first, labels=first).loss.item()
    assert losses(tmp_path / "run")[0] == pytest.approx(theirs, abs=1e-5)
    assert json.loads((tmp_path / "run" / "train.json").read_text())["run"][
        "init_from"
    ] == safety.directory_hash(home / "run")
    assert (tmp_path / "run" / "tokenizer.json").read_bytes() == (
        home / "run" / "tokenizer.json"
    ).read_bytes()
    seen = set(np.load(tmp_path / "run" / "documents.npy").tolist())
    assert seen == {token_file.content_hash(document) for document in (*documents(), *documents(seed=2))}


def test_a_run_from_a_checkpoint_resumes_only_with_that_checkpoint(home, tmp_path):
    again = from_run(home, save_every=2)
    train(documents(), again, tmp_path / "whole")
    with pytest.raises(Killed):
        train(documents(), again, tmp_path / "run", report=killed_at(3))
    (tmp_path / "other").mkdir()
    shutil.copytree(home / "run", tmp_path / "other" / "run")
    model = load_model(home / "run")
    with torch.no_grad():
        next(model.parameters()).mul_(1.1)
    save_model(model, load_tokenizer(home / "tokenizer"), tmp_path / "other" / "run")
    with pytest.raises(ConfigurationError, match="was started with init_from"):
        train(documents(), from_run(tmp_path / "other", save_every=2), tmp_path / "run", resume=True)
    train(documents(), again, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda run: (run / "model.safetensors").write_bytes(b"short"), "weights are truncated or damaged"),
        (lambda run: (run / "model.safetensors").rename(run / "pytorch_model.bin"), "weights are a pickle"),
        (lambda run: (run / "tokenizer.json").unlink(), "there is no tokenizer"),
        (
            lambda run: (run / "config.json").write_text(
                (run / "config.json").read_text().replace(": 2", ": 3")
            ),
            "cannot be loaded|lack",
        ),
    ],
)
def test_a_checkpoint_that_cannot_be_trained_further_is_refused(home, tmp_path, spoil, words):
    shutil.copytree(home / "run", tmp_path / "run")
    spoil(tmp_path / "run")
    with pytest.raises(ConfigurationError, match=words):
        train(documents(), from_run(tmp_path), tmp_path / "new")


def test_a_tokenizer_that_does_not_fit_the_checkpoint_is_refused(home, tmp_path):
    save_tokenizer(train_tokenizer(documents(seed=3), 280), tmp_path / "tokenizer")
    with pytest.raises(ConfigurationError, match="was trained with a different tokenizer"):
        train(documents(), from_run(home, tokenizer=tmp_path / "tokenizer"), tmp_path / "run")
    train(documents(), from_run(home, tokenizer=home / "tokenizer"), tmp_path / "run")
    with pytest.raises(UsageError, match="--init-from comes with a tokenizer"):
        choose(from_run(home, train_tokenizer=300))


# Held-out losses


def test_the_held_out_loss_is_that_of_plain_transformers(home, tmp_path):
    held_out = documents(seed=5)
    summary = train(documents(), settings(home, eval_every=8), tmp_path / "run", held_out=Corpus(held_out))
    assert losses(tmp_path / "run") == losses(home / "run")
    computed = {
        line["step"]: line["held_out_loss"] for line in metrics(tmp_path / "run") if "held_out_loss" in line
    }
    assert list(computed) == [8, 16, 20]
    assert computed[8] > computed[16] > computed[20] == summary.held_out_loss
    blocks = packed(home, tmp_path / "tokens", held_out)
    ids = torch.from_numpy(np.stack([blocks[index] for index in range(blocks.count)]))
    with torch.no_grad():
        expected = AutoModelForCausalLM.from_pretrained(tmp_path / "run")(
            input_ids=ids, labels=ids
        ).loss.item()
    assert computed[20] == pytest.approx(expected, abs=1e-5)
    assert not (tmp_path / "run" / "held-out").exists()


def test_without_an_interval_there_is_a_held_out_loss_at_the_end(home, tmp_path):
    train(documents(), settings(home), tmp_path / "run", held_out=Corpus(reversed(documents(seed=5))))
    assert [line["step"] for line in metrics(tmp_path / "run") if "held_out_loss" in line] == [20]


def test_held_out_documents_in_the_training_data_give_a_warning(home, tmp_path, caplog):
    train(
        documents(),
        settings(home, steps=1),
        tmp_path / "run",
        held_out=Corpus([*documents(20, seed=5), *documents()[:3]]),
    )
    assert "3 of 23 held-out documents are in the training data" in caplog.text


def test_held_out_data_that_are_missing_too_small_or_changed_are_refused(home, tmp_path):
    with pytest.raises(UsageError, match="--eval-every needs held-out"):
        train(documents(), settings(home, eval_every=2), tmp_path / "run")
    with pytest.raises(DataError, match="less than one block of 32"):
        train(documents(), settings(home), tmp_path / "run", held_out=Corpus(["a"]))
    with pytest.raises(Killed):
        train(
            documents(),
            settings(home, save_every=3),
            tmp_path / "run",
            held_out=Corpus(documents(seed=5)),
            report=killed_at(4),
        )
    with pytest.raises(ConfigurationError, match="was started with held_out"):
        train(
            documents(),
            settings(home, save_every=3),
            tmp_path / "run",
            held_out=Corpus(documents(seed=6)),
            resume=True,
        )


# Which checkpoints are kept


def test_the_last_regular_and_all_named_checkpoints_are_kept(home, tmp_path):
    there = []
    note = lambda step, values: there.append(steps(tmp_path / "run.partial"))  # noqa: E731
    train(documents(), settings(home, save_every=3, save_at="4,30%", keep=1), tmp_path / "run", report=note)
    assert steps(tmp_path / "run") == [4, 6, 18]
    assert there[-1] == [4, 6, 15, 18]  # two to resume from
    train(documents(), settings(home, save_every=3, keep=0), tmp_path / "run", force=True)
    assert steps(tmp_path / "run") == []
    with pytest.raises(UsageError, match="--keep needs --save-every"):
        choose(settings(home, keep=2))


def test_a_thinned_run_is_resumed_from_the_checkpoint_before(home, tmp_path, caplog):
    thinned = settings(home, save_every=3, keep=1)
    with pytest.raises(Killed):
        train(documents(), thinned, tmp_path / "run", report=killed_at(17))
    (tmp_path / "run.partial" / "step-15" / "config.json").unlink()
    (tmp_path / "run.partial" / ".step-18.partial").mkdir()  # as a kill leaves it
    train(documents(), thinned, tmp_path / "run", resume=True)
    assert "step-15 is damaged" in caplog.text
    assert weights(tmp_path / "run") == weights(home / "run")
    assert {path.name for path in (tmp_path / "run").iterdir() if path.is_dir()} == {"step-18"}


# Messages and warnings


def test_a_loss_that_is_not_finite_names_the_documents_of_the_batch(home, tmp_path, caplog):
    caplog.set_level("INFO", "prune_cli")
    corpus = ["", *documents()]
    with pytest.raises(
        ConfigurationError,
        match=r"step 2 has a loss of \w+ .*; its batch has the documents \d+, .* of the input; lower",
    ) as failure:
        train(corpus, settings(home, lr=1e38, warmup=0), tmp_path / "run")
    [listed] = re.findall(r"documents of step 2: ([\d, ]+)", caplog.text)
    named = [int(number) for number in listed.split(", ")]
    tokenizer = load_tokenizer(home / "tokenizer")
    for ids in batches(home, tmp_path, 2, 8)[1]:
        for part in tokenizer.decode(ids).split(tokenizer.eos_token)[1:-1]:
            assert corpus.index(part) + 1 in named
    assert str(named[0]) in str(failure.value)


def test_a_tokenizer_cannot_be_trained_on_packed_blocks(home, tmp_path):
    with pytest.raises(ConfigurationError, match="cannot train a tokenizer on token ids"):
        train([[1] * 64], settings(home, tokenizer=None, train_tokenizer=300), tmp_path / "run")


def test_a_token_file_of_another_tokenizer_or_source_is_not_used(home, tmp_path):
    first = load_tokenizer(home / "tokenizer")
    other = train_tokenizer(documents(seed=3), 280)

    def made(tokenizer, source, corpus):
        return setup.prepare_token_file(
            Corpus(corpus, source), tokenizer, tmp_path, lambda step, values: None
        )

    manifest = made(first, "here", documents())
    assert made(first, "here", iter(())) == manifest
    assert made(other, "here", documents()).vocabulary == 280
    assert made(other, "there", documents(3)).documents == 3
    assert made(other, None, documents(4)).documents == 4


def test_a_changed_file_has_another_fingerprint(tmp_path):
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(lines(scored(3)))
    before = fingerprint(storage.operands([str(path)]), "text")
    time = path.stat().st_mtime_ns
    assert fingerprint(storage.operands([str(path)]), "text") == before
    path.write_bytes(path.read_bytes().replace(b"lorem", b"LOREM"))
    os.utime(path, ns=(time, time))
    assert fingerprint(storage.operands([str(path)]), "text") != before
    assert fingerprint([storage.input_at("/dev/null")], "text") is None


def test_the_padded_vocabulary_of_a_preset_is_kept(home):
    recipe = choose(Training(preset="124m", tokenizer=home / "tokenizer", steps=1))
    config = setup.model_config(Training(preset="124m"), recipe, load_tokenizer(home / "tokenizer"))
    assert (config.vocab_size, config.n_layer, config.n_embd, config.n_positions) == (51_200, 12, 768, 2048)


def test_score_warns_of_documents_in_the_training_data(home, tmp_path, here):
    strangers = documents(10, seed=5)
    corpus = lines([{"text": text} for text in (*documents()[:4], *strangers)])
    said = here("score", "--model", home / "run", "--summary", tmp_path / "summary.json", stdin=corpus)
    assert said.stderr.decode() == (
        f"prune-cli score: warning: 4 of 14 documents are in the training data of {home / 'run'}: "
        "their perplexity cannot be compared with that of documents it was not trained on\n"
    )
    assert json.loads((tmp_path / "summary.json").read_text())["seen"] == 4
    assert (
        here("score", "--model", home / "run", stdin=lines([{"text": text} for text in strangers])).stderr
        == b""
    )
    shutil.copytree(home / "run", tmp_path / "run")
    (tmp_path / "run" / "documents.npy").write_bytes(b"oops")
    assert (
        b"documents.npy: is damaged"
        in here("score", "--model", tmp_path / "run", stdin=corpus, status=78).stderr
    )


def test_score_warns_of_blocks_in_the_training_data(home, tmp_path, here):
    texts = lines([{"text": text} for text in documents()])
    packed = here("pack", "--tokenizer", home / "tokenizer", "--context", 32, stdin=texts).stdout
    (tmp_path / "packed.zst").write_bytes(packed)
    (tmp_path / "held-out.jsonl").write_bytes(lines([{"text": text} for text in documents(seed=5)]))
    options = [
        "--config",
        home / "shape.toml",
        "--tokenizer",
        home / "tokenizer",
        "--steps",
        2,
        "--eval-data",
        tmp_path / "held-out.jsonl",
    ]
    here("train", *options, "-o", tmp_path / "run", tmp_path / "packed.zst")
    assert "held_out_loss" in metrics(tmp_path / "run")[-1]
    count = len(records(packed))
    said = here("score", "--model", tmp_path / "run", tmp_path / "packed.zst").stderr
    assert f"{count} of {count} documents are in the training data".encode() in said
    assert (
        b"--eval-data cannot be standard input"
        in here("train", *options[:-1], "-", "-o", tmp_path / "no", status=2).stderr
    )


def test_a_terminal_shows_progress_and_one_closing_line(home, tmp_path):
    (tmp_path / "corpus.jsonl").write_bytes(lines([{"text": text} for text in documents()]))
    (tmp_path / "held-out.jsonl").write_bytes(lines([{"text": text} for text in documents(seed=5)]))
    options = [
        "--config",
        home / "shape.toml",
        "--tokenizer",
        home / "tokenizer",
        "--steps",
        20,
        "--eval-data",
        tmp_path / "held-out.jsonl",
    ]
    said = on_a_terminal(
        "stderr",
        "train",
        "--progress",
        *options,
        "-o",
        tmp_path / "run",
        tmp_path / "corpus.jsonl",
        COLUMNS="160",
    )
    assert re.search(r"loss \d\.\d+ +held-out \d\.\d+ +lr \S+ +[\d,]+ tokens/s \(\d+% of peak FLOP/s\)", said)
    epochs = r"\(\d\.\d\d epochs of [\d,]+, [\d,]+ repeated\)"
    losses = r"loss \d\.\d+, held-out \d\.\d+"
    assert re.search(rf"trained 20 steps on 5,120 tokens {epochs}; {losses}: ", said)
    assert said.count("•") == 20  # the curve of the loss
