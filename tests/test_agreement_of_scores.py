"""stat --agree: the correlation against scipy, the overlaps against DuckDB and against what `slice` keeps."""

import json
import random
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path

import pytest
from scipy.stats import spearmanr

import prune_cli

from .conftest import Corpus, lines, records, scored, zstd

SIZES = ("0.1", "0.3", "0.5", "0.7")


def two_scores(count: int = 300) -> Corpus:
    """Records with two scores that tie often; some have only one, some none."""
    dice = random.Random(5)
    corpus = scored(count)
    for record in corpus:
        value = record["perplexity"]
        record["el2n"] = None if value is None else round(value / 40 + dice.random(), 1)
        if dice.random() < 0.03:
            record["el2n"] = None
    return corpus


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "scored.jsonl.zst"
    path.write_bytes(zstd(lines(two_scores())))
    return path


def agreement(here, *arguments: object, **more) -> dict:
    [pair] = json.loads(here("stat", *arguments, **more).stdout)["agreement"]
    return pair


def with_both(corpus: Corpus) -> Corpus:
    return [record for record in corpus if None not in (record["perplexity"], record["el2n"])]


def test_the_correlation_is_that_of_scipy_with_ties_and_in_each_group(here, corpus):
    pair = agreement(here, "--agree", "perplexity,el2n", corpus)
    both = with_both(two_scores())
    assert (pair["fields"], pair["records"]) == (["perplexity", "el2n"], len(both))
    assert pair["one_score_only"] == sum(
        (record["perplexity"] is None) != (record["el2n"] is None) for record in two_scores()
    )
    groups = {"": both} | {
        name: [record for record in both if record["source"] == name] for name in ("a", "b", "c")
    }
    for name, members in groups.items():
        expected = spearmanr(*([record[field] for record in members] for field in ("perplexity", "el2n")))
        content = pair["groups"][name] if name else pair
        assert content["records"] == len(members)
        assert content["spearman"] == pytest.approx(expected.statistic, abs=1e-12)


