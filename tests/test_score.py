"""score: its numbers agree with plain transformers in float64, and records keep their bytes."""

import json
import math
import subprocess
from pathlib import Path

import pytest

from .conftest import PATIENCE, SHARED, command, damaged, lines, records, shared, status_of, zstd

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    """A randomly initialised GPT-2 of two layers, with a small byte-level tokenizer of its own."""
    from prune_cli.models.text.loading import train_tokenizer
    from prune_cli.training.model import gpt2_config, new_model, save_model

    path = tmp_path_factory.mktemp("gpt2")
    tokenizer = train_tokenizer(["the quick brown fox jumps over the lazy dog. " * 20], 300)
    config = gpt2_config(tokenizer, layers=2, width=64, heads=4, context=96, entries=300)
    model = new_model(config, 0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # far enough from uniform that a mistake shows
    save_model(model, tokenizer, path)
    return path


def some(name: str, count: int) -> list[dict]:
    data = subprocess.run(
        ["zstd", "-dcq", str(SHARED / "data" / name)], capture_output=True, check=True
    ).stdout
    return [json.loads(line) for line in data.splitlines()[: count * 7 : 7]]


def plain_perplexity(path: Path, text: str) -> float | None:
    """As a user would write it: float64, one document at a time, with all the context that fits."""
    model, tokenizer = _plain(path)
    ids = [tokenizer.bos_token_id, *tokenizer(text, add_special_tokens=False)["input_ids"]]
    context, nll = model.config.max_position_embeddings, 0.0
    if len(ids) < 2:
        return None
    with torch.inference_mode():
        for first in range(1, len(ids), context):
            end = min(first + context, len(ids))
            start = max(0, end - context - 1)
            logits = model(input_ids=torch.tensor([ids[start : end - 1]])).logits[0]
            targets = torch.tensor(ids[first:end])
            nll += float(torch.nn.functional.cross_entropy(logits[first - end :], targets, reduction="sum"))
    return math.exp(nll / (len(ids) - 1))


_loaded: dict[Path, tuple] = {}


def _plain(path: Path):
    if path not in _loaded:
        model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float64).eval()
        _loaded[path] = model, transformers.AutoTokenizer.from_pretrained(path)
    return _loaded[path]


@shared
@pytest.mark.parametrize("which", ["stories260k", "gpt2"])
def test_perplexities_of_200_documents_agree_with_plain_transformers_in_float64(which, gpt2, here):
    path = SHARED / "data" / which if which == "stories260k" else gpt2
    corpus = some("web.jsonl.zst", 120) + some("clean.jsonl.zst", 80)
    # Each fifth is longer than the model's context; a document takes as long as it has windows.
    corpus = [
        {**record, "text": record["text"][: 400 if number % 5 else 1500]}
        for number, record in enumerate(corpus)
    ]
    out = records(here("score", "--model", path, "--dtype", "float32", stdin=lines(corpus)).stdout)
    assert [record["id"] for record in out] == [record["id"] for record in corpus]
    for record in out:
        expected = plain_perplexity(path, record["text"])
        assert (
            record["perplexity"] == pytest.approx(expected, rel=1e-4)
            if expected
            else record["perplexity"] is None
        )


@shared
def test_the_pipeline_keeps_exactly_half_of_the_scorable_records(tmp_path):
    corpus = [{**record, "text": record["text"][:400]} for record in some("web.jsonl.zst", 60)]
    corpus += [{"id": "empty", "text": "", "source": "none"}]
    (tmp_path / "c.jsonl.zst").write_bytes(zstd(lines(corpus)))
    model = SHARED / "data" / "stories260k"
    shell = (
        '"$0" -m prune_cli score --model "$1" "$2" | "$0" -m prune_cli rank '
        '| "$0" -m prune_cli slice --keep middle --frac 0.5'
    )
    python = command()[0]
    data = subprocess.run(
        ["bash", "-c", shell, python, model, tmp_path / "c.jsonl.zst"], capture_output=True, check=True
    ).stdout
    assert len(records(data)) == 30
    assert all(record["rank"] is not None for record in records(data))


def test_fields_are_added_and_the_rest_keeps_its_bytes(gpt2, here):
    line = b'{"id": 1.10, "text":"the fox", "x" : [ ]  }\n'
    out = here("score", "--plain", "--model", gpt2, stdin=line).stdout
    assert out.startswith(line[:-2] + b',"perplexity":')
    assert list(json.loads(out))[-4:] == ["perplexity", "nll_sum", "n_scored", "n_bytes"]
    scored = json.loads(out)
    assert scored["perplexity"] == pytest.approx(math.exp(scored["nll_sum"] / scored["n_scored"]))
    assert scored["n_bytes"] == 7


def test_empty_and_short_texts_are_unscorable(gpt2, here):
    corpus = lines([{"text": ""}, {"text": "the fox"}, {"text": "a"}])
    scores = [
        record["perplexity"]
        for record in records(here("score", "--min-tokens", 2, "--model", gpt2, stdin=corpus).stdout)
    ]
    assert [score is None for score in scores] == [True, False, True]


