"""Datasets: the folder of score -O, its plan and manifest, and what its readers make of it."""

import json
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prune_cli import storage
from prune_cli.engines import plan
from prune_cli.stream import dataset

from ..conftest import ROOT, command, lines, records, status_of

TEXT = [{"id": f"doc-{at}", "text": "lorem ipsum " * (at % 7 + 1)} for at in range(300)]
RANDOM = ("-m", "random")


@pytest.fixture(autouse=True)
def small_shards(monkeypatch) -> None:
    """Shards of about four kilobytes."""
    monkeypatch.setattr(plan, "TARGET", 4000)


@pytest.fixture
def corpus(tmp_path) -> list[Path]:
    """A file that is cut into pieces, and a small one that is not."""
    (tmp_path / "web.jsonl").write_bytes(lines(TEXT[:280]))
    (tmp_path / "wiki.jsonl").write_bytes(lines(TEXT[280:283]))
    return [tmp_path / "web.jsonl", tmp_path / "wiki.jsonl"]


@pytest.fixture
def made(corpus, tmp_path) -> Path:
    """A dataset of both."""
    assert status_of("score", *RANDOM, "-O", tmp_path / "made", *corpus) == 0
    return tmp_path / "made"


def parts(folder: Path) -> list[str]:
    return [part["name"] for part in json.loads((folder / "manifest.json").read_bytes())["parts"]]


def unpacked(*paths: Path) -> bytes:
    return subprocess.run(["zstd", "-dc", *paths], capture_output=True, check=True).stdout


# --- What is made ---


def test_the_parts_in_order_hold_what_one_output_holds(made, corpus, tmp_path):
    assert status_of("score", *RANDOM, *corpus, "-o", tmp_path / "one.zst") == 0
    names = parts(made)
    of = len(names) - 1
    assert of > 4
    assert names == [
        *(f"web.{number:05}-of-{of:05}.jsonl.zst" for number in range(1, of + 1)),
        "wiki.jsonl.zst",
    ]
    assert unpacked(*(made / name for name in names)) == unpacked(tmp_path / "one.zst")
    assert {path.name for path in made.iterdir()} == {*names, "plan.json", "manifest.json"}


def test_the_manifest_counts_the_records_of_each_part(made):
    manifest = json.loads((made / "manifest.json").read_bytes())
    counts = [len(records((made / part["name"]).read_bytes())) for part in manifest["parts"]]
    assert [part["records"] for part in manifest["parts"]] == counts
    assert [part["size"] for part in manifest["parts"]] == [
        (made / part["name"]).stat().st_size for part in manifest["parts"]
    ]
    assert sum(counts) == 283
    assert (manifest["verb"], manifest["settings"]["fields"]) == ("score", ["random"])


def test_workers_make_the_same_dataset(made, corpus, tmp_path):
    assert status_of("score", *RANDOM, "-j", 2, "-O", tmp_path / "two", *corpus) == 0
    assert json.loads((tmp_path / "two" / "manifest.json").read_bytes()) == json.loads(
        (made / "manifest.json").read_bytes()
    )
    for name in parts(made):
        assert (tmp_path / "two" / name).read_bytes() == (made / name).read_bytes()


def test_a_finished_dataset_has_nothing_to_do(made, corpus, capfd):
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    assert status_of("score", "-v", *RANDOM, "-O", made, *corpus) == 0
    assert f"{len(parts(made))} outputs were already finished" in capfd.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before


def test_missing_parts_are_made_and_the_manifest_with_them(made, corpus):
    whole = {path.name: path.read_bytes() for path in made.iterdir()}
    for name in (parts(made)[2], "manifest.json"):
        (made / name).unlink()
    assert status_of("score", *RANDOM, "-O", made, *corpus) == 0
    assert {path.name: path.read_bytes() for path in made.iterdir()} == whole


