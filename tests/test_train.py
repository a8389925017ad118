"""train: a slice in, a Hugging Face directory out, whole or absent."""

import json
import subprocess
import sys

import pytest

from .conftest import ROOT, damaged, lines, scored, status_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

SMALL = "layers = 1\nwidth = 16\nheads = 2\ncontext = 32\nlr = 1e-3\nbatch_tokens = 128\n"
CORPUS = lines(scored(200))


@pytest.fixture
def options(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    return ["--config", tmp_path / "small.toml", "--train-tokenizer", 270, "--steps", 4]


def test_a_ranked_slice_trains_a_model_that_plain_transformers_loads(options, tmp_path, here):
    ranked = here("rank", stdin=CORPUS).stdout
    half = here("slice", "--keep", "middle", "--frac", "0.5", stdin=ranked).stdout
    said = here("train", *options, "-o", tmp_path / "run", stdin=half)
    assert (said.stdout, said.stderr) == (b"", b"")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "run")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "run")
    ids = torch.tensor([tokenizer("lorem ipsum dolor")["input_ids"]])
    assert torch.isfinite(model(input_ids=ids, labels=ids).loss)
    written = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in written] == [1, 2, 3, 4]
    assert {entry.name for entry in tmp_path.iterdir()} == {"run", "small.toml"}


def test_a_trained_model_scores_and_evaluates(options, tmp_path, here):
    here("train", *options, "-o", tmp_path / "a", stdin=CORPUS)
    here("train", *options, "--seed", 1, "-o", tmp_path / "b", stdin=CORPUS)
    assert (
        b'"perplexity":'
        in here("score", "--plain", "--model", tmp_path / "a", stdin=lines([{"text": "lorem"}])).stdout
    )
    (tmp_path / "test.jsonl").write_bytes(lines(scored(30, seed=9)))
    out = here(
        "eval",
        tmp_path / "a",
        tmp_path / "b",
        "--against",
        tmp_path / "b",
        "--data",
        tmp_path / "test.jsonl",
        "--group-by",
        "source",
    ).stdout
    results = [json.loads(line) for line in out.splitlines()]
    assert [result["result"] for result in results].count("comparison") == 1
    assert {result["group"] for result in results if result["result"] == "likelihood"} == {
        None,
        "a",
        "b",
        "c",
    }


def test_the_same_options_give_the_same_weights(options, tmp_path, here):
    for name in ("a", "b"):
        here("train", *options, "-o", tmp_path / name, stdin=CORPUS)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (
        tmp_path / "b" / "model.safetensors"
    ).read_bytes()


def test_the_order_of_the_documents_does_not_matter(options, tmp_path, here):
    shuffled = b"".join(sorted(CORPUS.splitlines(keepends=True)))
    here("train", *options, "-o", tmp_path / "a", stdin=CORPUS)
    here(
        "train", *options[:2], "--tokenizer", tmp_path / "a", "--steps", 4, "-o", tmp_path / "b", stdin=CORPUS
    )
    here(
        "train",
        *options[:2],
        "--tokenizer",
        tmp_path / "a",
        "--steps",
        4,
        "-o",
        tmp_path / "c",
        stdin=shuffled,
    )
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (
        tmp_path / "c" / "model.safetensors"
    ).read_bytes()


def test_a_run_that_fails_leaves_nothing(options, tmp_path, here):
    assert (
        b"not JSON"
        in here("train", *options, "-o", tmp_path / "run", stdin=CORPUS + b"oops\n", status=65).stderr
    )
    assert (
        b"less than one block"
        in here("train", *options, "-o", tmp_path / "run", stdin=lines([{"text": "a"}]), status=65).stderr
    )
    assert {entry.name for entry in tmp_path.iterdir()} == {"small.toml"}


def test_an_existing_run_is_refused_without_force(options, tmp_path, here):
    here("train", *options, "-o", tmp_path / "run", stdin=CORPUS)
    assert (
        b"exists; -f replaces it"
        in here("train", *options, "-o", tmp_path / "run", stdin=CORPUS, status=73).stderr
    )
    here("train", *options, "-f", "-o", tmp_path / "run", stdin=CORPUS)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ([], b"a run needs a model"),
        (["--preset", "tiny"], b"a run needs a tokenizer"),
        (["--preset", "tiny", "--train-tokenizer", "300"], b"a run needs one budget"),
        (["--preset", "huge", "--train-tokenizer", "300", "--steps", "1"], b"--preset huge is unknown"),
        (
            ["--preset", "tiny", "--train-tokenizer", "300", "--steps", "1", "--tokens", "5"],
            b"a run needs one budget",
        ),
    ],
)
def test_impossible_options_are_usage_errors(wrong, words, tmp_path, here):
    assert words in here("train", *wrong, "-o", tmp_path / "run", stdin=CORPUS, status=2).stderr


def test_no_output_is_a_usage_error(options, here):
    assert b"-o DIR" in here("train", *options, status=2).stderr


def test_damaged_streams_are_refused(options, tmp_path, here):
    data, victim = here("rank", stdin=CORPUS).stdout, tmp_path / "damaged.zst"
    for what, broken in damaged(data, 40):
        victim.write_bytes(broken)
        assert status_of("train", *options, "-o", tmp_path / "run", victim) == 65, what
        assert not (tmp_path / "run").exists()


def test_fsdp_needs_several_processes(options, tmp_path, here):
    assert (
        b"--fsdp has no effect on a single process"
        in here("train", *options, "--fsdp", "-o", tmp_path / "run", stdin=CORPUS).stderr
    )


def test_a_usage_error_comes_before_torch_is_imported():
    """Importing it takes seconds."""
    script = (
        "import sys; from prune_cli import cli; status = cli.run(['train', '--steps', '5', 'corpus.jsonl']);"
        "print(status, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "2 False\n"
    assert "no output directory; name one with -o DIR" in done.stderr
