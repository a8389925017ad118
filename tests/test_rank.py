"""rank: a total order, exact quantiles; GNU sort and jq are the oracles."""

import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


# Larger than memory


def plain(run, *arguments: object, stdin: bytes = b"") -> bytes:
    return run("rank", "--plain", *arguments, stdin=stdin).stdout


@pytest.mark.parametrize(
    "options", [[], ["-r"], ["--by", "tokens"], ["--within", "source"], ["-r", "--within", "source", "--by", "tokens"]]
)
def test_the_bytes_do_not_depend_on_the_memory_or_the_threads(options, here, tmp_path):
    """What -S 64K sorts in dozens of runs is, to the compressed byte, what fits in -S 1G."""
    (tmp_path / "in.jsonl").write_bytes(lines(scored(4000)))
    outputs = {
        here("rank", "-S", size, "--threads", threads, *options, tmp_path / "in.jsonl").stdout
        for size, threads in (("64K", 2), ("1M", 1), ("1G", 3))
    }
    assert len(outputs) == 1


@pytest.mark.parametrize("size", ["1", "64K", "1G"])
def test_equal_keys_over_many_runs_keep_their_order(size, here):
    keys = [(0.0, -0.0, None, 5e-324, 1e308)[index % 5] for index in range(400)]
    out = records(plain(here, "-S", size, stdin=lines({"id": at, "text": "x" * 3000, "perplexity": key} for at, key in enumerate(keys))))
    expected = sorted((at for at, key in enumerate(keys) if key is not None), key=lambda at: keys[at] or 0)
    assert [one["id"] for one in out] == expected + [at for at, key in enumerate(keys) if key is None]


def test_gnu_sort_agrees_on_any_keys(here, tmp_path):
    keys = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from([0.0, -0.0, 5e-324, -5e-324, 1e308, -1e308, 1, 1.0])

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(keys, min_size=1, max_size=60), st.sampled_from(["1", "1G"]))
    def agree(found, size):
        table = "".join(f"{key!r}\t{index}\n" for index, key in enumerate(found))
        order = subprocess.run(
            ["sort", "-g", "-s", "-k1,1"], input=table.encode(), capture_output=True, check=True, env={"LC_ALL": "C"}
        ).stdout.split()[1::2]
        (tmp_path / "in.jsonl").write_bytes(lines({"id": index, "perplexity": key} for index, key in enumerate(found)))
        out = records(plain(here, "-S", size, tmp_path / "in.jsonl"))
        assert [record["id"] for record in out] == [int(index) for index in order]
        assert [record["rank"] for record in out] == list(range(len(found)))

    agree()


def test_duckdb_agrees_on_a_corpus(here, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    (tmp_path / "in.jsonl").write_bytes(lines(scored(3000)))
    read = f"read_json('{tmp_path}/in.jsonl', format='newline_delimited')"
    rows = duckdb.sql(f"select id from (select *, row_number() over () n from {read}) order by perplexity nulls last, n").fetchall()
    assert [one["id"] for one in records(plain(here, "-S", "64K", tmp_path / "in.jsonl"))] == [row[0] for row in rows]
