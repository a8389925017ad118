"""Datasets of the Hugging Face Hub are read at a pinned commit, from a server of our own in its place.

The real Hub cannot be reached here: these tests show that the library is used rightly, not that the Hub
answers so.
"""

import os
import tempfile

import pytest

from prune_cli.storage.remote import hub as client
from prune_cli.storage.remote import retries

from ..conftest import lines, records
from ..servers.hub import COMMIT, hub

FILES = {
    "README.md": b"# A dataset\n",
    "data/part-2.jsonl": lines([{"text": "two"}]),
    "data/part-10.jsonl": lines([{"text": "ten"}]),
    "sample/deep/part-1.json": lines([{"text": "deep"}]),
}


@pytest.fixture
def dataset(monkeypatch, tmp_path):
    pytest.importorskip("huggingface_hub")
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.01)
    monkeypatch.setenv(retries.VARIABLE, "2")
    with hub(dict(FILES)) as served:
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{served.port}")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        client._LISTED.clear()
        client._COPIES.clear()
        yield served
        assert not os.listdir(temporary)
        client._COPIES.clear()


def texts(done) -> list[str]:
    return [record["text"] for record in records(done.stdout)]


SCORE = ("score", "-m", "random", "--plain")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/data/part-2.jsonl", ["two"]),
        ("@main/data/part-2.jsonl", ["two"]),
        (f"@{COMMIT}/data/part-2.jsonl", ["two"]),
        ("/data/*.jsonl", ["ten", "two"]),
        ("@main/", ["ten", "two", "deep"]),
    ],
)
def test_files_and_patterns_are_read(dataset, here, path, expected):
    assert texts(here(*SCORE, f"hf://datasets/owner/name{path}")) == expected


def test_a_pattern_is_listed_once_and_each_file_fetched_once(dataset, here):
    here(*SCORE, "hf://datasets/owner/name/data/*")
    assert len([each for each in dataset.requests if "/tree/" in each]) == 1
    assert len([each for each in dataset.requests if "/revision/" in each]) == 1
    assert not [each for each in dataset.requests if "paths-info" in each]
    assert len([each for each in dataset.requests if each.startswith("GET /datasets")]) == 2


@pytest.mark.parametrize(
    ("url", "status", "message"),
    [
        ("hf://datasets/owner/name/absent.jsonl", 66, "no such file in the dataset"),
        ("hf://datasets/owner/name@none/x.jsonl", 66, "no such revision of the dataset"),
        ("hf://datasets/owner/other/x.jsonl", 66, "no such dataset, or it is private"),
        ("hf://datasets/owner/name/none*", 66, "nothing matches this pattern"),
        ("hf://owner/name/x.jsonl", 2, "hf://datasets/OWNER/NAME@REVISION/PATH"),
    ],
)
def test_names_of_nothing_are_refused(dataset, here, url, status, message):
    assert message in here(*SCORE, url, status=status).stderr.decode()


def test_a_private_dataset_wants_the_token(dataset, here, monkeypatch):
    dataset.token = "hf_of_the_tests"
    url = "hf://datasets/owner/name/data/part-2.jsonl"
    assert "check HF_TOKEN" in here(*SCORE, url, status=77).stderr.decode()
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_tests")
    assert texts(here(*SCORE, url)) == ["two"]


def test_a_hub_that_fails_for_a_while_is_asked_again(dataset, here):
    dataset.failing = 2
    assert texts(here(*SCORE, "hf://datasets/owner/name/data/part-2.jsonl")) == ["two"]


def test_a_hub_that_cannot_be_reached_is_69(dataset, here, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = here(*SCORE, "hf://datasets/owner/name/data/part-2.jsonl", status=69)
    assert "the Hub cannot be reached; gave up after" in done.stderr.decode()


def test_datasets_are_not_written_to(dataset, here, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(lines([{"text": "x"}]))
    done = here(*SCORE, tmp_path / "in.jsonl", "-o", "hf://datasets/owner/name/x.zst", status=73)
    assert "upload-large-folder" in done.stderr.decode()
