"""Held-out likelihoods: pooled over tokens, with intervals over documents, and compared in pairs."""

import gc
import json
import math
import weakref
from types import SimpleNamespace

import numpy as np
import pytest

from prune_cli.stages import eval as stage
from prune_cli.stages import score
from prune_cli.stages.eval import Item, evaluate

from .test_model import IDS, PROSE, TEXTS, load, tiny_gpt2

LETTERS = "abcdefghij"


def likelihoods(items, model, **more):
    return score.score(items, score.Scoring((), [model]), **more)


def found(nll, tokens, n_bytes=None, tokenizer="same"):
    """A model as the stage sees it: a loader, and what scoring says of each document."""
    model = SimpleNamespace(tokenizer_hash=tokenizer)
    model.fields = [
        {"nll_sum": float(total), "n_scored": count, "n_bytes": size}
        for total, count, size in zip(nll, tokens, n_bytes or [2 * count for count in tokens], strict=True)
    ]
    return lambda: model


def likelihoods_of(items, model, place):
    yield [(at, model.fields[at]) for at, _ in items]


def run(models, items, **more):
    named = [(f"model {at}", loader) for at, loader in enumerate(models)]
    return list(evaluate(named, [("held out", items)], likelihoods_of, resamples=more.pop("resamples", 500), **more))


def texts(count, group=None):
    return [Item(group, "two words") for _ in range(count)]


# --- one model ----------------------------------------------------------------------------------------------------------------


def test_pooled_over_tokens_and_not_over_documents():
    """(4 + 6) nats over (1 + 4) tokens, 20 bytes and 4 words: e²; the documents' own are e⁴ and e¹·⁵."""
    [result] = run([found([4, 6], [1, 4], [5, 15])], texts(2))
    assert (result["documents"], result["tokens"], result["bytes"]) == (2, 5, 20)
    assert result["perplexity"] == pytest.approx(math.exp(10 / 5))
    assert result["bits_per_byte"] == pytest.approx(10 / math.log(2) / 20)
    assert result["word_perplexity"] == pytest.approx(math.exp(10 / 4))
    assert json.loads(json.dumps(result)) == result


def test_equal_documents_leave_no_doubt():
    [result] = run([found([3, 3, 3], [2, 2, 2])], texts(3))
    assert result["perplexity_interval"] == pytest.approx([math.exp(1.5)] * 2)


def test_intervals_hold_the_truth_about_as_often_as_they_say():
    dice, held = np.random.default_rng(0), 0
    for seed in range(100):
        tokens = dice.integers(20, 200, 60)
        nll = tokens * dice.normal(3, 0.5, 60)
        [result] = run([found(nll, tokens.tolist())], texts(60), seed=seed, resamples=200)
        low, high = result["perplexity_interval"]
        held += low <= math.exp(3) <= high
    assert 88 <= held <= 99


