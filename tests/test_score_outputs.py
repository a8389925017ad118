"""score -O, --shard, --only and --summary: several outputs, parts of the input, chosen fields, and counts."""

import fcntl
import gzip
import json
import re
from pathlib import Path

import pytest

from prune_cli.records import reader as reading
from prune_cli.stages.score import windows as stage

from .conftest import lines, on_a_terminal, records, status_of, zstd

torch = pytest.importorskip("torch")

from .score_runs import CORPUS, borders, left  # noqa: E402
from .small_models import tiny_gpt2  # noqa: E402


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def small_windows(monkeypatch) -> None:
    """Windows, and with them frames, of about ten records."""
    monkeypatch.setattr(stage, "WINDOW_BYTES", 3000)


@pytest.fixture
def corpus(tmp_path) -> Path:
    path = tmp_path / "corpus.jsonl.zst"
    path.write_bytes(zstd(lines(CORPUS)))
    return path


@pytest.fixture
def whole(corpus, model, small_windows, tmp_path) -> bytes:
    """The output of a run without --resume that nothing stopped."""
    assert status_of("score", "--model", model, corpus, "-o", tmp_path / "whole.zst") == 0
    return (tmp_path / "whole.zst").read_bytes()


# --- one output for each input ---


@pytest.fixture
def folder(tmp_path) -> list[Path]:
    """Three inputs of three kinds."""
    parts = [lines(CORPUS[at : at + 40]) for at in (0, 40, 80)]
    inputs = {"a.jsonl.zst": zstd(parts[0]), "b.jsonl.gz": gzip.compress(parts[1]), "c.jsonl": parts[2]}
    for name, data in inputs.items():
        (tmp_path / name).write_bytes(data)
    return [tmp_path / name for name in inputs]


def test_each_input_gets_an_output_of_its_name(folder, model, tmp_path, here):
    assert here("score", "--model", model, "-O", tmp_path / "new", *folder).stderr == b""
    assert left(tmp_path / "new") == {"a.jsonl.zst", "b.jsonl.zst", "c.jsonl.zst"}
    for path in folder:
        alone = here("score", "--model", model, path).stdout
        together = (tmp_path / "new" / f"{path.name.split('.')[0]}.jsonl.zst").read_bytes()
        # The same start, head and frames; the trailer alone has a digest of the input as well.
        end = borders(alone)[-3]
        assert together[:end] == alone[:end]
    here("score", "--model", model, "--plain", "-O", tmp_path / "plain", *folder)
    assert left(tmp_path / "plain") == {"a.jsonl", "b.jsonl", "c.jsonl"}


def test_finished_outputs_are_skipped_without_loading_a_model(folder, model, tmp_path, here, monkeypatch):
    here("score", "--model", model, "-O", tmp_path / "new", *folder)
    (tmp_path / "new" / "b.jsonl.zst").unlink()
    said = here(
        "score", "-v", "--model", model, "-O", tmp_path / "new", "--summary", tmp_path / "s", *folder
    ).stderr
    assert b"2 outputs were already finished" in said
    summary = json.loads((tmp_path / "s").read_text())
    assert (summary["records"], summary["outputs"], summary["finished"]) == (40, 1, 2)
    with monkeypatch.context() as without_weights:
        without_weights.setattr("prune_cli.models.load.load_network", None)
        here("score", "--model", model, "-O", tmp_path / "new", *folder)
    (tmp_path / "new" / "b.jsonl.zst").write_bytes(b"old")
    here("score", "--model", model, "-f", "-O", tmp_path / "new", *folder)
    assert len(records((tmp_path / "new" / "b.jsonl.zst").read_bytes())) == 40


def test_a_finished_run_keeps_its_summary(folder, tmp_path, here):
    """So a command in cron succeeds; with another input there is something to summarize, and -f to decide."""
    run = ("score", "-m", "random", "-O", tmp_path / "new", "--summary", tmp_path / "s")
    here(*run, *folder[:2])
    made = (tmp_path / "s").read_bytes()
    here(*run, *folder[:2])
    assert (tmp_path / "s").read_bytes() == made
    assert here(*run, *folder, status=73).stderr.endswith(b"s: exists; -f replaces it\n")
    (tmp_path / "s").unlink()
    here(*run, *folder[:2])
    assert json.loads((tmp_path / "s").read_bytes())["finished"] == 2


def test_a_bad_file_fails_the_run_and_finished_outputs_stay(folder, model, tmp_path, here):
    folder[1].write_bytes(b"oops\n")
    assert (
        b"b.jsonl.gz:1: not JSON"
        in here("score", "--model", model, "-O", tmp_path / "new", *folder, status=65).stderr
    )
    assert left(tmp_path / "new") == {"a.jsonl.zst"}
    here("score", "--model", model, "--skip-bad", "-O", tmp_path / "new", *folder, status=3)
    assert left(tmp_path / "new") == {"a.jsonl.zst", "b.jsonl.zst", "c.jsonl.zst"}


