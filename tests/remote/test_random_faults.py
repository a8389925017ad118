"""Runs over a network that fails at random: whatever happens, no byte is lost and nothing partial is seen.

Every example is a whole run of a verb that reads and writes objects of a real store through the proxy. With
faults that pass the run must succeed; with faults that stay it may also give up with status 69.
"""

import random

import pytest

from prune_cli.storage import objects
from prune_cli.storage.remote import reading, retries

from ..conftest import lines, scored, status_of
from ..servers.chaos import ACTIONS
from ..servers.stores import BUCKET

SMALL = lines(scored(600))
LARGE = lines([{**record, "text": record["text"] * 8} for record in scored(3500)])  # an upload of two parts

ARGUMENTS = {
    "score": ["score", "-m", "random", "--level", "1"],
    "rank": ["rank", "--level", "1"],
    "slice": ["slice", "--keep", "middle", "--frac", "0.5"],
    "stat": ["stat", "--verify"],
    "rank, large": ["rank", "--plain"],
}
GAVE_UP = 69


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Retries as in life, but in hundredths of a second, and small ranges and parts."""
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.005)
    monkeypatch.setattr(retries, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(reading, "FIRST_RANGE", 1 << 14)
    monkeypatch.setattr(reading, "RANGE", 1 << 16)
    monkeypatch.setattr(objects, "part_size", lambda inputs: 5 << 20)  # S3 takes no less


@pytest.fixture(scope="module")
def corpora(seaweedfs, tmp_path_factory):
    """The inputs in the store: scored records, small and large, and a ranking of the small ones."""
    pytest.importorskip("obstore")
    ranked = tmp_path_factory.mktemp("ranked") / "ranked.jsonl.zst"
    scored_file = ranked.with_name("scored.jsonl")
    scored_file.write_bytes(SMALL)
    assert status_of("rank", scored_file, "-o", ranked) == 0
    seaweedfs.put("random/small.jsonl", SMALL)
    seaweedfs.put("random/large.jsonl", LARGE)
    seaweedfs.put("random/ranked.jsonl.zst", ranked.read_bytes())
    inputs = {"score": "small.jsonl", "rank": "small.jsonl", "rank, large": "large.jsonl"}
    return {name: f"s3://{BUCKET}/random/{inputs.get(name, 'ranked.jsonl.zst')}" for name in ARGUMENTS}


def run(verb: str, corpora, key: str) -> int:
    plain = verb in ("stat", "rank, large")
    target = f"s3://{BUCKET}/{key}{'.jsonl' if plain else '.jsonl.zst'}"
    force = ["-f"] if verb == "slice" else []
    return status_of(*ARGUMENTS[verb], corpora[verb], "-o", target, "-q", *force)


@pytest.fixture(scope="module")
def undisturbed():
    """The output of each verb when nothing fails, by its name; filled as examples need it."""
    return {}


def example(seed: int, seaweedfs, proxy, into, corpora, undisturbed, capfd, monkeypatch) -> None:
    dice = random.Random(seed)
    verb = dice.choice(list(ARGUMENTS))
    suffix = ".jsonl" if verb in ("stat", "rank, large") else ".jsonl.zst"
    if verb not in undisturbed:
        into(seaweedfs)
        key = f"random/undisturbed-{verb.replace(', ', '-')}-{seed}"
        assert run(verb, corpora, key) == 0
        undisturbed[verb] = seaweedfs.get(key + suffix)
    network = proxy(seaweedfs, dice=dice)
    into(seaweedfs.via(network.port))
    passes = dice.random() < 0.7
    # Each request fails with this probability, spread over one to four kinds of faults.
    kinds = dice.sample(ACTIONS, dice.randint(1, 4))
    network.odds = dict.fromkeys(kinds, dice.choice((0.03, 0.1, 0.3) if passes else (0.5, 1.0)) / len(kinds))
    network.most = dice.randint(1, 12) if passes else 1 << 62
    # A store that never answers cannot be told to forget an upload either.
    network.spared = "^$" if passes else "^DELETE"
    monkeypatch.setenv(retries.VARIABLE, "20" if passes else "0.5")
    key = f"random/output-{seed}"
    status = run(verb, corpora, key)
    said = capfd.readouterr().err
    story = f"seed {seed}, {verb}, {network.odds}, {network.struck} faults: {status} {said}"
    content = seaweedfs.get(key + suffix)
    if passes:
        assert status == 0, story
    assert status in (0, GAVE_UP), story
    # A run that gave up may have written the whole object, if only the answers that say so were lost.
    assert content == undisturbed[verb] or (content is None and status), story
    # Who begins an upload and loses the answer has one without parts, whose number nobody was told: the next
    # run names it.
    begun = network.requests(rf"^POST .*{key}.*\?uploads")
    untold = [each for each in begun if each.action in ("lost answer", "reset in body", "short body")]
    assert len(seaweedfs.open_uploads(key)) <= len(untold), story


@pytest.mark.parametrize("seed", range(20))
def test_no_byte_is_lost_and_nothing_partial_is_seen(
    seed, seaweedfs, proxy, into, corpora, undisturbed, capfd, monkeypatch
):
    example(seed, seaweedfs, proxy, into, corpora, undisturbed, capfd, monkeypatch)


@pytest.mark.sweep
@pytest.mark.parametrize("seed", range(20, 520))
def test_no_byte_is_lost_in_five_hundred_runs(
    seed, seaweedfs, proxy, into, corpora, undisturbed, capfd, monkeypatch
):
    example(seed, seaweedfs, proxy, into, corpora, undisturbed, capfd, monkeypatch)
