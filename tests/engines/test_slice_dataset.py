"""slice -O: the parts of a dataset, in order, are the slice that one process writes."""

import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from prune_cli import storage
from prune_cli.engines import plan
from prune_cli.errors import InputOutputError
from prune_cli.settings.slice import Slicing
from prune_cli.settings.streams import Streams
from prune_cli.stages.rank import dataset as rank_datasets
from prune_cli.stages.slice.parts import copying
from prune_cli.stages.slice.parts import run as slice_datasets
from prune_cli.stages.slice.parts.run import SliceJob, SliceOnEngine
from prune_cli.stream import index

from ..conftest import records, scored, status_of
from .sharded import CORPORA, Several, files
from .test_divided_slice import SELECTIONS

CUTS = [
    ("--keep", "middle", "--frac", "0.5"),
    ("--range", "0.2:0.21"),
    ("--keep", "top", "--frac", "0.3", "--invert", "--keep-unscored"),
    ("--min", "30", "--max", "52"),
    ("--range", "0:1"),
    ("--keep", "top", "--frac", "0"),
    ("--keep", "bottom", "--tokens", "500"),
    ("--keep", "random", "--frac", "0.4"),
]


@pytest.fixture(autouse=True)
def small_parts(monkeypatch) -> None:
    monkeypatch.setattr(rank_datasets, "PART", 15_000)
    monkeypatch.setattr(plan, "TARGET", 6000)


@pytest.fixture
def paths(tmp_path) -> list[str]:
    return files(tmp_path, [scored(80), scored(40)])


@pytest.fixture
def ranked(paths, tmp_path) -> Path:
    assert status_of("rank", "-k", "perplexity", "-O", tmp_path / "ranked", *paths) == 0
    return tmp_path / "ranked"


def names(folder: Path) -> list[str]:
    return [part["name"] for part in json.loads((folder / "manifest.json").read_bytes())["parts"]]


def unpacked(folder: Path) -> bytes:
    paths = [folder / name for name in names(folder)]
    return subprocess.run(["zstd", "-dc", *paths], capture_output=True, check=True).stdout


