"""Warnings that a difference between two models may not be due to their data alone."""

import json

import pytest

from prune_cli.stages.eval.comparability import training, warnings

RUN = {
    "steps": 100,
    "batch": 8,
    "lr": 0.001,
    "schedule": "cosine",
    "seed": 0,
    "data_seed": 0,
    "model": "m",
    "tokenizer": "t",
    "documents": "d",
}


def made(name, bos="auto", **run):
    """A model's name and provenance; without training settings it is from elsewhere."""
    return name, {"model": name, "bos": bos, "context": 32, "training": {**RUN, **run} if run else None}


def warned(models, baselines, paired=False):
    return list(warnings(models, baselines, paired))


def test_runs_that_differ_only_in_their_documents_give_no_warning():
    assert warned([made("a", documents="x")], [made("b", documents="y")]) == []


def test_a_held_out_set_and_the_training_of_a_tokenizer_are_ignored():
    assert (
        warned(
            [made("a", held_out="h", train_tokenizer=None)], [made("b", held_out=None, train_tokenizer=400)]
        )
        == []
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenizer", "u"),
        ("model", "n"),
        ("seed", 1),
        ("data_seed", 1),
        ("batch", 4),
        ("steps", 99),
        ("schedule", "linear"),
    ],
)
def test_any_other_difference_is_named(name, value):
    assert warned([made("a", **{name: value})], [made("b", seed=0)]) == [
        f"a and b differ in more than their data: {name} {value} and {RUN[name]}"
    ]


def test_a_model_from_elsewhere_gives_no_warning():
    assert warned([made("a")], [made("b", seed=0)]) == []


def test_different_ways_to_evaluate_are_named():
    assert warned([made("a", bos="never")], [made("b")]) == [
        "a and b were evaluated differently: bos never and auto"
    ]


def test_seeds_may_differ_between_groups_but_not_repeat_in_one():
    baselines = [made("b0", seed=2), made("b1", seed=3)]
    assert warned([made("a0", seed=0), made("a1", seed=1)], baselines) == []
    assert warned([made("a0", seed=0), made("a1", seed=0)], baselines) == [
        "a0 and a1 have the same seeds: they show no training noise"
    ]


def test_pairs_share_their_seeds():
    models, baselines = [made("a0", seed=0), made("a1", seed=1)], [made("b0", seed=0), made("b1", seed=1)]
    assert warned(models, baselines, paired=True) == []
    assert warned(models, baselines[::-1], paired=True) == [
        f"a{seed} and b{1 - seed} are a pair, but have different seeds" for seed in (0, 1)
    ]


def test_every_run_of_two_groups_is_compared_with_the_first():
    models, baselines = (
        [made("a0", seed=0), made("a1", seed=1, lr=0.1)],
        [made("b0", seed=0), made("b1", seed=1)],
    )
    assert warned(models, baselines) == ["a1 and b0 differ in more than their data: lr 0.1 and 0.001"]


def test_the_training_settings_are_read_from_the_run(tmp_path):
    (tmp_path / "step-50").mkdir()
    (tmp_path / "train.json").write_text(json.dumps({"run": RUN}))
    assert training(tmp_path) == RUN
    assert training(tmp_path / "step-50") == {**RUN, "steps": 50}
    assert training(tmp_path / "none") is None
    (tmp_path / "train.json").write_text("[]")
    assert training(tmp_path) is None
