"""eval: one record a result, damaged test sets refused."""

import json
import math

import pytest

from .conftest import damaged, lines, scored, status_of

pytest.importorskip("torch")


@pytest.fixture
def model(tmp_path, here):
    (tmp_path / "small.toml").write_text("layers = 1\nwidth = 16\nheads = 2\ncontext = 32\nlr = 1e-3\nbatch_tokens = 128\n")
    options = ["--config", tmp_path / "small.toml", "--train-tokenizer", 300, "--steps", 2]
    here("train", *options, "-o", tmp_path / "model", stdin=lines(scored(50)))
    return tmp_path / "model"


def test_pooled_perplexity_is_that_of_the_scores(model, tmp_path, here):
    (tmp_path / "test.jsonl").write_bytes(lines({"text": record["text"]} for record in scored(20, seed=4)))
    [result] = [json.loads(line) for line in here("eval", model, "--data", tmp_path / "test.jsonl").stdout.splitlines()]
    rows = [json.loads(line) for line in here("score", "--plain", "--model", model, tmp_path / "test.jsonl").stdout.splitlines()]
    nll, tokens, size = (sum(row[name] for row in rows) for name in ("nll_sum", "n_scored", "n_bytes"))
    assert result["perplexity"] == pytest.approx(math.exp(nll / tokens))
    assert result["bits_per_byte"] == pytest.approx(nll / math.log(2) / size)
    assert result["perplexity_interval"][0] < result["perplexity"] < result["perplexity_interval"][1]


def test_a_model_against_itself_does_not_differ(model, tmp_path, here):
    (tmp_path / "test.jsonl").write_bytes(lines({"text": record["text"]} for record in scored(20, seed=4)))
    out = here("eval", f"{model}/", "--against", model, "--data", tmp_path / "test.jsonl").stdout
    comparison = json.loads(out.splitlines()[-1])
    assert comparison["effect"] == 0
    assert comparison["p"] == 1


def test_results_go_to_a_file_that_is_whole_or_absent(model, tmp_path, here):
    (tmp_path / "test.jsonl").write_bytes(lines([{"text": "lorem"}, {"text": 3}]))
    assert (
        b"test.jsonl:2: `text` is a number"
        in here("eval", model, "--data", tmp_path / "test.jsonl", "-o", tmp_path / "r", status=65).stderr
    )
    assert not (tmp_path / "r").exists()


def test_bad_records_are_skipped_on_request_and_the_rest_is_evaluated(model, tmp_path, here):
    (tmp_path / "test.jsonl").write_bytes(lines([{"text": "lorem ipsum"}, {"text": 3}, {"text": "dolor"}]))
    out = here("eval", model, "--skip-bad", "--data", tmp_path / "test.jsonl", "-o", tmp_path / "r", status=3)
    assert b"record skipped" in out.stderr
    assert json.loads((tmp_path / "r").read_bytes())["documents"] == 2


def test_what_is_missing_is_said(model, tmp_path, here):
    assert b"--data FILE" in here("eval", model, status=2).stderr
    assert b"no such file" in here("eval", model, "--data", tmp_path / "none", status=66).stderr
    (tmp_path / "test.jsonl").write_bytes(lines([{"text": "lorem"}]))
    assert b"no such model directory" in here("eval", tmp_path / "none", "--data", tmp_path / "test.jsonl", status=78).stderr


def test_damaged_test_sets_are_refused(model, tmp_path, here):
    data, victim = here("rank", stdin=lines(scored(60))).stdout, tmp_path / "damaged.zst"
    for what, broken in damaged(data, 40):
        victim.write_bytes(broken)
        assert status_of("eval", model, "--data", victim, "-o", tmp_path / "out") == 65, what
