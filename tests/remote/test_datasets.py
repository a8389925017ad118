"""Datasets on object storage, made and read by several processes."""

import json

import pytest

from prune_cli import storage
from prune_cli.engines import plan
from prune_cli.stages.rank import dataset as rank_datasets

from ..conftest import lines, records, scored
from ..servers.stores import BUCKET

RECORDS = scored(200)
FOLDER = f"s3://{BUCKET}/datasets"


def test_workers_make_a_dataset_of_pieces_of_an_object(seaweedfs, into, here, monkeypatch):
    into(seaweedfs)
    monkeypatch.setattr(plan, "TARGET", 4000)
    seaweedfs.put("datasets/large.jsonl", lines(RECORDS))
    command = ("score", "-m", "random", "-v", "-j", 2, f"{FOLDER}/large.jsonl", "-O", f"{FOLDER}/pieces/")
    here(*command)
    manifest = json.loads(seaweedfs.get("datasets/pieces/manifest.json"))
    assert len(manifest["parts"]) > 2
    assert sum(part["records"] for part in manifest["parts"]) == 200
    whole = here("score", "-m", "random", f"{FOLDER}/large.jsonl").stdout
    made = b"".join(seaweedfs.get(f"datasets/pieces/{part['name']}") for part in manifest["parts"])
    assert records(made) == records(whole)
    # The lease is given up, so that the same command can run again at once.
    assert f"{len(manifest['parts'])} outputs were already finished".encode() in here(*command).stderr
    assert json.loads(here("stat", f"{FOLDER}/pieces/").stdout)["records"] == 200


@pytest.mark.parametrize("kind", ["moto", "seaweedfs", "azurite"])
def test_a_ranking_and_a_slice_of_it_are_datasets_at_a_store(
    kind, request, into, here, monkeypatch, tmp_path
):
    store = into(request.getfixturevalue(kind))
    monkeypatch.setattr(rank_datasets, "PART", 20_000)
    below = f"{store.scheme}://{BUCKET}/ranked-{kind}"
    store.put(f"ranked-{kind}/scored.jsonl", lines(RECORDS))
    (tmp_path / "scored.jsonl").write_bytes(lines(RECORDS))
    local = here("rank", "-k", "perplexity", "--plain", tmp_path / "scored.jsonl").stdout
    command = ("rank", "-v", "-k", "perplexity", f"{below}/scored.jsonl", "-O", f"{below}/whole/")
    here(*command)
    assert (
        here("slice", "-q", "--range", "0:1", "--keep-unscored", "--plain", f"{below}/whole/").stdout == local
    )
    assert b"parts were already finished" in here(*command).stderr
    here("slice", "-q", "--range", "0.1:0.8", f"{below}/whole/", "-O", f"{below}/part/")
    made = names(store, f"ranked-{kind}/part")
    copies = [
        name
        for name in made
        if store.get(f"ranked-{kind}/part/{name}") == store.get(f"ranked-{kind}/whole/{name}")
    ]
    assert 0 < len(copies) == len(made) - 2
    kept = here("slice", "-q", "--range", "0:1", "--plain", f"{below}/part/").stdout
    (tmp_path / "ranked.jsonl").write_bytes(local)
    one = here("slice", "-q", "--by", "records", "--range", "0.1:0.8", "--plain", tmp_path / "ranked.jsonl")
    assert kept == one.stdout


def names(store, folder: str) -> list[str]:
    return [part["name"] for part in json.loads(store.get(f"{folder}/manifest.json"))["parts"]]


def test_the_store_copies_what_is_kept_whole(moto, into, here, monkeypatch):
    """No byte of the file is sent to it again."""
    into(moto)
    monkeypatch.setattr(rank_datasets, "PART", 20_000)
    moto.put("copied/scored.jsonl", lines(RECORDS))
    folder = f"s3://{BUCKET}/copied"
    here("rank", "-k", "perplexity", f"{folder}/scored.jsonl", "-O", f"{folder}/whole/")
    written: list[str] = []
    create = storage.create

    def noted(path, *rest, **more):
        written.append(path)
        return create(path, *rest, **more)

    monkeypatch.setattr(storage, "create", noted)
    here("slice", "-q", "--range", "0.1:0.8", f"{folder}/whole/", "-O", f"{folder}/part/")
    made = names(moto, "copied/part")
    assert len({path for path in written if path.endswith(".zst")}) == 2
    assert len(made) > 3
