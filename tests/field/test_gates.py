"""A check that fails a script says "worse" (1) only on evidence; "nobody can tell" (65) is another answer."""

import json

import pytest

from prune_cli.errors import DataError
from prune_cli.stages.score.trial.self_check import largest_difference

from ..conftest import lines


def results(path, name, nats, *, documents, tokens=10, books=None, seed=""):
    """A result file of a model that needs so many nats for every document, whose number varies a little."""
    provenance = {"model": f"{name}{seed}", "tokenizer": "t", "data": "d"}
    if books:
        provenance["cluster"] = "book"
    path.write_bytes(
        lines(
            {
                "model": f"{name}{seed}",
                "data": "held out",
                "document": at + 1,
                "cluster": at % books if books else None,
                "provenance": provenance,
                "nll_sum": (nats + 0.01 * (at % 3)) * tokens,
                "n_scored": tokens,
                "n_bytes": 4 * tokens,
                "words": tokens,
            }
            for at in range(documents)
        )
    )
    return path


@pytest.fixture
def gate(tmp_path, here):
    """Run `eval --fail-if-worse 1` on a model that needs 3 nats a token against one that needs 2."""

    def run(worse=3.0, *options, status, **about):
        model = results(tmp_path / "model.jsonl", "model", worse, **about)
        baseline = results(tmp_path / "base.jsonl", "base", 2.0, **about)
        done = here("eval", model, "--against", baseline, "--fail-if-worse", 1, *options, status=status)
        # Whatever the answer is, the results are there.
        assert done.stdout.count(b'"result":"comparison"') == 1
        return done.stderr.decode()

    return run


def test_from_20_documents_on_a_worse_model_fails(gate):
    """e to the power of 1 is 2.718: at least 171.83 % worse."""
    assert "at least 171.83 % worse, and 1 % are allowed" in gate(documents=20, status=1)


@pytest.mark.parametrize("worse", [1.0, 2.0, 3.0])
@pytest.mark.parametrize("documents", [1, 2, 19])
def test_fewer_documents_cannot_tell(gate, worse, documents):
    said = gate(worse, documents=documents, status=65)
    assert f"{documents} documents with a score cannot tell; --fail-if-worse needs 20" in said


def test_clusters_count_where_documents_are_clustered(gate):
    options = ("--cluster", "book")
    assert "19 clusters with a score cannot tell" in gate(3.0, *options, documents=100, books=19, status=65)
    assert "worse" in gate(3.0, *options, documents=100, books=20, status=1)


def test_documents_without_a_score_cannot_tell(gate):
    assert "0 documents with a score cannot tell" in gate(documents=50, tokens=0, status=65)


def test_better_and_equal_models_pass(gate):
    gate(1.0, documents=20, status=0)
    gate(2.0, documents=20, status=0)


@pytest.mark.parametrize("documents", [1, 30])
def test_a_model_against_itself_passes(tmp_path, here, documents):
    model = results(tmp_path / "a.jsonl", "a", 2.0, documents=documents)
    options = ("--fail-if-worse", 0)
    said = here("eval", model, "--against", model, *options).stderr
    assert b"every MODEL is a baseline as well: nothing is compared" in said
    # The same model under another name.
    again = results(tmp_path / "again.jsonl", "a", 2.0, documents=documents)
    done = here("eval", again, "--against", model, *options)
    assert json.loads(done.stdout.splitlines()[-1])["delta"] == 0


def test_a_model_against_itself_passes_where_nothing_can_be_scored(tmp_path, here):
    paths = [results(tmp_path / name, "a", 2.0, documents=5, tokens=0) for name in ("a.jsonl", "b.jsonl")]
    here("eval", paths[0], "--against", paths[1], "--fail-if-worse", 0)


@pytest.mark.parametrize(("documents", "status"), [(19, 65), (20, 1)])
def test_recipes_of_several_seeds_need_as_many_documents(tmp_path, here, documents, status):
    models = [
        results(tmp_path / f"m{seed}.jsonl", "m", 3 + seed / 100, documents=documents, seed=seed)
        for seed in range(2)
    ]
    baselines = []
    for seed in range(2):
        path = results(tmp_path / f"b{seed}.jsonl", "b", 2 + seed / 100, documents=documents, seed=seed)
        baselines += ["--against", path]
    here("eval", *models, *baselines, "--fail-if-worse", 1, status=status)


def test_one_that_is_worse_for_certain_outweighs_one_that_is_unknown(tmp_path, here):
    few = results(tmp_path / "few.jsonl", "few", 2.0, documents=20)
    worse = results(tmp_path / "worse.jsonl", "worse", 3.0, documents=20)
    base = results(tmp_path / "base.jsonl", "base", 2.0, documents=20)
    few.write_bytes(few.read_bytes().replace(b'"n_scored": 10', b'"n_scored": 0', 1))
    here("eval", few, worse, "--against", base, "--fail-if-worse", 1, status=1)
    here("eval", few, "--against", base, "--fail-if-worse", 1, status=65)


def test_help_says_how_many_documents_a_check_needs(here):
    said = " ".join(here("eval", "--help").stdout.decode().split())
    assert "65 with fewer than 20 documents or clusters" in said


def test_a_self_check_of_records_without_a_score_is_no_success():
    """`score --self-check N` compares perplexities, which texts of no token do not have."""
    nothing = {"nll_sum": 0.0, "n_scored": 0}
    with pytest.raises(DataError, match="here: none of the first 2 records has a score"):
        largest_difference(["", ""], ["here", "there"], lambda texts: [nothing] * 2, list, "float32")
