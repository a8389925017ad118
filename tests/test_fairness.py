"""What beside the data may make the difference between two models, in words."""

import json

import pytest

from prune_cli.stages.eval.comparability import doubts, training

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
    """A model's name and provenance; without anything of its run it is from elsewhere."""
    return name, {"model": name, "bos": bos, "context": 32, "training": {**RUN, **run} if run else None}


def found(ours, theirs, paired=False):
    return list(doubts(ours, theirs, paired))


def test_runs_that_differ_in_their_documents_alone_are_compared_without_a_word():
    assert found([made("a", documents="x")], [made("b", documents="y")]) == []


def test_what_was_only_watched_and_how_a_tokenizer_came_about_are_no_differences():
    assert (
        found(
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
def test_what_else_differs_is_named(name, value):
    assert found([made("a", **{name: value})], [made("b", seed=0)]) == [
        f"a and b differ in more than their data: {name} {value} and {RUN[name]}"
    ]


def test_a_model_from_elsewhere_is_not_judged():
    assert found([made("a")], [made("b", seed=0)]) == []


def test_unlike_ways_to_evaluate_are_named():
    assert found([made("a", bos="never")], [made("b")]) == [
        "a and b were evaluated in unlike ways: bos never and auto"
    ]


def test_seeds_may_differ_between_arms_but_not_repeat_in_one():
    theirs = [made("b0", seed=2), made("b1", seed=3)]
    assert found([made("a0", seed=0), made("a1", seed=1)], theirs) == []
    assert found([made("a0", seed=0), made("a1", seed=0)], theirs) == [
        "a0 and a1 have the same seeds: what differs between them is no training noise"
    ]


def test_pairs_share_their_seeds():
    ours, theirs = [made("a0", seed=0), made("a1", seed=1)], [made("b0", seed=0), made("b1", seed=1)]
    assert found(ours, theirs, paired=True) == []
    assert found(ours, theirs[::-1], paired=True) == [
        f"a{one} and b{1 - one} are a pair, but have unlike seeds" for one in (0, 1)
    ]


def test_every_run_of_two_arms_is_held_to_the_first():
    ours, theirs = [made("a0", seed=0), made("a1", seed=1, lr=0.1)], [made("b0", seed=0), made("b1", seed=1)]
    assert found(ours, theirs) == ["a1 and b0 differ in more than their data: lr 0.1 and 0.001"]


def test_what_a_run_was_trained_with_is_read_from_it(tmp_path):
    (tmp_path / "step-50").mkdir()
    (tmp_path / "train.json").write_text(json.dumps({"run": RUN}))
    assert training(tmp_path) == RUN
    assert training(tmp_path / "step-50") == {**RUN, "steps": 50}
    assert training(tmp_path / "none") is None
    (tmp_path / "train.json").write_text("[]")
    assert training(tmp_path) is None
