"""Held-out likelihoods: pooled over tokens, with intervals over documents, compared in pairs and groups."""

import gc
import json
import math
import weakref

import numpy as np
import pytest
import torch
import transformers
from scipy import stats

from prune_cli.errors import DataError
from prune_cli.stages.eval import measure as stage
from prune_cli.stages.eval.compare import evaluate
from prune_cli.stages.eval.held_out import Item
from prune_cli.stages.eval.journal import Journal
from prune_cli.stages.eval.results import Measurement
from prune_cli.stages.score import windows
from prune_cli.statistics.bootstrap import Sampling

from .measurements import LETTERS, grouped, made_up, run
from .small_models import IDS, PROSE, TEXTS, load, tiny_gpt2


def likelihoods(items, model, **more):
    return windows.score(items, windows.Scoring((), [model]), **more)


# --- One model ---


def test_pooled_over_tokens_and_not_over_documents():
    """(4 + 6) nats over (1 + 4) tokens, 20 bytes and 4 words: e²; the documents' own are e⁴ and e¹·⁵."""
    [result] = run(made_up([4, 6], [1, 4], [5, 15], [1, 3]))
    assert (result["documents"], result["tokens"], result["bytes"]) == (2, 5, 20)
    assert result["perplexity"] == pytest.approx(math.exp(10 / 5))
    assert result["bits_per_byte"] == pytest.approx(10 / math.log(2) / 20)
    assert result["word_perplexity"] == pytest.approx(math.exp(10 / 4))
    assert json.loads(json.dumps(result)) == result


def test_equal_documents_have_an_interval_of_width_zero():
    [result] = run(made_up([3, 3, 3], [2, 2, 2]))
    assert result["perplexity_interval"] == pytest.approx([math.exp(1.5)] * 2)


def test_the_same_seed_gives_the_same_numbers():
    dice = np.random.default_rng(1)
    model = made_up(dice.normal(30, 5, 20), [10] * 20)
    assert run(model, seed=3) == run(model, seed=3)
    assert run(model, seed=3) != run(model, seed=4)


def test_groups_come_after_the_whole_in_order_of_appearance():
    results = run(made_up([1, 20, 3, 4], [1, 10, 1, 1], items=grouped("web", "books", "web", None)))
    assert [(result["group"], result["documents"], result["tokens"]) for result in results] == [
        (None, 4, 13),
        ("web", 2, 2),
        ("books", 1, 10),
    ]
    assert results[1]["perplexity"] == pytest.approx(math.exp(2))


def test_documents_without_a_scored_token_are_left_out():
    [result] = run(made_up([0, 4], [0, 2]))
    assert (result["documents"], result["perplexity"]) == (1, pytest.approx(math.exp(2)))


def test_a_test_set_without_a_scored_token_has_no_numbers():
    for results in (run(made_up([], [])), run(made_up([0], [0]))):
        names = ("documents", "tokens", "perplexity", "perplexity_interval", "bits_per_byte")
        assert [results[0][name] for name in names] == [0, 0, None, None, None]


def test_unknown_and_infinite_numbers_are_none():
    [result] = run(made_up([4, 4], [2, 2], [None, 3], [None, 2]))
    assert (
        result["bytes"],
        result["bits_per_byte"],
        result["bits_per_byte_interval"],
        result["word_perplexity"],
    ) == (None,) * 4
    [result] = run(made_up([2000], [1]))
    assert (result["perplexity"], result["perplexity_interval"]) == (None, None)


# --- Clusters ---


def test_documents_of_a_cluster_are_drawn_together():
    """Ten books of 20 similar chapters each: 10 units are drawn, not 200.

    The interval is that of the books' sums.
    """
    dice = np.random.default_rng(5)
    books = dice.normal(3, 0.5, 10)
    chapters = made_up(
        np.repeat(books, 20) * 10, [10] * 200, items=grouped(*np.repeat(list(LETTERS), 20), field="cluster")
    )
    [alone], [together] = run(made_up(np.repeat(books, 20) * 10, [10] * 200)), run(chapters)
    [sums] = run(made_up(books * 200, [200] * 10, [400] * 10, [40] * 10))
    assert (alone["documents"], alone["clusters"]) == (200, None)
    assert (together["documents"], together["clusters"]) == (200, 10)
    assert together["perplexity"] == pytest.approx(alone["perplexity"])
    assert together["perplexity_interval"] == pytest.approx(sums["perplexity_interval"])
    assert np.ptp(together["perplexity_interval"]) > 3 * np.ptp(alone["perplexity_interval"])


def test_a_document_without_a_cluster_is_a_cluster_of_its_own():
    [result] = run(made_up([1, 2, 3, 4], [1] * 4, items=grouped("a", None, "a", None, field="cluster")))
    assert result["clusters"] == 3


