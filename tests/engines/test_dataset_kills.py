"""rank -O and slice -O are continued after any death, and give the bytes of an unbroken run."""

import sys
from pathlib import Path

import pytest

from prune_cli.engines import plan
from prune_cli.stages.rank import dataset as rank_datasets

from ..conftest import status_of
from .killing import kill_at_random
from .sharded import files

SIZE = 100_000  # bytes of text in a part
# The command with parts of that size. Workers take what the run tells them.
SMALL = f"""
import sys
from prune_cli import cli
from prune_cli.engines import plan
from prune_cli.stages.rank import dataset
plan.TARGET = dataset.PART = {SIZE}
sys.exit(cli.run(sys.argv[1:]))
"""
COMMANDS = {
    "rank": ("rank", "-q", "-k", "perplexity", "--by", "tokens"),
    "slice": ("slice", "-q", "-k", "perplexity", "--keep", "middle", "--frac", "0.7"),
}


def small(*arguments: object) -> list[str]:
    return [sys.executable, "-c", SMALL, *map(str, arguments)]


def whole(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.fixture
def paths(tmp_path) -> list[str]:
    corpus = [
        [
            {"perplexity": at * 7919 % 1013 / 7, "n_scored": at % 90, "text": "x" * (at % 300)}
            for at in range(4000)
        ]
        for _ in range(2)
    ]
    return files(tmp_path, corpus)


def hold(verb: str, paths: list[str], folder: Path, monkeypatch, *, seed: int, kills: int) -> int:
    """Returns the number of kills."""
    monkeypatch.setattr(plan, "TARGET", SIZE)
    monkeypatch.setattr(rank_datasets, "PART", SIZE)
    arguments = (*COMMANDS[verb], "-T", folder, *paths) if verb == "rank" else (*COMMANDS[verb], *paths)
    if not (folder / "one").exists():
        assert status_of(*arguments, "-O", folder / "one") == 0
    killed = folder / f"killed-{seed}"
    done = kill_at_random(*arguments, "-j", 2, "-O", killed, seed=seed, kills=kills, start=small)
    assert whole(killed) == whole(folder / "one")
    return done


@pytest.mark.parametrize("verb", [*COMMANDS])
def test_a_dataset_is_continued_after_kills(verb, paths, tmp_path, monkeypatch):
    assert hold(verb, paths, tmp_path, monkeypatch, seed=3, kills=2)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("verb", [*COMMANDS])
def test_a_dataset_is_continued_whoever_is_killed_at_random(verb, seed, paths, tmp_path, monkeypatch):
    kills = 0
    for again in range(100):
        kills += hold(verb, paths, tmp_path, monkeypatch, seed=100 * seed + again, kills=8)
        if kills >= 20:
            break
    assert kills >= 20