def test_duckdb_keeps_as_many_of_each_and_of_both(here, corpus):
    """By records, ranks decide; by tokens, the middle of a record's tokens. Ties are in input order."""
    duckdb = pytest.importorskip("duckdb")
    pair = agreement(here, "--agree", "perplexity,el2n", corpus)
    rows = duckdb.sql(f"""
        with numbered as (select *, row_number() over () as place
            from read_json('{corpus}', format='newline_delimited')),
        both_scores as (select * from numbered where perplexity is not null and el2n is not null)
        select source, n_scored, {
        ", ".join(
            f'''
            row_number() over (order by {score}, place) - 1,
            sum(n_scored) over (order by {score}, place) - n_scored / 2.0'''
            for score in pair["fields"]
        )
    },
            count(*) over (), sum(n_scored) over ()
        from both_scores""").fetchall()
    n, total = rows[0][-2], rows[0][-1]
    assert n == pair["records"]
    for size in SIZES:
        k = int((Decimal(size) * n).quantize(Decimal(1), ROUND_HALF_UP))
        first = {"bottom": 0, "middle": (n - k) // 2, "top": n - k}
        share = float(size)
        low = {"bottom": 0.0, "middle": 0.5 - share / 2, "top": float(1 - Decimal(size))}
        for part in first:
            within = [[first[part] <= row[at] < first[part] + k for row in rows] for at in (2, 4)]
            check(pair, "records", part, size, rows, [1] * n, within)
            edges = (low[part], low[part] + share if part != "top" else 2)
            within = [[edges[0] <= row[at] / float(total) < edges[1] for row in rows] for at in (3, 5)]
            check(pair, "tokens", part, size, rows, [row[1] for row in rows], within)


def check(pair, unit, part, size, rows, weights, within):
    for group in ("", "a", "b", "c"):
        members = [index for index, row in enumerate(rows) if group in ("", row[0])]
        first, second = (sum(weights[i] for i in members if inside[i]) for inside in within)
        both = sum(weights[i] for i in members if within[0][i] and within[1][i])
        overlap = (pair["groups"][group] if group else pair)["overlap"][unit][part][size]
        assert (overlap["first"], overlap["second"], overlap["both"]) == (first, second, both)
        assert overlap["jaccard"] == pytest.approx(both / (first + second - both))
        assert overlap["share"] == pytest.approx(both / first)


@pytest.mark.parametrize("unit", ["records", "tokens"])
def test_it_is_what_two_slices_have_in_common(unit, here, tmp_path):
    path = tmp_path / "scored.jsonl"
    path.write_bytes(lines(with_both(two_scores())))
    overlap = agreement(here, "--agree", "perplexity,el2n", path)["overlap"][unit]["middle"]["0.3"]
    options = ("--by", unit, "--keep", "middle", "--frac", "0.3")
    kept = [
        {
            record["id"]: record["n_scored"]
            for record in records(here("slice", "-k", key, *options, path).stdout)
        }
        for key in ("perplexity", "el2n")
    ]
    both = {identity: tokens for identity, tokens in kept[0].items() if identity in kept[1]}
    expected = [len(each) if unit == "records" else sum(each.values()) for each in (*kept, both)]
    assert [overlap["first"], overlap["second"], overlap["both"]] == expected


def test_a_file_of_scores_is_joined_in_order(here, corpus, tmp_path):
    other = tmp_path / "scores.jsonl"
    records_ = two_scores()
    other.write_bytes(lines({"id": r["id"], "perplexity": r["el2n"], "el2n": r["el2n"]} for r in records_))
    expected = agreement(here, "--agree", "perplexity,el2n", corpus)
    joined = agreement(here, "--agree", "perplexity,el2n", "--scores", other, corpus)
    assert joined == expected
    # A single field is read from both.
    own = agreement(here, "--agree", "perplexity", "--scores", other, corpus)
    assert own == {**expected, "fields": ["perplexity", "perplexity"]}


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda rows: rows[:-1], b"there is no score for it"),
        (lambda rows: [*rows, rows[-1]], b"there are more scores than the 300 records"),
        (lambda rows: [rows[1], rows[0], *rows[2:]], b"its id is not that of record 1 of the scores"),
        (lambda rows: [{"el2n": row["el2n"]} for row in rows], b"record 1 of the scores has no id"),
        (lambda rows: [{"id": row["id"]} for row in rows], b"no field `el2n`"),
    ],
)
def test_scores_of_another_corpus_are_refused(change, fault, here, corpus, tmp_path):
    other = tmp_path / "scores.jsonl"
    other.write_bytes(lines(change(two_scores())))
    done = here("stat", "--agree", "perplexity,el2n", "--scores", other, corpus, status=65)
    assert fault in done.stderr
    assert done.stdout == b""


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--agree", "perplexity"], b"--agree compares two scores"),
        (["--agree", "a,a"], b"expected the names of different fields"),
        (["--agree", "a,"], b"expected the names of different fields"),
        (["--scores", "x"], b"--scores has no effect"),
        (["--agree", "a,b", "--scores", "x", "second"], b"--scores has the scores of one input, and 2 are"),
    ],
)
def test_what_cannot_be_compared_is_a_usage_error(options, fault, here, corpus):
    assert fault in here("stat", *options, corpus, status=2).stderr


def test_three_scores_make_three_pairs_in_python_too():
    corpus = [{**record, "random": index % 7} for index, record in enumerate(two_scores(50))]
    pairs = prune_cli.stat(corpus, agree="perplexity,el2n,random")["agreement"]
    assert [pair["fields"] for pair in pairs] == [
        ["perplexity", "el2n"],
        ["perplexity", "random"],
        ["el2n", "random"],
    ]


def test_records_without_tokens_or_scores_agree_on_nothing(here):
    pair = agreement(here, "--agree", "a,b", stdin=lines([{"a": 1, "b": 2}, {"a": 1, "b": 3}]))
    assert pair["spearman"] is None
    assert [*pair["overlap"]] == ["records"]
    assert pair["overlap"]["records"]["bottom"]["0.1"] == {
        "first": 0,
        "second": 0,
        "both": 0,
        "jaccard": None,
        "share": None,
    }
    pair = agreement(here, "--agree", "a,b", stdin=lines([{"a": None, "b": None}]))
    assert (pair["records"], pair["one_score_only"], pair["spearman"]) == (0, 0, None)
    pair = agreement(here, "--agree", "a,b", "--allow-empty", stdin=b"")
    assert pair["records"] == 0