def test_a_folder_is_resumed_in_the_file_where_it_stopped(folder, model, small_windows, tmp_path):
    assert status_of("score", "--model", model, "-O", tmp_path / "whole", *folder) == 0
    new, middle = tmp_path / "new", (tmp_path / "whole" / "b.jsonl.zst").read_bytes()
    new.mkdir()
    done = (tmp_path / "whole" / "a.jsonl.zst").read_bytes()
    (new / "a.jsonl.zst").write_bytes(done)
    before = (new / "a.jsonl.zst").stat()
    (new / "b.jsonl.zst.partial").write_bytes(middle[: borders(middle)[3] + 5])
    assert status_of("score", "--resume", "--model", model, "-O", new, *folder) == 0
    assert left(new) == left(tmp_path / "whole")
    assert (new / "a.jsonl.zst").stat().st_mtime_ns == before.st_mtime_ns
    assert (new / "b.jsonl.zst").read_bytes() == middle


def test_a_second_run_on_a_folder_fails_at_the_file_that_the_first_writes(folder, model, tmp_path, here):
    new = tmp_path / "new"
    here("score", "--model", model, "-O", new, folder[0])
    for name, more in ((".b.jsonl.zst.prune-cli", ()), ("b.jsonl.zst.partial", ("--resume",))):
        with (new / name).open("ab") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            said = here("score", "--model", model, "-O", new, *folder, *more, status=75).stderr
        assert b"b.jsonl.zst: another run is writing it" in said
        (new / name).unlink()
    assert left(new) == {"a.jsonl.zst"}


def test_two_outputs_of_one_name_are_refused_before_anything_is_written(folder, model, tmp_path, here):
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.jsonl").write_bytes(b"")
    said = here(
        "score", "--model", model, "-O", tmp_path / "new", *folder, tmp_path / "more" / "a.jsonl", status=2
    ).stderr
    assert b"a.jsonl.zst and " in said
    assert b"would both become" in said
    assert (
        b"standard input has no name"
        in here("score", "--model", model, "-O", tmp_path / "new", "-", status=2).stderr
    )
    assert not (tmp_path / "new").exists()
    assert (
        b"the output is also an input"
        in here("score", "--model", model, "-O", tmp_path, *folder, status=73).stderr
    )
    assert (
        b"mkdir -p"
        in here("score", "--model", model, "-O", tmp_path / "no" / "no", *folder, status=73).stderr
    )


# --- shards ---


def some(count: int) -> list[dict]:
    return [{"id": at, "text": "ab" if at % 3 else ""} for at in range(count)]


