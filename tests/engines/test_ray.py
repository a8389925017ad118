"""Workers on a Ray cluster: every job once, in order, whoever dies; what is refused before work begins."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from prune_cli.engines import ray as ray_engine
from prune_cli.engines.crew import TRIES, WorkerBug
from prune_cli.engines.work import Places
from prune_cli.errors import ConfigurationError, DataError, TryAgainError
from prune_cli.settings.streams import Messages
from prune_cli.terminal import silent

from ..conftest import PATIENCE, ROOT, command, lines, status_of, zstd
from .toy import Toy, ToyJob

pytest.importorskip("ray", reason="ray is not installed: it has no wheel for some versions of Python")
ray_engine.prepare("a cluster that runs")

from ray.cluster_utils import Cluster as LocalCluster  # noqa: E402

from prune_cli.engines.ray.actors import RayActors, reason_of  # noqa: E402
from prune_cli.engines.ray.cluster import connected  # noqa: E402
from prune_cli.engines.ray.visible import Question  # noqa: E402

# Ray leaves files open, and its own deprecations are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")
RANDOM = ("-m", "random")
SOON = 60.0


@pytest.fixture(scope="session")
def address(tmp_path_factory):
    """The address of a cluster of this machine, which runs as long as the tests."""
    there = tmp_path_factory.mktemp("head")
    before = os.getcwd()
    # The nodes of a cluster start elsewhere than the command, as they do in life.
    os.chdir(there)
    cluster = LocalCluster(
        initialize_head=True,
        head_node_args={"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80 << 20},
    )
    os.chdir(before)
    yield cluster.address
    cluster.shutdown()


@pytest.fixture
def workers(address):
    """Two workers on the cluster."""
    with connected(address, None) as cluster, RayActors(cluster, 2, Messages(), gpus=False) as engine:
        yield engine


@pytest.fixture
def corpus(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{name}.jsonl.zst" for name in "abcd"]
    for number, path in enumerate(paths):
        records = [{"id": f"{number}-{at}", "text": "lorem ipsum " * (at % 9)} for at in range(2000)]
        path.write_bytes(zstd(lines(records)))
    return paths


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.zst")}


def until(condition) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# --- Every job once, in order ---


def test_jobs_are_done_once_and_in_order_whoever_dies(workers, tmp_path, caplog):
    """One connection for all of these: each would take two seconds of its own."""
    jobs = [ToyJob(number, "sleep_longer_if_early") for number in range(20)]
    bar = silent()
    assert workers.map(Toy(), jobs, bar) == list(range(20))
    assert bar.done == 2 * len(jobs)

    # A worker sees what this process sees: its folder, and not the GPUs.
    seen = workers.map(Toy(), [ToyJob(number, "self_description") for number in range(2)], silent())
    assert {each["CUDA_VISIBLE_DEVICES"] for each in seen} == {""}

    bar = silent()
    jobs = [ToyJob(number, "die_once", str(tmp_path)) for number in range(3)]
    assert workers.map(Toy(), jobs, bar) == [0, 1, 4]
    assert (workers.watch.tries, bar.done) == (3, 6)
    assert "killed by SIGKILL: out of memory?): job 1 is tried again" in caplog.text

    jobs = [ToyJob(number, "kill_the_actor_once", str(tmp_path)) for number in range(2)]
    assert workers.map(Toy(), jobs, silent()) == [0, 1]
    assert "its actor is gone (ActorDiedError)): job 1 is tried again" in caplog.text


def test_a_job_that_kills_three_workers_is_named(workers, tmp_path):
    jobs = [ToyJob(0), ToyJob(1, "die_always", str(tmp_path)), ToyJob(2)]
    with pytest.raises(TryAgainError) as failure:
        workers.map(Toy(), jobs, silent())
    assert str(failure.value).startswith("job 1: its worker died 3 times (killed by SIGKILL: out of memory?)")
    assert jobs[1].mark.read_bytes() == b"x" * TRIES
    # The cluster is there for the next stage.
    with pytest.raises(DataError, match=r"web\.jsonl:7: not JSON; mend it"):
        workers.map(Toy(), [ToyJob(0, "find_bad_data")], silent())
    with pytest.raises(WorkerBug, match=r"return job\.number / 0"):
        workers.map(Toy(), [ToyJob(0, "divide_by_zero")], silent())


# --- Commands ---


def on_ray(address: str, *arguments: object) -> tuple[object, ...]:
    return ("score", "--engine", "ray", "--ray-address", address, *RANDOM, *arguments)


def test_score_writes_the_same_files_and_messages_on_a_cluster(address, corpus, tmp_path, capfd, monkeypatch):
    corpus[1].write_bytes(corpus[1].read_bytes() + zstd(b"oops\n"))
    monkeypatch.chdir(tmp_path)
    names = [path.name for path in corpus]
    assert status_of("score", *RANDOM, "--skip-bad", "-O", "one", *names) == 3
    expected = capfd.readouterr().err
    status = tmp_path / "status.json"
    assert status_of(*on_ray(address, "--skip-bad", "--status-file", status, "-O", "two", *names)) == 3
    assert content(tmp_path / "one") == content(tmp_path / "two")
    said = capfd.readouterr()
    # Relative paths are those of this process, and its workers say here what they have to say.
    assert "score[" in said.err
    strip = str.maketrans("", "", "[]0123456789")
    assert sorted(said.err.translate(strip).splitlines()) == sorted(expected.translate(strip).splitlines())
    assert said.out == ""
    assert json.loads(status.read_bytes()).items() >= {"state": "done", "parts_done": 4}.items()


def test_rank_on_a_cluster_gives_the_bytes_of_one_process(address, corpus, tmp_path):
    assert status_of("score", *RANDOM, "-O", tmp_path / "scored", *corpus) == 0
    rank = ("rank", "-k", "random", *sorted((tmp_path / "scored").glob("*.zst")))
    assert status_of(*rank, "-o", tmp_path / "one.jsonl") == 0
    there = ("--engine", "ray", "--ray-address", address)
    assert status_of(*rank, *there, "-T", tmp_path, "-o", tmp_path / "two.jsonl") == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_a_run_whose_driver_was_killed_is_continued(address, corpus, tmp_path):
    assert status_of("score", *RANDOM, "-O", tmp_path / "one", *corpus) == 0
    arguments = on_ray(address, "-j", 1, "-O", tmp_path / "two", *corpus)
    with subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.PIPE) as driver:
        until(lambda: content(tmp_path / "two") or driver.poll() is not None)
        driver.kill()
    assert status_of(*arguments) == 0
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert {path.name for path in (tmp_path / "two").iterdir() if not path.name.endswith(".zst")} == {
        "plan.json",
        "manifest.json",
    }


def test_a_signal_stops_a_run_in_order(address, tmp_path, corpus):
    """The workers wait for a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    arguments = on_ray(address, "-v", "-O", tmp_path / "out", tmp_path / "pipe.jsonl", corpus[0])
    with subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.PIPE) as driver:
        until(lambda: content(tmp_path / "out") or driver.poll() is not None)
        driver.send_signal(signal.SIGTERM)
        _, said = driver.communicate(timeout=PATIENCE)
    assert (driver.returncode, said) == (-signal.SIGTERM, b"")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"plan.json", "a.jsonl.zst"}


