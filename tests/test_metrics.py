"""Every metric through the command, against plain transformers in float64, one document at a time."""

import io
import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from .conftest import ROOT, SHARED, lines, prune, records, shared
from .small_models import byte_level_tokenizer, save

CONTEXT = 96
SHAPE = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": CONTEXT,
}
ENDS = {"vocab_size": 320, "bos_token_id": 0, "eos_token_id": 0}
FAMILIES: dict[str, Callable[[], Any]] = {
    "gpt2": lambda: transformers.GPT2Config(n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=4, **ENDS),
    "llama": lambda: transformers.LlamaConfig(num_key_value_heads=2, **SHAPE, **ENDS),
    "neox": lambda: transformers.GPTNeoXConfig(**SHAPE, **ENDS),
    "mistral": lambda: transformers.MistralConfig(num_key_value_heads=2, **SHAPE, **ENDS),
    "qwen2": lambda: transformers.Qwen2Config(num_key_value_heads=2, **SHAPE, **ENDS),
    "qwen3": lambda: transformers.Qwen3Config(num_key_value_heads=2, head_dim=16, **SHAPE, **ENDS),
}
ONE_PASS = ("perplexity", "el2n", "bits_per_byte", "entropy", "brier", "top_k_accuracy")
TEXTS = [
    "The quick brown fox jumps over the lazy dog. " * 3,
    "a",
    "",
    "naïve café 日本語 " * 30,
    "0123456789" * 40,
    "The lazy dog sleeps; the fox, quick and brown, does not.",
]


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> dict[str, Path]:
    found = {}
    for seed, (name, config) in enumerate(FAMILIES.items()):
        torch.manual_seed(seed)
        found[name] = save(
            transformers.AutoModelForCausalLM.from_config(config()), tmp_path_factory.mktemp(name)
        )
    torch.manual_seed(9)
    found["other"] = save(
        transformers.AutoModelForCausalLM.from_config(FAMILIES["gpt2"]()), tmp_path_factory.mktemp("other")
    )
    larger = transformers.GPT2Config(
        n_positions=CONTEXT, n_embd=64, n_layer=2, n_head=4, vocab_size=600, bos_token_id=0, eos_token_id=0
    )
    tokenizer = byte_level_tokenizer()
    tokenizer.add_tokens(["quick"])
    found["foreign"] = save(
        transformers.AutoModelForCausalLM.from_config(larger), tmp_path_factory.mktemp("foreign"), tokenizer
    )
    return found


@cache
def double(path: Path):
    model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
    # AutoTokenizer would replace the rules of tokenizer.json by those of Qwen 2.
    return model, transformers.PreTrainedTokenizerFast.from_pretrained(path)


def ids_of(path: Path, text: str) -> list[int]:
    tokenizer = double(path)[1]
    return [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]


