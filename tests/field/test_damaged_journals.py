"""Results that a resumed `eval` goes on from: damaged ones are computed again, and never copied."""

from contextlib import suppress

import pytest

from prune_cli.stages.eval.glue.result_cache import beside

from ..conftest import lines

SEEDS = [
    {"result": "glue", "model": "m", "task": "rte", "seed": 0, "metrics": {"accuracy": 0.25}},
    {"result": "glue", "model": "m", "task": "rte", "seed": 1, "metrics": {"accuracy": 0.75}},
]
TASK = {
    "result": "glue task",
    "model": "m",
    "task": "rte",
    "seeds": 2,
    "metrics": {"accuracy": {"mean": 0.5}},
}


@pytest.fixture
def stopped(tmp_path):
    """FILE.partial of a run that was stopped after two seeds."""
    with suppress(KeyError), beside(str(tmp_path / "out")) as cache:
        for result in SEEDS:
            cache.add(result)
        raise KeyError
    return tmp_path / "out.partial"


def results(path):
    """What a resumed run finds for FILE."""
    with suppress(KeyError), beside(str(path)) as cache:
        found = cache.results
        raise KeyError
    return found


def test_what_a_stopped_run_wrote_is_taken_up(stopped, tmp_path, caplog):
    assert results(tmp_path / "out") == SEEDS
    assert caplog.text == ""


def test_a_result_of_a_stopped_run_that_is_damaged_is_dropped(stopped, tmp_path, caplog):
    stopped.write_bytes(stopped.read_bytes().replace(b"0.75", b"0.95"))
    assert results(tmp_path / "out") == SEEDS[:1]
    assert f"{stopped}: the result of rte, seed 1, is damaged: it is computed again" in caplog.text


def test_a_stopped_run_of_the_version_before_is_taken_up_with_a_message(tmp_path, caplog):
    (tmp_path / "out.partial").write_bytes(lines(SEEDS))
    assert results(tmp_path / "out") == SEEDS
    assert caplog.text.count("its results have no checksums, so that damage would not be noticed") == 1


def test_results_of_a_finished_run_are_compared_with_their_mean(tmp_path, caplog):
    """0.25 and 0.75 have a mean of 0.5, twice 0.25 has not."""
    (tmp_path / "out").write_bytes(lines([*SEEDS, TASK]))
    assert results(tmp_path / "out") == SEEDS
    assert caplog.text == ""
    (tmp_path / "out").write_bytes(lines([*SEEDS, TASK]).replace(b"0.75", b"0.25"))
    assert results(tmp_path / "out") == []
    assert f"{tmp_path / 'out'}: results of rte are damaged: they are computed again" in caplog.text


def test_seeds_that_were_selected_from_a_finished_run_have_no_mean(tmp_path, caplog):
    (tmp_path / "out").write_bytes(lines([SEEDS[1]]))
    assert results(tmp_path / "out") == SEEDS[1:]
    assert "no checksums" in caplog.text
