"""Patterns and folders on stores that run here: what is listed, in which order, and what is asked twice."""

import pytest

from prune_cli import storage

from ..conftest import lines, records

NAMES = ["part-2.jsonl", "part-10.jsonl", "part-1.jsonl", "deep/er/part-3.json", "README.md", "_SUCCESS"]


@pytest.fixture(params=["seaweedfs", "moto", "azurite", "gcs"])
def corpus(request, into):
    """The URL of a folder with a record in each file, on a store that this process sees."""
    pytest.importorskip("obstore")
    store = into(request.getfixturevalue(request.param))
    for name in NAMES:
        store.put(f"listing/{name}", lines([{"text": name}]))
    store.put("listing-not", b"a neighbour whose key begins with the same letters\n")
    return store.url("listing")


def texts(done) -> list[str]:
    return [record["text"] for record in records(done.stdout)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*[0-9].jsonl", ["part-1.jsonl", "part-10.jsonl", "part-2.jsonl"]),
        ("{README,_S}*", ["README.md", "_SUCCESS"]),
        ("", ["deep/er/part-3.json", "part-1.jsonl", "part-10.jsonl", "part-2.jsonl"]),
    ],
)
def test_a_pattern_is_expanded_in_sorted_order(corpus, here, pattern, expected):
    assert texts(here("score", "-m", "random", "--plain", f"{corpus}/{pattern}")) == expected


def test_a_pattern_without_a_match_is_66(corpus, here):
    done = here("stat", f"{corpus}/none*", status=66)
    assert f"{corpus}/none*: nothing matches this pattern" in done.stderr.decode()


def test_outputs_of_a_dataset_are_looked_for_in_a_listing(moto, into, proxy, here):
    pytest.importorskip("obstore")
    counted = proxy(moto)
    into(moto.via(counted.port))
    for number in range(40):
        moto.put(f"inputs/{number}.jsonl", lines([{"text": "x"}]))
    command = ("score", "-m", "random", "-v", moto.url("inputs/"), "-O", moto.url("outputs/"))
    here(*command)
    assert not counted.requests("HEAD .*partial")
    before = len(counted.requests("HEAD .*outputs/7.jsonl.zst"))
    assert b"40 outputs were already finished" in here(*command).stderr
    # Of one that exists: to compare it with the inputs, twice in its turn, and for the manifest.
    assert len(counted.requests("HEAD .*outputs/7.jsonl.zst")) - before <= 4


@pytest.mark.parametrize("count", [1, 20])
def test_what_exists_is_told_from_what_does_not(moto, into, count):
    pytest.importorskip("obstore")
    into(moto)
    names = [moto.url(f"some/deep/{number}") for number in range(2 * count)]
    for number in range(0, 2 * count, 2):
        moto.put(f"some/deep/{number}", b"x")
    moto.put("some/deep/1/0", b"x")
    assert storage.existing([*names, moto.url("some/other/1")]) == set(names[::2])


def test_sizes_and_etags_come_from_the_listing(moto, into, proxy, here):
    pytest.importorskip("obstore")
    counted = proxy(moto)
    into(moto.via(counted.port))
    for number in range(3):
        moto.put(f"thousand/{number}.jsonl", lines([{"text": "x"}]))
    here("stat", moto.url("thousand/"))
    assert len(counted.requests("GET .*list-type=2")) == 1
    assert len(counted.requests("HEAD")) <= 1  # of the first, when it is looked at twice
    assert counted.requests("GET /tests/thousand/1.jsonl")
