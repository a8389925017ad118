"""Faults 41 to 44 and 30: models that cannot be used; scoring and training that is killed, stopped or out of
room, and then resumed.

Refused model directories are in tests/test_model_checks.py, halved batches in tests/test_model.py, and
checkpoints in tests/test_train_stage.py.
"""

import gc
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ..conftest import PATIENCE, ROOT, command, lines, records, scored
from .injection import every_fault, traced, with_fault
from .machine import remains, small_disk

torch = pytest.importorskip("torch")

from ..small_models import tiny_gpt2  # noqa: E402

SMALL = "layers = 1\nwidth = 16\nheads = 2\ncontext = 32\nlr = 1e-3\nbatch_tokens = 128\n"
CALLS = ["openat", "flock", "ftruncate", "fsync", "unlink"]  # and those that are tried in every run


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(
        lines({"id": index, "text": f"a text {index}", "pad": "x" * 1_000_000} for index in range(20))
    )
    return path


@pytest.fixture
def training(tmp_path) -> list[object]:
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "data.jsonl").write_bytes(lines(scored(200)))
    options = [
        "--config",
        tmp_path / "small.toml",
        "--train-tokenizer",
        270,
        "--steps",
        12,
        "--save-every",
        3,
        "--resume",
    ]
    return ["train", *options, tmp_path / "data.jsonl", "-o"]


def weights(run: Path) -> bytes:
    return (run / "model.safetensors").read_bytes()


@pytest.mark.parametrize("damage", ["cut", "gone", "code"])
def test_41_a_model_that_cannot_be_used_is_refused_before_anything_is_read(damage, tmp_path):
    """Standard input is a pipe that nobody ever writes to or closes."""
    model = tiny_gpt2(tmp_path / "model")
    if damage == "cut":
        os.truncate(model / "model.safetensors", 1000)
    elif damage == "gone":
        (model / "model.safetensors").unlink()
    else:
        (model / "config.json").write_text(
            '{"model_type": "gpt2", "auto_map": {"AutoModelForCausalLM": "evil.Model"}}'
        )
    never, kept_open = os.pipe()
    done = subprocess.run(
        command("score", "--model", model), stdin=never, capture_output=True, timeout=PATIENCE, cwd=ROOT
    )
    os.close(never)
    os.close(kept_open)
    assert done.returncode == 78
    assert done.stderr.count(b"\n") == 1


def publishing(target: Path) -> list[str]:
    """Replace the folder `target`, as training does."""
    script = (
        "import pathlib, sys; from prune_cli.storage import directories; target = pathlib.Path(sys.argv[1])\n"
        "with directories.working(target, resume=False, replace=True, mark='train.json', keep='step-*') "
        "as work:\n"
        "    (work / 'train.json').write_text('new'); (work / 'step-1').mkdir()"
    )
    return [sys.executable, "-c", script, str(target)]


