"""rank -O: the parts of a dataset, in order, are the ranking that one process writes."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_cli import storage
from prune_cli.errors import DataError
from prune_cli.settings.rank import Ranking
from prune_cli.settings.streams import Streams, Unit
from prune_cli.stages.datasets import NothingToDo
from prune_cli.stages.rank import dataset as rank_datasets
from prune_cli.stages.rank import merging
from prune_cli.stages.rank.dataset import rank_dataset
from prune_cli.stages.rank.portions import WorkerShare
from prune_cli.stages.rank.run import RankJob
from prune_cli.stream import index

from ..conftest import prune, scored, status_of
from .sharded import CORPORA, Several, contents, files

MANIFEST = -1


@pytest.fixture
def paths(tmp_path) -> list[str]:
    return files(tmp_path, [scored(80), scored(40)])


@pytest.fixture(autouse=True)
def small_parts(monkeypatch) -> None:
    monkeypatch.setattr(rank_datasets, "PART", 15_000)


def names(folder: Path) -> list[str]:
    return [part["name"] for part in json.loads((folder / "manifest.json").read_bytes())["parts"]]


def unpacked(*paths: Path) -> bytes:
    return subprocess.run(["zstd", "-dc", *paths], capture_output=True, check=True).stdout


def whole(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- What is made ---


@settings(max_examples=40)
@given(
    corpus=CORPORA,
    reverse=st.booleans(),
    by=st.sampled_from(Unit),
    within=st.sampled_from([None, "kind"]),
    memory=st.sampled_from([1000, 8000, 1 << 20]),
    piece=st.sampled_from([1, 700, 4000, 1 << 20]),
)
def test_the_parts_in_order_are_the_ranking(tmp_path_factory, corpus, reverse, by, within, memory, piece):
    folder = tmp_path_factory.mktemp("rank")
    paths = files(folder, corpus)
    ranking = Ranking(
        key="perplexity",
        reverse=reverse,
        by=by,
        within=within,
        temporary_directory=[str(folder)],
        output_directory=str(folder / "made"),
    )
    streams = Streams(output=str(folder / "one"), allow_empty=True, progress=False)
    share = WorkerShare(memory, piece)
    try:
        RankJob(tuple(paths), ranking, streams).run()
    except DataError as error:
        with pytest.raises(DataError, match=str(error)[:20]):
            rank_dataset(paths, ranking, streams, Several(), share)
        return
    divided = rank_dataset(paths, ranking, streams, Several(), share)
    text, head, totals = contents(folder / "one")
    made = folder / "made"
    parts = [contents(made / name) for name in names(made)]
    assert b"".join(part for part, _, _ in parts) == text
    for number, (_, part_head, _) in enumerate(parts, 1):
        section = part_head.pop("part")
        assert (section["number"], section["of"]) == (number, len(parts))
        assert part_head == head
    for name in ("text", "records", "nulls", "tokens", "unscored_tokens"):
        assert sum(getattr(part, name) for _, _, part in parts) == getattr(totals, name)
    facts = json.loads((made / "manifest.json").read_bytes())["facts"]
    assert facts == json.loads(json.dumps(divided.facts))
    for name in ("shape", "thresholds", "length_correlation"):
        assert facts.get(name) == getattr(totals, name)
    assert isinstance(rank_dataset(paths, ranking, streams, Several(), share), NothingToDo)


def test_the_manifest_gives_the_first_and_last_rank_of_each_part(paths, tmp_path):
    assert status_of("rank", "-k", "perplexity", "-O", tmp_path / "made", *paths) == 0
    parts = json.loads((tmp_path / "made" / "manifest.json").read_bytes())["parts"]
    assert len(parts) > 3
    assert [part["name"] for part in parts] == [
        f"part-{number:05}-of-{len(parts):05}.jsonl.zst" for number in range(1, len(parts) + 1)
    ]
    *scored_parts, unscored = parts
    assert [part["first"] for part in scored_parts] == [
        0,
        *(part["last"] + 1 for part in scored_parts[:-1]),
    ]
    assert "first" not in unscored
    assert unscored["nulls"] == unscored["records"]


def test_workers_and_memory_do_not_change_a_byte(paths, tmp_path):
    options = ("rank", "-k", "perplexity", "--by", "tokens", *paths)
    assert status_of(*options, "-O", tmp_path / "one") == 0
    assert status_of(*options, "-j", 2, "-S", "10K", "-T", tmp_path, "-O", tmp_path / "two") == 0
    assert whole(tmp_path / "one") == whole(tmp_path / "two")
    assert status_of(*options, "-o", tmp_path / "stream.zst") == 0
    assert unpacked(*(tmp_path / "one" / name for name in names(tmp_path / "one"))) == unpacked(
        tmp_path / "stream.zst"
    )


# --- Made again ---


@pytest.fixture
def made(paths, tmp_path) -> Path:
    assert status_of("rank", "-k", "perplexity", "-O", tmp_path / "made", *paths) == 0
    return tmp_path / "made"


def test_a_finished_dataset_has_nothing_to_do(made, paths, capfd, monkeypatch):
    before = whole(made)
    monkeypatch.setattr(rank_datasets, "_rank", None)
    assert status_of("rank", "-v", "-k", "perplexity", "-O", made, *paths) == 0
    assert f"all {len(names(made))} parts were already finished" in capfd.readouterr().err
    assert whole(made) == before


@pytest.mark.parametrize("lost", [[MANIFEST], [1], [0, 2, MANIFEST], "all"])
def test_parts_that_are_missing_are_made_and_no_others(lost, made, paths):
    before = whole(made)
    parts = names(made)
    numbers = range(len(parts)) if lost == "all" else lost
    gone = [parts[number] for number in numbers if number != MANIFEST]
    gone += ["manifest.json"] if lost == "all" or MANIFEST in lost else []
    for name in gone:
        (made / name).unlink()
    times = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    assert status_of("rank", "-k", "perplexity", "-O", made, *paths) == 0
    assert whole(made) == before
    kept = {name: time for name, time in times.items() if name in parts}
    assert {name: (made / name).stat().st_mtime_ns for name in kept} == kept


def test_a_part_of_another_dataset_is_made_again(made, paths, tmp_path):
    before = whole(made)
    assert status_of("rank", "-k", "perplexity", "-r", "-O", tmp_path / "other", *paths) == 0
    first = names(made)[0]
    (made / first).write_bytes((tmp_path / "other" / names(tmp_path / "other")[0]).read_bytes())
    (made / names(made)[1]).write_bytes(b"cut")
    assert status_of("rank", "-k", "perplexity", "-O", made, *paths) == 0
    assert whole(made) == before


def test_a_stopped_run_leaves_whole_parts_and_a_plan(paths, tmp_path, monkeypatch):
    made = tmp_path / "made"
    write = merging.MergeWorker._write

    def fail(self, job, records) -> None:
        if job.number == 3:
            raise DataError("stopped here")
        write(self, job, records)

    with monkeypatch.context() as failing:
        failing.setattr(merging.MergeWorker, "_write", fail)
        assert status_of("rank", "-k", "perplexity", "-O", made, *paths) == 65
    there = [path.name for path in made.iterdir()]
    of = len(json.loads((made / "plan.json").read_bytes())["parts"])
    assert sorted(there) == [
        f"part-00001-of-{of:05}.jsonl.zst",
        f"part-00002-of-{of:05}.jsonl.zst",
        "plan.json",
    ]
    assert status_of("slice", "--range", "0:1", made) == 65
    assert json.loads(prune("stat", made).stdout)["parts_done"] == 2
    assert status_of("rank", "-k", "perplexity", "-O", made, *paths) == 0
    assert status_of("rank", "-k", "perplexity", "-O", tmp_path / "other", *paths) == 0
    assert whole(made) == whole(tmp_path / "other")


def test_another_ranking_is_refused_before_anything_is_read(made, paths, capfd, monkeypatch):
    monkeypatch.setattr(rank_datasets, "_rank", None)
    assert status_of("rank", "-k", "n_scored", "-O", made, *paths) == 78
    assert "was made with key 'perplexity', not 'n_scored'" in capfd.readouterr().err
    assert status_of("rank", "-k", "perplexity", "-O", made, paths[0]) == 78
    assert "plan.json: was made of other inputs" in capfd.readouterr().err


def test_parts_that_are_left_of_a_replaced_dataset_are_named(made, paths, here):
    before = names(made)
    said = here("rank", "-k", "perplexity", "-f", "-O", made, paths[1]).stderr.decode()
    left = [name for name in before if name not in names(made)]
    assert len(left) > 3
    assert said == (
        f"prune-cli rank: warning: {made}: left from the dataset that was replaced, and no part of this one: "
        f"{', '.join(left[:3])}, ...\n"
    )


def test_force_begins_again(made, paths):
    assert status_of("rank", "-k", "n_scored", "-f", "-O", made, *paths) == 0
    assert json.loads((made / "manifest.json").read_bytes())["settings"]["key"] == "n_scored"
    times = {name: (made / name).stat().st_mtime_ns for name in names(made)}
    assert status_of("rank", "-k", "n_scored", "-f", "-O", made, *paths) == 0
    assert all((made / name).stat().st_mtime_ns > time for name, time in times.items())


def test_an_input_that_changed_is_named(made, paths, capfd):
    (made / "manifest.json").unlink()
    with open(paths[1], "a") as file:
        file.write('{"perplexity": 1}\n')
    assert status_of("rank", "-k", "perplexity", "-O", made, *paths) == 65
    assert f"{paths[1]}: changed since the run that began" in capfd.readouterr().err


def test_a_copy_of_a_compressed_input_is_the_same_input(paths, tmp_path, capfd):
    subprocess.run(["zstd", "-q", *paths], check=True)
    packed = [f"{path}.zst" for path in paths]
    assert status_of("rank", "-k", "perplexity", "-O", tmp_path / "made", *packed) == 0
    for path in packed:
        data = Path(path).read_bytes()
        os.unlink(path)
        Path(path).write_bytes(data)
    assert status_of("rank", "-v", "-k", "perplexity", "-O", tmp_path / "made", *packed) == 0
    assert "already finished" in capfd.readouterr().err


def test_a_second_run_is_turned_away(made, paths, capfd):
    from prune_cli.stream.lease import lease

    with lease(str(made), "run"):
        assert status_of("rank", "-k", "perplexity", "-O", made, *paths) == 75


def test_a_dataset_is_not_ranked_into_itself(made, paths, capfd):
    before = whole(made)
    assert status_of("rank", "-f", "--overwrite", "-k", "perplexity", "-O", made, made) == 73
    assert "the output is also an input" in capfd.readouterr().err
    assert whole(made) == before


@pytest.mark.parametrize(
    "options", [("-o", "x"), ("--plain",), ("--single-frame",), ("--merge",), ("--check",)]
)
def test_options_of_one_output_are_usage_errors(options, paths, tmp_path):
    assert status_of("rank", "-k", "perplexity", *options, "-O", tmp_path / "made", *paths) == 2
    assert not (tmp_path / "made").exists()


def test_a_pipe_makes_no_dataset(tmp_path):
    done = prune("rank", "-k", "perplexity", "-O", tmp_path / "made", stdin=b'{"perplexity": 1}\n', status=2)
    assert b"cannot be read again" in done.stderr


def test_unscored_groups_are_left_out_of_all_trailers_if_they_are_too_many(tmp_path):
    corpus = [[{"perplexity": row, "source": f"{part}-{row}"} for row in range(200)] for part in range(2)]
    assert status_of("rank", "-k", "perplexity", "-O", tmp_path / "made", *files(tmp_path, corpus)) == 0
    tables = [
        index.read_table(storage.input_at(str(tmp_path / "made" / name))) for name in names(tmp_path / "made")
    ]
    assert len(tables) > 1
    assert not any(table.totals.groups for table in tables)


# --- Readers: all parts in order are one ranking ---


CUTS = [
    ("--keep", "middle", "--frac", "0.5"),
    ("--range", "0.2:0.21"),
    ("--keep", "top", "--frac", "0.3", "--invert", "--keep-unscored"),
    ("--min", "30", "--max", "52"),
    ("--range", "0:1"),
    ("--keep", "bottom", "--tokens", "500"),
    ("--keep", "random", "--frac", "0.4"),
]


@pytest.fixture
def stream(paths, tmp_path) -> Path:
    """The same ranking in one file."""
    assert status_of("rank", "-k", "perplexity", "-o", tmp_path / "stream.zst", *paths) == 0
    return tmp_path / "stream.zst"


def spellings(made: Path) -> list[list[Path]]:
    """The dataset as operands: its folder, manifest, parts in order, and these in one file."""
    parts = parts_of(made)
    joined = made.parent / "joined.zst"
    joined.write_bytes(b"".join(path.read_bytes() for path in parts))
    return [[made], [made / "manifest.json"], parts, [joined]]


@pytest.mark.parametrize("cut", CUTS)
def test_a_slice_of_the_parts_is_a_slice_of_the_ranking(cut, made, stream, here, tmp_path):
    whole = here("slice", *cut, stream, "--plain", "--summary", tmp_path / "whole.json").stdout
    for operands in spellings(made):
        summary = tmp_path / "parts.json"
        assert here("slice", *cut, *operands, "--plain", "-f", "--summary", summary).stdout == whole
        of_parts, of_whole = (json.loads(path.read_bytes()) for path in (summary, tmp_path / "whole.json"))
        # Frames that are copied do not tell it, and the manifest is not looked for.
        if operands == parts_of(made) and of_parts["length_correlation"] is None:
            del of_parts["length_correlation"], of_whole["length_correlation"]
        assert of_parts == of_whole


def parts_of(made: Path) -> list[Path]:
    return [made / name for name in names(made)]


def test_frames_of_parts_are_copied_and_few_are_decoded(paths, tmp_path, monkeypatch):
    monkeypatch.setattr("prune_cli.stream.writer.FRAME", 1500)
    for output in (("-O", made := tmp_path / "made"), ("-o", stream := tmp_path / "stream")):
        assert status_of("rank", "-k", "perplexity", *output, *paths) == 0
    decoded = []
    text = index.Table.text

    def counted(self, number: int) -> bytes:
        decoded.append(number)
        return text(self, number)

    monkeypatch.setattr(index.Table, "text", counted)
    for source, name in ((made, "a"), (stream, "b")):
        assert status_of("slice", "--range", "0.2:0.8", source, "-o", tmp_path / name) == 0
    assert len(index.read_table(storage.input_at(str(stream))).frames) > 30
    assert len(decoded) < 30
    assert contents(tmp_path / "a")[0] == contents(tmp_path / "b")[0]


def test_the_ranking_is_checked_merged_and_verified_as_a_whole(made, stream, paths, here, tmp_path):
    for operands in spellings(made):
        here("rank", "-c", *operands)
    assert status_of("rank", "-k", "perplexity", "-o", tmp_path / "other.zst", paths[1]) == 0
    for options in ((), ("--threads", 1)):
        merged = here("rank", "--merge", *options, "--plain", stream, tmp_path / "other.zst").stdout
        for operands in spellings(made):
            assert here("rank", "--merge", "--plain", *operands, tmp_path / "other.zst").stdout == merged
    verified = json.loads(here("stat", "--verify", made).stdout)
    assert verified["verified"]


def test_stat_has_the_thresholds_of_the_whole(made, stream, here):
    of_parts, of_whole = (json.loads(here("stat", path).stdout) for path in (made, stream))
    for name in ("scores", "groups", "records", "nulls", "tokens", "length_correlation"):
        assert of_parts[name] == of_whole[name]


@pytest.mark.parametrize("command", [("slice", "--range", "0:1"), ("rank", "-c"), ("rank", "--merge")])
@pytest.mark.parametrize(
    ("chosen", "fault"),
    [
        ([0, 1, 3, 4], "part 4 follows part 2"),
        ([1, 0, 2, 3, 4], "the input begins with part 2 of 5"),
        ([0, 2, 1, 3, 4], "part 3 follows part 1"),
        ([0, 1, 2, 3], "the input ends with part 4 of 5"),
        ([0, 0, 1, 2, 3, 4], "part 1 follows part 1"),
        ([2], "the input begins with part 3 of 5"),
    ],
)
@pytest.mark.parametrize("is_joined", [True, False])
def test_parts_that_are_not_all_in_order_are_named(command, chosen, fault, is_joined, made, here):
    parts = parts_of(made)
    assert len(parts) == 5
    operands = [parts[number] for number in chosen]
    if is_joined:
        joined = made.parent / "joined.zst"
        joined.write_bytes(b"".join(path.read_bytes() for path in operands))
        operands = [joined]
    said = here(*command, "-q", *operands, status=65).stderr.decode()
    assert fault in said
    assert "name the folder of the dataset, or all of its parts in order" in said


def test_parts_of_two_rankings_are_not_one(made, paths, tmp_path, here):
    assert status_of("rank", "-k", "perplexity", "--by", "tokens", "-O", tmp_path / "other", *paths) == 0
    mixed = [made / names(made)[0], *(tmp_path / "other" / name for name in names(tmp_path / "other")[1:])]
    said = here("slice", "--range", "0:1", *mixed, status=65).stderr.decode()
    assert "part 2 of another ranking follows part 1" in said
    said = here("slice", "--range", "0:1", made, tmp_path / "other", status=65).stderr.decode()
    assert "part 1 of another ranking follows part 5" in said
