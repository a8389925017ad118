"""Scores that the training data spoil, and memorization, which needs them: each warns of the opposite."""

import numpy as np
import pytest

from ..conftest import lines

pytest.importorskip("torch")

from prune_cli.training.token_file import content_hash

from ..small_models import tiny_gpt2

TEXTS = ["the quick brown fox " * 40, "jumps over a lazy dog " * 40, "and on and on " * 40]
RECORDS = lines({"id": number, "text": text} for number, text in enumerate(TEXTS))


@pytest.fixture
def model(tmp_path):
    """A model that says it was trained on the first two of the texts."""
    path = tiny_gpt2(tmp_path / "gpt2", n_positions=64)
    np.save(path / "documents.npy", np.sort(np.array([content_hash(text) for text in TEXTS[:2]], np.uint64)))
    return path


@pytest.fixture
def warnings(here, model):
    def run(*options: object, stdin: bytes = RECORDS) -> list[str]:
        said = here("score", "--model", model, "--bos", "never", *options, stdin=stdin).stderr.decode()
        return [line for line in said.splitlines() if "training data" in line]

    return run


def test_perplexity_warns_of_documents_that_the_model_saw(warnings):
    [warning] = warnings()
    assert "2 of 3 documents are in the training data of" in warning
    assert "their perplexity cannot be compared with that of documents it was not trained on" in warning


def test_memorization_warns_of_documents_that_the_model_did_not_see(warnings):
    [warning] = warnings("-m", "memorization")
    assert "1 of 3 documents are not in the training data of" in warning
    assert "memorization means nothing for them" in warning


def test_memorization_of_training_data_alone_warns_of_nothing(warnings):
    seen = lines([{"id": 0, "text": TEXTS[0]}])
    assert warnings("-m", "memorization", stdin=seen) == []


def test_each_metric_of_one_run_has_its_own_warning(warnings):
    spoiled, missing = warnings("-m", "memorization", "-m", "perplexity", "-m", "random")
    assert "their perplexity cannot be compared" in spoiled
    assert "memorization means nothing" in missing


def test_a_model_whose_training_data_are_unknown_warns_of_nothing(warnings, model):
    (model / "documents.npy").unlink()
    assert warnings("-m", "memorization", "-m", "perplexity") == []
