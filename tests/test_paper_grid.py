"""The grid of shell/paper-grid: steps, table, verdicts, and that it resumes to the same results."""

import json
import math
import os
import re
import shlex
import signal
import subprocess
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from shell.paper_grid import results, run, table
from shell.paper_grid.steps import Grid, expanded

from . import training
from .conftest import PATIENCE, ROOT, lines, status_of
from .measurements import made_up
from .measurements import run as evaluate

SHELL = ROOT / "shell"
MINIATURE = """
agreements = [["base", "base"]]

[files]
"pool.jsonl" = "cp {data}/corpus.jsonl {out}"

[tests]
held-out = "pool.jsonl"

[tokenizer]
vocabulary = 300

[model]
layers = 1
width = 16
heads = 1
context = 32
lr = 1e-2
batch_tokens = 128

[plan]
pool_tokens = 1e4
test_tokens = 1e4
flops = 1e9

[references.base]
data = "pool.jsonl"
steps = 2

[scores.base]
metric = "perplexity"
references = ["base"]

[sweep]
arm = "random-50"
lr = [1e-3, 1e-2]
test = "pool.jsonl"

[runs]
pool = "pool.jsonl"
group_by = "source"
steps = 3
seeds = 2
options = "--dtype float32"
arms = ["random-50", "base-middle-50"]

[[hypotheses]]
name = "H1"
claim = "The middle is better."
relation = "better"
test = "held-out"
pairs = [["base-middle-50", "random-50"]]
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    texts = training.documents(120)
    corpus = [{"id": str(at), "text": text, "source": "ab"[at % 2]} for at, text in enumerate(texts)]
    (folder / "corpus.jsonl").write_bytes(lines(corpus))
    return folder


class Done:
    """A command that has ended, as the runner sees it."""

    def __init__(self, status):
        self.status = status

    def poll(self):
        return self.status


def in_shell(command):
    """The status of any other command of a grid, which `shell/paper-grid` starts beside the package."""
    return subprocess.run(command, shell=True, env={**os.environ, "PYTHONPATH": str(ROOT)}).returncode


def in_process(command, folder, log):
    """Run a command line of a grid with the `prune-cli` of this process, which has loaded torch already."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        for part in command.split(" && "):
            words = shlex.split(part)
            done = status_of(*words[1:]) if words[0] == "prune-cli" else in_shell(part)
            if done:
                return Done(done)
    finally:
        os.chdir(before)
    return Done(0)


def stopping_after(count):
    """Stops the grid at the start of a command, as Ctrl-C does."""
    left = iter(range(count))

    def start(command, folder, log):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return in_process(command, folder, log)

    return start


def folder(data, place, text=MINIATURE):
    grid = Grid(tomllib.loads(text), data)
    return grid, run.Folder(place, grid.steps())


def found(grid, place):
    """The results without their times."""
    records = results.read(run.write_results(grid, place))
    return [record for record in records if record["kind"] != "hours"]


@pytest.mark.filterwarnings("ignore::prune_cli.errors.PruneWarning")
def test_a_grid_that_was_stopped_ends_with_the_results_of_one_that_was_not(data, tmp_path, capsys):
    for name in ("whole", "stopped"):
        (tmp_path / name).mkdir()
    grid, whole = folder(data, tmp_path / "whole")
    assert run.Runner(whole, start=in_process).run() == 0
    grid, stopped = folder(data, tmp_path / "stopped")
    for count in (4, 9):
        with pytest.raises(KeyboardInterrupt):
            run.Runner(stopped, start=stopping_after(count)).run()
    assert run.Runner(stopped, start=in_process).run() == 0
    assert found(grid, stopped) == found(grid, whole)
    # The grid ends with a page of its comparisons.
    assert "base-middle-50" in (whole.root / "report.html").read_text()
    # Nothing is left to do, and the plan says so.
    capsys.readouterr()
    assert run.Runner(stopped, start=in_process).run() == 0
    assert capsys.readouterr().out == ""
    [line] = [line for line in run.plan(grid, stopped).splitlines() if line.startswith("all ")]
    assert line.split()[1] == line.split()[2]
    # Another learning rate in the sweep trains that run alone, unless it is chosen.
    _, changed = folder(data, tmp_path / "stopped", MINIATURE.replace("[1e-3, 1e-2]", "[1e-3, 1e-2, 1e-9]"))
    left = [step.name for step in changed.steps if not changed.is_done(step)]
    assert left[:2] == ["runs/sweep-1e-09", "results/sweep-1e-09.jsonl"]
    text = table.markdown(results.read(tmp_path / "whole" / "results.jsonl"))
    assert "| H1 | The middle is better. | base-middle-50 against random-50: " in text
    assert "| base | base | 1.000 | 1.00 | 1.00 | 1.00 |" in text