def whole(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


# --- Of a ranking ---


@pytest.mark.parametrize("cut", CUTS)
def test_the_parts_of_a_slice_of_a_ranking_are_the_slice(cut, ranked, here, tmp_path):
    one = here("slice", *cut, ranked, "--plain", "--summary", tmp_path / "one.json").stdout
    made = tmp_path / "made"
    here("slice", "-q", *cut, ranked, "-O", made, "--summary", tmp_path / "parts.json")
    assert unpacked(made) == one
    assert json.loads((tmp_path / "parts.json").read_bytes()) == json.loads(
        (tmp_path / "one.json").read_bytes()
    )
    assert records(here("rank", "--overwrite", "-k", "perplexity", made).stdout) is not None


def test_files_that_are_kept_whole_are_copies_and_the_slice_is_sliced_again(ranked, here, tmp_path):
    made = tmp_path / "made"
    here("slice", "-q", "--range", "0.2:0.9", ranked, "-O", made)
    copies = [name for name in names(made) if (made / name).read_bytes() == (ranked / name).read_bytes()]
    assert 0 < len(copies) == len(names(made)) - 2
    for cut in CUTS[:5]:
        assert (
            here("slice", "-q", *cut, made, "--plain").stdout
            == here("slice", "-q", *cut, *_one(ranked, tmp_path), "--plain").stdout
        )
    described = json.loads(here("stat", made).stdout)
    assert (described["verb"], described["parts"]) == ("slice", len(names(made)))
    assert described["scores"] == json.loads(here("stat", *_one(ranked, tmp_path)).stdout)["scores"]


def _one(ranked: Path, folder: Path) -> list[Path]:
    """The same slice in one file."""
    if not (folder / "one.zst").exists():
        assert status_of("slice", "-q", "--range", "0.2:0.9", ranked, "-o", folder / "one.zst") == 0
    return [folder / "one.zst"]


@pytest.mark.parametrize("cut", ["0.1:0.9", "0.13:0.131", "0.5:1"])
def test_whole_files_are_not_read_and_few_frames_decoded(cut, tmp_path, monkeypatch):
    monkeypatch.setattr("prune_cli.stream.writer.FRAME", 1500)
    ranked = tmp_path / "ranked"
    corpus = [[{"perplexity": at * 37 % 500, "text": "x" * 200} for at in range(500)]]
    assert status_of("rank", "-k", "perplexity", "-O", ranked, *files(tmp_path, corpus)) == 0
    read: list[str] = []
    frame = index.Table.frame

    def counted(self, number: int, buffer: bytearray) -> memoryview:
        read.append(Path(self.file.path).name)
        return frame(self, number, buffer)

    decoded: list[int] = []
    text = index.Table.text

    def noted(self, number: int) -> bytes:
        decoded.append(number)
        return text(self, number)

    monkeypatch.setattr(index.Table, "frame", counted)
    monkeypatch.setattr(index.Table, "text", noted)
    assert status_of("slice", "-q", "--range", cut, ranked, "-O", tmp_path / "made") == 0
    # One an edge; two where it lies between frames, whose scores may be equal.
    assert len(decoded) <= 3
    copied = {
        name
        for name in names(tmp_path / "made")
        if (tmp_path / "made" / name).read_bytes() == (ranked / name).read_bytes()
    }
    assert bool(copied) == (cut != "0.13:0.131")
    # Those that show whether equal scores lie on both sides of an edge.
    assert len([name for name in read if name in copied]) <= len(decoded)


# --- Of a stream in any order ---


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(corpus=CORPORA, selection=SELECTIONS)
def test_the_parts_of_a_slice_by_a_score_are_the_slice(tmp_path_factory, monkeypatch, corpus, selection):
    monkeypatch.setattr(plan, "TARGET", 700)
    folder = tmp_path_factory.mktemp("slice")
    paths = tuple(files(folder, corpus))
    options = Streams(output=str(folder / "one"), allow_empty=True, progress=False)
    slicing = Slicing(key="perplexity", summary=str(folder / "one.json"))
    SliceJob(paths, selection, slicing, options).run()
    of_parts = Slicing(
        key="perplexity", summary=str(folder / "parts.json"), output_directory=str(folder / "made")
    )
    several = Streams(allow_empty=True, progress=False)
    SliceOnEngine(SliceJob(paths, selection, of_parts, several), Several()).run()
    table = index.read_table(storage.input_at(str(folder / "one")))
    with table.file.open():
        text = b"".join(table.text(frame) for frame in range(len(table.frames)))
    made = [
        index.read_table(storage.input_at(str(folder / "made" / name))) for name in names(folder / "made")
    ]
    parts = []
    for part in made:
        with part.file.open():
            parts += [part.text(frame) for frame in range(len(part.frames))]
    assert b"".join(parts) == text
    assert (folder / "parts.json").read_bytes() == (folder / "one.json").read_bytes()


def test_parts_have_the_names_of_the_inputs_and_workers_change_nothing(paths, tmp_path):
    options = ("slice", "-q", "-k", "perplexity", "--keep", "middle", "--frac", "0.4", *paths)
    assert status_of(*options, "-O", tmp_path / "one") == 0
    assert status_of(*options, "-j", 2, "-O", tmp_path / "two") == 0
    assert whole(tmp_path / "one") == whole(tmp_path / "two")
    assert names(tmp_path / "one")[0].startswith("0.00001-of-0000")
    assert names(tmp_path / "one")[-1].startswith("1.")


# --- Made again ---


@pytest.mark.parametrize(
    "options", [("--range", "0.1:0.9"), ("-k", "n_scored", "--keep", "top", "--frac", "0.6")]
)
def test_missing_parts_are_made_and_a_finished_dataset_is_left(options, ranked, tmp_path, capfd, monkeypatch):
    made = tmp_path / "made"
    command = ("slice", *options, ranked, "-O", made)
    assert status_of(*command) == 0
    before = whole(made)
    for name in (names(made)[0], names(made)[2], "manifest.json"):
        (made / name).unlink()
    kept = made / "plan.json", made / json.loads((made / "plan.json").read_bytes())["parts"][1]["name"]
    times = [path.stat().st_mtime_ns for path in kept]
    assert status_of(*command) == 0
    assert whole(made) == before
    assert [path.stat().st_mtime_ns for path in kept] == times
    monkeypatch.setattr(slice_datasets.SliceDataset, "_make", None)
    assert status_of(*command, "-v", "--summary", tmp_path / "again.json") == 0
    assert f"all {len(names(made))} parts were already finished" in capfd.readouterr().err
    assert json.loads((tmp_path / "again.json").read_bytes())["in"] == 120
    assert status_of("slice", "--range", "0.1:0.8", ranked, "-O", made) == 78


def test_a_finished_slice_is_left_alone_with_its_summary(ranked, tmp_path):
    summary = tmp_path / "summary.json"
    command = ("slice", "-q", "--range", "0.1:0.8", ranked, "-O", tmp_path / "made", "--summary", summary)
    assert status_of(*command) == 0
    before = (whole(tmp_path / "made"), summary.read_bytes())
    assert status_of(*command) == 0
    assert (whole(tmp_path / "made"), summary.read_bytes()) == before
    summary.write_text("another one")
    assert status_of(*command) == 73, "what is there is no summary of this dataset"
    summary.write_bytes(before[1])
    (tmp_path / "made" / names(tmp_path / "made")[0]).unlink()
    assert status_of(*command) == 73, "an unfinished one writes a summary again"


def test_a_failed_run_that_made_nothing_does_not_bind_a_corrected_one(ranked, tmp_path, monkeypatch):
    made = tmp_path / "made"

    def fails(self, made, head):
        raise InputOutputError("the disk is gone")

    with monkeypatch.context() as patched:
        patched.setattr(copying.FrameParts, "make", fails)
        assert status_of("slice", "--range", "0.1:0.8", ranked, "-O", made) == 74
    assert (made / "plan.json").exists()
    assert status_of("slice", "-q", "--range", "0.2:0.8", ranked, "-O", made) == 0
    assert status_of("slice", "-q", "--range", "0.1:0.8", ranked, "-O", made) == 78


def test_a_slice_of_an_empty_ranking_is_a_dataset(tmp_path, here):
    (tmp_path / "none.jsonl").write_bytes(b"")
    here("rank", "-q", "--allow-empty", "-O", tmp_path / "ranked", tmp_path / "none.jsonl")
    here("slice", "-q", "--range", "0:1", tmp_path / "ranked", "-O", tmp_path / "made")
    assert json.loads(here("stat", tmp_path / "made").stdout)["records"] == 0
    here("slice", "-q", "--range", "0:1", tmp_path / "ranked", "-O", tmp_path / "made")


def test_a_file_that_changes_while_it_is_copied_is_65(ranked, tmp_path, monkeypatch, here):
    copy = storage.copy

    def changing(source, path):
        copy(source, path)
        with open(path, "ab") as output:
            output.write(b"more")

    monkeypatch.setattr(storage, "copy", changing)
    command = ("slice", "-q", "--range", "0:1", ranked, "-O", tmp_path / "made")
    assert b"changed while it was copied" in here(*command, status=65).stderr


def test_what_stands_in_the_way_of_a_dataset_is_named(ranked, paths, tmp_path, here):
    said = here("slice", "--level", 5, "--range", "0:1", ranked, "-O", tmp_path / "made", status=2).stderr
    assert b"which --level would compress anew; leave out --level" in said
    cut = tmp_path / "cut.json"
    cut.write_bytes(here("stat", "-k", "perplexity", "--thresholds", "0.2,0.8", paths[0]).stdout)
    assert b"--cut reads" in here("slice", "--cut", cut, *paths, "-O", tmp_path / "made", status=2).stderr


@pytest.mark.parametrize(
    "options",
    [
        ("--rejects", "x"),
        ("--scores", "x"),
        ("-o", "x"),
        ("--plain",),
        ("--skip-bad",),
    ],
)
def test_what_a_dataset_cannot_be_made_with_is_a_usage_error(options, ranked, tmp_path):
    assert status_of("slice", "--range", "0:1", *options, "-O", tmp_path / "made", ranked) == 2
    assert not (tmp_path / "made").exists()
