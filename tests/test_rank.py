"""rank: a total order, exact quantiles; GNU sort and jq are the oracles."""

import json
import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prune_cli.storage.local.writing import Stream
from prune_cli.stream.batch import Record
from prune_cli.stream.schema import Head
from prune_cli.stream.writer import Writing, open_sink

from .conftest import lines, records, scored


def ranked(here, corpus, *options: object):
    return records(here("rank", *options, stdin=lines(corpus)).stdout)


def test_the_order_equals_gnu_sort_with_nulls_last(here):
    corpus = scored(500)
    text = lines(corpus)
    sorted_ids = subprocess.run(
        "jq -rc 'select(.perplexity != null) | [.perplexity, .id] | @tsv'"
        " | LC_ALL=C sort -g -s -k1,1 | cut -f2",
        shell=True, input=text, capture_output=True, check=True,
    ).stdout.decode().split()  # fmt: skip
    out = ranked(here, corpus)
    assert [record["id"] for record in out if record["rank"] is not None] == sorted_ids
    assert [record["id"] for record in out][len(sorted_ids) :] == [
        record["id"] for record in corpus if record["perplexity"] is None
    ]


def test_quantiles_by_records_are_midpoints(here):
    out = ranked(here, [{"perplexity": score} for score in (3, 1, None, 2, 4)])
    assert [(record["rank"], record["quantile"]) for record in out] == [
        (0, 0.125),
        (1, 0.375),
        (2, 0.625),
        (3, 0.875),
        (None, None),
    ]


def test_quantiles_by_tokens_are_midpoints_weighted_by_tokens(here):
    out = ranked(
        here,
        [
            {"perplexity": 2, "n_scored": 6},
            {"perplexity": 1, "n_scored": 2},
            {"perplexity": None, "n_scored": 9},
        ],
        "--by",
        "tokens",
    )
    assert [(record["rank"], record["quantile"]) for record in out] == [(0, 0.125), (1, 0.625), (None, None)]


def test_reverse_changes_the_file_order_but_not_the_ranks(here):
    corpus = scored(50)
    forward, backward = ranked(here, corpus), ranked(here, corpus, "--reverse")
    placed = [record for record in forward if record["rank"] is not None]
    assert [record for record in backward if record["rank"] is not None] == placed[::-1]
    assert backward[len(placed) :] == forward[len(placed) :]


def test_the_key_is_detected_unless_there_are_several(here):
    assert ranked(here, [{"bits_per_byte": 2}, {"bits_per_byte": 1}])[0]["bits_per_byte"] == 1
    assert (
        b"several scores"
        in here("rank", stdin=lines([{"bits_per_byte": 2, "perplexity": 1}]), status=2).stderr
    )
    assert b"name one with -k" in here("rank", stdin=lines([{"my_score": 2}]), status=2).stderr
    assert ranked(here, [{"my_score": 2}, {"my_score": 1}], "-k", "my_score")[0]["my_score"] == 1


def test_missing_or_negative_token_counts_are_errors_when_used(here):
    assert (
        b"no field `n_scored`"
        in here("rank", "--by", "tokens", stdin=lines([{"perplexity": 1}]), status=65).stderr
    )
    assert (
        b"`n_scored`"
        in here("rank", "--by", "tokens", stdin=lines([{"perplexity": 1, "n_scored": -4}]), status=65).stderr
    )
    assert (
        b"no scored record has any tokens"
        in here("rank", "--by", "tokens", stdin=lines([{"perplexity": 1, "n_scored": 0}]), status=65).stderr
    )


def test_prefix_names_the_new_fields(here):
    assert ranked(here, [{"perplexity": 1, "rank": "gold"}], "--prefix", "ppl_")[0]["ppl_rank"] == 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_tiny_inputs(count, here):
    assert (
        len(records(here("rank", "--allow-empty", "-k", "perplexity", stdin=lines(scored(count))).stdout))
        == count
    )


# Larger than memory


def plain(run, *arguments: object, stdin: bytes = b"") -> bytes:
    return run("rank", "--plain", *arguments, stdin=stdin).stdout


