"""eval --glue: fine-tuning equals a plain loop, and no result is computed twice."""

import json
import math
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import transformers  # noqa: E402

from prune_cli.models.load import load  # noqa: E402
from prune_cli.settings.model import ModelSettings  # noqa: E402
from prune_cli.stages.eval.glue import fine_tuning as stage  # noqa: E402
from prune_cli.stages.eval.glue.classifier import Classifier, joined, micro_batches, rows  # noqa: E402
from prune_cli.stages.eval.glue.evaluate import evaluate  # noqa: E402
from prune_cli.stages.eval.glue.tasks import Data  # noqa: E402

from .glue_examples import examples  # noqa: E402
from .small_models import END, tiny_gpt2  # noqa: E402

SETTINGS = ModelSettings(device="cpu", dtype="float32")
FAST = stage.Protocol(epochs=2, lr=1e-3, batch=4, length=24)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"), n_positions=64)


@pytest.fixture
def loaded(gpt2):
    return load(str(gpt2), SETTINGS, trainable=True)


def data(**more):
    return Data(examples(30, 1, **more), {"dev": examples(12, 2, **more)}, "hash")


def run(gpt2, tasks, seeds=1, protocol=FAST, **more):
    return list(
        evaluate([("m", lambda: load(str(gpt2), SETTINGS, trainable=True))], tasks, seeds, protocol, **more)
    )


# --- Rows ---


def test_texts_are_between_eos_tokens_and_the_longer_one_is_cut():
    first, second = np.arange(1, 9, dtype=np.int32), np.arange(11, 14, dtype=np.int32)
    assert joined([second], 0, 8).tolist() == [0, 11, 12, 13, 0]
    assert joined([first], 0, 6).tolist() == [0, 1, 2, 3, 4, 0]
    assert joined([first, second], 0, 14).tolist() == [0, *range(1, 9), 0, 11, 12, 13, 0]
    assert joined([first, second], 0, 11).tolist() == [0, *range(1, 6), 0, 11, 12, 13, 0]
    assert joined([second, first], 0, 11).tolist() == [0, 11, 12, 13, 0, *range(1, 6), 0]
    assert joined([first, first], 0, 10).tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3, 0]


def test_an_eos_spelt_out_in_a_text_is_text(loaded):
    [row] = rows(loaded.tokenizer, [(f"a{END}b",)], 64)
    end = loaded.tokenizer.eos_token_id
    assert np.flatnonzero(row == end).tolist() == [0, len(row) - 1]
    assert loaded.tokenizer.decode(row[1:-1]) == f"a{END}b"


def test_every_row_is_in_one_micro_batch_and_long_rows_come_first():
    some = [np.zeros(length, np.int32) for length in (3, 40, 9, 17, 8)]
    assert [part.tolist() for part in micro_batches(some, 64)] == [[1], [3, 2], [4, 0]]
    assert [part.tolist() for part in micro_batches(some, 1)] == [[1], [3], [2], [4], [0]]


# --- Against plain transformers ---


def test_the_state_at_the_last_eos_is_read_although_padding_has_the_same_id(gpt2, loaded):
    """Rows alone, without padding, in float64; one holds ends inside, and the pad id is that of the end."""
    some = [
        np.array(row, np.int32)
        for row in ([0, 5, 6, 0, 7, 0], [0, 9, 0], [0, 0, 0, 5, 0, 0], [0, *range(1, 40), 0])
    ]
    model = Classifier(loaded, 3, 0.02, seed=4)
    plain = transformers.GPT2Model.from_pretrained(gpt2, dtype=torch.float64).eval()
    with torch.no_grad():
        expected = [
            plain(torch.tensor(row.tolist())[None]).last_hidden_state[0, -1] @ model.layer.double().T
            for row in some
        ]
        assert torch.allclose(model(some).double(), torch.stack(expected), atol=1e-5)
    assert model.layer.shape == (3, 32)
    assert Classifier(loaded, 100, 0.02, 0).layer.std().item() == pytest.approx(0.02, rel=0.05)


