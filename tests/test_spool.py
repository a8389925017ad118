"""Sorted runs on disk: nothing of them is ever left, damage is seen, every directory takes its turn."""

import json
import os
import resource
import signal
import subprocess
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prune_cli.errors import DataError
from prune_cli.records.columns import ROW
from prune_cli.records.spool import Spool

from .conftest import PATIENCE, command, lines, prune, scored


def fill(spool: Spool, keys: list[float], at_once: int = 7, text: bytes = b"x" * 500) -> None:
    """Rows with these keys; each line says which row it was."""
    for start in range(0, len(keys), at_once):
        written = [
            b'{"row":%d,"text":"%s"}\n' % (start + index, text)
            for index in range(len(keys[start : start + at_once]))
        ]
        rows = np.zeros(len(written), ROW)
        rows["key"], rows["end"] = keys[start : start + at_once], np.cumsum([*map(len, written)]) - 1
        rows["start"], rows["close"] = rows["end"] + 1 - [*map(len, written)], rows["end"] - 1
        spool.add(b"".join(written), rows)


def order(spool: Spool) -> list[int]:
    found = []
    for rows, blocks in spool.parts():
        for row in rows:
            line = bytes(blocks[row["block"]][row["start"] : row["end"]])
            assert line[row["close"] - row["start"] :] == b"}"
            found.append(int(line.split(b",")[0].removeprefix(b'{"row":')))
    return found


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.5, 5e-324, 1e308, float("nan")]), max_size=80),
    st.booleans(),
    st.integers(1, 9),
)
def test_runs_merge_to_a_stable_order(tmp_path, keys, descending, at_once):
    scored = [index for index, key in enumerate(keys) if key == key]
    expected = sorted(scored, key=lambda index: keys[index])
    for size in (1, 2000, 1 << 30):
        with Spool(size, [str(tmp_path)], descending=descending) as spool:
            fill(spool, keys, at_once)
            assert order(spool) == (expected[::-1] if descending else expected) + [
                at for at, key in enumerate(keys) if key != key
            ]
            assert bool(spool.runs) == (size == 1 and len(keys) > 0) or size == 2000


def test_more_runs_than_fit_in_memory_are_merged_in_several_passes(tmp_path):
    keys = [float(key) for key in np.random.default_rng(1).integers(0, 50, 2000)]
    with Spool(1, [str(tmp_path)]) as spool:
        fill(spool, keys, at_once=10)
        assert len(spool.runs) == 200
        assert order(spool) == sorted(range(2000), key=lambda index: keys[index])
        assert len(spool.runs) <= 8


def test_temporary_directories_are_used_in_turn_and_show_no_file(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
    with Spool(1, [str(tmp_path / "a"), str(tmp_path / "b")]) as spool:
        fill(spool, [3.0, 1.0, 2.0, 0.0], at_once=1)
        assert [spool.runs[turn].scored[0].file for turn in range(4)] == spool.files * 2
        assert os.listdir(tmp_path / "a") == os.listdir(tmp_path / "b") == []


def test_damage_to_a_run_is_an_error(tmp_path):
    with Spool(1, [str(tmp_path)]) as spool:
        fill(spool, [1.0, 2.0], at_once=1)
        place = spool.runs[0].scored[0]
        middle = place.offset + place.size // 2
        byte = place.file.read_at(middle, 1)
        os.pwrite(place.file.file.fileno(), bytes([byte[0] ^ 1]), middle)
        with pytest.raises(DataError, match="temporary file is damaged"):
            order(spool)


def test_a_missing_or_full_temporary_directory_is_reported_before_reading(tmp_path):
    assert b"-T" in prune("rank", "-T", tmp_path / "none", stdin=lines(scored(3)), status=73).stderr
    spool = Spool(1, [str(tmp_path)])
    with pytest.raises(Exception, match="are free where sorted runs will take"):
        spool.check(1 << 60)


def test_few_open_files_are_enough(tmp_path):
    """Runs lie in one file for each directory."""
    corpus = lines(scored(3000))
    few = prune(
        "rank",
        "--plain",
        "-S",
        "64K",
        stdin=corpus,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)),
    )
    assert few.stdout == prune("rank", "--plain", stdin=corpus).stdout


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_rank_leaves_no_run_behind(number, tmp_path):
    with subprocess.Popen(
        command("rank", "-S", "64K", "-T", tmp_path), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        process.stdin.write(lines(scored(3000)))
        process.stdin.flush()
        for _ in range(400):
            held = [
                os.readlink(f"/proc/{process.pid}/fd/{name}")
                for name in os.listdir(f"/proc/{process.pid}/fd")
            ]
            if any(str(tmp_path) in path for path in held):
                break
            time.sleep(0.05)
        assert any(str(tmp_path) in path for path in held)
        process.send_signal(number)
        process.wait(timeout=PATIENCE)
        assert os.listdir(tmp_path) == []


def test_resident_memory_is_that_of_the_buffer_and_a_constant(tmp_path):
    """-S, and about 110 MiB: the interpreter with its libraries 45, what is read ahead 10, frames on their
    way 55.
    """
    text = "".join(f"{number:x}" for number in range(700))
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines({"text": text, "perplexity": index * 7919 % 30000} for index in range(30000)))
    script = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, "
        "check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    ranking = command("rank", "--threads", 2, "-S", "16M", path, "-o", tmp_path / "out.zst")
    measured = subprocess.run([ranking[0], "-c", script, *ranking], capture_output=True, check=True)
    assert path.stat().st_size > 50 << 20
    assert int(measured.stdout) << 10 < (16 + 140) << 20
    last = subprocess.run(f"zstd -dc {tmp_path}/out.zst | tail -n 1", shell=True, capture_output=True).stdout
    assert json.loads(last)["perplexity"] == 29999