def test_resampling_is_a_bootstrap_over_rows():
    sums = stage.resampled_sums(np.array([[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]), seed=1, resamples=4000)
    assert sums.shape == (4000, 2)
    assert np.array_equal(sums[:, 1], 10 * sums[:, 0]), "columns of a row stay together"
    assert sums[:, 0].mean() == pytest.approx(6, abs=0.1)
    assert sums[:, 0].var() == pytest.approx(2, abs=0.2)  # 3 draws of variance 2/3
    assert set(sums[:, 0]) == {3, 4, 5, 6, 7, 8, 9}


def test_the_same_seed_gives_the_same_numbers():
    dice = np.random.default_rng(1)
    model = found(dice.normal(30, 5, 20), [10] * 20)
    assert run([model], texts(20), seed=3) == run([model], texts(20), seed=3)
    assert run([model], texts(20), seed=3) != run([model], texts(20), seed=4)


def test_groups_come_after_the_whole_in_order_of_appearance():
    items = [Item("web", "x"), Item("books", "x"), Item("web", "x"), Item(None, "x")]
    results = run([found([1, 20, 3, 4], [1, 10, 1, 1])], items)
    assert [(result["group"], result["documents"], result["tokens"]) for result in results] == [
        (None, 4, 13),
        ("web", 2, 2),
        ("books", 1, 10),
    ]
    assert results[1]["perplexity"] == pytest.approx(math.exp(2))


def test_documents_that_cannot_be_scored_are_left_out():
    [result] = run([found([0, 4], [0, 2])], texts(2))
    assert (result["documents"], result["perplexity"]) == (1, pytest.approx(math.exp(2)))


def test_nothing_that_can_be_scored_is_no_number():
    for results in (run([found([], [])], []), run([found([0], [0])], texts(1))):
        names = ("documents", "tokens", "perplexity", "perplexity_interval", "bits_per_byte")
        assert [results[0][name] for name in names] == [0, 0, None, None, None]


def test_unknown_bytes_and_words_are_none_and_huge_numbers_too():
    model = found([4, 4], [2, 2], [None, 3])
    [result] = run([model], [Item(None, [1, 2, 3]), Item(None, "x")])
    assert (result["bytes"], result["bits_per_byte"], result["bits_per_byte_interval"], result["word_perplexity"]) == (None,) * 4
    [result] = run([found([2000], [1])], texts(1))
    assert (result["perplexity"], result["perplexity_interval"]) == (None, None)


# --- two models ---------------------------------------------------------------------------------------------------------------


def compared(ours, theirs, count, **more):
    [*_, result] = run([ours], texts(count), against=[("base", theirs)], **more)
    assert (result["result"], result["model"], result["against"]) == ("comparison", "model 0", "base")
    return result


def test_a_model_against_itself_is_no_better():
    model = found([3, 4, 5], [1, 2, 3])
    result = compared(model, model, 3)
    assert (result["delta"], result["delta_interval"], result["effect"], result["improved"], result["p"]) == (0, [0, 0], 0, 0, 1)


def test_a_constant_gain_is_certain_however_different_the_documents():
    """Every token is 0.1 nats cheaper: perplexity falls by 1 - e^-0.1, and pairing takes all else away."""
    tokens = [1, 10, 100, 1000, 5, 50, 500, 7, 70, 700, 3, 30]
    dear = [4 * count + at for at, count in enumerate(tokens)]
    cheap = [total - 0.1 * count for total, count in zip(dear, tokens, strict=True)]
    result = compared(found(cheap, tokens), found(dear, tokens), 12, resamples=4000)
    assert result["unit"] == "nats per token"
    assert result["delta"] == pytest.approx(-0.1)
    assert result["delta_interval"] == pytest.approx([-0.1, -0.1])
    assert result["effect"] == pytest.approx(math.expm1(-0.1))
    assert result["effect_interval"] == pytest.approx([math.expm1(-0.1)] * 2)
    assert result["improved"] == 1
    assert result["p"] < 0.05
    assert result["includes_training_noise"] is False


def test_p_is_the_share_of_sign_flips_that_do_as_much():
    """Differences 1, 1, 1: of 8 ways to flip signs, 2 reach ±3."""
    left, right = np.array([[1.0, 1], [1, 1], [1, 1]]), np.array([[2.0, 1], [2, 1], [2, 1]])
    assert stage.permutation_p(left, right, 0, 20_000) == pytest.approx(2 / 8, abs=0.01)
    assert stage.permutation_p(left, left, 0, 100) == 1


def test_p_is_uniform_when_there_is_no_difference():
    dice = np.random.default_rng(2)

    def model() -> np.ndarray:
        return np.stack([dice.normal(50, 9, 30), np.full(30, 10.0)], axis=1)

    ps = [stage.permutation_p(model(), model(), seed, 200) for seed in range(200)]
    assert np.mean(ps) == pytest.approx(0.5, abs=0.07)
    assert min(ps) >= 1 / 201


def test_unlike_tokenizers_are_compared_by_the_byte():
    ours, theirs = found([10, 10], [5, 5], [20, 20], "ours"), found([12, 14], [9, 9], [20, 20], "theirs")
    result = compared(ours, theirs, 2)
    assert result["unit"] == "bits per byte"
    assert result["delta"] == pytest.approx((20 - 26) / math.log(2) / 40)
    assert result["effect"] == pytest.approx(math.expm1(-6 / 40))


def test_only_documents_that_both_can_score_are_compared():
    result = compared(found([0, 4, 6], [0, 2, 2]), found([9, 5, 0], [3, 2, 0]), 3)
    assert (result["documents"], result["delta"]) == (1, -0.5)
    result = compared(found([0], [0]), found([0], [0]), 1)
    assert [result[name] for name in ("documents", "delta", "delta_interval", "improved", "p")] == [0, None, None, None, None]


def test_baselines_are_reported_first_and_compared_with_every_model():
    better, worse = found([1, 1], [1, 1]), found([2, 2], [1, 1])
    named = [("a", better), ("b", worse)]
    data = [("x", texts(2)), ("y", texts(2))]
    results = list(evaluate(named, data, likelihoods_of, against=[("base", worse)], resamples=10))
    assert [(result["model"], result.get("against"), result["data"]) for result in results] == [
        ("base", None, "x"),
        ("base", None, "y"),
        ("a", None, "x"),
        ("a", "base", "x"),
        ("a", None, "y"),
        ("a", "base", "y"),
        ("b", None, "x"),
        ("b", "base", "x"),
        ("b", None, "y"),
        ("b", "base", "y"),
    ]


# --- real models --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


def test_real_likelihoods_are_those_of_score(path):
    contents = [*TEXTS, IDS]
    items = [Item(LETTERS[at % 2], content) for at, content in enumerate(contents)]
    results = list(evaluate([("tiny", lambda: load(path))], [("some", items)], likelihoods, resamples=50))
    assert [result["group"] for result in results] == [None, "a", "b"]
    fields = [new for window in likelihoods(enumerate(contents), load(path)) for _, new in window]
    total, count = sum(new["nll_sum"] for new in fields), sum(new["n_scored"] for new in fields)
    assert results[0]["tokens"] == count
    assert results[0]["documents"] == len(contents) - 1
    assert results[0]["perplexity"] == pytest.approx(math.exp(total / count))


def test_one_model_is_in_memory_at_a_time(path):
    alive: list[weakref.ref] = []

    def loader():
        gc.collect()
        assert not any(reference() for reference in alive)
        model = load(path)
        alive.append(weakref.ref(model))
        return model

    items = [Item(None, PROSE), Item(None, "a b")]
    results = list(evaluate([("a", loader), ("b", loader)], [("x", items)], likelihoods, against=[("base", loader)], resamples=10))
    assert len(alive) == 3
    assert [result["delta"] for result in results if result["result"] == "comparison"] == [0, 0]