@pytest.mark.sweep  # 40 s: each command imports torch
def test_a_grid_that_is_killed_continues(data, tmp_path):
    (tmp_path / "grid.toml").write_text(MINIATURE)
    command = [SHELL / "paper-grid", "--config", tmp_path / "grid.toml", "--data", data, "-o", tmp_path / "g"]
    for wait in (8, 16):
        started = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)
        time.sleep(wait)
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE * 10)
    assert (done.returncode, done.stderr) == (0, "")
    assert "| H1 | The middle is better." in done.stdout


def test_two_shards_do_every_step_between_them(data, tmp_path, monkeypatch):
    """Each waits for what the other makes."""
    monkeypatch.setattr(run, "PATIENCE", 0.01)
    made: list[str] = []

    def pretend(command, root, log):
        patterns = {step: re.escape(step.command).replace(r"\{lr\}", ".*") for step in place.steps}
        [step] = [step for step, pattern in patterns.items() if re.fullmatch(pattern, command)]
        made.append(step.name)
        for output in step.outputs:
            (root / output).write_text('{"perplexity": 2}\n')
        return Done(0)

    _, place = folder(data, tmp_path)
    with ThreadPoolExecutor(2) as threads:
        shards = [run.Runner(place, shard=(number, 2), start=pretend) for number in (1, 2)]
        assert [shard.result() for shard in [threads.submit(each.run) for each in shards]] == [0, 0]
    assert sorted(made) == sorted(step.name for step in place.steps)


def test_both_configurations_come_to_a_plan(tmp_path):
    for name in ("paper-grid.toml", "paper-grid-124m.toml"):
        grid = Grid(tomllib.loads((SHELL / name).read_text()))
        steps = grid.steps()
        made: set[str] = set()
        for step in steps:
            # A step comes after all that it needs, and needs no file that nothing makes.
            assert {*step.needs} <= made
            made.update(step.outputs)
        assert f"{grid.parameters() / 1e6:.2f} M parameters" in run.plan(grid, run.Folder(tmp_path, steps))


def test_names_of_arms_expand_as_in_a_shell():
    assert expanded(["all", "{a,b}-{x,y}-5"]) == ["all", "a-x-5", "a-y-5", "b-x-5", "b-y-5"]


def test_an_arm_of_no_score_is_refused(data):
    text = MINIATURE.replace('"base-middle-50"]', '"other-middle-50"]')
    with pytest.raises(SystemExit, match="score"):
        folder(data, data, text)


# --- Verdicts ---


def comparison(low, high):
    effect = {"effect": (low + high) / 2, "effect_interval": [low, high]}
    return {"kind": "comparison", "arm": "a", "against": "b", "test": "t", **effect}


