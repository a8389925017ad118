"""Engines and what they run: plans are pure, jobs can be sent to another process, reports add up."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from prune_cli import terminal
from prune_cli.engines import local
from prune_cli.engines.local import Serial
from prune_cli.settings.score import ScoreResults, Scores, ScoreSettings
from prune_cli.settings.streams import Messages, Streams
from prune_cli.stages.score.progress import ScoreReport
from prune_cli.stages.score.run import ScoreWork

from .conftest import lines, status_of

CORPUS = [{"id": at, "text": "the quick brown fox " * (at % 5)} for at in range(40)]


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[str, ...]:
    for name, records in (("a.jsonl", CORPUS[:25]), ("b.jsonl", CORPUS[25:])):
        (tmp_path / name).write_bytes(lines(records))
    return str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")


# --- Jobs ---


def work_on(inputs: tuple[str, ...], directory: Path, **scores: object) -> ScoreWork:
    """Work with an output for each input."""
    results = ScoreResults(output_directory=str(directory))
    return ScoreWork(inputs, ScoreSettings(Scores(**scores), results))


def test_the_reports_of_jobs_add_up_to_that_of_the_command(inputs, tmp_path):
    status = status_of(
        "score", "-m", "random", "--summary", tmp_path / "s", "-O", tmp_path / "command", *inputs
    )
    assert status == 0
    work = work_on(inputs, tmp_path / "jobs", metric=["random"])
    with Serial() as engine:
        first, second = engine.map(work, work.jobs(workers=1), terminal.silent())
    times = ("seconds", "tokens_per_second")
    summary = {name: value for name, value in (first + second).summary().items() if name not in times}
    whole = json.loads((tmp_path / "s").read_bytes())
    assert json.loads(json.dumps(summary)) == {name: whole[name] for name in summary}
    assert (first + second).seconds == pytest.approx(first.seconds + second.seconds)


def test_models_are_loaded_once_for_all_jobs(inputs, tmp_path, monkeypatch):
    from prune_cli.stages.score import scoring

    load = Mock(side_effect=scoring.load_scoring)
    monkeypatch.setattr(scoring, "load_scoring", load)
    assert local.run_jobs(work_on(inputs, tmp_path / "out", metric=["random"]), Messages(), Serial()) == 0
    load.assert_called_once()
    assert len(list((tmp_path / "out").glob("*.zst"))) == 2


def test_a_single_output_is_a_single_job(inputs, tmp_path):
    output = str(tmp_path / "out.zst")
    work = ScoreWork(inputs, ScoreSettings(Scores(metric=["random"]), streams=Streams(output=output)))
    [job] = work.jobs(workers=1)
    assert job.inputs == inputs
    assert work.open().do(job, terminal.silent()).records == len(CORPUS)
    assert pickle.loads(pickle.dumps(job)) == job


# --- Reports ---


def test_reports_add_up():
    scored = ScoreReport(records=2, tokens=10, outputs=1, scoring_seconds=2.0, self_check=1e-5, flops=5.0)
    total = scored + replace(scored, self_check=1e-3, provenance={"seed": 0}) + ScoreReport(finished=1)
    assert (total.records, total.tokens, total.outputs, total.finished, total.flops) == (4, 20, 2, 1, 10.0)
    assert (total.self_check, total.rate, total.provenance) == (1e-3, 5.0, {"seed": 0})
    assert total.closing() == [
        "scored 4 records, 20 tokens (5 a second); self-check: differences up to 1.0e-03; "
        "1 of 3 outputs were already finished"
    ]
    assert ScoreReport().closing() == []
