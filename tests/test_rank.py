"""rank: a total order, exact quantiles; GNU sort and jq are the oracles."""

import json
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prune_cli.io.files import Input
from prune_cli.io.records import Source
from prune_cli.stages.rank import Ranking, rank

from .conftest import lines, prune, records, scored


def ranked(corpus, *options: object):
    return records(prune("rank", *options, stdin=lines(corpus)).stdout)


def test_the_order_is_that_of_gnu_sort_with_nulls_last():
    corpus = scored(500)
    text = lines(corpus)
    sorted_ids = subprocess.run(
        "jq -rc 'select(.perplexity != null) | [.perplexity, .id] | @tsv' | LC_ALL=C sort -g -s -k1,1 | cut -f2",
        shell=True, input=text, capture_output=True, check=True,
    ).stdout.decode().split()  # fmt: skip
    out = ranked(corpus)
    assert [record["id"] for record in out if record["rank"] is not None] == sorted_ids
    assert [record["id"] for record in out][len(sorted_ids) :] == [record["id"] for record in corpus if record["perplexity"] is None]


@settings(max_examples=200)
@given(
    st.lists(
        st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 5e-324, 1e308, 1, 1.0]),
        min_size=1,
        max_size=60,
    )
)
def test_ranking_is_a_stable_sort_and_a_permutation(tmp_path_factory, keys):
    path = tmp_path_factory.mktemp("rank") / "in.jsonl"
    path.write_bytes(lines({"id": index, "perplexity": key} for index, key in enumerate(keys)))
    out = [json.loads(record.line) for record in rank(Source([Input(str(path))]), Ranking("perplexity")).records]
    expected = sorted((index for index, key in enumerate(keys) if key is not None), key=lambda index: keys[index])
    assert [record["id"] for record in out] == expected + [index for index, key in enumerate(keys) if key is None]
    assert [record["rank"] for record in out][: len(expected)] == list(range(len(expected)))


def test_quantiles_by_records_are_the_middles_of_equal_shares():
    out = ranked([{"perplexity": score} for score in (3, 1, None, 2, 4)])
    assert [(record["rank"], record["quantile"]) for record in out] == [(0, 0.125), (1, 0.375), (2, 0.625), (3, 0.875), (None, None)]


def test_quantiles_by_tokens_are_the_middles_of_their_own_shares():
    out = ranked(
        [{"perplexity": 2, "n_scored": 6}, {"perplexity": 1, "n_scored": 2}, {"perplexity": None, "n_scored": 9}], "--by", "tokens"
    )
    assert [(record["rank"], record["quantile"]) for record in out] == [(0, 0.125), (1, 0.625), (None, None)]


def test_reverse_turns_the_file_and_not_the_ranks():
    corpus = scored(50)
    forward, backward = ranked(corpus), ranked(corpus, "--reverse")
    placed = [record for record in forward if record["rank"] is not None]
    assert [record for record in backward if record["rank"] is not None] == placed[::-1]
    assert backward[len(placed) :] == forward[len(placed) :]


def test_the_key_is_found_when_there_is_one_and_asked_for_when_there_are_more():
    assert ranked([{"bits_per_byte": 2}, {"bits_per_byte": 1}])[0]["bits_per_byte"] == 1
    assert b"several scores" in prune("rank", stdin=lines([{"bits_per_byte": 2, "perplexity": 1}]), status=2).stderr
    assert b"name one with -k" in prune("rank", stdin=lines([{"my_score": 2}]), status=2).stderr
    assert ranked([{"my_score": 2}, {"my_score": 1}], "-k", "my_score")[0]["my_score"] == 1


def test_tokens_that_are_missing_or_negative_are_errors_where_they_count():
    assert b"no field `n_scored`" in prune("rank", "--by", "tokens", stdin=lines([{"perplexity": 1}]), status=65).stderr
    assert b"`n_scored`" in prune("rank", "--by", "tokens", stdin=lines([{"perplexity": 1, "n_scored": -4}]), status=65).stderr
    assert (
        b"no scored record has any tokens"
        in prune("rank", "--by", "tokens", stdin=lines([{"perplexity": 1, "n_scored": 0}]), status=65).stderr
    )


def test_prefix_names_the_new_fields():
    assert ranked([{"perplexity": 1, "rank": "gold"}], "--prefix", "ppl_")[0]["ppl_rank"] == 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_tiny_inputs(count):
    assert len(records(prune("rank", "--allow-empty", "-k", "perplexity", stdin=lines(scored(count))).stdout)) == count
