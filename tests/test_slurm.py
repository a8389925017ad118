"""The Slurm recipe on a real Slurm, whose only node is this machine. Needs munge and Slurm's daemons."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from .conftest import PATIENCE, ROOT, lines, records, zstd

TOOLS = ("munged", "slurmctld", "slurmd", "sbatch")
SYSTEM = f"{os.environ['PATH']}:/usr/sbin"
# Nothing of it needs a control group or another machine; its two GPUs are devices that every system has.
CONFIGURATION = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthInfo=socket={folder}/munge.socket
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
GresTypes=gpu
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 Gres=gpu:2
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
DEVICES = "Name=gpu File=/dev/null\nName=gpu File=/dev/zero\n"


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


@pytest.fixture
def environment(tmp_path):
    """The environment of a shell on the login node of a cluster."""
    missing = [tool for tool in TOOLS if shutil.which(tool, path=SYSTEM) is None]
    if missing or os.geteuid():
        pytest.skip(f"needs root and Slurm: {', '.join(missing)} not installed")
    host = socket.gethostname().partition(".")[0]
    configuration = tmp_path / "slurm.conf"
    text = CONFIGURATION.format(host=host, folder=tmp_path, ports=free_ports(2))
    configuration.write_text(text)
    (tmp_path / "gres.conf").write_text(DEVICES)
    for name in ("state", "spool", "bin"):
        (tmp_path / name).mkdir()
    command = tmp_path / "bin" / "prune-cli"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m prune_cli "$@"\n')
    command.chmod(0o755)
    key = tmp_path / "key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    munge = [f"--{name}={tmp_path}/munge.{name.partition('-')[0]}" for name in ("socket", "pid-file")]
    munge += [f"--log-file={tmp_path}/log", f"--seed-file={tmp_path}/seed", f"--key-file={key}"]
    environment = {
        **os.environ,
        "SLURM_CONF": str(configuration),
        "PATH": f"{tmp_path}/bin:{SYSTEM}",
        "PYTHONPATH": str(ROOT),
    }
    with ExitStack() as stack:
        daemons: list[list[object]] = [
            ["munged", "--force", "--foreground", *munge],
            ["slurmctld", "-D", "-f", configuration],
            ["slurmd", "-D", "-f", configuration, "-N", host],
        ]
        for daemon in daemons:
            stack.enter_context(running(daemon, environment))
        until(lambda: " idle " in said("sinfo", environment))
        yield environment


@contextmanager
def running(command: list[object], environment: dict[str, str]) -> Iterator[None]:
    """A daemon that ends with the block."""
    program = str(shutil.which(str(command[0]), path=SYSTEM))
    nowhere = subprocess.DEVNULL
    words = [program, *map(str, command[1:])]
    with subprocess.Popen(words, env=environment, stdout=nowhere, stderr=nowhere) as process:
        yield
        process.terminate()


def said(command: str, environment: dict[str, str]) -> str:
    words = command.split()
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False).stdout


def until(condition) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.5)


@pytest.mark.sweep
def test_an_array_of_a_real_slurm_scores_and_ranks(tmp_path, environment):
    paths = [tmp_path / f"{name}.jsonl.zst" for name in "abcde"]
    for number, path in enumerate(paths):
        path.write_bytes(zstd(lines([{"id": f"{number}-{at}", "text": "lorem"} for at in range(10)])))
    recipe = [ROOT / "shell" / "score-array.slurm", "scored", "-m", "random", *paths]
    subprocess.run(recipe, cwd=tmp_path, env={**environment, "PARTS": "3"}, check=True)
    until(lambda: not said("squeue --noheader", environment))
    logs = "".join(log.read_text() for log in sorted(Path(tmp_path).glob("slurm-*.out")))
    assert logs == ""
    ranked = records((tmp_path / "scored" / "ranked.jsonl.zst").read_bytes())
    assert [record["rank"] for record in ranked] == list(range(50))
    assert len({record["id"] for record in ranked}) == 50
