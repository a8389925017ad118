"""Datasets on object storage, made and read by several processes."""

import json

from prune_cli.engines import plan

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
