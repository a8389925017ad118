"""stat of one file by several workers says what one process says."""

import json

import pytest

from prune_cli.errors import DataError
from prune_cli.settings.slice import Selection, Slicing
from prune_cli.settings.stat import Inspection
from prune_cli.settings.streams import Reading, Streams
from prune_cli.stages import divided
from prune_cli.stages.slice.run import SliceJob
from prune_cli.stages.stat.run import StatJob
from prune_cli.stream import writer

from ..conftest import prune, scored
from .sharded import Several, files


@pytest.fixture
def stream(tmp_path, monkeypatch) -> str:
    """A file of many frames, of which each worker gets some."""
    monkeypatch.setattr(divided, "SMALLEST_PIECE", 1000)
    monkeypatch.setattr(writer, "FRAME", 500)
    [plain] = files(tmp_path, [scored(90)])
    path = str(tmp_path / "stream.zst")
    SliceJob((plain,), Selection(least=0.0), Slicing(key="perplexity"), Streams(output=path)).run()
    return path


def described(path: str, output, engine=None, **options) -> dict:
    StatJob((path,), Inspection(output=str(output), force=True, **options), Reading()).run(engine)
    return json.loads(output.read_bytes())


@pytest.mark.parametrize(
    "options",
    [
        {"verify": True},
        {"key": ["perplexity", "n_scored"]},
        {"key": ["perplexity"], "duplicates": True, "thresholds": "0.2,0.7"},
        {"key": ["perplexity"], "group_by": "id"},
    ],
)
def test_what_is_said_is_what_one_process_says(options, stream, tmp_path):
    one, several = (described(stream, tmp_path / "out", engine, **options) for engine in (None, Several()))
    assert several == one
    assert one["records"]


def test_a_score_that_only_the_last_portion_has_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(divided, "SMALLEST_PIECE", 500)
    [path] = files(tmp_path, [[{"perplexity": 1.0}] * 50 + [{"perplexity": 2.0, "late": 3.0}] * 5])
    content = described(path, tmp_path / "out", Several(), key=["late"])
    assert content == described(path, tmp_path / "out", key=["late"])
    assert content["scores"]["late"]["records"] == 5
    with pytest.raises(DataError, match="no record has a field `nothing`"):
        described(path, tmp_path / "out", Several(), key=["nothing"])


def test_worker_processes_say_what_one_process_says(stream):
    command = ("stat", "--verify", "--expect-records")
    records = json.loads(prune("stat", "--verify", stream).stdout)["records"]
    assert prune(*command, records, "-j", 2, stream).stdout == prune(*command, records, stream).stdout
    assert b"were expected" in prune(*command, records + 1, "-j", 2, stream, status=65).stderr
