"""rank by several workers writes the bytes of one process, whatever the files and the memory."""

import fcntl
import json
import os
import subprocess
from itertools import pairwise

import duckdb
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prune_cli import sizes, storage
from prune_cli.errors import DataError
from prune_cli.records.sorting.keys import UNSCORED, ordered_keys, scores_of
from prune_cli.settings.rank import Ranking
from prune_cli.settings.streams import Streams, Unit
from prune_cli.stages import divided as stages_divided
from prune_cli.stages.rank.divided import rank_divided
from prune_cli.stages.rank.portions import WorkerShare
from prune_cli.stages.rank.run import RankJob
from prune_cli.statistics.correlation import LengthCorrelation, SegmentCorrelation
from prune_cli.storage.temporary import FOLDER, shared_folders
from prune_cli.stream import writer

from ..conftest import prune, records, scored
from .sharded import CORPORA, Several, contents, files


def streams(path, **more):
    return Streams(output=str(path), force=True, allow_empty=True, progress=False, **more)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    corpus=CORPORA,
    reverse=st.booleans(),
    by=st.sampled_from(Unit),
    within=st.sampled_from([None, "kind"]),
    # Runs of a few records and of all; parts of one record and of all.
    memory=st.sampled_from([1000, 8000, 1 << 20]),
    piece=st.sampled_from([1, 700, 4000, 1 << 20]),
    # Sorted files are compressed if they do not fit into half of it.
    of_machine=st.sampled_from([0, 1 << 30]),
)
def test_records_head_and_totals_are_those_of_one_process(
    tmp_path_factory, monkeypatch, corpus, reverse, by, within, memory, piece, of_machine
):
    monkeypatch.setattr(sizes, "memory", lambda: of_machine)
    folder = tmp_path_factory.mktemp("rank")
    paths = files(folder, corpus)
    ranking = Ranking(
        key="perplexity", reverse=reverse, by=by, within=within, temporary_directory=[str(folder)]
    )
    failures = []
    for path, run in (
        ("one", lambda: RankJob(tuple(paths), ranking, streams(folder / "one")).run()),
        (
            "several",
            lambda: rank_divided(
                paths, ranking, streams(folder / "several"), Several(), WorkerShare(memory, piece)
            ),
        ),
    ):
        try:
            run()
        except DataError as error:
            failures.append((path, str(error)))
    if failures:
        # By tokens, values without any tokens are refused: by both, in the same words.
        assert [fault for _, fault in failures] == [failures[0][1]] * 2
        return
    assert contents(folder / "one") == contents(folder / "several")
    assert not [name for name in os.listdir(folder) if name.startswith(FOLDER)]


def test_worker_processes_give_duckdbs_order_and_the_bytes_of_one_process(tmp_path):
    corpus = [scored(300)[start::3] for start in range(3)]
    paths = files(tmp_path, corpus)
    options = ("rank", "-k", "perplexity", "--tokens-field", "n_scored", *paths)
    one = prune(*options).stdout
    several = tmp_path / "several.jsonl.zst"
    prune(*options, "-j", 2, "-S", "20K", "-T", tmp_path, "-o", several)
    text = subprocess.run(["zstd", "-dc", several], capture_output=True, check=True).stdout
    assert text == subprocess.run(["zstd", "-dc"], input=one, capture_output=True, check=True).stdout
    query = " UNION ALL ".join(
        f"SELECT id, perplexity, {number} AS file, ordinality AS place FROM"
        f" (SELECT *, row_number() OVER () AS ordinality FROM read_json('{path}'))"
        for number, path in enumerate(paths)
    )
    ids = duckdb.sql(f"SELECT id FROM ({query}) ORDER BY perplexity NULLS LAST, file, place").fetchall()
    assert [record["id"] for record in map(json.loads, text.splitlines())] == [name for (name,) in ids]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.zst"])