def plain_tuning(gpt2, task, head, protocol):
    """The same protocol in plain transformers: padded batches with a mask, a schedule, AdamW.

    GPT-2's padding token is its EOS token.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(gpt2, pad_token=END)
    trunk = transformers.GPT2Model.from_pretrained(gpt2, dtype=torch.float32).eval()
    head = torch.nn.Parameter(head.detach().clone())

    def outputs(texts):
        inputs = tokenizer(
            [END + END.join(pair) + END for pair in texts],
            padding=True,
            padding_side="right",
            return_tensors="pt",
        )
        states = trunk(**inputs).last_hidden_state
        return states[torch.arange(len(texts)), inputs["attention_mask"].sum(1) - 1] @ head.T

    named = [*trunk.named_parameters(), ("head", head)]
    decayed = [
        {"params": [value for _, value in named if (value.ndim > 1) == matrix], "weight_decay": 0.01 * matrix}
        for matrix in (True, False)
    ]
    steps = protocol.epochs * math.ceil(len(task.train.texts) / protocol.batch)
    warmup = math.ceil(0.06 * steps)
    optimizer = torch.optim.AdamW(decayed, lr=protocol.lr)
    for step, batch in enumerate(stage.batches(len(task.train.texts), protocol, seed=0)):
        for group in optimizer.param_groups:
            group["lr"] = protocol.lr * (
                (step + 1) / warmup if step < warmup else (steps - step) / (steps - warmup)
            )
        loss = (
            (
                outputs([task.train.texts[at] for at in batch])[:, 0]
                - torch.tensor(task.train.labels[batch]).float()
            )
            ** 2
        ).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return outputs(task.held_out["dev"].texts)[:, 0].numpy()


def test_a_run_equals_a_plain_loop(gpt2, loaded):
    task, protocol = data(numbers=True), stage.Protocol(epochs=2, lr=1e-3, batch=4, length=64)
    expected = plain_tuning(gpt2, task, Classifier(loaded, 1, 0.02, 0).layer, protocol)
    job = stage.experiment(stage.starting_point("m", loaded), "stsb", task, protocol)
    found = stage.fine_tune(job, 0, lambda steps, text: None)["dev"]
    assert found == pytest.approx(expected, abs=1e-3)
    assert np.ptp(found) > 0.1, "it has learned something"
    sparing = replace(
        loaded, settings=replace(loaded.settings, batch_tokens=40)
    )  # a row or two at a time: the same gradients
    job = replace(job, start=replace(job.start, loaded=sparing))
    assert stage.fine_tune(job, 0, lambda steps, text: None)["dev"] == pytest.approx(found, abs=1e-3)


def test_the_learning_rate_rises_and_falls_to_zero():
    protocol = stage.Protocol()
    rates = [protocol.rate(step, 100) for step in range(100)]
    assert rates[:7] == pytest.approx([1e-5 * part / 6 for part in (1, 2, 3, 4, 5, 6, 6)])
    assert rates[99] == pytest.approx(1e-5 / 94)
    assert protocol.rate(0, 1) == 1e-5
    assert protocol.steps(3668) == 3 * 115


def test_each_epoch_sees_every_example_once_in_its_own_order():
    protocol = stage.Protocol(epochs=2, batch=4)
    first, again, other = (
        [batch.tolist() for batch in stage.batches(10, protocol, seed)] for seed in (0, 0, 1)
    )
    assert first == again != other
    assert [len(batch) for batch in first] == [4, 4, 2, 4, 4, 2]
    assert sorted(chain(*first[:3])) == sorted(chain(*first[3:])) == list(range(10))
    assert first[:3] != first[3:]


# --- Results ---


def test_a_simple_task_is_learned_and_reported_with_its_baselines(gpt2):
    *seeds, task, average = run(
        gpt2, {"sst2": data(pairs=False)}, 2, stage.Protocol(epochs=5, lr=3e-3, batch=4, length=24)
    )
    assert [(one["result"], one["seed"]) for one in seeds] == [("glue", 0), ("glue", 1)]
    assert task["metrics"]["accuracy"]["mean"] > 0.9 > task["majority"]["accuracy"]
    assert task["chance"] == {"accuracy": 0.5}
    values = [one["metrics"]["accuracy"] for one in seeds]
    assert task["metrics"]["accuracy"] == {
        "mean": pytest.approx(np.mean(values)),
        "deviation": pytest.approx(np.std(values, ddof=1)),
    }
    assert task["examples"] == {"train": 30, "dev": 12}
    assert average["score"] == task["score"]
    assert set(task["provenance"]) == {"model", "tokenizer", "data", "protocol", "versions"}
    assert task["provenance"]["protocol"]["lr"] == 3e-3
    assert json.loads(json.dumps(seeds)) == seeds


def test_tasks_have_their_own_metrics_and_the_average_is_over_tasks(gpt2):
    three = Data(examples(12, 1), {"dev_matched": examples(6, 2), "dev_mismatched": examples(9, 3)}, "hash")
    results = run(
        gpt2, {"mrpc": data(), "stsb": data(numbers=True), "mnli": three, "cola": data(pairs=False)}, 1
    )
    tasks = [one for one in results if one["result"] == "glue task"]
    assert [list(one["metrics"]) for one in tasks] == [
        ["accuracy", "f1"],
        ["pearson", "spearman"],
        ["accuracy_matched", "accuracy_mismatched"],
        ["matthews"],
    ]
    assert tasks[0]["score"]["mean"] == pytest.approx(
        np.mean([spread["mean"] for spread in tasks[0]["metrics"].values()])
    )
    assert tasks[0]["score"]["deviation"] is None
    assert results[-1]["score"]["mean"] == pytest.approx(np.mean([one["score"]["mean"] for one in tasks]))
    assert tasks[1]["majority"] == {"pearson": 0, "spearman": 0}


def test_a_seed_is_deterministic_and_not_run_if_its_result_exists(gpt2):
    first, taken = run(gpt2, {"rte": data()}, 2), []

    def find(wanted):
        return next((one for one in first if one["result"] == "glue" and wanted.items() <= one.items()), None)

    assert run(gpt2, {"rte": data()}, 2) == first
    again = run(gpt2, {"rte": data()}, 3, find=find, progress=lambda steps, text: taken.append(text))
    assert again[:2] == first[:2]
    assert [text for text in taken if "already" in text] == [
        "rte, seed 0: already done",
        "rte, seed 1: already done",
    ]
    assert len(taken) == 2 + FAST.steps(30)


def test_a_short_context_cuts_examples_with_a_warning(gpt2, caplog):
    results = run(gpt2, {"wnli": data()}, 1, stage.Protocol(epochs=1, batch=16))
    assert "reads 64 tokens" in caplog.text
    assert results[0]["provenance"]["protocol"]["length"] == 64
