"""Every promise and every number of the list names tests that are there; the fuzzer's seeds run through."""

import ast
import re
from pathlib import Path

import pytest

from prune_cli.help.promises import PROMISES

from ..conftest import ROOT
from . import targets

HERE = Path(__file__).parent
LIST = (HERE / "README.md").read_text().split("## Where each fault is tried")[1]


def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("test", PROMISES.values(), ids=lambda test: test.rsplit("::")[-1])
def test_a_promise_names_a_test_that_is_there(test):
    path, name = test.split("::")
    assert name in names_in(ROOT / path)


def test_there_are_ten_promises_of_one_line():
    assert len(PROMISES) == 10
    assert all(len(promise) < 140 for promise in PROMISES)


@pytest.mark.parametrize("number", [number for number in range(1, 45) if number != 40])
def test_every_fault_of_the_list_is_tried(number):
    [row] = re.findall(rf"^\| {number} \|.*$", LIST, re.MULTILINE)
    named = re.findall(r"`([\w.]+)(?:::(\w+))?`", row)
    assert named
    for file, name in named:
        found = names_in((HERE if (HERE / file).exists() else HERE.parent) / file)
        assert name in found if name else any(re.match(rf"test_(\d\d_)*{number:02}_", each) for each in found)


@pytest.mark.parametrize("seed", sorted((HERE / "seeds").iterdir()), ids=lambda path: path.name)
def test_a_seed_of_the_fuzzer_runs_through_its_target(seed, capfd):
    targets.one_input(seed.read_bytes())