def test_a_large_file_is_read_in_pieces(suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(stages_divided, "SMALLEST_PIECE", 1000)
    monkeypatch.setattr(writer, "FRAME", 500)
    plain = files(tmp_path, [scored(90)])[0]
    path = str(tmp_path / f"input{suffix}")
    RankJob((plain,), Ranking(key="perplexity"), streams(path)).run()
    ranking = Ranking(key="n_scored", reverse=True, overwrite=True, temporary_directory=[str(tmp_path)])
    assert len(stages_divided.portions([storage.input_at(path)], 3)) > 3
    RankJob((path,), ranking, streams(tmp_path / "one.zst")).run()
    rank_divided([path], ranking, streams(tmp_path / "several.zst"), Several(), WorkerShare(9000, 3000))
    assert contents(tmp_path / "one.zst") == contents(tmp_path / "several.zst")


def test_plain_output_and_standard_output_are_those_of_one_process(tmp_path, here, with_one_process):
    paths = files(tmp_path, [scored(50), scored(30)])
    options = ("rank", "-k", "perplexity", "--plain", *paths)
    assert here(*options, "-j", 2).stdout == here(*options).stdout


def test_bad_records_are_skipped_and_counted_over_all_workers(tmp_path, here, with_one_process):
    paths = files(tmp_path, [scored(20), scored(20)])
    for path in paths:
        with open(path, "a") as file:
            file.write('{"perplexity": "high"}\n\n')
    options = ("rank", "-k", "perplexity", "-j", 2, *paths)
    assert b"perplexity" in here(*options, status=65).stderr
    done = here(*options, "--skip-bad", "--expect-records", 42, status=3)
    assert len(records(done.stdout)) == 40
    assert b"2 bad records were skipped" in done.stderr
    assert b"42 were expected" not in done.stderr
    assert b"42 records arrived, 43" in here(*options, "--skip-bad", "--expect-records", 43, status=65).stderr


def test_scores_of_different_settings_are_not_ranked_together(tmp_path, here, with_one_process):
    for name, seed in (("a", 1), ("b", 2)):
        source = files(tmp_path, [scored(5)])[0]
        here("score", "-m", "random", "--seed", seed, source, "-o", tmp_path / name)
    paths = (tmp_path / "a", tmp_path / "b")
    for jobs in (1, 2):
        fault = here("rank", "-k", "random", "-j", jobs, *paths, status=65).stderr
        assert b"/b: scores were made with different settings: seed is 2 here, 1 before" in fault


def test_a_field_that_no_file_has_is_warned_of_once(tmp_path, here, with_one_process):
    paths = files(tmp_path, [scored(5), scored(5)])
    done = here("rank", "-k", "perplexity", "--group-by", "nothing", "-j", 2, *paths)
    assert done.stderr.count(b"no record has a field `nothing`") == 1


def test_a_pipe_is_ranked_by_one_process(tmp_path, here, with_one_process):
    text = b"".join(json.dumps(record).encode() + b"\n" for record in scored(9))
    assert here("rank", "-k", "perplexity", "-j", 2, stdin=text).stdout == (
        here("rank", "-k", "perplexity", stdin=text).stdout
    )


# --- Parts of it ---


@given(st.lists(st.floats(allow_nan=False), min_size=1))
def test_keys_have_the_order_of_scores_and_give_them_back(scores):
    array = np.array(scores)
    keys = ordered_keys(array)
    assert (keys[:, None] < keys).tolist() == (array[:, None] < array).tolist()
    assert (keys[:, None] == keys).tolist() == (array[:, None] == array).tolist()
    assert (scores_of(keys) == array).all()
    assert (keys < np.uint64(UNSCORED)).all()
    assert ordered_keys(np.array([np.nan])).tolist() == [UNSCORED]


@given(
    st.lists(st.tuples(st.integers(0, 6), st.integers(0, 70_000)), max_size=60),
    st.lists(st.integers(0, 60), max_size=4),
)
def test_the_correlation_of_segments_is_that_of_the_whole(pairs, cuts):
    ordered = sorted(pairs, key=lambda pair: pair[0])
    scores = np.array([float(score) for score, _ in ordered])
    lengths = np.array([length for _, length in ordered], np.int64)
    whole, joined = LengthCorrelation(), LengthCorrelation()
    whole.add(scores, lengths)
    places = [0, *sorted(min(cut, len(ordered)) for cut in cuts), len(ordered)]
    for start, end in pairwise(places):
        segment = SegmentCorrelation()
        middle = (start + end) // 2  # in two batches
        segment.add(scores[start:middle], lengths[start:middle])
        segment.add(scores[middle:end], lengths[middle:end])
        joined.add_segment(segment.segment())
    assert joined.value() == whole.value()


def test_folders_of_a_process_that_was_killed_are_removed_by_the_next(tmp_path):
    abandoned = tmp_path / f"{FOLDER}abandoned"
    abandoned.mkdir()
    (abandoned / "lock").touch()
    with shared_folders([str(tmp_path)]) as (mine,):
        assert not abandoned.exists()
        with shared_folders([str(tmp_path)]):
            assert os.path.isdir(mine), "its owner lives"
    assert not os.listdir(tmp_path)


def test_a_folder_that_another_process_begins_is_not_taken_for_abandoned(tmp_path, monkeypatch):
    lock = fcntl.flock
    others: list[int] = []

    def locked_late(descriptor, operation):
        """Before this process locks its folder, another one looks for abandoned ones."""
        if not others:
            others.append(descriptor)
            with shared_folders([str(tmp_path)]):
                pass
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", locked_late)
    with shared_folders([str(tmp_path)]) as (mine,):
        assert others
        assert os.path.isdir(mine)


@pytest.mark.parametrize("options", [("--check",), ("--merge",)])
def test_check_and_merge_are_the_work_of_one_process(options, tmp_path):
    paths = files(tmp_path, [scored(20)])
    ranked = tmp_path / "ranked"
    prune("rank", "-k", "perplexity", *paths, "-o", ranked)
    assert prune("rank", *options, ranked, "-j", 2).stdout == prune("rank", *options, ranked).stdout
