"""Workers on a Ray cluster: every job once, in order, whoever dies; what is refused before work begins."""

import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from prune_cli.engines import ray as ray_engine
from prune_cli.engines.crew import TRIES, WorkerBug
from prune_cli.engines.watch import Watch
from prune_cli.engines.work import Places
from prune_cli.errors import ConfigurationError, DataError, TryAgainError, UsageError
from prune_cli.settings.streams import Messages
from prune_cli.terminal import silent

from ..conftest import PATIENCE, ROOT, command, lines, status_of, zstd
from .toy import Toy, ToyJob

pytest.importorskip("ray", reason="ray is not installed: it has no wheel for some versions of Python")
ray_engine.prepare("a cluster that runs")

from prune_cli.engines.ray import cluster as cluster_module  # noqa: E402
from prune_cli.engines.ray.actors import RayActors, actors, check_own_node, reason_of  # noqa: E402
from prune_cli.engines.ray.cluster import HeadNode, connected  # noqa: E402
from prune_cli.engines.ray.visible import Question  # noqa: E402

from .ray_nodes import Nodes  # noqa: E402

# Ray leaves files open, and its own deprecations are not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")
RANDOM = ("-m", "random")
SOON = 100.0  # seconds


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """A cluster of two nodes on this machine, with a CPU each. Ray takes the second one's word for a GPU."""
    # The nodes of a cluster start elsewhere than the command, as they do in life.
    nodes = Nodes(tmp_path_factory.mktemp("head"), num_gpus=1)
    yield nodes
    nodes.shutdown()


@pytest.fixture
def address(nodes) -> str:
    return nodes.address


@pytest.fixture(scope="module")
def cluster(nodes):
    """One connection for all tests: it takes two seconds."""
    with connected(nodes.address, None) as cluster:
        yield cluster


@pytest.fixture
def workers(cluster):
    """Two workers, one on each node."""
    with RayActors(cluster, 2, Messages(), gpus=False) as engine:
        yield engine


@pytest.fixture
def is_connected(cluster, monkeypatch):
    """Commands in this process use its connection."""
    monkeypatch.setattr(cluster_module, "connected", lambda address, workers: nullcontext(cluster))


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


def test_a_job_whose_node_dies_is_done_by_another(nodes, cluster, workers, tmp_path, caplog):
    assert hold_two_jobs(workers, tmp_path / "killed", nodes.kill_raylet) == [0, 1]
    assert workers.watch.tries == 1
    # Either the actor says so, or it ended before it could.
    assert any(f"its {what} is gone" in caplog.text for what in ("node", "actor"))
    # A node that comes back is used again.
    nodes.add(num_gpus=1)
    assert hold_two_jobs(workers, tmp_path / "both") == [0, 1]
    # The tests that follow count nodes, and Ray takes three seconds to notice that one is dead.
    until(lambda: cluster.total("GPU") == 1)


def hold_two_jobs(workers: RayActors, folder: Path, kill: Callable[[], None] | None = None) -> list[int]:
    """Have two jobs done, of which both begin before one ends, or before the node of one is killed."""
    folder.mkdir()
    jobs = [ToyJob(number, "hold", str(folder)) for number in range(2)]

    def meddle() -> None:
        until(lambda: all(job.mark.exists() for job in jobs))
        if kill is not None:
            kill()
            until(lambda: any(job.mark.with_suffix(".stopped").exists() for job in jobs))
        (folder / "released").touch()

    thread = threading.Thread(target=meddle)
    thread.start()
    reports = workers.map(Toy(), jobs, silent())
    thread.join()
    return reports


def test_a_worker_with_a_gpu_sees_the_one_that_ray_gives_it(cluster):
    with actors(cluster, None, Messages(), device="all", watch=Watch()) as engine:
        assert engine.workers == 1
        [seen] = engine.map(Toy(), [ToyJob(0, "self_description")], silent())
    assert seen["CUDA_VISIBLE_DEVICES"] == "0"


# --- Commands ---