def test_token_ids_win_over_text_and_the_first_is_not_scored(gpt2, here):
    out = records(
        here(
            "score", "--model", gpt2, stdin=lines([{"text": "no", "input_ids": [5, 6, 7]}, {"input_ids": []}])
        ).stdout
    )
    assert [record["n_scored"] for record in out] == [2, 0]


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"body": "x"}, b"no field `text` (nor `input_ids`); the record has body"),
        ({"text": None}, b"`text` is null, not a string"),
        ({"text": 3}, b"`text` is a number"),
        ({"input_ids": [1, 99999]}, b"input_ids has 99999"),
        ({"input_ids": [-1]}, b"input_ids has -1"),
        ({"input_ids": "x"}, b'`input_ids` is a string ("x"), not a list of token ids'),
        ({"text": "x", "perplexity": 1}, b"`perplexity` already exists; --overwrite"),
    ],
)
def test_records_that_cannot_be_scored_are_named(record, words, gpt2, here):
    done = here("score", "--model", gpt2, stdin=lines([{"text": "good"}, record]), status=65)
    assert b"(standard input):2: " in done.stderr
    assert words in done.stderr


def test_a_text_that_is_not_unicode_is_named(gpt2, here):
    assert (
        b"(standard input):1: invalid UTF-8"
        in here("score", "--model", gpt2, stdin=b'{"text":"\xff"}\n', status=65).stderr
    )
    assert b"surrogate" in here("score", "--model", gpt2, stdin=b'{"text":"\\ud800 x"}\n', status=65).stderr
    assert (
        b"occurs twice"
        in here("score", "--model", gpt2, stdin=b'{"text":"a","text":"b"}\n', status=65).stderr
    )
    here("score", "--model", gpt2, stdin=b'{"text":"a\\u0000b"}\n')


def test_models_that_cannot_be_used_are_refused_before_anything_is_read(tmp_path, gpt2, here):
    assert b"no such model directory" in here("score", "--model", tmp_path / "none", status=78).stderr
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in gpt2.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    weights = (broken / "model.safetensors").read_bytes()
    (broken / "model.safetensors").write_bytes(weights[:-100])
    here("score", "--model", broken, status=78)
    (broken / "model.safetensors").unlink()
    (broken / "pytorch_model.bin").write_bytes(b"pickle")
    here("score", "--model", broken, status=78)
    (broken / "model.safetensors").write_bytes(weights)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(
        json.dumps({**config, "auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    )
    here("score", "--model", broken, status=78)


def test_unknown_metrics_list_the_choices(gpt2, here):
    done = here("score", "-m", "perplexty", "--model", gpt2, status=2)
    assert b"did you mean perplexity?" in done.stderr


def test_after_several_metrics_rank_needs_a_key(gpt2, here):
    data = here(
        "score",
        "-m",
        "perplexity",
        "-m",
        "bits_per_byte",
        "--model",
        gpt2,
        stdin=lines([{"text": "the fox"}]),
    ).stdout
    [record] = records(data)
    assert record["bits_per_byte"] == pytest.approx(record["nll_sum"] / math.log(2) / 7)
    assert b"several scores: perplexity, bits_per_byte" in here("rank", stdin=data, status=2).stderr


def test_a_successful_run_off_a_terminal_says_nothing(gpt2, here):
    """In this process; `test_44_score_in_a_cron_jobs_surroundings_says_nothing` starts one of its own."""
    assert here("score", "--model", gpt2, stdin=lines([{"text": "the fox"}] * 3)).stderr == b""


def test_scores_do_not_depend_on_their_neighbours(gpt2, here):
    texts = ["the quick brown fox " * count for count in (1, 30, 2, 9, 1)]
    together = records(
        here(
            "score", "--dtype", "float32", "--model", gpt2, stdin=lines({"text": text} for text in texts)
        ).stdout
    )
    for text, record in zip(texts, together, strict=True):
        [alone] = records(
            here("score", "--dtype", "float32", "--model", gpt2, stdin=lines([{"text": text}])).stdout
        )
        assert record["perplexity"] == pytest.approx(alone["perplexity"], rel=1e-4)


def test_damaged_streams_are_refused(gpt2, tmp_path, here):
    """A few places: `tests/test_streams.py` tries many more with verbs that need no model."""
    data, victim = (
        here("score", "--model", gpt2, stdin=lines([{"text": "the fox"}] * 30)).stdout,
        tmp_path / "damaged.zst",
    )
    for what, broken in damaged(data, 8):
        victim.write_bytes(broken)
        assert status_of("score", "--overwrite", "--model", gpt2, victim, "-o", tmp_path / "out") == 65, what
        assert not (tmp_path / "out").exists()


def test_a_closed_pipe_is_noticed_within_a_batch(gpt2, tmp_path):
    """A window of one document in many batches: the run ends long before the window is written."""
    (tmp_path / "long.jsonl").write_bytes(lines([{"text": "the quick brown fox " * 400_000}]))
    shell = '"$0" -m prune_cli score --batch-tokens 1 --model "$1" "$2" | true; echo ${PIPESTATUS[0]}'
    done = subprocess.run(
        ["bash", "-c", shell, command()[0], gpt2, tmp_path / "long.jsonl"],
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.stdout, done.stderr) == (b"141\n", b"")


@shared
def test_bfloat16_ranks_as_float32_does(here):
    """On a model that was trained; `tests/bench/score.py` does it on more documents and larger models."""
    from scipy.stats import spearmanr

    corpus, path = (
        lines({"text": record["text"][:1000]} for record in some("web.jsonl.zst", 100)),
        SHARED / "data" / "stories260k",
    )
    exact, near = (
        [
            record["perplexity"]
            for record in records(here("score", "--dtype", dtype, "--model", path, stdin=corpus).stdout)
        ]
        for dtype in ("float32", "bfloat16")
    )
    assert spearmanr(exact, near).statistic > 0.999
