"""The recipes in shell/ run as they are: cron, systemd, Slurm, Ray, GPUs, torchrun, GNU parallel."""

import glob
import json
import os
import pathlib
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from .conftest import PATIENCE, ROOT, lines, records, zstd

SHELL = ROOT / "shell"
STARTS = (b"#!/usr/bin/env bash", b"# shellcheck shell=bash")
SCRIPTS = sorted(
    path
    for path in (*SHELL.rglob("*"), ROOT / ".ci" / "run")
    if path.is_file() and path.read_bytes().startswith(STARTS)
)
CORPUS = [{"id": f"doc-{number}", "text": "lorem ipsum " * (number % 7 + 1)} for number in range(30)]
ALL = [record["id"] for record in CORPUS]
RANDOM = ("-m", "random")  # numbers that want no model
COMMANDS = {"prune-cli": "-m prune_cli", "torchrun": "-m torch.distributed.run", "python3": ""}
SLURM = {  # runs the tasks of an array one after another, and then what waits for them
    "srun": 'exec "$@"',
    "sbatch": """
        echo "$@" >>"$QUEUE"
        if [ "$3" = --wrap ]; then sh -c "$4"; exit; fi
        echo "17;cluster"
        shift
        parts=${1#--array=1-}
        shift
        for number in $(seq "$parts"); do
            SLURM_ARRAY_JOB_ID=17 SLURM_ARRAY_TASK_ID=$number SLURM_ARRAY_TASK_COUNT=$parts "$@" >&2
        done
    """,
}


def needs(tool):
    return pytest.mark.skipif(shutil.which(tool) is None, reason=f"{tool} is not installed")


@pytest.fixture
def home(tmp_path):
    """A folder with `prune-cli` where pip would put it for one user, and three files of a corpus."""
    for name, module in COMMANDS.items():
        install(tmp_path, name, f'exec "{sys.executable}" {module} "$@"')
    (tmp_path / "corpus").mkdir()
    for number, name in enumerate("abc"):
        (tmp_path / "corpus" / f"{name}.jsonl.zst").write_bytes(
            zstd(lines(CORPUS[number * 10 : number * 10 + 10]))
        )
    return tmp_path