def on_ray(address: str, *arguments: object) -> tuple[object, ...]:
    # Without a model there is a worker for each CPU, although there is a GPU.
    return ("score", "--engine", "ray", "--ray-address", address, *RANDOM, *arguments)


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[bytes]]:
    """A driver of its own, which does not outlive a test that fails."""
    with subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.PIPE) as driver:
        try:
            yield driver
        finally:
            driver.kill()


def test_score_writes_the_same_files_and_messages_on_a_cluster(
    address, is_connected, corpus, tmp_path, capfd, monkeypatch
):
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


def test_rank_on_a_cluster_gives_the_bytes_of_one_process(address, is_connected, corpus, tmp_path):
    assert status_of("score", *RANDOM, "-O", tmp_path / "scored", *corpus) == 0
    rank = ("rank", "-k", "random", *sorted((tmp_path / "scored").glob("*.zst")))
    assert status_of(*rank, "-o", tmp_path / "one.jsonl") == 0
    there = ("--engine", "ray", "--ray-address", address)
    assert status_of(*rank, *there, "-T", tmp_path, "-o", tmp_path / "two.jsonl") == 0
    assert (tmp_path / "one.jsonl").read_bytes() == (tmp_path / "two.jsonl").read_bytes()


def test_a_run_whose_driver_was_killed_is_continued(address, is_connected, corpus, tmp_path):
    assert status_of("score", *RANDOM, "-O", tmp_path / "one", *corpus) == 0
    arguments = on_ray(address, "-j", 1, "-O", tmp_path / "two", *corpus)
    with started(*arguments) as driver:
        until(lambda: content(tmp_path / "two") or driver.poll() is not None)
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
    with started(*arguments) as driver:
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


def test_gpus_that_a_cluster_does_not_have_are_an_error(cluster, monkeypatch):
    for device, asked in (("cuda:1", UsageError), ("cuda:0", UsageError)):
        with pytest.raises(asked, match=f"--device {device}: on a Ray cluster, Ray chooses the GPUs; say "):
            open_actors(cluster, device)
    monkeypatch.setattr(type(cluster), "total", lambda self, kind: 0)
    for device in ("all", "cuda"):
        with pytest.raises(ConfigurationError, match=f"--device {device}: the Ray cluster has no GPU; leave"):
            open_actors(cluster, device)
    with pytest.raises(ConfigurationError, match=r"--engine ray: the Ray cluster has no CPU; add nodes"):
        open_actors(cluster, None)


def open_actors(cluster, device: str | None) -> None:
    with actors(cluster, None, Messages(), device=device, watch=Watch()):
        pass


def test_the_death_of_a_node_is_told_in_a_few_words():
    assert (
        reason_of(RuntimeError("The actor died because its node has died. Node Id: 17")) == "its node is gone"
    )
    with pytest.raises(TryAgainError, match="the Ray node of this machine is gone; start Ray on it again"):
        check_own_node(RuntimeError("The actor is dead because its owner has died. Owner Id: 17"))


def test_a_head_that_does_not_answer_any_more_is_lost(monkeypatch):
    monkeypatch.setattr(cluster_module, "LOOK", 0.001)
    monkeypatch.setattr(cluster_module, "LOST", threading.Event())
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        head = HeadNode(f"127.0.0.1:{port}")
        time.sleep(0.002)
        assert head.answers()
    time.sleep(0.002)
    assert not head.answers()
    assert ray_engine.has_settled()
    monkeypatch.setattr(cluster_module, "GONE", 0)
    time.sleep(0.002)
    with pytest.raises(TryAgainError, match=f"the head of the Ray cluster, 127.0.0.1:{port}, is gone; start"):
        head.answers()
    # The process ends without a word of Ray.
    assert not ray_engine.has_settled()


def test_all_nodes_that_are_gone_are_an_error(cluster, monkeypatch):
    monkeypatch.setattr("prune_cli.engines.ray.actors.GONE", 0)
    monkeypatch.setattr(type(cluster), "total", lambda self, kind: 0)
    gone = pytest.raises(TryAgainError, match="all nodes of the Ray cluster are gone; start them again")
    with RayActors(cluster, 1, Messages(), gpus=False) as engine, gone:
        engine._check_cluster([])
