"""score with workers: the same parts as one process writes, whoever dies meanwhile."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from ..conftest import PATIENCE, ROOT, command, lines, status_of, zstd

FILES = 6


@pytest.fixture
def corpus(tmp_path) -> list[Path]:
    paths = [tmp_path / f"{name}.jsonl.zst" for name in "abcdef"[:FILES]]
    for number, path in enumerate(paths):
        records = [{"id": f"{number}-{at}", "text": "lorem ipsum " * (at % 9)} for at in range(3000)]
        path.write_bytes(zstd(lines(records)))
    return paths


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.zst")}


def test_workers_write_the_same_files_as_one_process(corpus, tmp_path):
    summaries = []
    for folder, options in (("one", ()), ("two", ("-j", 2))):
        summary = tmp_path / f"{folder}.json"
        arguments = ("-m", "random", "--summary", summary, "-O", tmp_path / folder, *options, *corpus)
        assert status_of("score", *arguments) == 0
        summaries.append(json.loads(summary.read_bytes()))
    assert content(tmp_path / "one") == content(tmp_path / "two")
    assert len(content(tmp_path / "one")) == FILES
    times = ("seconds", "tokens_per_second")
    one, two = ({name: each[name] for name in each if name not in times} for each in summaries)
    assert one == two


def test_skipped_records_of_all_workers_are_status_3(corpus, tmp_path, capfd):
    corpus[1].write_bytes(zstd(b"oops\n" + lines([{"id": 1, "text": "a"}])))
    arguments = ("score", "-m", "random", "-j", 2, "-O", tmp_path / "out", "--skip-bad", *corpus)
    assert status_of(*arguments) == 3
    said = capfd.readouterr().err
    assert "b.jsonl.zst:1: not JSON" in said
    assert "prune-cli score[" in said


def test_a_bad_file_ends_all_workers_with_its_status(corpus, tmp_path, capfd):
    corpus[1].write_bytes(zstd(b"oops\n"))
    arguments = ("score", "-m", "random", "-j", 2, "-O", tmp_path / "out", *corpus)
    assert status_of(*arguments) == 65
    assert "prune-cli score: " in (said := capfd.readouterr().err)
    assert "b.jsonl.zst:1: not JSON" in said
    assert {path.suffix for path in (tmp_path / "out").iterdir()} <= {".zst", ".json"}


def children(pid: int) -> list[int]:
    """The worker processes of a run: its children that are no resource tracker."""
    pids = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(pid) for pid in pids if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def kill_at_random(corpus, folder: Path, *, seed: int, kills: int) -> int:
    """Run score, kill workers and now and then the run itself, until it is done; returns the kills."""
    dice = random.Random(seed)
    done = 0
    while True:
        arguments = ("score", "-q", "-m", "random", "-j", 2, "-O", folder, *corpus)
        with subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.PIPE) as process:
            while process.poll() is None and done < kills:
                time.sleep(dice.uniform(0.1, 0.7))
                try:
                    victims = children(process.pid)
                    victim = process.pid if dice.random() < 0.2 or not victims else dice.choice(victims)
                    os.kill(victim, signal.SIGKILL)
                    done += 1
                except (ProcessLookupError, FileNotFoundError):
                    continue
            _, said = process.communicate(timeout=PATIENCE)
        if process.returncode == 0:
            return done
        # The run itself was killed, or a part met three deaths: the same command continues.
        assert process.returncode in (-signal.SIGKILL, 75), said.decode()


def hold_to_one_process(corpus, tmp_path, *, seed: int, kills: int) -> None:
    assert status_of("score", "-m", "random", "-O", tmp_path / "one", *corpus) == 0
    kill_at_random(corpus, tmp_path / "killed", seed=seed, kills=kills)
    assert content(tmp_path / "killed") == content(tmp_path / "one")


def test_no_record_is_lost_or_doubled_when_workers_are_killed(corpus, tmp_path):
    hold_to_one_process(corpus, tmp_path, seed=1, kills=4)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(10))
def test_no_record_is_lost_or_doubled_whoever_is_killed_at_random(seed, corpus, tmp_path):
    hold_to_one_process(corpus, tmp_path, seed=seed, kills=12)
