"""stat: the same numbers from the trailer, from reading everything, and from DuckDB."""

import json
import random
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from .conftest import damaged, lines, prune, records, scored, status_of


def stat(run, *arguments: object, **more) -> dict:
    return json.loads(run("stat", *arguments, **more).stdout)


def test_the_trailer_agrees_with_reading_everything(here, ranked):
    at_once, read = stat(here, ranked), stat(here, "--verify", ranked)
    assert (at_once["verified"], read["verified"]) == (False, True)
    for name in (
        "records",
        "nulls",
        "tokens",
        "bytes",
        "scores",
        "length_correlation",
        "verb",
        "key",
        "unit",
    ):
        assert at_once[name] == read[name], name
    assert at_once["groups"] == {
        name: {"records": one["records"], "tokens": one["tokens"]} for name, one in read["groups"].items()
    }


def test_a_threshold_is_the_lowest_score_kept_from_that_quantile(here, ranked, corpus):
    for path in (ranked, corpus):
        found = stat(here, path)["scores"]["perplexity"]["quantiles"]
        for share in ("0", "0.25", "0.9"):
            kept = records(here("slice", "--range", f"{share}:1", ranked).stdout)
            assert found[share] == kept[0]["perplexity"]


@pytest.mark.parametrize("order", [(), ("-r",)])
def test_thresholds_of_a_ranking_by_tokens_are_by_tokens(order, here, corpus, tmp_path):
    path = tmp_path / "by-tokens"
    here("rank", "--by", "tokens", *order, corpus, "-o", path)
    found = stat(here, path)["scores"]
    assert found == stat(here, "--verify", path)["scores"]
    for share in ("0", "0.25", "0.9"):
        kept = records(here("slice", "--range", f"{share}:1", path).stdout)
        assert found["perplexity"]["quantiles"][share] == min(record["perplexity"] for record in kept)


def test_thresholds_exist_even_without_the_token_counts(here, corpus, tmp_path):
    here("rank", "--tokens-field", "absent", corpus, "-o", tmp_path / "ranked")
    assert stat(here, tmp_path / "ranked")["scores"] == stat(here, "--verify", tmp_path / "ranked")["scores"]


def test_a_reversed_ranking_and_a_slice_have_their_own_thresholds(here, corpus, ranked, tmp_path):
    here("rank", "-r", corpus, "-o", tmp_path / "reversed")
    assert stat(here, tmp_path / "reversed")["scores"] == stat(here, ranked)["scores"]
    assert stat(here, tmp_path / "reversed")["length_correlation"] == stat(here, ranked)["length_correlation"]
    here("slice", "--keep", "top", "--frac", "0.5", ranked, "-o", tmp_path / "top")
    assert stat(here, tmp_path / "top")["scores"] == stat(here, "--verify", tmp_path / "top")["scores"]


def test_duckdb_counts_the_same_by_source(here, corpus):
    duckdb = pytest.importorskip("duckdb")
    query = (
        "select source, count(*), count(*) - count(perplexity), sum(n_scored), min(perplexity), "
        "max(perplexity) "
        f"from read_json('{corpus}', format='newline_delimited') group by source order by source"
    )
    for (name, count, nulls, tokens, least, most), (ours, group) in zip(
        duckdb.sql(query).fetchall(), stat(here, corpus)["groups"].items(), strict=True
    ):
        quantiles = group["scores"]["perplexity"]["quantiles"]
        assert (ours, group["records"], group["nulls"], group["tokens"]) == (name, count, nulls, tokens)
        assert (quantiles["0"], quantiles["1"]) == (least, most)


def test_exact_duplicates_of_the_text_are_counted(here):
    found = stat(here, "--duplicates", stdin=lines({"text": text} for text in ("a", "b", "a", "c", "a", "b")))
    assert found["duplicates"] == {"distinct": 3, "copies": 3, "most_often": 3}
    assert b"no field `text`" in here("stat", "--duplicates", stdin=b'{"id":1}\n', status=65).stderr


def test_several_files_are_reported_one_by_one(here, corpus, ranked):
    told = [json.loads(line) for line in here("stat", corpus, ranked).stdout.splitlines()]
    assert [one["file"] for one in told] == [str(corpus), str(ranked)]
    assert [one["records"] for one in told] == [200, 200]


def test_tokens_that_were_not_counted_are_null_not_zero(here, tmp_path):
    path = tmp_path / "ranked.zst"
    here(
        "rank",
        "-k",
        "perplexity",
        "-o",
        path,
        stdin=lines({"perplexity": score, "source": "a"} for score in (1, 2)),
    )
    for found in (
        stat(here, path),
        stat(here, "--verify", path),
        stat(here, stdin=lines([{"text": "a", "source": "a"}])),
    ):
        assert (found["tokens"], found["groups"]["a"]["tokens"]) == (None, None)
    assert stat(here, stdin=lines([{"perplexity": None, "n_scored": 0}]))["tokens"] == 0


def test_an_empty_stream_has_no_records(here):
    assert stat(here, "--allow-empty", stdin=b"")["records"] == 0
    assert stat(here, stdin=prune("rank", "-k", "a", "--allow-empty", stdin=b"").stdout)["records"] == 0


def test_damage_is_found_where_it_is_read(ranked, tmp_path):
    victim = tmp_path / "damaged"
    for what, broken in damaged(ranked.read_bytes(), 100):
        victim.write_bytes(broken)
        assert status_of("stat", "--verify", "-f", "-o", tmp_path / "out", victim) == 65, what
    assert len(records(ranked.read_bytes())) == len(scored(200))


def test_a_score_that_no_record_has_is_an_error(here, ranked):
    assert b"no record has a field `nope`" in here("stat", "-k", "nope", ranked, status=65).stderr


def test_a_trailer_answers_only_what_was_asked(here, ranked):
    said = here("stat", "--expect-records", 5, ranked, status=65).stderr
    assert b"200 records arrived, 5 were expected" in said
    whole = json.loads(here("stat", ranked).stdout)
    assert whole["tokens"] > 0
    other = json.loads(here("stat", "--tokens-field", "rank", ranked).stdout)
    assert other["tokens"] != whole["tokens"]


@settings(max_examples=40)
@given(
    scores=st.lists(st.sampled_from([None, -1.5, 0, 0.25, 1, 1, 7e9]) | st.floats(-9, 9), max_size=60),
    by=st.sampled_from(["records", "tokens"]),
    reverse=st.booleans(),
    seed=st.integers(0, 9),
)
def test_the_thresholds_in_a_trailer_are_those_of_the_records(scores, by, reverse, seed):
    dice = random.Random(seed)
    stream = [{"perplexity": score, "n_scored": dice.randint(1, 5)} for score in scores]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "ranked.zst"
        (folder / "in.jsonl").write_bytes(lines(stream))
        options = ("--by", by, *(["-r"] if reverse else []))
        if not any(score is not None for score in scores):
            return
        assert status_of("rank", *options, folder / "in.jsonl", "--allow-empty", "-o", path) == 0
        said = {}
        for way in ([], ["--verify"]):
            out = folder / "stat.json"
            assert status_of("stat", *way, path, "-f", "-o", out) == 0
            said[bool(way)] = json.loads(out.read_bytes())["scores"]["perplexity"]
    assert said[False] == said[True]