@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_shards_are_runs_dealt_in_turn_and_together_make_the_whole(of, model, tmp_path, here, monkeypatch):
    monkeypatch.setattr(reading, "RUN", 8)
    text = lines(some(50)) + b"\n  \n" + lines(some(30)) + b"\n" + lines(some(3))
    (tmp_path / "in.jsonl").write_bytes(text)
    streams = [
        here("score", "--model", model, "--shard", f"{number}/{of}", tmp_path / "in.jsonl").stdout
        for number in range(1, of + 1)
    ]
    whole = records(here("score", "--model", model, tmp_path / "in.jsonl").stdout)
    for number, stream in enumerate(streams):
        assert records(stream) == [record for at, record in enumerate(whole) if at // 8 % of == number]
    ranked = records(here("rank", stdin=b"".join(streams)).stdout)
    key = json.dumps
    assert sorted(map(key, records(b"".join(streams)))) == sorted(map(key, whole))
    assert sorted(record["rank"] is None for record in ranked) == sorted(
        record["perplexity"] is None for record in whole
    )


def test_a_run_of_a_shard_is_4096_records(model, here):
    found = records(
        here(
            "score",
            "--model",
            model,
            "--shard",
            "2/2",
            "--only",
            "id",
            "--expect-records",
            9000,
            stdin=lines(some(9000)),
        ).stdout
    )
    assert [record["id"] for record in found] == list(range(4096, 8192))


def test_a_bad_line_belongs_to_one_shard(model, here, monkeypatch):
    monkeypatch.setattr(reading, "RUN", 8)
    text = lines(some(10)) + b"oops\n" + lines(some(10))
    assert (
        b"(standard input):11: not JSON"
        in here("score", "--model", model, "--shard", "2/2", stdin=text, status=65).stderr
    )
    found = records(here("score", "--model", model, "--shard", "1/2", stdin=text).stdout)
    assert [record["id"] for record in found] == [*range(8), *range(5, 10)]


@pytest.mark.parametrize("shard", ["0/2", "3/2", "1", "1/", "/2", "a/b", "-1/2", "1/0", "1/2/3"])
def test_an_invalid_shard_is_refused(shard, model, here):
    assert (
        b"for example --shard 1/4"
        in here("score", "--model", model, f"--shard={shard}", stdin=b"{}", status=2).stderr
    )


def test_shards_of_a_folder_are_parts_of_one_plan_and_are_resumed(folder, model, small_windows, tmp_path):
    whole = tmp_path / "whole"
    assert status_of("score", "--model", model, "-O", whole, *folder) == 0
    new = tmp_path / "new"
    new.mkdir()
    middle = (whole / "b.jsonl.zst").read_bytes()
    (new / "b.jsonl.zst.partial").write_bytes(middle[: borders(middle)[2]])
    for shard, names in (("1/2", {"a", "c"}), ("2/2", {"a", "b", "c"})):
        assert status_of("score", "--resume", "--model", model, "--shard", shard, "-O", new, *folder) == 0
        assert {name for name in left(new) if name.endswith(".zst")} == {
            f"{name}.jsonl.zst" for name in names
        }
    for name in left(whole):
        assert (new / name).read_bytes() == (whole / name).read_bytes()


def test_a_run_of_another_shard_is_not_resumed(whole, model, corpus, tmp_path, here):
    (tmp_path / "out.zst.partial").write_bytes(whole[: borders(whole)[3]])
    said = here(
        "score", "--resume", "--shard", "1/2", "--model", model, corpus, "-o", tmp_path / "out.zst", status=78
    ).stderr
    assert b"was begun with shard None, not '1/2'" in said


# --- some fields alone ---


def test_only_these_fields_are_written_as_they_were(model, here):
    line = b'{"text": "the fox", "x" : [1, {"id": 2}], "id": 1.10 }\n'
    out = here("score", "--plain", "--only", "perplexity,id,x", "--model", model, stdin=line).stdout
    assert out.startswith(b'{"x" : [1, {"id": 2}],"id": 1.10,"perplexity":')
    assert list(json.loads(out)) == ["x", "id", "perplexity"]
    assert here("score", "--plain", "--only", "id", "--model", model, stdin=line).stdout == b'{"id": 1.10}\n'
    said = here("score", "--only", "name,perplexity", "--model", model, stdin=line, status=65).stderr
    assert b"(standard input):1: no field `name`" in said


def test_scores_without_text_are_ranked(model, corpus, here):
    alone = here("score", "--only", "id,perplexity", "--model", model, corpus).stdout
    ranked = records(here("rank", stdin=alone).stdout)
    assert list(ranked[0]) == ["id", "perplexity", "rank", "quantile"]
    whole = records(here("rank", stdin=here("score", "--model", model, corpus).stdout).stdout)
    assert [record["id"] for record in ranked] == [record["id"] for record in whole]


@pytest.mark.parametrize("only", ["id,perplexity", "perplexity", "id,n_scored,perplexity", "id"])
def test_some_fields_alone_are_resumed_too(only, model, corpus, small_windows, tmp_path):
    arguments = ("score", "--model", model, "--only", only, corpus, "-o")
    assert status_of(*arguments, tmp_path / "whole.zst") == 0
    whole = (tmp_path / "whole.zst").read_bytes()
    for cut in borders(whole)[1::4]:
        (tmp_path / "out.zst.partial").write_bytes(whole[:cut])
        assert status_of(*arguments, tmp_path / "out.zst", "--resume") == 0
        assert (tmp_path / "out.zst").read_bytes() == whole
        (tmp_path / "out.zst").unlink()


# --- what the run did ---


def test_the_summary_counts_what_was_written(model, corpus, tmp_path, here):
    out = records(here("score", "--summary", tmp_path / "summary.json", "--model", model, corpus).stdout)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["records"] == len(out)
    assert summary["nulls"] == sum(record["perplexity"] is None for record in out)
    assert summary["tokens"] == sum(record["n_scored"] for record in out)
    assert summary["bytes"] == sum(len(record["text"].encode()) for record in CORPUS)
    assert summary["seconds"] > 0
    assert (summary["blank"], summary["skipped"]) == (0, 0)
    assert summary["score"]["names"] == [model.name]
    assert (
        b"exists"
        in here("score", "--summary", tmp_path / "summary.json", "--model", model, corpus, status=73).stderr
    )


def test_the_trailer_says_what_it_took(whole):
    trailer = whole[borders(whole)[-3] : borders(whole)[-2]]
    content = json.loads(trailer[trailer.index(b"\n") : -4])
    assert (
        content["work"]["tokens"]
        == content["totals"]["tokens"]
        == sum(record["n_scored"] for record in records(whole))
    )


def test_on_a_terminal_there_is_progress_and_one_closing_line(model, corpus, tmp_path):
    """Of a run that takes longer than half a second."""
    said = on_a_terminal("stderr", "score", "--model", model, *[corpus] * 100, "-o", tmp_path / "out")
    assert re.search(r"12,000 records +[\d,]+ tokens/s", said)
    assert re.search(r"scored 12,000 records, 109,000 tokens \([\d,]+ a second\)\s*$", said)
