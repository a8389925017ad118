"""Windows of records: their scores, where they end, and errors that name the record."""

import hashlib
import logging
import math
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

from prune_cli import metrics
from prune_cli.errors import DataError, UsageError
from prune_cli.models.language_model import LanguageModel
from prune_cli.stages.score import windows as stage

from .small_models import IDS, PROSE, TEXTS, load, save, tiny_gpt2


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> LanguageModel:
    return load(tiny_gpt2(tmp_path_factory.mktemp("gpt2")))


BOTH = [metrics.load("perplexity"), metrics.load("bits_per_byte")]


def scored(items, model, chosen=BOTH, **more):
    settings = {
        name: more.pop(name)
        for name in ("min_tokens", "per_model", "against", "top_k", "seed")
        if name in more
    }
    return [
        pair
        for window in stage.score(items, stage.Scoring(chosen, [model], **settings), **more)
        for pair in window
    ]


# --- metrics ---


def numbers(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


HALF, QUARTER, EIGHTH = math.log(2), math.log(4), math.log(8)  # of what probability a token was, in nats


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        # Tokens of probability 1/2, 1/4 and 1/8: exp(mean nll) is 1 over their geometric mean;
        # 1 + 2 + 3 bits over 5 bytes.
        ("perplexity", {"nll_sum": HALF + QUARTER + EIGHTH, "n_scored": 3}, 4),
        ("bits_per_byte", {"nll_sum": HALF + QUARTER + EIGHTH, "n_bytes": 5}, 6 / 5),
        ("bits_per_byte", {"nll_sum": HALF, "n_bytes": None}, None),
        ("bits_per_byte", {"nll_sum": HALF, "n_bytes": 0}, None),
        # Error vectors (-0.6, 0.6, 0) and (0, 0, 0): the root is taken before the mean.
        ("el2n", {"error_norm": numbers(math.sqrt(0.72), 0)}, math.sqrt(0.72) / 2),
        ("brier", {"error_norm": numbers(math.sqrt(0.72), 0)}, 0.36),
        ("entropy", {"entropy": numbers(HALF, 0, QUARTER)}, math.log(2)),
        ("top_k_accuracy", {"rank": numbers(0, 4, 5, 100), "top_k": 5}, 1 / 2),
        # The second model gives probability 1 where the first gives 1/2 and 1/8: two bits a token.
        ("excess_loss", {"nll_sum": HALF + EIGHTH, "against_nll_sum": 0, "n_scored": 2}, math.log(4)),
        ("perplexity_ratio", {"nll_sum": HALF + EIGHTH, "against_nll_sum": 2 * HALF, "n_scored": 2}, 2),
        (
            "excess_bits_per_byte",
            {"nll_sum": HALF + EIGHTH, "n_bytes": 4, "against_nll_sum": HALF, "against_n_bytes": 4},
            3 / 4,
        ),
        (
            "excess_bits_per_byte",
            {"nll_sum": HALF, "n_bytes": 4, "against_nll_sum": HALF, "against_n_bytes": None},
            None,
        ),
        # 32 tokens after a prefix and a prompt of 32; 8 of them as they were.
        (
            "memorization",
            {"tokens": np.arange(70), "n_prefix": 1, "continuation": np.r_[33:41, [0] * 24]},
            8 / 32,
        ),
        ("memorization", {"tokens": np.arange(70), "n_prefix": 0, "continuation": None}, None),
    ],
)
def test_a_metric_by_hand(name, known, expected):
    found = metrics.load(name).score(**known)
    assert found == (None if expected is None else pytest.approx(expected))


def test_random_is_the_blake2b_of_seed_id_and_text():
    digest = hashlib.blake2b(b'[7,"doc-1","some text"]', digest_size=8).digest()
    found = metrics.load("random").score(seed=7, identity="doc-1", content="some text") or 0.0
    assert found == pytest.approx(int.from_bytes(digest) / 2**64)
    assert 0 <= found < 1


def test_a_metric_names_the_statistics_it_needs():
    assert metrics.load("el2n").needs == {"error_norm"}
    assert not metrics.load("random").needs_model
    assert metrics.load("excess_loss").needs_second_model


def test_the_folder_is_the_registry():
    folder = Path(metrics.__file__).parent
    assert metrics.names() == sorted(path.stem for path in folder.glob("*.py") if path.stem != "__init__")
    for name in metrics.names():
        metric = metrics.load(name)
        assert metric.name == name
        assert metric.description.endswith(".")
        assert metric.easy in ("low", "high", None)


def test_an_unknown_metric_lists_the_choices():
    with pytest.raises(
        UsageError,
        match=r"no metric is named 'perplexty': there are bits_per_byte, .*; did you mean perplexity\?",
    ):
        metrics.load("perplexty")


# --- records ---


def test_records_keep_their_order_and_fields(model):
    found = scored([(f"record {at}", text) for at, text in enumerate(TEXTS)], model)
    assert [payload for payload, _ in found] == [f"record {at}" for at in range(len(TEXTS))]
    for text, (_, fields) in zip(TEXTS, found, strict=True):
        assert list(fields) == ["perplexity", "bits_per_byte", "nll_sum", "n_scored", "n_bytes"]
        assert fields["n_bytes"] == len(text.encode())
        assert fields["n_scored"] == len(model.tokenizer(text)["input_ids"])
        if text:
            assert fields["perplexity"] == pytest.approx(math.exp(fields["nll_sum"] / fields["n_scored"]))
            assert fields["bits_per_byte"] == pytest.approx(
                fields["nll_sum"] / math.log(2) / fields["n_bytes"]
            )


