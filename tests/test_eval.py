"""eval: one record per result, comparisons of models and of seeds, resumed runs, and damaged test sets."""

import json
import math
import subprocess

import pytest

from .conftest import command, damaged, lines, on_a_terminal, records, scored, status_of
from .score_runs import borders

pytest.importorskip("torch")


SHAPE = "layers = 1\nwidth = 16\nheads = 2\ncontext = 32\nlr = 1e-3\nbatch_tokens = 128\n"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Runs of two recipes, 2 and 3 steps, with two seeds each."""
    home = tmp_path_factory.mktemp("runs")
    (home / "small.toml").write_text(SHAPE)
    (home / "corpus.jsonl").write_bytes(lines(scored(50)))
    options = ["--config", home / "small.toml", home / "corpus.jsonl"]
    assert status_of("train", *options, "--train-tokenizer", 300, "--steps", 2, "-o", home / "model") == 0
    for recipe, steps in (("a", 2), ("b", 3)):
        for seed in (0, 1):
            here = [
                "--tokenizer",
                home / "model",
                "--steps",
                steps,
                "--seed",
                seed,
                "-o",
                home / f"{recipe}{seed}",
            ]
            assert status_of("train", *options, *here) == 0
    return home


@pytest.fixture
def model(home):
    return home / "model"


@pytest.fixture
def test_set(tmp_path):
    """60 documents from 12 books."""
    path = tmp_path / "test.jsonl"
    path.write_bytes(
        lines(
            {"id": one["id"], "text": one["text"], "book": at // 5}
            for at, one in enumerate(scored(60, seed=4))
        )
    )
    return path


def results(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_pooled_perplexity_equals_that_from_scores(model, tmp_path, here):
    (tmp_path / "test.jsonl").write_bytes(lines({"text": record["text"]} for record in scored(20, seed=4)))
    [result] = [
        json.loads(line)
        for line in here("eval", model, "--data", tmp_path / "test.jsonl").stdout.splitlines()
    ]
    rows = [
        json.loads(line)
        for line in here("score", "--plain", "--model", model, tmp_path / "test.jsonl").stdout.splitlines()
    ]
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


def test_the_output_file_is_whole_or_absent(model, tmp_path, here):
    (tmp_path / "test.jsonl").write_bytes(lines([{"text": "lorem"}, {"text": 3}]))
    assert (
        b"test.jsonl:2: `text` is a number"
        in here("eval", model, "--data", tmp_path / "test.jsonl", "-o", tmp_path / "r", status=65).stderr
    )
    assert not (tmp_path / "r").exists()


def test_bad_records_are_skipped_on_request(model, tmp_path, here):
    (tmp_path / "test.jsonl").write_bytes(lines([{"text": "lorem ipsum"}, {"text": 3}, {"text": "dolor"}]))
    out = here("eval", model, "--skip-bad", "--data", tmp_path / "test.jsonl", "-o", tmp_path / "r", status=3)
    assert b"record skipped" in out.stderr
    assert json.loads((tmp_path / "r").read_bytes())["documents"] == 2


def test_missing_data_and_models_are_errors(model, tmp_path, here):
    assert b"--data FILE" in here("eval", model, status=2).stderr
    assert b"no such file" in here("eval", model, "--data", tmp_path / "none", status=66).stderr
    (tmp_path / "test.jsonl").write_bytes(lines([{"text": "lorem"}]))
    assert (
        b"no such model directory"
        in here("eval", tmp_path / "none", "--data", tmp_path / "test.jsonl", status=78).stderr
    )


def test_damaged_test_sets_are_refused(model, tmp_path, here):
    data, victim = here("rank", stdin=lines(scored(60))).stdout, tmp_path / "damaged.zst"
    for what, broken in damaged(data, 40):
        victim.write_bytes(broken)
        assert status_of("eval", model, "--data", victim, "-o", tmp_path / "out") == 65, what


# --- Comparisons ---


def test_two_groups_of_seeds_are_one_comparison(home, test_set, here):
    found = here(
        "eval",
        home / "a0",
        home / "a1",
        "--against",
        home / "b0",
        "--against",
        home / "b1",
        "--data",
        test_set,
    )
    *likelihoods, comparison = results(found)
    assert [one["result"] for one in likelihoods] == ["likelihood"] * 4
    assert comparison["model"] == [str(home / "a0"), str(home / "a1")]
    assert comparison["against"] == [str(home / "b0"), str(home / "b1")]
    assert comparison["includes_training_noise"] is True
    b0, b1, a0, a1 = (math.log(one["perplexity"]) for one in likelihoods)
    assert comparison["delta"] == pytest.approx((a0 + a1 - b0 - b1) / 2)
    assert b"differ in more than their data: steps 2 and 3\n" in found.stderr


def test_paired_seeds_come_in_pairs(home, test_set, here):
    sides = [home / "a0", home / "a1", "--against", home / "b1"]
    assert (
        b"cannot pair 2 models with 1 baselines"
        in here("eval", *sides, "--paired-seeds", "--data", test_set, status=2).stderr
    )
    found = here("eval", *sides, "--against", home / "b0", "--paired-seeds", "--data", test_set)
    assert results(found)[-1]["paired_seeds"] is True
    assert b"are a pair, but have different seeds" in found.stderr


def test_one_run_a_side_warns_about_training_noise(home, test_set, here):
    found = here("eval", home / "a0", "--against", home / "a1", "--data", test_set)
    assert b"the intervals do not cover training noise" in found.stderr
    assert b"a0 and " in found.stderr
    assert b"differ in more than their data: seed 0 and 1\n" in found.stderr


def test_fail_if_worse_exits_with_1_and_keeps_the_results(home, test_set, here, tmp_path):
    worse = ["eval", home / "a0", "--against", home / "b0", "--data", test_set, "-o", tmp_path / "r"]
    assert b"% worse, and 0.01 % are allowed" in here(*worse, "--fail-if-worse", 0.01, status=1).stderr
    assert json.loads((tmp_path / "r").read_bytes().splitlines()[-1])["effect_interval"][0] > 0
    here(*worse, "-f", "--fail-if-worse", 50)
    here("eval", home / "b0", "--against", home / "a0", "--data", test_set, "--fail-if-worse", 0)
    itself = here("eval", *["--against", home / "a0"], home / "a0", *worse[4:6], "--fail-if-worse", 1)
    assert b"nothing is compared" in itself.stderr
    assert (
        b"--fail-if-worse needs a baseline to compare with"
        in here("eval", home / "a0", "--data", test_set, "--fail-if-worse", 1, status=2).stderr
    )


def test_a_field_that_no_document_has_is_an_error(model, test_set, here):
    assert (
        b"no document has the field `bok`"
        in here("eval", model, "--data", test_set, "--cluster", "bok", status=65).stderr
    )
    test_set.write_bytes(lines([{"text": "a", "book": [1]}]))
    assert (
        b"test.jsonl:1: `book` is neither"
        in here("eval", model, "--data", test_set, "--group-by", "book", status=65).stderr
    )


def test_each_record_has_its_provenance(model, test_set, here):
    [result] = results(
        here("eval", model, "--data", test_set, "--dtype", "float32", "--bos", "never", "--seed", 5)
    )
    made = result["provenance"]
    assert (made["dtype"], made["bos"], made["context"], made["stride"], result["seed"]) == (
        "float32",
        "never",
        32,
        32,
        5,
    )
    assert made["training"]["steps"] == 2
    assert {"torch", "transformers", "prune_cli"} == set(made["versions"])
    assert len(made["model"]) == 64
    assert len(made["data"]) == 32


# --- Results of single documents ---


@pytest.fixture
def by_document(home, test_set, here, tmp_path):
    """A result file of two models, and the results that were written beside it."""
    path = tmp_path / "by-document.zst"
    made = here(
        "eval", home / "a0", home / "b0", "--data", test_set, "--cluster", "book", "--per-document", path
    )
    return path, results(made)


def test_per_document_results_equal_those_of_score(by_document, home, test_set, here):
    found = records(by_document[0].read_bytes())
    assert len(found) == 2 * 60
    score = records(here("score", "--model", home / "a0", test_set).stdout)
    for at, (ours, theirs) in enumerate(zip(found, score, strict=False)):
        assert (ours["model"], ours["data"], ours["document"]) == (str(home / "a0"), str(test_set), at + 1)
        assert (ours["id"], ours["cluster"], ours["words"]) == (
            theirs["id"],
            theirs["book"],
            len(theirs["text"].split()),
        )
        assert [ours[name] for name in ("nll_sum", "n_scored", "n_bytes")] == [
            theirs[name] for name in ("nll_sum", "n_scored", "n_bytes")
        ]


def test_result_files_replace_their_models(by_document, home, test_set, here, tmp_path):
    path, made = by_document
    assert results(here("eval", path)) == made
    parts = [tmp_path / f"{name}.jsonl" for name in ("a0", "b0")]
    for part in parts:  # what jq would choose
        part.write_bytes(lines(one for one in records(path.read_bytes()) if one["model"].endswith(part.stem)))
    from_files = results(here("eval", parts[0], "--against", parts[1]))[-1]
    from_models = results(
        here("eval", home / "a0", "--against", home / "b0", "--data", test_set, "--cluster", "book")
    )[-1]
    mixed = results(
        here("eval", home / "a0", "--against", parts[1], "--data", test_set, "--cluster", "book")
    )[-1]
    assert from_files == from_models == mixed
    assert from_files["clusters"] == 12


def test_result_files_need_no_torch(by_document):
    script = (
        "import sys; from prune_cli import cli;"
        "print(cli.run(sys.argv[1:]), 'torch' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [*command()[:1], "-c", script, "eval", by_document[0]], capture_output=True, check=True
    )
    assert done.stderr.endswith(b"\n0 False\n")
    assert results(done) == by_document[1]


def test_results_of_different_documents_are_not_compared(by_document, model, here, tmp_path):
    (tmp_path / "other.jsonl").write_bytes(lines([{"text": "lorem"}]))
    wrong = here(
        "eval", model, "--against", by_document[0], "--data", tmp_path / "other.jsonl", status=65
    ).stderr
    assert b"by-document.zst: holds no results on the documents of" in wrong
    assert b"no field `model`" in here("eval", tmp_path / "other.jsonl", status=65).stderr
    assert (
        b"lack the `id` of each document" in here("eval", by_document[0], "--cluster", "id", status=2).stderr
    )


def test_a_test_set_named_twice_is_refused(model, test_set, here, tmp_path):
    (tmp_path / "copy.jsonl").write_bytes(test_set.read_bytes())
    assert (
        b"hold the same documents"
        in here("eval", model, "--data", test_set, "--data", tmp_path / "copy.jsonl", status=2).stderr
    )


def test_damaged_result_files_are_refused(by_document, tmp_path):
    for what, broken in damaged(by_document[0].read_bytes(), 20):
        (tmp_path / "damaged.zst").write_bytes(broken)
        assert status_of("eval", tmp_path / "damaged.zst", "-o", tmp_path / "out") == 65, what


def test_a_file_that_is_cut_anywhere_resumes_to_the_same_bytes(home, test_set, here, tmp_path):
    """Cut in the head, in and between the frames of the two models, in the trailer; and not cut at all."""
    options = ["eval", home / "a0", home / "b0", "--data", test_set, "--per-document"]
    made = here(*options, tmp_path / "whole.zst").stdout
    whole, target = (tmp_path / "whole.zst").read_bytes(), tmp_path / "f.zst"
    frames = borders(whole)
    assert len(frames) == 6, "START, head, a frame for each model, trailer, seek table"
    for cut in (0, 5, frames[1] + 7, frames[2], frames[2] + 9, frames[3], frames[3] + 20, len(whole)):
        (tmp_path / "f.zst.partial").write_bytes(whole[:cut])
        assert here(*options, target, "--resume").stdout == made, cut
        assert target.read_bytes() == whole, cut
        assert not (tmp_path / "f.zst.partial").exists()
        assert here(*options, target, "--resume").stdout == made
        target.unlink()


def test_existing_results_are_not_scored_again(home, test_set, here, tmp_path):
    options = ["eval", home / "a0", "--data", test_set, "--resume", "--per-document", tmp_path / "f.zst"]
    here(*options)
    first, *others = records((tmp_path / "f.zst").read_bytes())
    (tmp_path / "f.zst").write_bytes(compact({**first, "nll_sum": 1e6}, *others))
    assert results(here(*options))[0]["perplexity"] > 1e3
    assert b"holds other results" in here(*options, "--bos", "never", status=73).stderr
    (tmp_path / "f.zst").write_bytes(compact(first, *others[1:]))
    assert b"holds other results" in here(*options, status=73).stderr


def compact(*chosen):
    """Records without spaces, as eval writes them."""
    return b"".join(json.dumps(one, separators=(",", ":")).encode() + b"\n" for one in chosen)


def test_a_different_run_does_not_resume_the_file(home, test_set, here, tmp_path):
    options = ["--data", test_set, "--per-document", tmp_path / "f.zst"]
    here("eval", home / "a0", *options)
    whole = (tmp_path / "f.zst").read_bytes()
    (tmp_path / "f.zst").unlink()
    (tmp_path / "f.zst.partial").write_bytes(whole[: borders(whole)[2]])
    assert b"was begun with models" in here("eval", home / "a1", *options, "--resume", status=78).stderr
    said = here("eval", home / "a0", *options, "--resume", "--context", 16, status=78).stderr
    assert (
        b"f.zst.partial: was begun with context 32, not 16; stride 32, not 16; resume with the same input"
        in said
    )
    assert b"--resume continues it" in here("eval", home / "a0", *options, status=73).stderr
    here("eval", home / "a0", *options, "-f")
    assert (tmp_path / "f.zst").read_bytes() == whole


def test_options_that_exclude_each_other_are_errors(model, test_set, here, tmp_path):
    for options, words in (
        (["--resume"], b"--per-document FILE"),
        (["--resume", "--per-document", "a.jsonl"], b"compressed output"),
        (["--per-document", tmp_path / "x", "-o", tmp_path / "x"], b"same place"),
        (["--per-document", "-"], b"same place"),
    ):
        assert words in here("eval", model, "--data", test_set, *options, status=2).stderr
    (tmp_path / "there").write_text("")
    assert (
        b"there: exists"
        in here("eval", model, "--data", test_set, "--per-document", tmp_path / "there", status=73).stderr
    )


def test_a_terminal_gets_a_table(by_document):
    shown = on_a_terminal("stdout", "eval", by_document[0], "-q", COLUMNS="80", TERM="dumb")
    assert "perplexity" in shown
    assert f"{by_document[1][0]['perplexity']:.5g}" in shown
    assert "{" not in shown
    assert max(map(len, shown.splitlines())) <= 80
