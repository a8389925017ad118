"""What the verbs fetch of objects, and what they write."""

import json
import os

import pytest

from prune_cli.storage import input_at
from prune_cli.stream.index import read_table

from ..conftest import ROOT, lines, records, scored
from ..servers.stores import BUCKET

RECORDS = [record for record in scored(1100) if record["perplexity"] is not None][:1000]
FOLDER = f"s3://{BUCKET}/verbs"


@pytest.fixture
def store(seaweedfs, proxy, into):
    seaweedfs.put("verbs/in.jsonl", lines(RECORDS))
    store = proxy(seaweedfs)
    into(seaweedfs.via(store.port))
    return store


def test_a_ranked_object_is_sliced_by_range(store, seaweedfs, here, tmp_path):
    """No frame is fetched twice, and beside those that hold the range at most two, and 1 MiB."""
    noise = [os.urandom(10_000).hex() for _ in range(10)]  # five frames, which do not become small
    large = [{**record, "text": noise[index % 10]} for index, record in enumerate(RECORDS)]
    (tmp_path / "in.jsonl").write_bytes(lines(large))
    here("rank", "-f", tmp_path / "in.jsonl", "-o", f"{FOLDER}/ranked.zst")
    store.exchanges.clear()
    here("slice", "--keep", "top", "--frac", "0.2", f"{FOLDER}/ranked.zst", "-f", "-o", tmp_path / "top")
    ranges = [each.headers["range"] for each in store.requests("^GET")]
    assert len(ranges) == len(set(ranges))
    (tmp_path / "ranked").write_bytes(seaweedfs.get("verbs/ranked.zst"))
    with input_at(str(tmp_path / "ranked")).open() as file:
        frames = read_table(file).frames
    needed = [size for size, last in zip(frames.size, frames.last, strict=True) if last >= 800]
    assert 0 < len(needed) < len(frames.size) - 2
    assert store.sent() <= sum(needed) + 2 * max(frames.size) + (1 << 20)
    kept = records((tmp_path / "top").read_bytes())
    assert [record["rank"] for record in kept] == [*range(800, 1000)]


@pytest.mark.parametrize("command", [("score", "-m", "random"), ("rank",)])
def test_stat_asks_three_times_for_at_most_256_kib(command, store, here):
    here(*command, "-f", f"{FOLDER}/in.jsonl", "-o", f"{FOLDER}/made.zst")
    store.exchanges.clear()
    here("stat", f"{FOLDER}/made.zst")
    assert len(store.exchanges) <= 3
    assert store.sent() <= 256 << 10


def test_score_writes_an_object_for_each_input_and_skips_finished_ones(store, seaweedfs, here):
    for name in ("a", "b"):
        seaweedfs.put(f"verbs/{name}.jsonl", lines(RECORDS[:5]))
    command = (
        "score",
        "-m",
        "random",
        "-v",
        f"{FOLDER}/a.jsonl",
        f"{FOLDER}/b.jsonl",
        "-O",
        f"{FOLDER}/out/",
    )
    here(*command)
    made = seaweedfs.get("verbs/out/a.jsonl.zst")
    assert [record["text"] for record in records(made)] == [record["text"] for record in RECORDS[:5]]
    assert b"2 outputs were already finished" in here(*command).stderr

    # The folder is a dataset: its parts are read, not the files that describe it.
    both = here("rank", "-k", "random", "--plain", f"{FOLDER}/out/").stdout
    assert len(records(both)) == 10
    seaweedfs.put("verbs/out/b.jsonl.zst", made[:-1])
    said = here("rank", "-k", "random", f"{FOLDER}/out/", status=65).stderr.decode()
    assert f"{FOLDER}/out/b.jsonl.zst" in said


def test_score_resume_is_refused_with_the_way_out(store, here):
    said = here(
        "score", "-m", "random", "--resume", f"{FOLDER}/in.jsonl", "-o", f"{FOLDER}/resumed.zst", status=2
    ).stderr
    assert b"-O URL/ writes one object per input" in said


def test_eval_and_train_read_objects_and_eval_writes_them(store, seaweedfs, here, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines(RECORDS[:5]))
    seaweedfs.put("verbs/held-out.jsonl", lines(RECORDS[:5]))
    reference = ROOT / "prune_cli" / "reference"
    data = f"{FOLDER}/held-out.jsonl"
    local = here("eval", reference, "--data", tmp_path / "in.jsonl", "--per-document", tmp_path / "each.zst")
    remote = here("eval", reference, "--data", data, "--per-document", f"{FOLDER}/each.zst", "-f")
    [ours], [theirs] = records(remote.stdout), records(local.stdout)
    assert ours["perplexity"] == theirs["perplexity"]
    assert len(records(seaweedfs.get("verbs/each.zst"))) == 5
    run = ("train", "--preset", "tiny", "--tokenizer", reference, "--steps", "1", "--batch-tokens", "512")
    here(*run, "-o", tmp_path / "run", data)
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_an_output_is_never_an_input(store, here):
    said = here("rank", "-f", f"{FOLDER}/in.jsonl", "-o", f"{FOLDER}/in.jsonl", status=73).stderr
    assert b"the output is also an input" in said


def test_the_summary_has_the_etags_of_what_was_written(store, seaweedfs, here):
    here("rank", "-f", f"{FOLDER}/in.jsonl", "-o", f"{FOLDER}/whole.zst")
    outputs = (f"{FOLDER}/kept.zst", f"{FOLDER}/cut.zst")
    more = ("--rejects", outputs[1], "--summary", f"{FOLDER}/summary.json", f"{FOLDER}/whole.zst")
    here("slice", "--keep", "top", "--frac", "0.5", "-f", "-o", outputs[0], *more)
    made = json.loads(seaweedfs.get("verbs/summary.json"))
    heads = [seaweedfs.send("HEAD", f"{BUCKET}/verbs/{name}.zst").headers for name in ("kept", "cut")]
    assert made["etags"] == dict(zip(outputs, [head["etag"] for head in heads], strict=True))
    summary = ("--summary", f"{FOLDER}/summary.json")
    here("score", "-m", "random", "-f", *summary, f"{FOLDER}/in.jsonl", "-o", outputs[0])
    etag = seaweedfs.send("HEAD", f"{BUCKET}/verbs/kept.zst").headers["etag"]
    assert json.loads(seaweedfs.get("verbs/summary.json"))["etags"] == {outputs[0]: etag}
