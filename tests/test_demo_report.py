"""The tables that shell/demo ends with, on results that are worked out by hand."""

import importlib.util
import json

import pytest

from .conftest import ROOT


@pytest.fixture(scope="module")
def report():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("demo_report", ROOT / "shell" / "demo-report.py")
    assert spec
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def likelihood(test, perplexity):
    return {"result": "likelihood", "data": f"test-{test}.jsonl", "perplexity": perplexity}


def comparison(test, low, high):
    effects = {"effect": (low + high) / 2, "effect_interval": [low, high]}
    return {"result": "comparison", "data": f"test-{test}.jsonl", **effects}


def test_the_table_says_which_effects_are_noise(report, tmp_path):
    for arm in report.ARMS:
        results = [likelihood(test, value) for test in report.TESTS for value in (2, 4, 8)]
        (tmp_path / f"results-{arm}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in results))
        compared = [comparison("mixed", -0.02, 0.01), comparison("prose", 0.01, 0.03)]
        if arm != "random":
            text = "".join(json.dumps(each) + "\n" for each in compared)
            (tmp_path / f"comparison-{arm}.jsonl").write_text(text)
    lines = report.outcome(tmp_path, {"parameters": 432_768, "tokens": 256_000})
    assert "0.4 M parameters and 256 thousand tokens: mean of 3 seeds" in lines[0]
    assert lines[2].split() == ["random", "4.0", "-", "4.0", "-"]  # 4 is the geometric mean of 2, 4 and 8
    assert lines[3].split("  ")[0].strip() == "bottom"
    assert "within noise -0.5 (-2.0 to +1.0)" in lines[3]
    assert lines[3].endswith("  +2.0 (+1.0 to +3.0)")


def test_the_quick_demo_says_what_was_kept_and_shows_documents(report):
    fates = {"kept": {"tokens": 30}, "cut": {"tokens": 60}, "unscored": {"tokens": 10}}
    assert report.quick({"groups": {"code": fates}}).splitlines()[1:] == ["  code          30"]
    record = {"id": "x:1", "text": "a\n\n b\n" * 9, "source": "code", "quantile": 0.25, "perplexity": 7.2}
    assert (
        report.excerpts([record] * 5).splitlines()
        == [
            "  quantile 0.250, perplexity 7, code x:1",
            *["      a", "       b"] * 2,
        ]
        * 2
    )