def test_runs_of_two_shards_may_end_at_the_same_moment(made):
    """Both see that the last part is there. One writes the manifest, and the other waits for it."""
    manifest = made / "manifest.json"
    expected = manifest.read_bytes()
    manifest.unlink()
    made_plan = dataset.read_plan(str(made))
    assert made_plan
    with ThreadPoolExecutor(1) as thread, storage.create(str(manifest), force=True) as output:
        other = thread.submit(dataset.write_manifest, str(made), made_plan)
        time.sleep(0.2)
        assert not other.done()
        output.write(expected)
    assert other.result() == dataset.read_manifest(str(made))
    assert manifest.read_bytes() == expected


def test_a_stream_of_frames_is_cut_and_scored_like_the_whole(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("prune_cli.stream.writer.FRAME", 1000)
    monkeypatch.setattr("prune_cli.stages.score.windows.WINDOW_BYTES", 1000)
    assert status_of("score", *RANDOM, corpus[0], "-o", tmp_path / "a.jsonl.zst") == 0
    again = ("score", *RANDOM, "--seed", 1, "--prefix", "new_")
    assert status_of(*again, tmp_path / "a.jsonl.zst", "-o", tmp_path / "one.zst") == 0
    assert status_of(*again, tmp_path / "a.jsonl.zst", "-O", tmp_path / "many") == 0
    names = parts(tmp_path / "many")
    assert len(names) > 4
    assert unpacked(*(tmp_path / "many" / name for name in names)) == unpacked(tmp_path / "one.zst")


# --- Folders that change ---


def test_a_folder_grows_with_new_inputs(made, corpus, tmp_path):
    (tmp_path / "books.jsonl").write_bytes(lines(TEXT[290:]))
    assert status_of("score", *RANDOM, "-O", made, *corpus, tmp_path / "books.jsonl") == 0
    assert parts(made)[-1] == "books.jsonl.zst"
    # A part of the inputs is no reason to forget the others.
    assert status_of("score", *RANDOM, "-O", made, corpus[1]) == 0
    assert len(parts(made)) > 5


def test_a_folder_of_an_earlier_version_is_continued(corpus, tmp_path, monkeypatch):
    with monkeypatch.context() as large:
        large.setattr(plan, "TARGET", 1 << 30)
        assert status_of("score", *RANDOM, "-O", tmp_path / "old", *corpus) == 0
    for name in ("plan.json", "manifest.json", "wiki.jsonl.zst"):
        (tmp_path / "old" / name).unlink()
    before = (tmp_path / "old" / "web.jsonl.zst").stat().st_mtime_ns
    assert status_of("score", *RANDOM, "-O", tmp_path / "old", *corpus) == 0
    assert parts(tmp_path / "old") == ["web.jsonl.zst", "wiki.jsonl.zst"]
    assert (tmp_path / "old" / "web.jsonl.zst").stat().st_mtime_ns == before


def test_another_plan_is_refused_before_anything_is_written(made, corpus, tmp_path, capfd):
    other = tmp_path / "other.jsonl"
    other.write_bytes(lines(TEXT[:3]))
    assert status_of("score", *RANDOM, "--seed", 7, "-O", made, other) == 78
    assert "plan.json: was made with seed 0, not 7" in capfd.readouterr().err
    assert not (made / "other.jsonl.zst").exists()
    capfd.readouterr()
    assert status_of("score", *RANDOM, "--seed", 7, "-f", "-O", made, *corpus) == 0
    assert not capfd.readouterr().err
    assert status_of("score", *RANDOM, "--seed", 7, "-f", "-O", made, other) == 0
    assert "left from the dataset that was replaced" in capfd.readouterr().err
    assert parts(made) == ["other.jsonl.zst"]


def test_an_input_that_would_be_cut_in_another_way_is_refused(made, corpus, capfd):
    with corpus[0].open("ab") as file:
        file.write(lines(TEXT))
    assert status_of("score", *RANDOM, "-O", made, *corpus) == 78
    assert "web.jsonl into" in capfd.readouterr().err


# --- Readers ---


@pytest.mark.parametrize("operand", ["", "/", "/manifest.json"])
def test_a_dataset_is_an_operand_like_its_parts_in_order(operand, made, here):
    names = parts(made)
    by_parts = here("rank", "-k", "random", "--plain", *(made / name for name in names)).stdout
    assert here("rank", "-k", "random", "--plain", f"{made}{operand}").stdout == by_parts
    [described] = map(json.loads, here("stat", f"{made}{operand}").stdout.splitlines())
    assert (described["parts"], described["parts_done"], described["records"]) == (
        len(names),
        len(names),
        283,
    )


def test_a_dataset_is_a_test_set_of_eval(made):
    pytest.importorskip("torch")
    from prune_cli.settings.eval import Evaluation
    from prune_cli.settings.streams import Reading
    from prune_cli.stages.eval.held_out import read_all
    from prune_cli.stages.eval.operands import Operands
    from prune_cli.stages.eval.run import EvalJob

    evaluation = Evaluation(data=[str(made)])
    [test_set] = read_all(evaluation, Reading())
    assert len(test_set.items) == 283
    inputs = EvalJob((), evaluation)._inputs(Operands([], [], frozenset()))
    assert [Path(file.path).name for file in inputs] == parts(made)


def test_a_dataset_can_be_moved(made, tmp_path, here):
    shutil.copytree(made, tmp_path / "copy")
    assert len(records(here("rank", "-k", "random", tmp_path / "copy").stdout)) == 283


def test_an_unfinished_dataset_says_how_far_it_is(made, here):
    (made / "manifest.json").unlink()
    (made / parts_of_plan(made)[1]).unlink()
    said = here("rank", "-k", "random", made, status=65).stderr.decode()
    of = len(parts_of_plan(made))
    assert f"{made}: unfinished, {of - 1} of {of} parts" in said


def parts_of_plan(folder: Path) -> list[str]:
    return [part["name"] for part in json.loads((folder / "plan.json").read_bytes())["parts"]]


def test_a_part_that_is_missing_cut_changed_or_swapped_is_named(made, here):
    names = parts(made)
    one = (made / names[1]).read_bytes()

    def refused(fault: str) -> None:
        said = here("rank", "-k", "random", made, status=65).stderr.decode()
        assert f"{made / names[1]}: {fault}" in said

    (made / names[1]).unlink()
    refused("is missing from its dataset")
    (made / names[1]).write_bytes(one[:-1])
    refused(f"has {len(one) - 1} bytes, not the {len(one)} of its manifest")
    (made / names[1]).write_bytes(one[:-40] + b"x" + one[-39:])
    refused("is not the part that its manifest names")
    changed = bytearray(one)
    changed[len(one) // 3] ^= 1
    (made / names[1]).write_bytes(changed)
    # The manifest sees the end of a part; the checksums of its frames see the rest.
    assert here("rank", "-k", "random", made, status=65).stderr


@pytest.mark.parametrize("name", ["plan.json", "manifest.json"])
@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda data: data[:-20], "is damaged"),
        (lambda data: data.replace(b'"format": 1', b'"format": 2'), "is of format 2; this version reads 1"),
        (lambda data: data.replace(b'"parts": [', b'"parts": [7,'), "is damaged"),
        (lambda data: b"[]", "is damaged"),
    ],
)
def test_a_damaged_plan_or_manifest_is_named(name, change, fault, made, corpus, here):
    if name == "plan.json":
        (made / "manifest.json").unlink()
    (made / name).write_bytes(change((made / name).read_bytes()))
    assert f"{made / name}: {fault}" in here("rank", "-k", "random", made, status=65).stderr.decode()
    arguments = ("score", *RANDOM, "-O", made, *corpus)
    assert f"{made / name}: {fault}" in here(*arguments, status=65).stderr.decode()