def test_clusters_are_counted_within_each_group():
    items = [Item(at, group="xyz"[at % 3], cluster=at // 6) for at in range(1, 13)]
    counts = [
        (one["group"], one["documents"], one["clusters"])
        for one in run(made_up([3.0] * 12, [2] * 12, items=items))
    ]
    assert counts == [(None, 12, 3), ("y", 4, 2), ("z", 4, 2), ("x", 4, 3)]


def test_few_clusters_give_one_warning(caplog):
    few = grouped(*"aabbccdd", field="cluster")
    run(made_up([3] * 8, [2] * 8, items=few), made_up([4] * 8, [2] * 8, items=few, name="other"))
    assert [one.message for one in caplog.records] == [
        "held out: 4 clusters: intervals from fewer than 50 are too narrow"
    ]
    caplog.clear()
    run(made_up([3.0] * 90, [2] * 90, items=grouped(*"ab" * 30, *"c" * 30)))
    assert [one.message for one in caplog.records] == [
        "held out: under 50 documents in a, b, c: intervals from so few are too narrow",
    ]


def test_whole_clusters_swap_sides_in_the_permutation_test():
    """Two books whose chapters all differ by 1: of 4 ways to swap books, 2 reach as far."""
    books = grouped(*"aaaaabbbbb", field="cluster")
    ours, theirs = (
        made_up([3] * 10, [1] * 10, items=books),
        made_up([4] * 10, [1] * 10, items=books, name="base"),
    )
    result = run(ours, against=[theirs], resamples=20_000)[-1]
    assert (result["clusters"], result["documents"]) == (2, 10)
    assert result["p"] == pytest.approx(2 / 4, abs=0.02)


# --- Two models ---


def compared(ours, theirs, **more):
    [*_, result] = run(ours, against=[theirs], **more)
    assert (result["result"], result["model"], result["against"]) == ("comparison", ours.model, theirs.model)
    return result


def test_a_model_against_itself_is_no_better():
    model = made_up([3, 4, 5], [1, 2, 3])
    result = compared(model, model)
    assert (result["delta"], result["delta_interval"], result["effect"], result["improved"], result["p"]) == (
        0,
        [0, 0],
        0,
        0,
        1,
    )


def test_a_constant_gain_is_certain_however_different_the_documents():
    """Every token is 0.1 nats cheaper: perplexity falls by 1 - e^-0.1, and pairing takes all else away."""
    tokens = [1, 10, 100, 1000, 5, 50, 500, 7, 70, 700, 3, 30]
    dear = [4 * count + at for at, count in enumerate(tokens)]
    cheap = [total - 0.1 * count for total, count in zip(dear, tokens, strict=True)]
    result = compared(made_up(cheap, tokens), made_up(dear, tokens), resamples=4000)
    assert result["unit"] == "nats per token"
    assert result["delta"] == pytest.approx(-0.1)
    assert result["delta_interval"] == pytest.approx([-0.1, -0.1])
    assert result["effect"] == pytest.approx(math.expm1(-0.1))
    assert result["effect_interval"] == pytest.approx([math.expm1(-0.1)] * 2)
    assert result["improved"] == 1
    assert result["p"] < 0.05
    assert result["includes_training_noise"] is False


def test_p_is_the_fraction_of_sign_flips_at_least_as_extreme():
    """Differences 1, 1, 1: of 8 ways to flip signs, 2 reach ±3."""
    result = compared(made_up([1, 1, 1], [1] * 3), made_up([2, 2, 2], [1] * 3), resamples=20_000)
    assert result["p"] == pytest.approx(2 / 8, abs=0.01)


def test_p_equals_that_of_scipy():
    dice = np.random.default_rng(7)
    ours, theirs = dice.normal(50, 9, 12), dice.normal(53, 9, 12)
    exact = stats.permutation_test(
        (ours, theirs), lambda a, b: np.mean(a - b), permutation_type="samples", n_resamples=np.inf
    )
    found_p = compared(made_up(ours, [10] * 12), made_up(theirs, [10] * 12), resamples=40_000)["p"]
    assert found_p == pytest.approx(exact.pvalue, abs=0.01)


def test_models_with_different_tokenizers_are_compared_per_byte():
    ours, theirs = (
        made_up([10, 10], [5, 5], [20, 20], tokenizer="ours"),
        made_up([12, 14], [9, 9], [20, 20], tokenizer="theirs"),
    )
    result = compared(ours, theirs)
    assert result["unit"] == "bits per byte"
    assert result["delta"] == pytest.approx((20 - 26) / math.log(2) / 40)
    assert result["effect"] == pytest.approx(math.expm1(-6 / 40))


def test_only_documents_that_both_models_score_are_compared():
    result = compared(made_up([0, 4, 6], [0, 2, 2]), made_up([9, 5, 0], [3, 2, 0]))
    assert (result["documents"], result["delta"]) == (1, -0.5)
    result = compared(made_up([0], [0]), made_up([0], [0]))
    assert [result[name] for name in ("documents", "delta", "delta_interval", "improved", "p")] == [
        0,
        None,
        None,
        None,
        None,
    ]


def test_baselines_are_reported_first_and_compared_with_every_model():
    ours = [made_up([1, 1], [1, 1], name=name, data=data) for name in "ab" for data in "xy"]
    base = [made_up([2, 2], [1, 1], name="base", data=data) for data in "xy"]
    assert [
        (result["model"], result.get("against"), result["data"]) for result in run(*ours, against=base)
    ] == [
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


def test_only_results_on_the_same_documents_are_compared():
    ours, others = made_up([1, 1], [1, 1]), made_up([1, 1], [1, 1], data="other", name="base")
    with pytest.raises(DataError, match="held out: there are no results of base on these documents"):
        run(ours, against=[others])
    web = made_up(
        [1, 1], [1, 1], name="base", items=[Item(1), Item(3)]
    )  # the same test set, but jq has chosen from it
    with pytest.raises(DataError, match="not of the same documents"):
        run(ours, against=[web])


# --- Real models ---


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


def measured(path, contents, items=None, loader=None):
    items = items or [Item(at + 1) for at in range(len(contents))]
    journal = Journal([Measurement("tiny", "some", {"model": "m", "tokenizer": "t", "data": "d"}, items)])
    return stage.complete(loader or (lambda: load(path)), [(0, contents)], journal)


def test_real_likelihoods_equal_those_of_score(path):
    contents = [*TEXTS, IDS]
    items = grouped(*(LETTERS[at % 2] for at in range(len(contents))))
    results = run(*measured(path, contents, items), resamples=50)
    assert [result["group"] for result in results] == [None, "a", "b"]
    fields = [new for window in likelihoods(enumerate(contents), load(path)) for _, new in window]
    total, count = sum(new["nll_sum"] for new in fields), sum(new["n_scored"] for new in fields)
    assert results[0]["tokens"] == count
    assert results[0]["documents"] == len(contents) - 1
    assert results[0]["perplexity"] == pytest.approx(math.exp(total / count))


def rolling(network, tokens, prefix, context):
    """The rolling log-likelihood of lm-evaluation-harness.

    Windows of `context` tokens score each token once; the last window ends at the end.
    """
    total, at = 0.0, 0
    while at < len(tokens):
        end = min(at + context, len(tokens))
        fed = [prefix, *tokens][:end] if at == 0 else tokens[end - context - 1 : end - 1]
        logits = network(input_ids=torch.tensor([fed])).logits[0].log_softmax(-1)
        total += sum(float(logits[len(fed) - (end - place), tokens[place]]) for place in range(at, end))
        at = end
    return total


@torch.inference_mode()
def test_perplexity_equals_that_of_lm_evaluation_harness(path):
    """Its formula in float64, with its first token (BOS, else EOS) and its windows.

    Word perplexity and bits per byte agree as well.
    """
    texts = [PROSE, *TEXTS, "a b"]
    network = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    total = sum(rolling(network, one, prefix, network.config.max_position_embeddings) for one in ids)
    [result] = run(*measured(path, texts), resamples=50)
    assert max(map(len, ids)) > 2 * network.config.max_position_embeddings
    assert result["tokens"] == sum(map(len, ids))
    assert result["perplexity"] == pytest.approx(math.exp(-total / sum(map(len, ids))), rel=1e-4)
    assert result["word_perplexity"] == pytest.approx(
        math.exp(-total / sum(len(text.split()) for text in texts)), rel=1e-4
    )
    assert result["bits_per_byte"] == pytest.approx(
        -total / math.log(2) / sum(len(text.encode()) for text in texts), rel=1e-4
    )


def test_one_model_is_in_memory_at_a_time(path):
    alive: list[weakref.ref] = []

    def loader():
        gc.collect()
        assert not any(reference() for reference in alive)
        model = load(path)
        alive.append(weakref.ref(model))
        return model

    ours = (run for _ in "ab" for run in measured(path, [PROSE, "a b"], loader=loader))
    results = list(evaluate(ours, measured(path, [PROSE, "a b"], loader=loader), Sampling(resamples=10)))
    assert len(alive) == 3
    assert [result["delta"] for result in results if result["result"] == "comparison"] == [0, 0]