@pytest.mark.parametrize(
    "options",
    [[], ["-r"], ["--by", "tokens"], ["--within", "source"], ["-r", "--within", "source", "--by", "tokens"]],
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
    out = records(
        plain(
            here,
            "-S",
            size,
            stdin=lines({"id": at, "text": "x" * 3000, "perplexity": key} for at, key in enumerate(keys)),
        )
    )
    expected = sorted((at for at, key in enumerate(keys) if key is not None), key=lambda at: keys[at] or 0)
    assert [one["id"] for one in out] == expected + [at for at, key in enumerate(keys) if key is None]


def test_gnu_sort_agrees_on_any_keys(here, tmp_path):
    keys = st.floats(allow_nan=False, allow_infinity=False) | st.sampled_from(
        [0.0, -0.0, 5e-324, -5e-324, 1e308, -1e308, 1, 1.0]
    )

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.lists(keys, min_size=1, max_size=60), st.sampled_from(["1", "1G"]))
    def agree(found, size):
        table = "".join(f"{key!r}\t{index}\n" for index, key in enumerate(found))
        order = subprocess.run(
            ["sort", "-g", "-s", "-k1,1"],
            input=table.encode(),
            capture_output=True,
            check=True,
            env={"LC_ALL": "C"},
        ).stdout.split()[1::2]
        (tmp_path / "in.jsonl").write_bytes(
            lines({"id": index, "perplexity": key} for index, key in enumerate(found))
        )
        out = records(plain(here, "-S", size, tmp_path / "in.jsonl"))
        assert [record["id"] for record in out] == [int(index) for index in order]
        assert [record["rank"] for record in out] == list(range(len(found)))

    agree()


def test_duckdb_agrees_on_a_corpus(here, tmp_path):
    duckdb = pytest.importorskip("duckdb")
    (tmp_path / "in.jsonl").write_bytes(lines(scored(3000)))
    read = f"read_json('{tmp_path}/in.jsonl', format='newline_delimited')"
    rows = duckdb.sql(
        f"select id from (select *, row_number() over () n from {read}) order by perplexity nulls last, n"
    ).fetchall()
    assert [one["id"] for one in records(plain(here, "-S", "64K", tmp_path / "in.jsonl"))] == [
        row[0] for row in rows
    ]


@pytest.mark.parametrize("options", [[], ["-r"]])
def test_within_ranks_the_records_of_each_value_among_themselves(options, here):
    corpus = scored(300)
    out = records(plain(here, *options, "--within", "source", stdin=lines(corpus)))
    whole = records(plain(here, *options, stdin=lines(corpus)))
    assert [one["id"] for one in out] == [
        one["id"] for one in whole
    ]  # the file's order is one over all of them
    for source in "abc":
        alone = records(plain(here, *options, stdin=lines(one for one in corpus if one["source"] == source)))
        assert [one for one in out if one["source"] == source] == alone


def test_within_needs_a_label_in_every_record(here):
    assert (
        b"no field `source`"
        in here("rank", "--within", "source", stdin=b'{"perplexity":1}\n', status=65).stderr
    )
    assert (
        b"not a string or a whole number"
        in here("rank", "--within", "a", stdin=b'{"perplexity":1,"a":[1]}\n', status=65).stderr
    )


def test_merging_ranked_files_equals_ranking_them_together(here, tmp_path):
    corpus, parts = scored(900), []
    for number, cut in enumerate((corpus[:200], corpus[200:300], corpus[300:])):
        parts.append(tmp_path / f"{number}.zst")
        here("rank", "-o", parts[-1], stdin=lines(cut))
    whole = plain(here, stdin=lines(corpus))
    assert plain(here, "--merge", *parts) == whole
    assert b"made with --by records" in here("rank", "--merge", "--by", "tokens", *parts, status=2).stderr
    concatenated = b"".join(part.read_bytes() for part in parts)
    assert plain(here, "--merge", stdin=concatenated) == whole
    assert b"not every input is a ranking" in here("rank", "--merge", stdin=lines(corpus), status=65).stderr


def test_rankings_by_a_custom_field_merge_by_that_field(here, tmp_path):
    parts = []
    for part, values in enumerate(([3, 1], [2])):
        parts.append(tmp_path / f"part-{part}")
        here(
            "rank",
            "-k",
            "mine",
            "-o",
            parts[-1],
            stdin=lines([{"text": "x", "mine": value} for value in values]),
        )
    assert [one["mine"] for one in records(plain(here, "--merge", *parts))] == [1, 2, 3]


def test_slices_of_a_ranking_merge_and_are_renewed(here, ranked, tmp_path):
    for keep in ("bottom", "top"):
        here("slice", "--keep", keep, "--frac", "0.3", "--keep-unscored", ranked, "-o", tmp_path / keep)
    merged = records(plain(here, "--merge", tmp_path / "bottom", tmp_path / "top"))
    assert [one["rank"] for one in merged if one["rank"] is not None] == list(range(114))
    assert sum(one["rank"] is None for one in merged) == 2 * 9