def test_a_folder_without_a_plan_is_no_dataset(tmp_path, here):
    (tmp_path / "folder").mkdir()
    assert b"is a directory" in here("rank", tmp_path / "folder", status=66).stderr


def test_stat_tells_how_far_a_dataset_is_and_adds_up_its_trailers(made, here, tmp_path):
    whole = json.loads(here("stat", made).stdout)
    parts_alone = [
        json.loads(line) for line in here("stat", *(made / name for name in parts(made))).stdout.splitlines()
    ]
    for name in ("records", "nulls", "bytes"):
        assert whole[name] == sum(part[name] for part in parts_alone)
    (made / "manifest.json").unlink()
    gone = parts_of_plan(made)[1]
    (made / gone).unlink()
    unfinished = json.loads(here("stat", made).stdout)
    assert (unfinished["parts"], unfinished["parts_done"]) == (len(parts_alone), len(parts_alone) - 1)
    assert unfinished["records"] == whole["records"] - parts_alone[1]["records"]
    # From the records of all parts, as of one stream.
    by_records = json.loads(here("stat", "-k", "random", made).stdout)
    assert by_records["records"] == unfinished["records"]
    assert by_records["scores"]["random"]["records"] == unfinished["records"]
    for path in made.glob("*.zst"):
        path.unlink()
    empty = subprocess.run(
        command("stat", made), capture_output=True, cwd=ROOT, check=True, preexec_fn=close_input
    )
    assert json.loads(empty.stdout)["parts_done"] == 0


