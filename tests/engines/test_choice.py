"""Which engine is chosen, which GPUs there are, and the file that shows how far a run is."""

import json
import os
import sys

import pytest

from prune_cli import terminal
from prune_cli.engines import devices, ray, watch
from prune_cli.engines.choose import open_engine
from prune_cli.engines.local import Serial
from prune_cli.engines.processes import WorkerProcesses
from prune_cli.engines.work import Engine
from prune_cli.errors import CannotCreateError, ConfigurationError, UsageError
from prune_cli.settings.streams import Messages, WorkerSettings, processors

from ..conftest import status_of
from .toy import Toy, ToyJob

# As nvidia-smi 550 prints it, on a machine whose second GPU is divided.
LISTED = """\
GPU 0: NVIDIA A100-SXM4-40GB (UUID: GPU-5d5ba0d6)
GPU 1: NVIDIA A100-SXM4-40GB (UUID: GPU-91d9b1c6)
  MIG 3g.20gb     Device  0: (UUID: MIG-8b0e3b1a)
  MIG 2g.10gb     Device  1: (UUID: MIG-0cd1d7a3)
GPU 2: NVIDIA A100-SXM4-40GB (UUID: GPU-fdc9aa05)
"""


def engine_of(**workers: str) -> Engine:
    with open_engine(WorkerSettings(**workers), Messages()) as engine:
        return engine


def test_the_work_is_done_in_this_process_unless_workers_are_asked_for():
    assert isinstance(engine_of(), Serial)
    assert isinstance(engine_of(jobs="1"), Serial)
    assert engine_of(jobs="3").workers == 3
    assert engine_of(jobs="auto").workers == processors()


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5", "", "1000000", "²"])
def test_an_invalid_number_of_workers_is_refused(number):
    with pytest.raises(UsageError, match="--jobs"):
        engine_of(jobs=number)


def test_a_gpu_that_is_divided_is_used_by_its_parts():
    assert devices.listed(LISTED) == ["GPU-5d5ba0d6", "MIG-8b0e3b1a", "MIG-0cd1d7a3", "GPU-fdc9aa05"]
    assert devices.listed("No devices were found\n") == []


def test_the_gpus_that_the_user_chose_are_all_there_are(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3, GPU-5d5ba0d6 ,MIG-8b0e3b1a")
    with open_engine(WorkerSettings(), Messages(), device="all") as engine:
        assert isinstance(engine, WorkerProcesses)
        reports = engine.map(Toy(), [ToyJob(number, "self_description") for number in range(3)], silence())
    assert {each["CUDA_VISIBLE_DEVICES"] for each in reports} == {"3", "GPU-5d5ba0d6", "MIG-8b0e3b1a"}


def test_every_gpu_of_a_machine_without_one_is_an_error(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(ConfigurationError, match="no GPU"):
        devices.every_gpu()
    assert status_of("score", "--device", "all", "-m", "random", "-O", "out", "in") == 78


def silence() -> terminal.Progress:
    return terminal.silent()


def test_ray_that_is_not_installed_is_named(monkeypatch, capfd):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in ("ray", "prune_cli.engines.ray.actors", "prune_cli.engines.ray.cluster"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    assert status_of("score", "--engine", "ray", "-m", "random", "-O", "out", "in") == 78
    assert "needs the package ray, which is not installed; pip install 'prune-cli[ray]'" in (
        capfd.readouterr().err
    )


def test_a_cluster_of_this_machine_has_a_token_of_its_own(monkeypatch):
    monkeypatch.setattr(os, "environ", {})
    monkeypatch.delitem(sys.modules, "ray", raising=False)
    ray.prepare("head:6379")
    assert "RAY_AUTH_TOKEN" not in os.environ
    ray.prepare(None)
    assert len(os.environ["RAY_AUTH_TOKEN"]) == 64
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


# --- The status file ---


def test_the_status_file_tells_how_far_a_run_is_and_how_it_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "PERIOD", 0.05)
    path = tmp_path / "status.json"
    states = []
    with open_engine(WorkerSettings(status_file=str(path)), Messages()) as engine:
        bar = silence()
        bar.expect(8)
        for _ in engine.each(Toy(), [ToyJob(number, "self_description") for number in range(4)], bar):
            states.append(json.loads(path.read_bytes()))
    end = json.loads(path.read_bytes())
    assert [state["state"] for state in states] == ["running"] * 4
    assert 0 < states[-1]["parts_done"] < 4
    assert states[-1]["seconds_left"] > 0
    assert end.items() >= {"state": "done", "parts_done": 4, "parts": 4, "done": 8, "of": 8}.items()
    assert end["rate"] == pytest.approx(8 / end["seconds"], rel=0.01)


def test_the_status_file_tells_of_a_run_that_failed(tmp_path):
    path = tmp_path / "status.json"
    with (
        pytest.raises(ZeroDivisionError),
        open_engine(WorkerSettings(status_file=str(path)), Messages()) as engine,
    ):
        engine.map(Toy(), [ToyJob(0), ToyJob(1, "divide_by_zero")], silence())
    assert json.loads(path.read_bytes())["state"] == "failed"


def test_a_status_file_that_cannot_be_written_is_an_error_before_the_work_begins(tmp_path):
    with (
        pytest.raises(CannotCreateError),
        open_engine(WorkerSettings(status_file=str(tmp_path / "no" / "status")), Messages()),
    ):
        raise AssertionError
