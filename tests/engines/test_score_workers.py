"""score with workers: the same parts as one process writes, whoever dies meanwhile."""

import json
import subprocess
from pathlib import Path

import pytest

from prune_cli.stages.score import joined

from ..conftest import lines, records, status_of, zstd
from .killing import kill_at_random

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


def hold_to_one_process(corpus, folder: Path, *, seed: int, kills: int) -> int:
    """Returns the number of kills."""
    assert status_of("score", "-m", "random", "-f", "-O", folder / "one", *corpus) == 0
    killed = folder / f"killed-{seed}"
    arguments = ("score", "-q", "-m", "random", "-j", 2, *corpus)
    done = kill_at_random(*arguments, "-O", killed, seed=seed, kills=kills)
    assert content(killed) == content(folder / "one")
    assert (killed / "manifest.json").read_bytes() == (folder / "one" / "manifest.json").read_bytes()
    return done


def test_no_record_is_lost_or_doubled_when_workers_are_killed(corpus, tmp_path):
    assert hold_to_one_process(corpus, tmp_path, seed=1, kills=4)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(10))
def test_no_record_is_lost_or_doubled_whoever_is_killed_at_random(seed, corpus, tmp_path):
    kills = 0
    for again in range(100):
        kills += hold_to_one_process(corpus, tmp_path, seed=100 * seed + again, kills=12)
        if kills >= 20:
            break
    assert kills >= 20


# --- One output ---


@pytest.fixture
def small_shards(monkeypatch) -> None:
    monkeypatch.setattr(joined, "PIECE", 20_000)


@pytest.fixture
def texts(tmp_path) -> list[Path]:
    """Two files of plain text, with groups."""
    paths = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    for number, path in enumerate(paths):
        path.write_bytes(
            lines(
                {"id": f"{number}-{at}", "text": "lorem ipsum " * (at % 9), "source": "xyz"[at % 3]}
                for at in range(500)
            )
        )
    return paths


def unpacked(path: Path) -> bytes:
    if path.suffix == ".jsonl":
        return path.read_bytes()
    return subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout


@pytest.mark.parametrize("options", [(), ("--plain",), ("--single-frame",), ("--group-by", "id")])
def test_workers_write_one_output_like_one_process(options, texts, small_shards, tmp_path, here):
    outputs = [tmp_path / "one.zst", tmp_path / "two.zst"]
    for output, workers in zip(outputs, ((), ("-j", 2)), strict=True):
        summary = output.with_suffix(".json")
        command = ("score", "-m", "random", *options, *workers, *texts, "-o", output, "--summary", summary)
        assert status_of(*command) == 0
    if options == ("--plain",):
        assert outputs[0].read_bytes() == outputs[1].read_bytes()
        return
    assert unpacked(outputs[0]) == unpacked(outputs[1])
    one, two = (json.loads(here("stat", "--no-progress", output).stdout) for output in outputs)
    assert {**one, "file": ""} == {**two, "file": ""}
    one, two = (json.loads(output.with_suffix(".json").read_bytes()) for output in outputs)
    times = ("seconds", "tokens_per_second")
    assert {name: one[name] for name in one if name not in times} == {
        name: two[name] for name in two if name not in times
    }
    # Nothing is left of the parts.
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.jsonl", "b.jsonl", "one.zst", "two.zst", "one.json", "two.json"}


def test_workers_score_with_a_model_as_one_process_does(texts, monkeypatch, tmp_path, here):
    pytest.importorskip("torch")
    texts[0].write_bytes(b"".join(texts[0].read_bytes().splitlines(keepends=True)[:60]))
    monkeypatch.setattr(joined, "PIECE", 3000)
    for name, workers in (("one", ()), ("two", ("-j", 2))):
        output = tmp_path / f"{name}.zst"
        assert status_of("score", "--dtype", "float32", *workers, texts[0], "-o", output) == 0
    one, two = (records((tmp_path / f"{name}.zst").read_bytes()) for name in ("one", "two"))
    assert [each["id"] for each in one] == [each["id"] for each in two]
    for left, right in zip(one, two, strict=True):
        assert (left["perplexity"] is None) == (right["perplexity"] is None) == (not left["text"])
        assert (left["perplexity"] or 0) == pytest.approx(right["perplexity"] or 0, rel=1e-4)
    # The same head, and the same counts in the trailer.
    one, two = (json.loads(here("stat", tmp_path / f"{name}.zst").stdout) for name in ("one", "two"))
    # Batches differ, and with them the last digits of some scores, of which there may be one more or less.
    assert abs(one.pop("bytes") - two.pop("bytes")) < 1000
    assert {**one, "file": ""} == {**two, "file": ""}


def test_workers_write_to_standard_output_in_order(texts, small_shards, here, tmp_path):
    whole = here("score", "-m", "random", *texts).stdout
    assert records(here("score", "-m", "random", "-j", 2, *texts).stdout) == records(whole)


def test_a_pipe_is_read_by_this_process(here):
    done = here("score", "-m", "random", "-j", 2, stdin=lines([{"id": 1, "text": "a"}]))
    assert len(records(done.stdout)) == 1
    assert b"a pipe is read by one process: --jobs has no effect" in done.stderr


@pytest.mark.parametrize("option", [("--resume",), ("--shard", "1/2")])
def test_options_that_need_one_process_are_refused(option, texts, tmp_path, here):
    said = here("score", "-m", "random", "-j", 2, *option, *texts, "-o", tmp_path / "o.zst", status=2).stderr
    assert b"write a dataset with -O DIR, or leave out --jobs" in said


def test_a_number_of_records_that_is_wrong_leaves_no_output(texts, small_shards, tmp_path, here):
    command = ("score", "-m", "random", "-j", 2, *texts, "-o", tmp_path / "o.zst", "--expect-records")
    assert b"1000 records arrived, 999 were expected" in here(*command, 999, status=65).stderr
    assert not (tmp_path / "o.zst").exists()
    here(*command, 1000)


def test_a_bad_record_behind_the_first_shard_leaves_no_output(texts, small_shards, tmp_path, here):
    with texts[1].open("ab") as file:
        file.write(b"oops\n")
    command = ("score", "-m", "random", "-j", 2, *texts, "-o", tmp_path / "o.zst")
    assert b"b.jsonl from byte " in (said := here(*command, status=65).stderr)
    assert b"not JSON" in said
    assert {path.name for path in tmp_path.iterdir()} == {"a.jsonl", "b.jsonl"}


def test_one_output_is_whole_or_absent_whoever_is_killed(corpus, tmp_path):
    """Files that are not cut are shards as well."""
    arguments = ("score", "-q", "-m", "random", *corpus)
    assert status_of(*arguments, "-o", tmp_path / "one.zst") == 0
    assert kill_at_random(*arguments, "-j", 2, "-o", tmp_path / "killed.zst", seed=3, kills=4)
    assert unpacked(tmp_path / "killed.zst") == unpacked(tmp_path / "one.zst")
    # Not even folders of runs that were killed.
    assert {path.name for path in tmp_path.iterdir()} <= {
        *(path.name for path in corpus),
        "one.zst",
        "killed.zst",
        ".killed.zst.prune-cli",
    }