@traced
@pytest.mark.parametrize("call", ["rename,renameat2", "fsync", "unlink,unlinkat,rmdir"])
def test_29_a_replaced_folder_exists_at_every_moment_old_or_new(call, tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    for fault in ("signal=KILL", "error=EIO"):
        (target / "train.json").write_text("old")
        for step in every_fault(call, fault, [], target, program=publishing):
            assert (target / "train.json").read_text() in ("old", "new"), (fault, step)
            assert subprocess.run(publishing(target), cwd=ROOT).returncode == 0
            assert (target / "train.json").read_text() == "new"
            assert remains(tmp_path) == {"run"}, (fault, step)
            (target / "train.json").write_text("old")


def scoring(corpus: Path, target: Path) -> tuple[object, ...]:
    """A run that can be gone on with. Its metric asks no model, so that no time goes into loading one for
    every run.
    """
    return ("score", "-m", "random", "--resume", corpus, "-o", target)


@traced
@pytest.mark.parametrize(
    "call", ["write", "link", *(pytest.param(call, marks=pytest.mark.sweep) for call in CALLS)]
)
def test_29_30_a_scoring_killed_at_any_call_on_its_output_is_resumed(call, corpus, tmp_path, here):
    whole, target = here("score", "-m", "random", corpus).stdout, tmp_path / "out" / "out.zst"
    target.parent.mkdir()
    watched = [target.parent, target, target.parent / "out.zst.partial", target.parent / ".out.zst.prune-cli"]
    for number, ended in every_fault(call, "signal=KILL", watched, *scoring(corpus, target)):
        assert ended.status == (-signal.SIGKILL if ended.met else 0), number
        assert not target.exists() or target.read_bytes() == whole, number
        here(*scoring(corpus, target))
        assert target.read_bytes() == whole, number
        assert remains(target.parent) == {"out.zst"}, number
        target.unlink()


@traced
@pytest.mark.sweep
@pytest.mark.parametrize("fault", ["error=ENOSPC", "error=EIO"])
@pytest.mark.parametrize("call", ["write", "fsync", "link,linkat", "ftruncate"])
def test_26_27_a_scoring_resumes_after_any_failed_write(call, fault, corpus, tmp_path, here):
    whole, target = here("score", "-m", "random", corpus).stdout, tmp_path / "out" / "out.zst"
    target.parent.mkdir()
    for number, ended in every_fault(
        call, fault, [target.parent, target, target.parent / "out.zst.partial"], *scoring(corpus, target)
    ):
        assert ended.status == (74 if ended.met else 0), (number, ended)
        assert ended.stderr.count("\n") == ended.met, (number, ended)
        here(*scoring(corpus, target))
        assert target.read_bytes() == whole, number
        assert remains(target.parent) == {"out.zst"}, number
        target.unlink()


def stopped(number: int, sign: Path, pause: float, *arguments: object) -> tuple[int, bytes, float]:
    """Status and message of a run that gets a signal some time after the `sign` of its work appears, and how
    long it worked.
    """
    with subprocess.Popen(command(*arguments), cwd=ROOT, stderr=subprocess.PIPE) as process:
        while process.poll() is None and not sign.exists():
            time.sleep(0.001)
        began = time.monotonic()
        time.sleep(pause)
        process.send_signal(number)
        said = process.stderr.read()
    return process.returncode, said, time.monotonic() - began


@pytest.mark.parametrize(
    "of",
    [pytest.param("random", marks=pytest.mark.sweep), pytest.param("perplexity", marks=pytest.mark.sweep)],
)
def test_30_a_scoring_killed_at_any_moment_resumes_to_the_same_bytes(of, model, corpus, tmp_path, here):
    dice, target, moments = random.Random(0), tmp_path / "out.zst", 200 if of == "random" else 20
    arguments = ("score", "-m", of, *(["--model", model] if of == "perplexity" else []), corpus)
    whole = here(*arguments).stdout
    *_, took = stopped(0, tmp_path / "out.zst.partial", 0, *arguments, "--resume", "-o", target)
    for _ in range(moments):
        target.unlink()
        stopped(
            signal.SIGKILL,
            tmp_path / "out.zst.partial",
            dice.uniform(0, took),
            *arguments,
            "--resume",
            "-o",
            target,
        )
        here(*arguments, "--resume", "-o", target)
        assert target.read_bytes() == whole
        assert remains(tmp_path) == {"corpus.jsonl", "out.zst"}


@pytest.mark.sweep
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_30_44_a_training_stopped_at_any_moment_ends_with_the_same_weights(number, training, tmp_path, here):
    dice, whole = random.Random(int(number)), tmp_path / "whole"
    *_, took = stopped(0, tmp_path / "whole.partial", 0, *training, whole)
    for turn in range(10):
        run = tmp_path / f"run-{turn}"
        for _ in range(2):
            status, said, _ = stopped(
                number, tmp_path / f"run-{turn}.partial", dice.uniform(0, took), *training, run
            )
            assert status in (0, 73, -number, 75), said
        if not run.exists():
            here(*training, run)
        assert weights(run) == weights(whole)


@pytest.mark.parametrize(
    "sizes",
    [[16, 76, 100, 160], pytest.param(range(4, 260, 6), marks=pytest.mark.sweep)],
    ids=["some", "all"],
)
def test_26_44_a_full_disk_during_training_costs_only_the_last_write(sizes, training, tmp_path, here):
    here(*training, tmp_path / "whole")
    for kilobytes in sizes:
        with small_disk(tmp_path / "disk", f"{kilobytes}k") as disk:
            said = here(*training, disk / "run", status=74).stderr.decode()
            assert re.fullmatch(
                rf"prune-cli train: {disk}/run\.partial\S*: .*(No space left on device|disk full).*\n", said
            ), kilobytes
            subprocess.run(["mount", "-o", "remount,size=10m", str(disk)], check=True)
            here(*training, disk / "run")
            assert weights(disk / "run") == weights(tmp_path / "whole")
            assert remains(disk) == {"run"}
            gc.collect()  # what the failed run has mapped would keep the disk mounted


def test_44_a_disk_full_at_a_checkpoint_costs_that_checkpoint(training, tmp_path, here):
    here(*training, tmp_path / "whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    size = len(weights(tmp_path / "whole"))
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (size + 1000, limits[1])
    )  # the model fits, the optimizer's moments do not
    try:
        said = here(*training, tmp_path / "run", status=74).stderr.decode()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said.count("\n") == 1
    assert "ulimit -f" in said
    here(*training, tmp_path / "run")
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_44_score_in_a_cron_jobs_surroundings_says_nothing(model, tmp_path, here):
    """No HOME, no locale, no terminal, a folder for caches that cannot be: the libraries' bars and warnings
    stay away, too.

    The two runs need not multiply alike: the variables that choose the kernels of a CPU are away as well.
    """
    bare = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C",
        "PYTHONPATH": str(ROOT),
        "HF_HOME": "/proc/nowhere",
        "TMPDIR": str(tmp_path),
    }
    text = lines([{"text": "a text"}])
    scoring = ("score", "--plain", "--dtype", "float32", "--model", model)
    done = subprocess.run(
        command(*scoring),
        env=bare,
        input=text,
        cwd="/",
        capture_output=True,
        start_new_session=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    [alone], [expected] = records(done.stdout), records(here(*scoring, stdin=text).stdout)
    assert alone["perplexity"] == pytest.approx(expected["perplexity"], rel=1e-4)


@traced
@pytest.mark.parametrize(
    ("opening", "status"),
    [(1, 78), (5, 78), (7, 74)],
    ids=["a check", "transformers", "the hash"],
)
def test_41_weights_that_become_unreadable(opening, status, model, tmp_path):
    """From this opening on: the checks open the weights four times, and then transformers twice."""
    (tmp_path / "one.jsonl").write_bytes(lines([{"text": "a text"}]))
    scoring = ("score", "--model", model, tmp_path / "one.jsonl", "-o", tmp_path / "out")
    ended = with_fault("openat", "error=EIO", f"{opening}+", [model / "model.safetensors"], *scoring)
    assert (ended.status, ended.met, ended.stderr.count("\n")) == (status, True, 1), ended
    assert remains(tmp_path) == {"one.jsonl"}
