"""stat --thresholds and slice --cut: what is measured once is applied to a stream that comes later."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

import prune_cli
from prune_cli.statistics import drift

from .conftest import Corpus, lines, records, status_of

CUT = {
    "key": "a",
    "low": "0",
    "high": "1",
    "unit": "records",
    "least": 0,
    "below": 1,
    "share": 1,
    "records": 1,
}


def measure(here, path: Path, source: Path, low: object, high: object, *options: object) -> dict:
    """The cut of a source, which is written to a path."""
    done = here("stat", "-k", "perplexity", "--thresholds", f"{low},{high}", *options, source)
    path.write_bytes(done.stdout)
    return json.loads(done.stdout)["cut"]


def stream(count: int, mean: float = 0.0, seed: int = 0) -> Corpus:
    dice = random.Random(seed)
    return [{"id": index, "perplexity": dice.gauss(mean, 1)} for index in range(count)]


@pytest.mark.parametrize(("low", "high"), [(0.25, 0.75), ("0", "50%"), (0.9, 1), (0, 1)])
def test_it_keeps_of_the_same_stream_what_a_range_keeps(low, high, here, tmp_path):
    source = tmp_path / "scored.jsonl"
    source.write_bytes(lines(stream(201)))
    cut = measure(here, tmp_path / "cut.json", source, low, high)
    kept = records(here("slice", "--cut", tmp_path / "cut.json", source).stdout)
    assert kept == records(here("slice", "-k", "perplexity", "--range", f"{low}:{high}", source).stdout)
    assert cut["share"] == len(kept) / 201
    assert (cut["key"], cut["unit"], cut["records"]) == ("perplexity", "records", 201)
    assert (cut["least"] is None, cut["below"] is None) == (str(low) == "0", str(high) == "1")


def test_a_cut_that_is_applied_to_another_score_is_warned_of(here, tmp_path):
    source = tmp_path / "scored.jsonl"
    source.write_bytes(lines({**record, "other": record["perplexity"]} for record in stream(20)))
    measure(here, tmp_path / "cut.json", source, 0.25, 0.75)
    done = here("slice", "--cut", tmp_path / "cut.json", "-k", "other", source)
    assert b"cut.json was measured on `perplexity`, and cuts `other`" in done.stderr
    assert len(records(done.stdout)) == 10


def test_a_ranking_by_tokens_is_measured_by_tokens(here, tmp_path):
    source = tmp_path / "scored.jsonl"
    source.write_bytes(
        lines({**record, "n_scored": 1 + 7 * (index % 9)} for index, record in enumerate(stream(201)))
    )
    ranked = tmp_path / "ranked.zst"
    assert status_of("rank", "--by", "tokens", source, "-o", ranked) == 0
    assert measure(here, tmp_path / "cut.json", ranked, 0.25, 0.75)["unit"] == "tokens"
    kept = {record["id"] for record in records(here("slice", "--cut", tmp_path / "cut.json", source).stdout)}
    by_range = records(here("slice", "--range", "0.25:0.75", ranked).stdout)
    assert kept == {record["id"] for record in by_range}


def test_equal_scores_are_not_divided_and_the_share_says_so(here, tmp_path):
    source = tmp_path / "scored.jsonl"
    source.write_bytes(lines({"perplexity": score} for score in (1, 2, 2, 2, 3, None)))
    assert measure(here, tmp_path / "cut.json", source, 0.4, 0.8) == {
        "key": "perplexity",
        "low": "0.4",
        "high": "0.8",
        "unit": "records",
        "least": 2.0,
        "below": 3.0,
        "share": 3 / 5,
        "records": 5,
    }


def test_later_records_are_judged_one_by_one(here, tmp_path):
    source = tmp_path / "scored.jsonl"
    source.write_bytes(lines({"perplexity": score} for score in range(100)))
    measure(here, tmp_path / "cut.json", source, 0.25, 0.75)
    later = [{"perplexity": score} for score in (24.999, 25, None, 74.999, 75, -3)]
    options = ("--cut", tmp_path / "cut.json", "--plain")
    assert records(here("slice", *options, stdin=lines(later)).stdout) == [later[1], later[3]]
    rest = records(here("slice", *options, "--invert", "--keep-unscored", stdin=lines(later)).stdout)
    assert rest == [later[0], later[2], later[4], later[5]]
    # Another name, as with a prefix.
    renamed = [{"new": record["perplexity"]} for record in later]
    done = here("slice", *options, "-k", "new", "--summary", tmp_path / "summary", stdin=lines(renamed))
    assert records(done.stdout) == [renamed[1], renamed[3]]
    summary = json.loads((tmp_path / "summary").read_bytes())
    assert summary["cut"] == {"records": 3, "tokens": 0}
    assert [*prune_cli.slice(later, cut=tmp_path / "cut.json")] == [later[1], later[3]]


def test_a_stream_that_drifts_is_warned_of(here, tmp_path):
    source = tmp_path / "scored.jsonl"
    source.write_bytes(lines(stream(4000)))
    measure(here, tmp_path / "cut.json", source, 0.25, 0.75)
    options = ("slice", "--cut", tmp_path / "cut.json", "--drift", "--summary", tmp_path / "s", "-f")
    done = here(*options, stdin=lines(stream(2000, seed=1)))
    assert done.stderr == b""
    drifted = json.loads((tmp_path / "s").read_bytes())["drift"]
    assert drifted["low"] < drifted["share"] < drifted["high"]
    assert drifted["high"] - 0.5 == pytest.approx(4 * (0.25 * (1 / 2000 + 1 / 4000)) ** 0.5)
    later = stream(2000, mean=1, seed=2)
    done = here(*options, stdin=lines(later))
    share = json.loads((tmp_path / "s").read_bytes())["drift"]["share"]
    assert b"scored records 1 to 2000: %.2f %% are inside the cut" % (100 * share) in done.stderr
    assert b"%.2f points less than measured" % (50 - 100 * share) in done.stderr
    # Without --drift nothing is said.
    assert here(*options[:3], stdin=lines(later)).stderr == b""


def test_each_window_of_a_long_stream_is_judged_and_drift_is_said_once():
    dice = np.random.default_rng(0)
    watch = drift.DriftWatch(expected=0.5, measured=1 << 20)
    shares = [0.5] * 3 + [0.52] * 3 + [0.5] * 2 + [0.4]
    inside = np.concatenate([dice.random(drift.WINDOW) < share for share in shares])
    checks = [check for part in np.array_split(inside, 37) for check in watch.add(part)]
    assert [check.first for check in checks] == [3 * drift.WINDOW + 1, 8 * drift.WINDOW + 1]
    assert watch.total().share == inside.mean()


@pytest.mark.parametrize("expected", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("records_", [600, 131072])
def test_the_interval_is_that_of_the_binomial_distribution(expected, records_):
    """Where the thresholds are exact; scipy's interval of the same probability."""
    low, high = drift.interval(expected, 10**15, records_)
    exact = binom.interval(0.99993666, records_, expected)
    # The normal interval lacks the skewness of the exact one.
    assert [low * records_, high * records_] == pytest.approx(exact, abs=4 + 0.03 * (high - low) * records_)
    assert drift.interval(expected, 10**15, 9) == (0, 1)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b'{"cut":5}',
        b'{"cut":{"key":"a"}}',
        b'{"cut":null}\n{"cut":null}\n',
        b"\xff",
        lines([{"cut": {**CUT, "least": "x"}}]),
        lines([{"cut": {**CUT, "records": 0}}]),
        lines([{"cut": {**CUT, "more": 0}}]),
    ],
)
def test_a_file_without_a_cut_is_refused(content, here, tmp_path):
    (tmp_path / "cut.json").write_bytes(content)
    done = here("slice", "--cut", tmp_path / "cut.json", stdin=b'{"a":1}\n', status=65)
    assert b"cut.json: holds no cut; write one with prune-cli stat" in done.stderr


