"""Many files, many records and many stages: open files and memory stay bounded, and every stage notices what
happens to the others.
"""

import os
import resource
import signal
import subprocess
from tempfile import TemporaryFile
from typing import IO

import pytest

from .. import warm
from ..conftest import PATIENCE, ROOT, command, lines, records, scored
from ..small_models import tiny_gpt2
from .machine import peak

SLICE = ("slice", "--keep", "middle", "--frac", "0.5")
OPEN_FILES = 64


def pipeline(
    *stages: list[str], stdin: IO[bytes] | int = subprocess.DEVNULL
) -> tuple[list[int], bytes, list[bytes]]:
    """Run commands in a pipe: their statuses, the last one's output, and what each said. No process may open
    more than OPEN_FILES.
    """
    running: list[subprocess.Popen[bytes]] = []
    for stage in stages:
        before = running[-1].stdout if running else stdin
        limited = ["prlimit", f"--nofile={OPEN_FILES}", *stage]
        running.append(
            subprocess.Popen(limited, stdin=before, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
        )
        if len(running) > 1:
            running[-2].stdout.close()
    out, last = running[-1].communicate(timeout=PATIENCE)
    said = [process.stderr.read() for process in running[:-1]]
    for process in running[:-1]:
        process.stderr.close()
    return [process.wait() for process in running], out, [*said, last]


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.sweep)])
def test_score_rank_and_slice_over_many_files_of_one_record_each(count, tmp_path):
    pytest.importorskip("torch")
    model = tiny_gpt2(tmp_path / "model")
    (tmp_path / "corpus").mkdir()
    paths = [tmp_path / "corpus" / f"{index:05}.jsonl" for index in range(count)]
    for index, path in enumerate(paths):
        path.write_bytes(lines([{"id": index, "text": f"text {index} of many"}]))
    read_end, write_end = os.pipe()
    with open(read_end, "rb") as scored, TemporaryFile() as log:
        with open(write_end, "wb") as output:
            scoring = warm.Started(("score", "--model", model, *paths), stdout=output, stderr=log)
        resource.prlimit(scoring.pid, resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
        scoring.go()
        statuses, out, said = pipeline(command("rank"), command(*SLICE), stdin=scored)
        log.seek(0)
        assert (scoring.wait(), log.read()) == (0, b"")
    assert (statuses, said) == ([0, 0], [b"", b""])
    found = records(out)
    assert len(found) == count // 2
    assert [record["rank"] for record in found] == list(range(count // 4, count // 4 + count // 2))


@pytest.mark.sweep
def test_five_million_records_of_a_hundred_bytes(tmp_path):
    """-S 128M and a constant are enough for half a gigabyte; jq and GNU sort say whether the order is
    right.
    """
    path, ranked = tmp_path / "in.jsonl", tmp_path / "ranked.zst"
    with path.open("w") as file:
        for index in range(5_000_000):
            score = index * 2654435761 % 4294967291 / 1000
            file.write(
                f'{{"id": {index:8}, "perplexity": {score:.3f}, '
                f'"n_scored": {index % 100:2}, "text": "{"x" * 20}"}}\n'
            )
    status, said, size = peak("rank", "-S", "128M", "-T", tmp_path, path, "-o", ranked)
    assert (status, said) == (0, "")
    assert size < 300 << 20
    sliced = subprocess.run(command(*SLICE, ranked), cwd=ROOT, capture_output=True, check=True).stdout
    subprocess.run("zstd -dc | jq .perplexity | LC_ALL=C sort -c -g", input=sliced, shell=True, check=True)
    counted = subprocess.run(
        "zstd -dc | wc -l", input=sliced, shell=True, check=True, capture_output=True
    ).stdout
    assert int(counted) == 2_500_000
    status, said, size = peak(*SLICE, "-k", "perplexity", path, "-o", tmp_path / "sliced.zst")
    assert (status, size < 400 << 20) == (0, True)


@pytest.mark.parametrize("killed", ["rank", "slice"])
def test_32_a_stage_that_is_killed_before_its_first_byte_fails_the_next(killed, tmp_path):
    """It never says anything: no head, no frame. The shell's own status would be that of the last stage
    alone.
    """
    silent = ["sh", "-c", "kill -9 $$"]
    after = command("rank", "--overwrite") if killed == "slice" else command(*SLICE)
    statuses, out, said = pipeline(silent, after, command("stat"))
    assert statuses == [-signal.SIGKILL, 65, 65]
    assert b"no bytes at all; the command before it may have failed" in said[1]
    assert b"truncated" in said[2]
    assert out == b""


def test_32_when_the_last_stage_leaves_all_stages_before_it_end_silently(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines(scored(1000) * 20))
    statuses, out, said = pipeline(
        command("rank", "--plain", path), command(*SLICE, "--by", "records", "--plain"), ["head", "-n", "1"]
    )
    assert statuses == [-signal.SIGPIPE, -signal.SIGPIPE, 0]
    assert (said, len(out.splitlines())) == ([b"", b"", b""], 1)