def test_check_says_where_the_order_breaks(here, ranked, corpus, tmp_path):
    assert here("rank", "-c", ranked).stderr == b""
    assert b"not in the order of `perplexity`" in here("rank", "--check", corpus, status=1).stderr
    here("rank", "-r", corpus, "-o", tmp_path / "r")
    here("rank", "-c", "-r", tmp_path / "r")
    here("rank", "-c", tmp_path / "r")  # its head says that it is reversed
    assert (
        b":3: not in"
        in here("rank", "-c", stdin=lines({"perplexity": key} for key in (1, 2, 1)), status=1).stderr
    )
    here("rank", "-c", stdin=lines({"perplexity": key} for key in (1, None, 2)), status=1)


def test_scores_of_different_models_are_ranked_together_only_with_force(here, tmp_path):
    how = {"fields": ["perplexity"], "names": ["m"], "models": ["1"], "context": 1024, "device": "cpu"}
    for name, changed in (
        ("one", {}),
        ("two", {"context": 512}),
        ("moved", {"names": ["elsewhere"], "device": "cuda"}),
    ):
        with (
            (tmp_path / name).open("wb") as file,
            open_sink(
                Stream(file.fileno(), name), Head.compose("score", "source", score=how | changed), Writing()
            ) as sink,
        ):
            sink.write([Record(b'{"perplexity":1}')])
    said = here("rank", tmp_path / "one", tmp_path / "two", status=65).stderr
    assert b"scores were made with different settings: context is 512 here, 1024 before; rescore" in said
    assert len(records(here("rank", "--mixed", tmp_path / "one", tmp_path / "two").stdout)) == 2
    assert len(records(here("rank", tmp_path / "one", tmp_path / "moved").stdout)) == 2


def test_ranking_again_replaces_the_ranks_in_place(here, ranked):
    once = subprocess.run(["zstd", "-dc", str(ranked)], capture_output=True, check=True).stdout
    assert plain(here, "--overwrite", ranked) == once
    elsewhere = subprocess.run(
        ["jq", "-c", "{rank, quantile} + ."], input=once, capture_output=True, check=True
    ).stdout
    assert records(plain(here, "--overwrite", stdin=elsewhere)) == records(once)
    nested = (
        b'{"perplexity":1,"a":{"rank":7},"rank":0,"quantile":0.5}\n{"perplexity":2,"rank":1,"quantile":0.7}\n'
    )
    assert plain(here, "--overwrite", stdin=nested).startswith(
        b'{"perplexity":1,"a":{"rank":7},"rank":0,"quantile":0.25}\n'
    )
    assert b"--prefix STR" in here("rank", "-k", "rank", "--overwrite", stdin=once, status=2).stderr


def test_large_integers_are_compared_as_doubles(here):
    """As jq and every other JSON reader that has only doubles sees them; the bytes stay."""
    out = plain(here, stdin=b'{"perplexity":9007199254740993}\n{"perplexity":9007199254740992}\n')
    assert out.startswith(b'{"perplexity":9007199254740993,"rank":0,')


def test_white_space_after_a_record_stays(here):
    out = plain(here, stdin=b'{"perplexity":2}\r\n{"perplexity":1} \r\n')
    assert (
        out == b'{"perplexity":1,"rank":0,"quantile":0.25} \r\n{"perplexity":2,"rank":1,"quantile":0.75}\r\n'
    )


def test_the_trailer_has_the_rank_correlation_of_score_and_length(here, tmp_path):
    stats, corpus = pytest.importorskip("scipy.stats"), scored(2000)
    for record in corpus:
        record["n_scored"] = int(record["n_scored"] * (record["perplexity"] or 1))
    told = [
        json.loads(here("stat", stdin=here("rank", "-S", size, *options, stdin=lines(corpus)).stdout).stdout)[
            "length_correlation"
        ]
        for size in ("64K", "1G")
        for options in ([], ["-r"])
    ]
    pairs = [
        (record["perplexity"], record["n_scored"]) for record in corpus if record["perplexity"] is not None
    ]
    assert told == [pytest.approx(stats.spearmanr(*zip(*pairs, strict=True)).statistic, abs=2e-6)] * 4


@pytest.mark.parametrize("first", [b"1", b"null", b"1.5"])
def test_a_repeated_score_field_is_an_error_however_it_is_escaped(first, here):
    for name in (b"perplexity", b"perplexit\\u0079"):
        twice = b'{"perplexity":2}\n{"' + name + b'":' + first + b',"perplexity":2}\n'
        assert b":2: the field `perplexity` occurs twice" in here("rank", stdin=twice, status=65).stderr
    inside = b'{"perplexity":2,"text":"the \\"perplexity\\"","list":["perplexity"],"deep":{"perplexity":1}}\n'
    assert plain(here, stdin=inside).endswith(b',"rank":0,"quantile":0.5}\n')
