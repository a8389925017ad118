"""pack with workers: the same blocks as one process makes, wherever shards and blocks end."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_cli.engines import plan
from prune_cli.stages.pack.blocks import BlockLayout, PackCounts
from prune_cli.stages.pack.divided import Tokenized, block_jobs
from prune_cli.stream.section import Shard

from ..conftest import lines, status_of

torch = pytest.importorskip("torch")

from prune_cli.reference import DIRECTORY  # noqa: E402

TEXT = [
    {"id": f"doc-{at}", "text": "lorem ipsum dolor " * (at * 7 % 30), "source": "ab"[at % 2]}
    for at in range(120)
]


@pytest.fixture
def corpus(tmp_path, monkeypatch) -> list[Path]:
    """Two files that are cut into shards of three kilobytes, and a whole small one."""
    monkeypatch.setattr(plan, "TARGET", 3000)
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl", tmp_path / "c.jsonl"]
    for path, documents in zip(paths, (TEXT[:70], TEXT[70:119], TEXT[119:]), strict=True):
        path.write_bytes(lines(documents))
    return paths


def unpacked(path: Path) -> bytes:
    return subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout


def hold_to_one_process(corpus, folder: Path, *options: object, status: int = 0) -> None:
    command = ("pack", "--tokenizer", DIRECTORY, *options, *corpus)
    assert status_of(*command, "-o", folder / "one.zst") == status
    assert status_of(*command, "-j", 2, "-o", folder / "two.zst") == status
    assert unpacked(folder / "two.zst") == unpacked(folder / "one.zst")
    for name in ("one", "two"):
        assert status_of("stat", folder / f"{name}.zst", "-f", "-o", folder / f"{name}.json") == 0
    one, two = (json.loads((folder / f"{name}.json").read_bytes()) for name in ("one", "two"))
    assert {**one, "file": ""} == {**two, "file": ""}


@pytest.mark.parametrize("context", [3, 64, 5000])
@pytest.mark.parametrize("last", ["keep", "drop"])
def test_blocks_are_those_of_one_process(context, last, corpus, tmp_path, with_one_process):
    options = ("--context", context, "--last", last, "--carry", "source")
    hold_to_one_process(corpus, tmp_path, *options)


def test_bad_records_are_skipped_once(corpus, tmp_path, with_one_process, capfd):
    with corpus[1].open("ab") as file:
        file.write(b"oops\n" + lines(TEXT[:3]))
    hold_to_one_process(corpus, tmp_path, "--context", 50, "--skip-bad", status=3)
    assert capfd.readouterr().err.count("; record skipped") == 2


def test_the_number_of_records_is_checked_over_all_shards(corpus, tmp_path, with_one_process, capfd):
    command = ("pack", "--tokenizer", DIRECTORY, "--context", 9, "-j", 2, *corpus, "-o", tmp_path / "o.zst")
    assert status_of(*command, "--expect-records", 119) == 65
    assert "120 records arrived, 119 were expected" in capfd.readouterr().err
    assert not (tmp_path / "o.zst").exists()
    assert status_of(*command, "--expect-records", 120) == 0


def test_worker_processes_pack(corpus, tmp_path):
    hold_to_one_process(corpus[2:], tmp_path, "--context", 3)


@given(
    tokens=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    context=st.integers(1, 25),
    keep_last=st.booleans(),
)
def test_every_token_is_in_one_block_of_one_shard(tokens, context, keep_last):
    layout = BlockLayout(context, eos=0, keep_last=keep_last)
    shards = [Shard(number, len(tokens), "in") for number in range(1, len(tokens) + 1)]
    tokenized = [Tokenized(str(at), size, PackCounts(), 0, 0, layout, {}) for at, size in enumerate(tokens)]
    begins = np.cumsum([0, *tokens])
    blocks: list[int] = []
    for job in block_jobs(shards, tokenized, "folder", keep_last=keep_last):
        portion = job.portion
        start = int(begins[job.shards[0].number - 1]) + portion.skip
        numbers = range(portion.first_block, portion.first_block + portion.blocks)
        assert start == portion.first_block * context
        # The first block begins in the first shard, and the last one ends in the last shard.
        assert portion.skip < tokens[job.shards[0].number - 1]
        end = min((numbers[-1] + 1) * context, begins[-1])
        assert begins[job.shards[-1].number - 1] < end <= begins[job.shards[-1].number]
        blocks += numbers
    whole, rest = divmod(sum(tokens), context)
    assert blocks == list(range(whole + bool(keep_last and rest)))