def install(home, name, script):
    path = home / ".local" / "bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def environment(home):
    return {**os.environ, "PATH": f"{home}/.local/bin:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}


@pytest.fixture
def recipe(home, environment):
    """Run a recipe, hold it to its exit status and return what it said, on either stream."""

    def run(name, *arguments, status=0, **settings):
        done = subprocess.run(
            [SHELL / name, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE,
            cwd=home,
            env=environment | settings,
        )
        assert done.returncode == status, done.stdout.decode()
        return done.stdout.decode()

    return run


def read(*paths):
    return [record for path in paths for record in records(path.read_bytes())]


def identities(*paths):
    return sorted((record["id"] for record in read(*paths)), key=lambda name: int(name.removeprefix("doc-")))


@needs("shellcheck")
def test_every_script_is_shellcheck_clean():
    done = subprocess.run(["shellcheck", *SCRIPTS], capture_output=True, text=True)
    assert done.stdout == ""


@pytest.mark.parametrize(
    "name",
    [
        "score-nightly",
        "score-array.slurm",
        "score-on-every-gpu",
        "score-in-parallel",
        "score-on-ray",
        "train-on-every-gpu",
        "eval-tasks",
    ],
)
def test_a_recipe_without_arguments_prints_its_usage(name, recipe):
    assert recipe(name, status=2).startswith(f"usage: {name} ")


def test_eval_tasks_explains_itself_and_refuses_before_it_makes_anything(home, recipe):
    for word in ("DIRECTORY", "TASKS", "RUN", "BASE", "OPTION"):
        assert f"\n  {word} " in recipe("eval-tasks", "--help")
    assert recipe("eval-tasks", "out", "", "corpus", "corpus", status=2).startswith("usage: ")
    for absent in ("run", "run/", "./run", "/no/run", "a/b/run"):
        said = recipe("eval-tasks", "out", "piqa", "corpus", absent, status=66)
        assert said.startswith(f"eval-tasks: {absent}: is not a folder; ")
    said = recipe("eval-tasks", "out", "piqa", "corpus", "owner/name", status=78, PATH="/usr/bin:/bin")
    assert said == "eval-tasks: lm_eval is not installed; pip install lm_eval accelerate\n"
    assert not (home / "out").exists()


def test_a_good_night_is_silent_and_the_next_scores_only_new_files(home, recipe):
    assert recipe("score-nightly", "scored", *RANDOM, *home.glob("corpus/[ab].*")) == ""
    first = (home / "scored" / "a.jsonl.zst").stat().st_ino
    assert recipe("score-nightly", "scored", *RANDOM, *home.glob("corpus/*")) == ""
    assert identities(*home.glob("scored/*.zst")) == ALL
    assert (home / "scored" / "a.jsonl.zst").stat().st_ino == first


def test_a_failed_night_says_why(home, recipe):
    (home / "corpus" / "d.jsonl").write_text("oops\n")
    assert "corpus/d.jsonl:1: not JSON" in recipe(
        "score-nightly", "scored", *RANDOM, "corpus/a.jsonl.zst", "corpus/d.jsonl", status=65
    )
    assert identities(home / "scored" / "a.jsonl.zst") == ALL[:10]


def test_warnings_of_a_good_night_are_logged_but_not_mailed(home, recipe):
    (home / "corpus" / "d.jsonl.zst").write_bytes(zstd(lines(CORPUS), write_checksum=False))
    assert recipe("score-nightly", "scored", *RANDOM, "corpus/d.jsonl.zst") == ""
    assert "warning: " in (home / "scored" / "score-nightly.log").read_text()


def test_a_night_that_overlaps_the_last_one_ends_silently(home, environment, recipe):
    os.mkfifo(home / "slow.jsonl")
    command = [SHELL / "score-nightly", "scored", *RANDOM, "slow.jsonl"]
    with (
        open(os.open(home / "slow.jsonl", os.O_RDWR), "wb") as slow,
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=home, env=environment
        ) as night,
    ):
        wait_for(home / "scored" / "slow.jsonl.zst.partial")
        assert recipe("score-nightly", "scored", *RANDOM, "corpus/a.jsonl.zst", status=75) == ""
        slow.write(lines(CORPUS))
        slow.close()
        assert night.communicate(timeout=PATIENCE) == (b"", None)
    assert night.returncode == 0
    assert identities(*home.glob("scored/*.zst")) == ALL


def wait_for(path):
    deadline = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


UNITS = [SHELL / "score-nightly.service", SHELL / "score-nightly.timer"]


@needs("systemd-analyze")
def test_systemd_understands_the_units(tmp_path):
    verify = ["systemd-analyze", "verify", "--user", "--man=no", *UNITS]
    done = subprocess.run(
        verify, capture_output=True, text=True, env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_units_command_scores_with_the_default_model(home):
    """Which needs no network and no home."""
    [start] = [
        line.removeprefix("ExecStart=")
        for line in UNITS[0].read_text().splitlines()
        if line.startswith("ExecStart=")
    ]
    environment = {"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        shlex.split(start.replace("%h", str(home))),
        capture_output=True,
        timeout=PATIENCE,
        env=environment,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert identities(*home.glob("scored/*.zst")) == ALL
    assert all(record["perplexity"] > 1 for record in read(home / "scored" / "a.jsonl.zst"))


def test_a_slurm_array_scores_parts_and_a_dependent_job_ranks_them(home, recipe):
    for name, script in SLURM.items():
        install(home, name, script)
    assert (
        recipe(
            "score-array.slurm",
            "a folder",
            *RANDOM,
            *home.glob("corpus/*"),
            PARTS="3",
            QUEUE=str(home / "queue"),
        )
        == ""
    )
    array, ranking = (home / "queue").read_text().splitlines()
    assert array.startswith("--parsable --array=1-3 ")
    assert ranking.startswith("--dependency=afterok:17 ")
    assert len(list(home.glob("a folder/[abc].jsonl.zst"))) == 3
    ranked = read(home / "a folder" / "ranked.jsonl.zst")
    assert [record["rank"] for record in ranked] == list(range(30))
    assert {record["id"] for record in ranked} == set(ALL)


def test_a_stopped_slurm_task_is_requeued(home, recipe):
    install(home, "srun", "exit 75")
    install(home, "scontrol", 'echo "$@"')
    task = {"SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "2", "SLURM_ARRAY_TASK_COUNT": "3"}
    assert (
        recipe("score-array.slurm", "scored", *RANDOM, "corpus/a.jsonl.zst", status=75, **task)
        == "requeue 17_2\n"
    )


def test_one_process_a_gpu_scores_shards_and_fails_if_one_fails(home, recipe):
    assert recipe("score-on-every-gpu", "scored", *RANDOM, *home.glob("corpus/*"), PROCESSES="2") == ""
    assert {path.name for path in home.glob("scored/*.zst")} == {f"{name}.jsonl.zst" for name in "abc"}
    assert (home / "scored" / "manifest.json").exists()
    assert identities(*home.glob("scored/*.zst")) == ALL
    (home / "bad.jsonl").write_bytes(b"oops\n")
    assert "bad.jsonl:1: not JSON" in recipe(
        "score-on-every-gpu", "scored", *RANDOM, "bad.jsonl", PROCESSES="2", status=65
    )


def test_torchrun_trains_in_two_processes(home, recipe):
    (home / "shape.toml").write_text("layers = 1\nwidth = 16\nheads = 2\ncontext = 32\nbatch_tokens = 64\n")
    options = ("--config", "shape.toml", "--train-tokenizer", 260, "--steps", 4, "--quiet")
    assert recipe("train-on-every-gpu", "-o", "run", *options, *home.glob("corpus/*"), PROCESSES="2") == ""
    assert json.loads((home / "run" / "train.json").read_text())["machine"]["processes"] == 2


def test_each_gpu_gets_a_process(home, recipe):
    install(home, "nvidia-smi", "printf '%s\\n' 0 1")
    install(home, "prune-cli", 'echo "$CUDA_VISIBLE_DEVICES $@"')
    install(home, "torchrun", 'echo "$@"')
    assert sorted(recipe("score-on-every-gpu", "scored", "x").splitlines()) == [
        "0 score --shard 1/2 --resume -O scored x",
        "1 score --shard 2/2 --resume -O scored x",
    ]
    assert (
        recipe("score-on-every-gpu", "scored", "x", CUDA_VISIBLE_DEVICES="3")
        == "3 score --shard 1/1 --resume -O scored x\n"
    )
    assert (
        recipe("train-on-every-gpu", "-o", "run", "x")
        == "--standalone --nproc-per-node gpu -m prune_cli train --resume -o run x\n"
    )


@pytest.mark.parametrize("name", ["score-on-every-gpu", "train-on-every-gpu"])
def test_without_a_gpu_the_cpu_is_suggested(name, home, recipe):
    install(home, "nvidia-smi", "exit 9")
    assert f"{name}: no GPU found; PROCESSES=N " in recipe(name, "-o", "run", "corpus/a.jsonl.zst", status=78)


@needs("parallel")
def test_gnu_parallel_scores_every_file_despite_a_bad_one(home, recipe):
    (home / "corpus" / "b b.jsonl").write_bytes(b"oops\n")
    said = recipe(
        "score-in-parallel",
        "a folder",
        *RANDOM,
        ":::",
        *sorted(home.glob("corpus/*")),
        status=1,
        PROCESSES="2",
    )
    assert "b b.jsonl:1: not JSON" in said
    assert identities(*home.glob("a folder/*.zst")) == ALL


SSHD = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/key
AuthorizedKeysFile {folder}/key.pub
StrictModes no
UsePAM no
PidFile none
SetEnv PYTHONPATH={root}
"""
SSH = """
Host node
HostName 127.0.0.1
Port {port}
IdentityFile {folder}/key
StrictHostKeyChecking no
UserKnownHostsFile /dev/null
LogLevel ERROR
"""


@pytest.fixture
def ray_settings(tmp_path):
    """The environment in which the host `node` is this machine, reached by an SSH server of this test."""
    pytest.importorskip("ray", reason="ray is not installed: it has no wheel for some versions of Python")
    server = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if server is None:
        pytest.skip("sshd is not installed")
    if os.geteuid() == 0:
        os.makedirs("/run/sshd", exist_ok=True)  # it insists
    port = free_port()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / "key"], check=True)
    for name, text in (("sshd", SSHD), ("ssh", SSH)):
        (tmp_path / name).write_text(text.format(port=port, folder=tmp_path, root=ROOT))
    with subprocess.Popen([server, "-D", "-e", "-f", tmp_path / "sshd"], stderr=subprocess.DEVNULL) as sshd:
        yield {
            "HOSTS": "node",
            "SSH": f"ssh -F {tmp_path}/ssh",
            "PORT": str(free_port()),
            "CPUS": "1",
            "PATH": f"{tmp_path}/.local/bin:{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
        }
        sshd.terminate()


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def hold_to_its_end(port):
    """Nothing of a cluster is left: every process of it has the address of the head among its arguments."""
    deadline = time.monotonic() + 60
    while left := [path for path in glob.glob("/proc/[0-9]*/cmdline") if f":{port}" in words_of(path)]:
        assert time.monotonic() < deadline, [words_of(path) for path in left]
        time.sleep(0.2)


def words_of(path):
    try:
        return pathlib.Path(path).read_text(errors="replace")
    except OSError:
        return ""


def test_a_ray_cluster_lives_as_long_as_its_run(home, recipe, ray_settings):
    (home / "corpus" / "d.jsonl").write_bytes(b"oops\n" + lines(CORPUS))
    arguments = ("scored", *RANDOM, "--skip-bad", *sorted(home.glob("corpus/*")))
    said = recipe("score-on-ray", *arguments, status=3, **ray_settings)
    assert "d.jsonl:1: not JSON" in said
    assert identities(*home.glob("scored/[abc]*.zst")) == ALL
    assert (home / "scored" / "manifest.json").exists()
    hold_to_its_end(ray_settings["PORT"])


@pytest.mark.sweep
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
def test_a_ray_cluster_ends_with_a_run_that_is_stopped(number, home, environment, ray_settings):
    os.mkfifo(home / "slow.jsonl")
    command = [SHELL / "score-on-ray", "scored", *RANDOM, "slow.jsonl", "corpus/a.jsonl.zst"]
    with subprocess.Popen(command, cwd=home, env=environment | ray_settings) as process:
        wait_for(home / "scored" / "a.jsonl.zst")
        process.send_signal(number)
        process.wait(PATIENCE)
    assert process.returncode in (143, -signal.SIGKILL)
    if number is signal.SIGKILL:
        # The run itself goes on, as after `nohup`, and the cluster with it.
        with open(home / "slow.jsonl", "wb") as slow:
            slow.write(lines(CORPUS))
        wait_for(home / "scored" / "manifest.json")
    hold_to_its_end(ray_settings["PORT"])