@pytest.mark.parametrize(
    ("verb", "options", "status", "fault"),
    [
        ("slice", ["--cut", "absent.json"], 66, b"absent.json: no such file"),
        ("slice", ["--cut", "-"], 2, b"--cut needs a file"),
        ("slice", ["--cut", "a", "--min", "1"], 2, b"exclude each other"),
        ("slice", ["--cut", "a", "--by", "tokens"], 2, b"--by has no effect"),
        ("slice", ["--cut", "a", "--within", "b"], 2, b"--within has no effect"),
        ("slice", ["--min", "1", "-k", "a", "--drift"], 2, b"--drift has no effect"),
        ("stat", ["--thresholds", "0,1"], 2, b"--thresholds cuts one score"),
        ("stat", ["-k", "a", "-k", "b", "--thresholds", "0,1"], 2, b"--thresholds cuts one score"),
        ("stat", ["-k", "a", "--thresholds", "0.5,0.5"], 2, b"expected LO,HI with 0 <= LO < HI <= 1"),
        ("stat", ["-k", "a", "--thresholds", "0.5"], 2, b"expected LO,HI"),
        ("stat", ["-k", "a", "--thresholds", "0.9,1"], 65, b"no `a` lies between the fractions 0.9 and 1"),
        ("stat", ["-k", "a", "--thresholds", "0.3,0.6"], 65, b"no `a` lies between"),
        ("stat", ["-k", "empty", "--thresholds", "0.3,0.6"], 65, b"no record has a score in `empty`"),
    ],
)
def test_what_cannot_be_measured_or_applied_is_said(verb, options, status, fault, here):
    """Three records, of one score."""
    done = here(verb, *options, stdin=b'{"a":1,"empty":null}\n' * 3, status=status)
    assert fault in done.stderr