@pytest.mark.parametrize(
    ("relation", "low", "high", "expected"),
    [
        ("worse", 0.01, 0.02, "confirmed"),
        ("worse", -0.02, -0.01, "refuted"),
        ("worse", -0.01, 0.02, "undecided"),
        ("better", -0.02, -0.01, "confirmed"),
        ("no worse", -0.02, 0.004, "confirmed"),
        ("no worse", 0.001, 0.004, "confirmed"),
        ("no worse", 0.001, 0.006, "refuted"),
        ("no worse", -0.001, 0.006, "undecided"),
        ("no better", -0.004, 0.1, "confirmed"),
        ("no better", -0.02, -0.01, "refuted"),
    ],
)
def test_a_verdict_follows_from_the_interval(relation, low, high, expected):
    hypothesis = {"pairs": [["a", "b"]], "relation": relation, "margin": 0.005, "test": "t"}
    assert table.verdict([comparison(low, high)], hypothesis) == expected
    assert table.verdict([], hypothesis) == "not tested"


@pytest.mark.parametrize(
    ("large", "small", "expected"),
    [
        ((0.01, 0.02), (0.03, 0.05), "confirmed"),
        ((0.01, 0.02), (-0.05, -0.03), "refuted"),
        ((0.01, 0.02), (-0.05, 0.03), "undecided"),
        ((-0.01, 0.02), (0.03, 0.05), "undecided"),
    ],
)
def test_the_order_of_another_size_has_to_be_the_same(large, small, expected):
    hypothesis = {"pairs": [["c", "d"]], "as": [["a", "b"]], "test": "t"}
    records = [comparison(*large), {**comparison(*small), "arm": "c", "against": "d"}]
    assert table.verdict(records, hypothesis) == expected


@pytest.mark.parametrize(("late", "early", "expected"), [(0.95, 0.5, "confirmed"), (0.95, 0.92, "refuted")])
def test_rankings_are_alike_or_not(late, early, expected):
    rule = {"spearman": 0.9, "overlap": 0.8}
    rules = [
        {"scores": ["late", "end"], "alike": True, **rule},
        {"scores": ["early", "end"], "alike": False, **rule},
    ]
    records = [
        {
            "kind": "agreement",
            "score": name,
            "against": "end",
            "spearman": value,
            "overlap": {"middle": value},
        }
        for name, value in (("late", late), ("early", early))
    ]
    assert table.verdict(records, {"rankings": rules, "test": "t"}) == expected


def test_an_interval_that_contains_zero_is_called_noise():
    assert table.effect(comparison(-0.01, 0.02)) == "+0.50 (-1.00 to +2.00), within noise"
    assert table.effect(comparison(0.01, 0.02)) == "+1.50 (+1.00 to +2.00)"


def test_the_intervals_of_the_table_contain_the_effect_95_times_in_100():
    """Three seeds a side, whose noise is as large as the effect; the documents have noise of their own."""
    truth, noise, documents = 0.02, 0.02, 100
    dice = np.random.default_rng(20)
    held = []
    for seed in range(500):
        hardness = dice.normal(3, 0.5, documents)
        sides = [
            [_seed(dice, hardness + level + dice.normal(0, noise), f"{level}{at}") for at in range(3)]
            for level in (truth, 0)
        ]
        [*_, result] = evaluate(*sides[0], against=sides[1], grouped=True, seed=seed, resamples=100)
        cell = table.effect({"kind": "comparison", **results.compared(result)})
        low, high = (float(end) for end in cell.partition("(")[2].partition(")")[0].split(" to "))
        held.append(low <= 100 * math.expm1(truth) <= high)
    assert 0.93 <= np.mean(held) <= 0.97


def _seed(dice, level, name):
    values = level + dice.normal(0, 0.05, len(level))
    return made_up(10 * values, [10] * len(level), name=name, data="held out")


def test_the_committed_results_make_the_tables_of_the_protocol():
    path = SHELL / "paper-grid-results.jsonl"
    assert path.stat().st_size < 1e6
    assert (
        table.markdown([json.loads(line) for line in path.read_text().splitlines()])
        in (SHELL / "paper-grid.md").read_text()
    )
