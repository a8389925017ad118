"""`shell/eval-tasks`: the real lm-evaluation-harness evaluates two checkpoints, and `eval` compares them."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from scipy import stats

from . import training
from .conftest import PATIENCE, ROOT, records

pytest.importorskip("lm_eval", reason="the samples of tasks need lm_eval and accelerate")

TASKS = "choice,text,write"
# As lm_eval does it, but without a list of its own ten thousand tasks, which takes it four seconds.
LM_EVAL = """
from functools import partialmethod
from lm_eval import tasks
tasks.TaskManager.__init__ = partialmethod(tasks.TaskManager.__init__, include_defaults=False)
from lm_eval.__main__ import cli_evaluate
cli_evaluate()
"""
DATA = """
dataset_path: json
dataset_kwargs: {data_files: DATA}
test_split: train
"""
CHOICE = """
task: choice
output_type: multiple_choice
doc_to_text: "{{prompt}}"
doc_to_choice: "{{choices}}"
doc_to_target: "{{answer}}"
metric_list: [{metric: acc}, {metric: acc_norm}, {metric: brier_score}]
"""
TEXT = """
task: text
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{text}}"
metric_list: [{metric: word_perplexity}, {metric: byte_perplexity}, {metric: bits_per_byte}]
"""
# Two filters: the answer as it is, and its first letter.
WRITE = """
task: write
output_type: generate_until
doc_to_text: "{{prompt}}"
doc_to_target: "{{choices[answer][0]}}"
generation_kwargs: {until: [" "], max_gen_toks: 4}
filter_list:
  - {name: whole, filter: [{function: take_first}]}
  - {name: letter, filter: [{function: regex, regex_pattern: "(\\\\w)"}, {function: take_first}]}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Two runs of `prune-cli train`, of 20 steps and 2, and three tasks of 52 documents, one twice."""
    home = training.furnished(tmp_path_factory.mktemp("tasks"))
    training.train(training.documents(), training.settings(home, steps=2), home / "base")
    (home / "docs.jsonl").write_text("".join(json.dumps(each) + "\n" for each in documents()))
    (home / "tasks").mkdir()
    for number, task in enumerate((CHOICE, TEXT, WRITE)):
        data = DATA.replace("DATA", json.dumps(str(home / "docs.jsonl")))
        (home / "tasks" / f"{number}.yaml").write_text(task + data)
    (home / "harness.py").write_text(LM_EVAL)
    (home / "bin").mkdir()
    for name, words in {"lm_eval": home / "harness.py", "prune-cli": "-m prune_cli"}.items():
        path = home / "bin" / name
        path.write_text(f'#!/bin/sh\necho {name} >>"{home}/calls"\nexec "{sys.executable}" {words} "$@"\n')
        path.chmod(0o755)
    return home


def documents():
    """The word that follows the first four of a text, among two others."""
    dice = random.Random(1)
    made: list[dict] = []
    for text in training.documents(200):
        words = text.split()
        if len(words) > 5 and len(made) < 52:
            choices = dice.sample([words[4], *dice.sample(sorted({*words} - {words[4]}), 2)], 3)
            prompt, answer = " ".join(words[:4]), choices.index(words[4])
            made.append({"prompt": prompt, "choices": choices, "answer": answer, "text": text})
    return [*made, made[0]]


def recipe(home, *arguments, status=0, path="bin"):
    """Run the recipe as a user without a network does, with the programs in `path` before others."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(home / "hub")}
    done = subprocess.run(
        [ROOT / "shell" / "eval-tasks", *arguments],
        capture_output=True,
        timeout=PATIENCE,
        cwd=home,
        env={
            **os.environ,
            **offline,
            "PATH": f"{home / path}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
    )
    assert done.returncode == status, done.stderr.decode()
    return done


OPTIONS = ("--include_path", "tasks", "--device", "cpu", "--batch_size", "16")


@pytest.fixture(scope="module")
def compared(home):
    """One run of the recipe: both models are evaluated, and their samples compared."""
    done = recipe(home, "samples", TASKS, "run/", "base", *OPTIONS)
    assert (home / "calls").read_text().split() == ["lm_eval", "lm_eval", "prune-cli"]
    return records(done.stdout), done.stderr.decode()


def harness(home, model, task):
    """The harness's own results, and its samples."""
    [results] = home.glob(f"samples/{model}/*/results_*.json")
    [samples] = home.glob(f"samples/{model}/*/samples_{task}_*.jsonl")
    return json.loads(results.read_bytes()), [json.loads(line) for line in samples.read_bytes().splitlines()]


def test_values_of_models_are_those_of_the_harness(home, compared):
    results = [each for each in compared[0] if each["result"] == "task"]
    for model in ("run", "base"):
        told, _ = harness(home, model, "choice")
        found = {
            (each["task"], f"{each['metric']},{each['filter']}"): each["value"]
            for each in results
            if each["model"] == f"samples/{model}"
        }
        expected = {
            (task, name): value
            for task, values in told["results"].items()
            for name, value in values.items()
            if "," in name and "_stderr" not in name and "brier" not in name
        }
        assert found == pytest.approx(expected)
        assert {task for task, _ in found} == {*TASKS.split(",")}


def test_a_comparison_is_that_of_the_samples(home, compared):
    """Each document once, although the harness counts the one that occurs twice as two."""
    [result] = [
        each for each in compared[0] if each["result"] == "task comparison" and each["metric"] == "acc"
    ]
    run, base = (
        {each["doc_hash"]: each["acc"] for each in harness(home, model, "choice")[1]}
        for model in ("run", "base")
    )
    assert len(run) == result["documents"] == 52
    assert result["repeated"] == 1
    better = sum(run[each] > base[each] for each in run)
    worse = sum(run[each] < base[each] for each in run)
    assert better + worse > 0, "else the test shows nothing"
    assert (result["improved"], result["worsened"]) == pytest.approx((better / 52, worse / 52))
    assert result["delta"] == pytest.approx((better - worse) / 52)
    assert result["p_mcnemar"] == pytest.approx(stats.binomtest(better, better + worse).pvalue)


def test_likelihoods_are_paired_as_well(home, compared):
    [result] = [
        each
        for each in compared[0]
        if each["result"] == "task comparison" and each["metric"] == "bits_per_byte"
    ]
    assert result["unit"] == "bits per byte"
    assert result["delta"] == pytest.approx(result["value"] - result["against_value"])
    low, high = result["delta_interval"]
    assert low < result["delta"] < high < 0, "18 more steps make a better model"
    assert result["p"] < 0.01


def test_the_average_is_over_tasks_whose_first_metric_is_a_share(compared):
    [average] = [each for each in compared[0] if each["result"] == "average comparison"]
    assert average["tasks"] == {"choice": "acc,none", "write": "exact_match,whole"}


def test_warnings_name_everything_that_was_left_out_or_differs(compared):
    """How both runs were trained is in their folders, as for comparisons of likelihoods."""
    said = compared[1]
    assert "choice: brier_score cannot be computed from its samples, and is left out" in said
    assert "3 samples repeat a document, which counts once: choice, text, write" in said
    assert "the average is without text" in said
    assert "differ in more than their data: steps 20 and 2" in said


def test_models_that_were_evaluated_before_are_not_run_again(home, compared):
    before = (home / "calls").read_text().split()
    done = recipe(home, "samples", TASKS, "run", "base/", *OPTIONS)
    assert records(done.stdout) == compared[0]
    assert (home / "calls").read_text().split()[len(before) :] == ["prune-cli"]


def test_a_model_that_cannot_be_evaluated_leaves_no_samples(home):
    # The harness's own command, whose parser refuses an option before anything is loaded.
    done = recipe(
        home, "others", TASKS, "run", "base", "--no-such-option", status=2, path=Path(sys.executable).parent
    )
    assert done.stderr.decode().endswith("\neval-tasks: lm_eval failed for base; see above\n")
    assert not [*home.glob("others/*/samples*")]