def rows(path: Path, text: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Float64 logits (T, V) of every token of a text, with all the context that fits; the tokens (T)."""
    ids, parts = ids_of(path, text), []
    with torch.inference_mode():
        for first in range(1, len(ids), CONTEXT):
            end = min(first + CONTEXT, len(ids))
            start = max(0, end - CONTEXT - 1)
            parts.append(
                double(path)[0](input_ids=torch.tensor([ids[start : end - 1]])).logits[0][first - start - 1 :]
            )
    return torch.cat(parts), torch.tensor(ids[1:])


def plain(path: Path, text: str) -> dict[str, float]:
    """The definitions of metrics.md."""
    logits, tokens = rows(path, text)
    p = torch.softmax(logits, -1)
    nll = torch.nn.functional.cross_entropy(logits, tokens, reduction="none")
    error = (p - torch.nn.functional.one_hot(tokens, p.shape[1])).norm(dim=-1)
    top = (logits.topk(5).indices == tokens[:, None]).any(-1)
    return {
        "perplexity": math.exp(nll.mean()),
        "el2n": float(error.mean()),
        "bits_per_byte": float(nll.sum()) / math.log(2) / len(text.encode()),
        "entropy": float(-(p * p.log()).sum(-1).mean()),
        "brier": float(error.square().mean()),
        "top_k_accuracy": float(top.double().mean()),
        "nll_sum": float(nll.sum()),
    }


def scored(here, *arguments: object, texts=TEXTS, **more):
    corpus = lines({"id": f"doc-{at}", "text": text} for at, text in enumerate(texts))
    dtype = () if "--dtype" in arguments else ("--dtype", "float32")
    return records(here("score", *dtype, *arguments, stdin=corpus, **more).stdout)


def flags(names) -> list[str]:
    return [part for name in names for part in ("-m", name)]


@pytest.mark.parametrize("family", FAMILIES)
def test_one_pass_metrics_are_those_of_plain_transformers_in_float64(family, models, here):
    out = scored(here, *flags(ONE_PASS), "--model", models[family])
    for text, record in zip(TEXTS, out, strict=True):
        assert list(record) == ["id", "text", *ONE_PASS, "nll_sum", "n_scored", "n_bytes"]
        if not text:
            assert [record[name] for name in ONE_PASS] == [None] * len(ONE_PASS)
            continue
        expected = plain(models[family], text)
        for name in ONE_PASS:
            assert record[name] == pytest.approx(
                expected[name], rel=1e-5 if name in ("el2n", "brier") else 1e-4
            ), name


@pytest.mark.parametrize("family", FAMILIES)
def test_memorization_equals_plain_generate(family, models, here):
    """A text that the model itself wrote is recited whole. Here each prompt is continued on its own."""
    model = double(models[family])[0]
    start = ids_of(models[family], TEXTS[0])[:33]
    with torch.inference_mode():
        own = model.generate(
            torch.tensor([start]), max_new_tokens=40, min_new_tokens=40, do_sample=False, pad_token_id=0
        )[0]
    blocks = [{"input_ids": own[1:].tolist()}, {"input_ids": own[1:64].tolist()}]
    out = scored(here, "-m", "memorization", "--model", models[family])
    for text, record in zip(TEXTS, out, strict=True):
        ids = ids_of(models[family], text)
        if len(ids) < 65:
            assert record["memorization"] is None
            continue
        with torch.inference_mode():
            found = model.generate(
                torch.tensor([ids[:33]]),
                max_new_tokens=32,
                min_new_tokens=32,
                do_sample=False,
                pad_token_id=0,
            )[0, 33:]
        assert record["memorization"] == float((found == torch.tensor(ids[33:65])).double().mean())
    recited, short = records(
        here(
            "score",
            "--dtype",
            "float32",
            "--bos",
            "always",
            "-m",
            "memorization",
            "--model",
            models[family],
            stdin=lines(blocks),
        ).stdout
    )
    assert (recited["memorization"], short["memorization"]) == (1.0, None)


def test_memorization_needs_room_in_the_context(models, here):
    assert (
        b"raise --context"
        in here(
            "score", "-m", "memorization", "--context", 40, "--model", models["gpt2"], stdin=b"{}", status=78
        ).stderr
    )


def test_an_ensemble_has_the_mean_score_of_its_models(models, here):
    pair = ("--model", models["gpt2"], "--model", models["other"])
    both = scored(here, *flags(["perplexity", "el2n"]), "--per-model", *pair)
    alone = [
        scored(here, *flags(["perplexity", "el2n"]), "--model", models[name]) for name in ("gpt2", "other")
    ]
    for record, *each in zip(both, *alone, strict=True):
        if not record["text"]:
            assert record["perplexity"] is record["el2n_2"] is None
            continue
        assert [record["perplexity_1"], record["perplexity_2"]] == pytest.approx(
            [one["perplexity"] for one in each]
        )
        assert record["perplexity"] == pytest.approx(
            math.exp(np.mean([math.log(one["perplexity"]) for one in each]))
        )
        assert record["perplexity"] == pytest.approx(math.exp(record["nll_sum"] / record["n_scored"]))
        assert record["el2n"] == pytest.approx(np.mean([one["el2n"] for one in each]))


def test_two_model_scores(models, here):
    names = ["excess_loss", "excess_bits_per_byte", "perplexity_ratio", "perplexity"]
    out = scored(here, *flags(names), "--model", models["gpt2"], "--against", models["other"])
    for text, record in zip(TEXTS, out, strict=True):
        if text:
            first, second = plain(models["gpt2"], text), plain(models["other"], text)
            excess = first["nll_sum"] - second["nll_sum"]
            assert record["excess_loss"] == pytest.approx(excess / record["n_scored"], abs=1e-5)
            assert record["excess_bits_per_byte"] == pytest.approx(
                excess / math.log(2) / len(text.encode()), abs=1e-5
            )
            assert record["perplexity_ratio"] == pytest.approx(
                first["perplexity"] / second["perplexity"], rel=1e-4
            )
            assert record["against_nll_sum"] == pytest.approx(second["nll_sum"], rel=1e-4)


def test_different_tokenizers_are_refused_where_tokens_are_compared(models, here):
    text = lines([{"text": "the quick fox"}])
    pair = ("--model", models["gpt2"], "--against", models["foreign"])
    assert (
        b"-m excess_bits_per_byte" in here("score", "-m", "excess_loss", *pair, stdin=text, status=78).stderr
    )
    [record] = records(here("score", "-m", "excess_bits_per_byte", *pair, stdin=text).stdout)
    assert math.isfinite(record["excess_bits_per_byte"])
    assert (
        b"ensemble"
        in here(
            "score", "--model", models["gpt2"], "--model", models["foreign"], stdin=text, status=78
        ).stderr
    )


def test_a_second_model_and_its_metric_go_together(models, here):
    assert b"--against PATH" in here("score", "-m", "excess_loss", "--model", models["gpt2"], status=2).stderr
    assert (
        b"no metric uses --against"
        in here("score", "--against", models["gpt2"], "--model", models["gpt2"], status=2).stderr
    )


def test_random_needs_no_model_and_no_torch():
    script = (
        "import sys; from prune_cli import cli; status = cli.run(['score', '-m', 'random', '--plain']);"
        "print(status, 'torch' in sys.modules, file=sys.stderr)"
    )
    corpus = [{"id": at % 3, "text": "a"} for at in range(6)]
    done = subprocess.run([sys.executable, "-c", script], input=lines(corpus), capture_output=True, cwd=ROOT)
    assert done.stderr == b"0 False\n"
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [list(record) for record in found] == [["id", "text", "random"]] * 6
    assert [record["random"] for record in found[:3]] == [record["random"] for record in found[3:]]
    assert len({record["random"] for record in found}) == 3


def test_the_head_records_how_the_scores_were_made(models, tmp_path, here):
    from prune_cli import formats

    here(
        "score",
        "-m",
        "el2n",
        "--model",
        models["gpt2"],
        "-o",
        tmp_path / "o.zst",
        stdin=lines([{"text": "the fox"}]),
    )
    data = (tmp_path / "o.zst").read_bytes()
    head = next(formats.read(io.BytesIO(data)))
    trailer = json.loads(data.partition(b"prune-cli trailer\n")[2].partition(b"\n")[0])
    how = head.json["score"]
    assert how["fields"] == ["el2n"]
    assert how["names"] == [models["gpt2"].name]
    assert [len(how["models"][0]), len(how["tokenizer"])] == [64, 64]
    assert {"dtype", "context", "stride", "bos", "versions"} <= how.keys()
    model = transformers.AutoModelForCausalLM.from_pretrained(models["gpt2"])
    n_scored = len(ids_of(models["gpt2"], "the fox")) - 1
    assert trailer["work"] == {"tokens": n_scored, "flops": 2.0 * model.num_parameters() * n_scored}


def test_a_self_check_compares_with_float32_one_at_a_time(models, tmp_path, here):
    corpus = lines({"text": text} for text in TEXTS)
    here(
        "score",
        "--self-check",
        4,
        "--dtype",
        "bfloat16",
        "--summary",
        tmp_path / "s",
        "--model",
        models["llama"],
        stdin=corpus,
    )
    assert 0 < json.loads((tmp_path / "s").read_text())["self_check"] < 0.05
    here(
        "score",
        "--self-check",
        4,
        "--dtype",
        "float32",
        "-f",
        "--summary",
        tmp_path / "s",
        "--model",
        models["llama"],
        stdin=corpus,
    )
    assert json.loads((tmp_path / "s").read_text())["self_check"] < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_is_close_to_float32_in_every_family(family, models, here):
    """Whose layers are replaced by ones that are laid out beforehand."""
    exact = [plain(models[family], text)["perplexity"] for text in TEXTS if text]
    near = [
        one["perplexity"]
        for one in scored(here, "--dtype", "bfloat16", "--model", models[family])
        if one["text"]
    ]
    assert near == pytest.approx(exact, rel=0.05)


def test_options_that_a_trial_excludes_are_refused(models, here):
    assert (
        b"no chosen metric uses a model" in here("score", "-m", "random", "--self-check", 3, status=2).stderr
    )
    assert (
        b"leave out --summary"
        in here("score", "--dry-run", "--summary", "s", "--model", models["gpt2"], status=2).stderr
    )


def test_a_self_check_that_fails_is_status_1(models, tmp_path, here, monkeypatch):
    from prune_cli.stages.score.trial import self_check

    monkeypatch.setitem(self_check.TOLERANCES, "bfloat16", 1e-9)
    arguments = (
        "score",
        "--self-check",
        9,
        "--dtype",
        "bfloat16",
        "--model",
        models["gpt2"],
        "-o",
        tmp_path / "o.zst",
    )
    done = here(*arguments, stdin=lines({"text": text} for text in TEXTS), status=1)
    assert b"its perplexity differs by" in done.stderr
    assert not (tmp_path / "o.zst").exists()


def test_a_dry_run_prints_an_estimate_and_writes_nothing(models, tmp_path, here):
    corpus = tmp_path / "c.jsonl"
    corpus.write_bytes(lines({"text": text} for text in TEXTS * 20))
    said = json.loads(
        here("score", "--dry-run", "--model", models["gpt2"], corpus, "-o", tmp_path / "o.zst").stdout
    )
    assert not (tmp_path / "o.zst").exists()
    out = records(here("score", "--model", models["gpt2"], corpus).stdout)
    assert said["records"] == len(out)
    assert said["tokens"] == pytest.approx(sum(record["n_scored"] for record in out), rel=0.25)
    assert said["flops"] > 0
    assert said["hours_here"] > 0
    assert (
        b"name files"
        in prune("score", "--dry-run", "-m", "random", stdin=corpus.read_bytes(), status=2).stderr
    )


@shared
def test_the_estimate_for_a_large_file_is_close(models, here):
    web = SHARED / "data" / "web.jsonl.zst"
    said = json.loads(here("score", "--dry-run", "--model", models["gpt2"], web).stdout)
    assert said["sampled_share"] < 0.6
    assert said["records"] == pytest.approx(46_666, rel=0.5)