def close_input() -> None:
    os.close(0)


def test_stat_describes_files_with_workers_in_order(corpus, made, here):
    files = [*corpus, made, *corpus]
    assert (
        here("stat", "-j", 2, "-k", "random", made, made / parts(made)[0]).stdout
        == here("stat", "-k", "random", made, made / parts(made)[0]).stdout
    )
    assert here("stat", "-j", 2, *files).stdout == here("stat", *files).stdout


# --- Shards of a plan ---


@pytest.mark.parametrize("of", [2, 20])
def test_shards_of_a_plan_make_the_dataset_of_one_run(of, made, corpus, tmp_path):
    for number in range(1, of + 1):
        # The one that makes the last part writes the manifest; with more tasks than parts others do nothing.
        assert (tmp_path / "dealt" / "manifest.json").exists() == (number > min(of, len(parts(made))))
        shard = ("--shard", f"{number}/{of}")
        assert status_of("score", *RANDOM, *shard, "-O", tmp_path / "dealt", *corpus) == 0
    assert parts(tmp_path / "dealt") == parts(made)
    for name in parts(made):
        assert (tmp_path / "dealt" / name).read_bytes() == (made / name).read_bytes()


def test_shards_that_an_earlier_version_began_deal_records(corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("prune_cli.records.reader.RUN", 8)
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "web.1-of-2.jsonl.zst.partial").write_bytes(b"")
    for number in (1, 2):
        (folder / f"web.{number}-of-2.jsonl.zst.partial").write_bytes(b"")
        shard = ("--shard", f"{number}/2", "--resume")
        assert status_of("score", *RANDOM, *shard, "-O", folder, corpus[0]) == 0
    assert {path.name for path in folder.iterdir()} == {f"web.{part}-of-2.jsonl.zst" for part in (1, 2)}
    found = records(unpacked(*folder.iterdir()))
    assert sorted(record["id"] for record in found) == sorted(record["id"] for record in TEXT[:280])


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_an_output_that_is_an_input_by_another_name_is_refused(link, corpus, tmp_path, capfd):
    (tmp_path / "out").mkdir()
    getattr(tmp_path / "out" / "wiki.jsonl.zst", link)(corpus[0])
    assert status_of("score", *RANDOM, "-O", tmp_path / "out", *corpus) == 73
    assert "wiki.jsonl.zst: the output is also an input" in capfd.readouterr().err


def test_outputs_are_checked_in_a_time_that_grows_with_their_number_alone(tmp_path, monkeypatch):
    """30,000 outputs that exist are not compared with 30,000 inputs each."""
    from prune_cli import storage
    from prune_cli.storage import output_paths
    from prune_cli.storage.local.reading import LocalInput

    (tmp_path / "out").mkdir()
    paths = [tmp_path / f"{number}.jsonl" for number in range(50)]
    for path in paths:
        path.touch()
        (tmp_path / "out" / f"{path.name}.zst").touch()
    compared = []
    monkeypatch.setattr(LocalInput, "is_same_file", lambda *pair: compared.append(pair))
    output_paths.in_directory(str(tmp_path / "out"), storage.operands([str(path) for path in paths]))
    assert not compared