def test_the_score_of_an_empty_record_is_none(model):
    [(_, empty), (_, one), (_, block)] = scored([("", ""), ("", [5]), ("", IDS)], model)
    assert (empty["perplexity"], empty["nll_sum"], empty["n_scored"], empty["n_bytes"]) == (None, 0.0, 0, 0)
    assert (one["perplexity"], one["n_scored"]) == (None, 0)
    assert (block["perplexity"] is None, block["n_scored"]) == (False, len(IDS) - 1)


def test_records_with_few_tokens_can_be_unscored(model):
    [(_, short), (_, long)] = scored([("", "ab"), ("", PROSE)], model, min_tokens=3)
    assert (short["perplexity"], short["bits_per_byte"], short["n_scored"]) == (None, None, 2)
    assert short["nll_sum"] > 0
    assert long["perplexity"] > 1


def test_no_records_give_no_windows(model):
    assert list(stage.score([], stage.Scoring(BOTH, [model]))) == []


def test_the_end_of_a_window_depends_only_on_its_records(model, monkeypatch):
    """So a run that is resumed behind any window makes the same windows."""
    monkeypatch.setattr(stage, "BLOCK_RECORDS", 3)
    items = [(at, TEXTS[at % len(TEXTS)] or "x") for at in range(40)]
    whole = list(stage.score(items, stage.Scoring(BOTH, [model]), window_tokens=300))
    assert len(whole) > 3
    for at in range(1, len(whole)):
        done = sum(map(len, whole[:at]))
        assert list(stage.score(items[done:], stage.Scoring(BOTH, [model]), window_tokens=300)) == whole[at:]


@pytest.mark.parametrize("block_records", [3, 256])
def test_a_window_ends_before_it_has_too_many_bytes(block_records, model, monkeypatch):
    monkeypatch.setattr(stage, "BLOCK_RECORDS", block_records)
    monkeypatch.setattr(stage, "WINDOW_BYTES", 100)
    items = [
        ("x" * size, TEXTS[at % len(TEXTS)])
        for at, size in enumerate((30, 30, 40, 1, 500, 20, 100, 99, 1, 1, *(7,) * 60))
    ]
    whole = list(stage.score(items, stage.Scoring(BOTH, [model]), size=len))
    assert [payload for window in whole for payload, _ in window] == [payload for payload, _ in items]
    sizes = [[len(payload) for payload, _ in window] for window in whole]
    assert all(sum(window) <= 100 or window == [500] for window in sizes)
    for at in range(1, len(whole)):
        done = sum(map(len, whole[:at]))
        assert list(stage.score(items[done:], stage.Scoring(BOTH, [model]), size=len)) == whole[at:]


def test_empty_records_fill_a_window_too(model):
    windows = list(
        stage.score((("", "") for _ in range(2000)), stage.Scoring(BOTH, [model]), window_tokens=1000)
    )
    assert [len(window) for window in windows] == [512, 512, 512, 464]


def test_only_this_window_and_the_next_are_read(model):
    items = ((at, "x") for at in range(10_000))
    lists = stage.score(items, stage.Scoring(BOTH, [model]), window_tokens=100)
    next(lists)
    next(lists)
    time.sleep(0.2)  # for what reads ahead to go as far as it would
    assert next(items)[0] <= 4 * stage.BLOCK_RECORDS


def test_scores_do_not_depend_on_the_window(model):
    items = list(enumerate(TEXTS))
    for (_, fields), (_, alone) in zip(
        scored(items, model), scored(items, model, window_tokens=1), strict=True
    ):
        assert fields["nll_sum"] == pytest.approx(alone["nll_sum"], rel=1e-5)


# --- faults ---


def test_ids_outside_the_vocabulary_name_the_record(model):
    with pytest.raises(DataError, match="web:3: input_ids has 320"):
        scored([("web:2", "good"), ("web:3", [1, 320])], model)


def test_a_likelihood_that_is_not_finite_names_the_record(tmp_path):
    """One token overflows: only records with that token show it. NaN in a file would have been refused."""
    model = load(tiny_gpt2(tmp_path, tie_word_embeddings=False))
    with torch.no_grad():
        model._network.transformer.wte.weight[7] = math.nan
    assert scored([(1, [5, 6, 8])], model)[0][1]["perplexity"] > 1
    with pytest.raises(DataError, match="line 2: the model's log-likelihood of it is nan"):
        scored([(1, [5, 6, 8]), (2, [5, 7, 8])], model, place="line {}".format)


def test_a_score_that_is_too_large_names_the_record(tmp_path):
    path = tiny_gpt2(tmp_path, tie_word_embeddings=False)
    network = transformers.GPT2LMHeadModel.from_pretrained(path)
    with torch.no_grad():
        network.lm_head.weight.mul_(1e5)
    network.save_pretrained(path)
    with pytest.raises(DataError, match="first: a score is too large"):
        scored([("first", PROSE)], load(path))


def test_text_outside_the_vocabulary_is_warned_of(tmp_path, caplog):
    backend = Tokenizer(models.WordLevel({"<unk>": 0, "the": 1, "fox": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    config = transformers.GPT2Config(vocab_size=3, n_positions=8, n_embd=8, n_layer=1, n_head=1)
    words = load(save(transformers.GPT2LMHeadModel(config), tmp_path, tokenizer))
    with caplog.at_level(logging.WARNING):
        found = scored([("", "the quick fox"), ("", "the fox"), ("", "a big dog")], words)
    assert "4 tokens in 2 records are text outside the model's vocabulary" in caplog.text
    assert [fields["bits_per_byte"] for _, fields in found] == [None, None, None]
