"""rank, slice, stat and score with workers write what one process writes, whoever is killed meanwhile."""

import subprocess
from pathlib import Path

import pytest

from prune_cli import terminal
from prune_cli.settings.score import ScoreResults, Scores, ScoreSettings
from prune_cli.stages.score.run import ScoreWork

from ..conftest import lines, scored, status_of, zstd
from .killing import kill_at_random

CUT = ("slice", "-k", "perplexity", "--keep", "middle", "--frac", "0.4")
COMMANDS = {
    "rank": ("rank", "-k", "perplexity", "--by", "tokens", "-S", "100K"),
    "slice": CUT,
    "stat": ("stat", "--verify", "-k", "perplexity"),
    "score": ("score", "-m", "random"),
}
RECORDS = 4000  # in each file


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("corpus")
    records = scored(4 * RECORDS)
    paths = [folder / f"{name}.jsonl.zst" for name in "abcd"]
    for number, path in enumerate(paths):
        path.write_bytes(zstd(lines(records[number::4])))
    return paths


def content(path: Path) -> bytes:
    """What an output holds, decompressed."""
    if path.suffix != ".zst":
        return path.read_bytes()
    return subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout


def outputs(verb: str, folder: Path, name: str) -> dict[str, Path]:
    """The options that name outputs, with their files."""
    if verb == "stat":
        return {"-o": folder / f"{name}.json"}
    files = {"-o": folder / f"{name}.zst"}
    if verb == "slice":
        files |= {"--rejects": folder / f"{name}.rejects.zst", "--summary": folder / f"{name}.json"}
    return files


def hold_to_one_process(verb: str, corpus: list[Path], folder: Path, *, seed: int, kills: int) -> int:
    """Returns the number of kills."""
    command = (*COMMANDS[verb], "-q", *corpus)
    one, killed = (outputs(verb, folder, name) for name in ("one", f"killed-{seed}"))
    if not one["-o"].exists():
        assert status_of(*command, *(word for pair in one.items() for word in pair)) == 0
    options = [word for pair in killed.items() for word in pair]
    # What a killed run has already put in its place is there when it is run again.
    done = kill_at_random(*command, "-f", "-j", 2, *options, seed=seed, kills=kills)
    for option, path in one.items():
        assert content(killed[option]) == content(path), (verb, option, seed)
    return done


@pytest.mark.parametrize("verb", ["rank", "slice"])
def test_outputs_are_those_of_one_process_whoever_is_killed(verb, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert hold_to_one_process(verb, corpus, tmp_path, seed=5, kills=3)
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")}
    assert not {name for name in left if name.startswith("prune-cli-")}


@pytest.mark.sweep
@pytest.mark.parametrize("verb", COMMANDS)
def test_outputs_are_those_of_one_process_after_fifty_kills(verb, corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    kills = 0
    for seed in range(100):
        kills += hold_to_one_process(verb, corpus, tmp_path, seed=seed, kills=8)
        if kills >= 50:
            break
    assert kills >= 50


def test_a_part_that_a_dead_worker_left_is_counted(corpus, tmp_path):
    """The worker died behind the last byte of its part, and before it said so."""
    settings = ScoreSettings(
        scores=Scores(metric=["random"]), results=ScoreResults(output_directory=str(tmp_path / "out"))
    )
    work = ScoreWork((str(corpus[0]),), settings)
    [job] = work.jobs(2)
    first, second = (work.open().do(job, terminal.silent()) for _ in range(2))
    assert (second.records, second.outputs, second.finished) == (first.records, 1, 0)
    # A run that finds the part when it begins has nothing to do with it.
    [job] = work.jobs(2)
    assert work.open().do(job, terminal.silent()).finished == 1