# --- What is refused ---


def test_a_path_that_a_node_does_not_see_is_an_error_before_work_begins(workers, tmp_path):
    (tmp_path / "a").write_text("here")
    seen = Places([str(tmp_path / "a"), str(tmp_path)], [str(tmp_path)])
    workers.check_places(seen)
    assert {path.name for path in tmp_path.iterdir()} == {"a"}
    with pytest.raises(ConfigurationError, match=r"node .*: /nowhere/model: is not there; use a folder that"):
        workers.check_places(Places(["/nowhere/model"], []))
    here = str(tmp_path)
    other = Question(here, (("a", 5), ("b", 1)), (str(tmp_path / "marker"),))
    assert other.answer() == [
        "a: is another file there",
        "b: no such file or directory",
        f"{tmp_path}: is another folder there",
    ]


def test_a_cluster_that_cannot_be_reached_is_status_69(corpus, tmp_path, capfd):
    for wrong, status in (("127.0.0.1:1", 69), ("127.0.0.1:x", 69), ("ray://127.0.0.1:10001", 2)):
        assert status_of(*on_ray(wrong, "-O", tmp_path / "out", *corpus)) == status
        assert f"--ray-address {wrong}: " in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_gpus_that_a_cluster_does_not_have_are_an_error(address, corpus, tmp_path, capfd):
    arguments = on_ray(address, "--device", "all", "-O", tmp_path / "out", *corpus)
    assert status_of(*arguments) == 78
    assert "--device all: the Ray cluster has no GPU" in capfd.readouterr().err


def test_the_death_of_a_node_is_told_in_a_few_words():
    assert (
        reason_of(RuntimeError("The actor died because its node has died. Node Id: 17")) == "its node is gone"
    )
