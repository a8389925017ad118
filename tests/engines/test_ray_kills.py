"""score on a Ray cluster while its processes are killed, and where a cluster of one machine listens."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from prune_cli.engines import ray as ray_engine

from ..conftest import PATIENCE, ROOT, command, lines, status_of, zstd

pytest.importorskip("ray", reason="ray is not installed: it has no wheel for some versions of Python")
ray_engine.prepare("a cluster that runs")

from .ray_nodes import Nodes  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")
RANDOM = ("score", "-q", "-m", "random", "--engine", "ray")
KILLS = 50
LISTENS = "0A"  # the state of a socket in /proc/net/tcp, whose addresses are hexadecimal
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}


@pytest.fixture
def corpus(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{number:02}.jsonl.zst" for number in range(24)]
    for number, path in enumerate(paths):
        records = [{"id": f"{number}-{at}", "text": "lorem ipsum " * (at % 9)} for at in range(20_000)]
        path.write_bytes(zstd(lines(records)))
    return paths


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.zst")}


def children(pid: int, name: bytes) -> list[int]:
    """The processes that a process has started, and whose arguments contain a name."""
    with suppress(OSError):
        tasks = Path(f"/proc/{pid}/task").iterdir()
        pids = [pid for task in tasks for pid in (task / "children").read_text().split()]
        return [int(pid) for pid in pids if name in Path(f"/proc/{pid}/cmdline").read_bytes()]
    return []


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


# --- Kills ---


class Killer:
    """Kills processes of a run on two nodes, and starts the second node again."""

    def __init__(self, nodes: Nodes, seed: int) -> None:
        self.nodes = nodes
        self.dice = random.Random(seed)
        self.kills = 0

    def kill(self, driver: int) -> None:
        """Kill an actor, a worker process, the second node or the driver, if there is one."""
        actors = [pid for raylet in self.nodes.raylets() for pid in children(raylet, b"ray::Host")]
        workers = [pid for actor in actors for pid in children(actor, b"spawn_main")]
        kind = self.dice.choice(("actor", "actor", "worker", "worker", "node", "driver"))
        victims = {"actor": actors, "worker": workers, "driver": [driver], "node": self.nodes.raylets()[1:]}
        if not workers or not victims[kind]:
            return
        with suppress(ProcessLookupError):
            os.kill(self.dice.choice(victims[kind]), signal.SIGKILL)
            self.kills += 1
        if kind == "node":
            self.nodes.add()


def run_and_kill(killer: Killer, arguments: list[object], kills: int) -> None:
    """Run a command until it is done, with some kills."""
    last = killer.kills + kills
    while True:
        with subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.PIPE) as driver:
            while driver.poll() is None and killer.kills < last:
                time.sleep(killer.dice.uniform(0.1, 1.0))
                killer.kill(driver.pid)
            _, said = driver.communicate(timeout=PATIENCE)
        if driver.returncode == 0:
            return
        # The driver was killed, or a part met three deaths: the same command continues.
        assert driver.returncode in (-signal.SIGKILL, 75), said.decode()


@pytest.mark.sweep
def test_no_record_is_lost_or_doubled_whoever_is_killed_on_a_cluster(corpus, tmp_path):
    assert status_of("score", "-m", "random", "-O", tmp_path / "one", *corpus) == 0
    nodes = Nodes(tmp_path)
    killer = Killer(nodes, seed=1)
    number = 0
    while killer.kills < KILLS:
        number += 1
        out = tmp_path / f"killed-{number}"
        run_and_kill(killer, [*RANDOM, "--ray-address", nodes.address, "-O", out, *corpus], kills=8)
        assert content(out) == content(tmp_path / "one")
        assert (out / "manifest.json").read_bytes() == (tmp_path / "one" / "manifest.json").read_bytes()
        print(f"{killer.kills} kills", flush=True)
    nodes.shutdown()


# --- A cluster of this machine ---


@contextmanager
def waiting_run(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run on a cluster of its own, which waits for a pipe after it has scored a file."""
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "a.jsonl").write_bytes(lines([{"text": "lorem ipsum"}]))
    inputs = (tmp_path / "a.jsonl", tmp_path / "pipe.jsonl")
    arguments = command(*RANDOM, "-j", 1, "-O", tmp_path / "out", *inputs)
    with subprocess.Popen(arguments, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as driver:
        try:
            until(lambda: content(tmp_path / "out") or driver.poll() is not None)
            yield driver
        finally:
            driver.kill()


def descendants(pid: int) -> list[int]:
    below = children(pid, b"")
    return [pid, *(each for child in below for each in descendants(child))]


def listening_addresses(pid: int) -> set[str]:
    """The addresses that a process listens on."""
    with suppress(OSError):
        links = [os.readlink(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
        sockets = {link[len("socket:[") : -1] for link in links if link.startswith("socket:[")}
        tables = [Path(f"/proc/{pid}/net/{name}").read_text().splitlines()[1:] for name in ("tcp", "tcp6")]
        rows = [row.split() for table in tables for row in table]
        return {row[1].partition(":")[0] for row in rows if row[3] == LISTENS and row[9] in sockets}
    return set()


@pytest.mark.sweep
def test_a_cluster_of_this_machine_listens_here_alone_and_ends_with_75_if_its_head_is_lost(tmp_path):
    with waiting_run(tmp_path) as driver:
        processes = descendants(driver.pid)
        addresses = {address for pid in processes for address in listening_addresses(pid)}
        assert addresses
        assert addresses <= LOOPBACK
        [head] = children(driver.pid, b"gcs_server")
        os.kill(head, signal.SIGKILL)
        out, said = driver.communicate(timeout=PATIENCE)
    assert (driver.returncode, out) == (75, b"")
    assert b"the head of the Ray cluster, 127.0.0.1:" in said
    assert len(said.splitlines()) == 1
    # Nothing of it is left.
    until(lambda: not any(b"ray" in Path(f"/proc/{pid}/comm").read_bytes() for pid in alive(processes)))


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}/comm").exists()]
