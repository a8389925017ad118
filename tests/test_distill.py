"""The recipe shell/distill: generations of models, each trained on the slice that the one before chose."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import string
import subprocess
import sys
import time

import pytest

from . import training, warm
from .conftest import PATIENCE, ROOT, lines, records

REFERENCE = ROOT / "prune_cli" / "reference"
# What the recipe calls `prune-cli`: a process forked from one that has imported torch. A test that kills the
# recipe finds its number in a note.
COMMAND = """#!{python} -S
import os, pathlib, socket, sys
sys.path.insert(0, {root!r})
from tests import warm
warm.server = lambda modules: socket.socket(fileno=int(os.environ["WARM"]))
streams = {{"stdin": sys.stdin.buffer, "stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}}
started = warm.Started(sys.argv[1:], cwd=pathlib.Path.cwd(), **streams)
pathlib.Path({note!r}).write_text(str(started.pid))
sys.exit(started.go().wait())
"""
SHAPE = ("--config", "shape.toml", "--train-tokenizer", "260", "--steps", "30")
OPTIONS = (*SHAPE, "--held-out", "held-out.jsonl", "-o", "out", "pool.jsonl")
ONE_SEED = (*OPTIONS, "--frac", "0.48", "--seeds", "1", "--keep", "bottom")
# Everything that a generation leaves but what says when and how long a model was trained.
TIMED = ("train.json", "metrics.jsonl")


@pytest.fixture
def home(tmp_path):
    """A folder with a corpus of which a half is noise, held-out text, and the shape of a tiny model."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "prune-cli"
    note = str(tmp_path / "running")
    command.write_text(COMMAND.format(python=sys.executable, root=str(ROOT), note=note))
    command.chmod(0o755)
    (tmp_path / "shape.toml").write_text(training.SHAPE)
    noise = "".join(random.Random(1).choices(string.printable, k=4000))
    texts = training.documents(140)
    # Copies, of which it is certain which is cut: the first one is kept.
    pool = [*texts[60:], *[noise] * 5]
    (tmp_path / "pool.jsonl").write_bytes(lines({"text": text} for text in pool))
    (tmp_path / "held-out.jsonl").write_bytes(lines({"text": text} for text in texts[:60]))
    return tmp_path


@pytest.fixture
def start(home):
    """Start the recipe in a group of its own."""
    server = warm.server(warm.HEAVY)

    def run(*arguments, **variables):
        environment = {
            **os.environ,
            **variables,
            "PATH": f"{home}/bin:{os.path.dirname(sys.executable)}:{os.environ['PATH']}",
            "WARM": str(server.fileno()),
        }
        return subprocess.Popen(
            [ROOT / "shell" / "distill", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=home,
            env=environment,
            pass_fds=[server.fileno()],
            start_new_session=True,
        )

    return run


@pytest.fixture
def distill(start):
    """Run the recipe, hold it to its exit status and return what it said, on either stream."""

    def run(*arguments, status=0, **variables):
        with start(*arguments, **variables) as process:
            said, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == status, said
        return said

    return run


def digests(folder):
    """A digest of every file of the generations, by its name."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.glob("gen-*/**/*")
        if path.is_file() and path.name not in TIMED
    }


def comparisons(path):
    return [record for record in records(path.read_bytes()) if record["result"] == "comparison"]


def effect(path):
    """The difference that a comparison found, and its interval."""
    [compared] = comparisons(path)
    return compared["effect"], compared["effect_interval"]


def kill_at(path, process, home):
    """Kill a run, and the command that it waits for, when a file appears."""
    deadline = time.monotonic() + PATIENCE
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int((home / "running").read_text()), signal.SIGKILL)
    process.communicate()
    assert path.exists()


def test_it_stops_when_nothing_is_gained_and_goes_on_when_it_was_killed(home, distill, start):
    said = distill(*ONE_SEED)
    out = home / "out"
    # Generation 1 learns more without the noise, and generation 2 trains on the same slice again.
    assert effect(out / "gen-1" / "comparison.jsonl")[1][1] < -0.01
    assert effect(out / "gen-2" / "comparison.jsonl") == (0, [0, 0])
    assert not (out / "gen-3").exists()
    assert said.endswith("The best generation is out/gen-1.\n")
    assert (out / "best").readlink().name == "gen-1"
    finished = digests(out)
    assert "gen-2/model-1/model.safetensors" in finished
    # The first generations are there already, and the run dies while it trains generation 2.
    shutil.rmtree(out / "gen-2")
    (out / "best").unlink()
    kill_at(out / "gen-2" / "model-1.partial", start(*ONE_SEED), home)
    scored = (out / "gen-2" / "scored.jsonl.zst").stat().st_ino
    assert distill(*ONE_SEED).splitlines()[-1] == said.splitlines()[-1]
    assert digests(out) == finished
    assert (out / "gen-2" / "scored.jsonl.zst").stat().st_ino == scored
    # Now nothing is left to do, and a run with other options would mix up two.
    assert "+" not in {line[:1] for line in distill(*ONE_SEED).splitlines()}
    said = distill(*ONE_SEED[:-1], "top", status=78)
    assert said == (
        "distill: out was started with other options (--keep bottom); repeat them or name another -o\n"
    )
    # From a few documents nobody can tell.
    compared = out / "gen-2" / "comparison.jsonl"
    compared.write_text(compared.read_text().replace('"documents":60', '"documents":19'))
    assert "19 documents with a score cannot tell" in distill(*ONE_SEED, status=65)


def test_other_options_are_refused_from_the_first_step_on(home, distill, start):
    options = (*ONE_SEED, "--batch-tokens", "512")
    out = home / "out"
    # The first model is being trained, and none is finished.
    kill_at(out / "gen-0" / "model-1.partial" / "train.json", start(*options), home)
    begun = digests(out)
    assert json.loads((out / "gen-0/model-1.partial/train.json").read_text())["run"]["batch"] == 16
    (home / "more.jsonl").write_bytes(b"")
    for others, variables, before in (
        (("--steps", "40"), {}, "--steps 30"),
        (("--tokenizer", "t"), {"TRAIN": "nice prune-cli train"}, "no --tokenizer, TRAIN='prune-cli train'"),
        (("more.jsonl",), {}, "another corpus"),
    ):
        assert distill(*options, *others, status=78, **variables) == (
            f"distill: out was started with other options ({before}); repeat them or name another -o\n"
        )
    assert digests(out) == begun


@pytest.mark.sweep
def test_seeds_are_compared_as_recipes_and_another_model_may_score_first(home, distill):
    options = (*OPTIONS, "--seeds", "2", "--generations", "1")
    said = distill("--reference", REFERENCE, *options, "--steps", "3")
    assert f"+ prune-cli score -m perplexity --model={REFERENCE} --resume" in said
    [compared] = comparisons(home / "out" / "gen-1" / "comparison.jsonl")
    assert (len(compared["model"]), compared["includes_training_noise"]) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "status", "fault"),
    [
        ((), 2, "distill: --held-out is missing; usage: distill "),
        (("--held-out", "held-out.jsonl"), 2, "distill: -o is missing; usage: distill "),
        (OPTIONS[:-1], 2, "distill: the corpus is missing: no FILE was given; usage: distill "),
        (("--steps",), 2, "distill: --steps needs a value"),
        (("--colour", "red"), 2, "distill: there is no option --colour"),
        ((*ONE_SEED, "--seeds=0"), 2, "distill: invalid --seeds '0'"),
        ((*ONE_SEED, "--batch-tokens=3x"), 2, "distill: invalid --batch-tokens '3x'"),
        ((*ONE_SEED, "--preset=tiny"), 2, "distill: --preset and --config"),
        ((*ONE_SEED, "nowhere.jsonl"), 66, "distill: nowhere.jsonl: "),
        ((*ONE_SEED, "--metric=taste"), 2, "prune-cli score: --metric: no metric is named 'taste'"),
        ((*ONE_SEED, "--frac=3"), 2, "prune-cli slice: invalid --frac '3'"),
        ((*ONE_SEED, "--keep=best"), 2, "prune-cli slice: "),
    ],
)
def test_bad_input_is_refused_in_one_line_before_anything_is_made(arguments, status, fault, distill, home):
    said = distill(*arguments, status=status)
    assert said.startswith(fault)
    assert said.count("\n") == 1
    assert not (home / "out").exists()


def test_help_lists_the_options(distill):
    assert "--generations N" in distill("--help")
