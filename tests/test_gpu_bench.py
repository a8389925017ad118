"""The checks for a GPU run here in miniature, so that their logic is right when a card is at hand."""

import json

import pytest

from .bench.gpu import scoring
from .bench.gpu.__main__ import CHECKS, main
from .bench.gpu.machine import SMALL, Machine


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    return Machine("cpu", tmp_path_factory.mktemp("gpu"), SMALL)


def test_scores_agree_with_float64(machine):
    differences = scoring.scores(machine)["largest_relative_difference"]
    assert differences["float32"] < 4e-6
    assert differences["bfloat16"] < 0.02


def test_halved_batches_give_the_same_scores(machine):
    result = scoring.halving(machine)
    assert result["halvings"] >= 1
    assert result["largest_relative_difference"] < 1e-5


def test_continuations_are_those_of_generate(machine):
    result = scoring.memorization(machine)
    assert (result["equal"], result["compared"]) == (SMALL.recited, SMALL.recited)


def test_a_check_that_fails_does_not_stop_the_others(tmp_path, monkeypatch):
    def fails(machine):
        raise RuntimeError("no such kernel")

    checks = {"first": fails, "second": lambda machine: {"found": machine.device}}
    monkeypatch.setattr("tests.bench.gpu.__main__.CHECKS", checks)
    assert main(tmp_path / "out.json", "cpu") == 1
    results = json.loads((tmp_path / "out.json").read_bytes())["checks"]
    assert results["first"]["error"] == "RuntimeError: no such kernel"
    assert results["second"]["found"] == "cpu"


@pytest.mark.sweep
def test_every_check_runs(tmp_path):
    assert main(tmp_path / "out.json", "cpu") == 0
    results = json.loads((tmp_path / "out.json").read_bytes())["checks"]
    assert results.keys() == CHECKS.keys()
    assert results["workers on every GPU"]["largest_relative_difference"] == 0
    assert results["training resumed"]["weights_equal"]
    assert results["training resumed"]["losses_equal"]
    assert results["training in a world of one"]["largest_difference"] == 0
