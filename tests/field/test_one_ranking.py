"""One definition of a valid ranking: what `rank` writes, the checks accept and every cut reads."""

import json
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prune_cli
from prune_cli.errors import DataError

from ..conftest import lines, records, status_of

ZERO_AT_THE_ENDS = [
    {"id": number, "text": "t", "perplexity": number, "n_scored": tokens}
    for number, tokens in enumerate((0, 10, 0, 5, None))
]


@pytest.fixture
def zeros(here, tmp_path):
    path = tmp_path / "zeros.zst"
    here("rank", "--by", "tokens", "-o", path, stdin=lines(ZERO_AT_THE_ENDS))
    return path


def test_records_of_no_tokens_at_the_ends_of_a_ranking_are_valid(zeros, here):
    ranked = records(zeros.read_bytes())
    assert [record["quantile"] for record in ranked] == [0, 1 / 3, 2 / 3, 5 / 6, 1]
    here("rank", "-c", zeros)
    here("stat", "--verify", zeros)
    for keep in ("bottom", "middle", "top"):
        assert len(records(here("slice", "--keep", keep, "--frac", 1, zeros).stdout)) == 5
    assert [record["id"] for record in records(here("slice", "--range", "0.5:1", zeros).stdout)] == [2, 3, 4]
    assert [record["id"] for record in records(here("slice", "--range", "0:0.5", zeros).stdout)] == [0, 1]


@pytest.mark.parametrize(
    "cut", [["--range", "0:0.5"], ["--range", "0.5:1"], ["--keep", "top", "--frac", "1"]]
)
def test_a_ranking_and_its_scores_are_cut_alike(cut, zeros, here):
    by_ranking = records(here("slice", *cut, zeros).stdout)
    by_scores = records(here("slice", "-k", "perplexity", "--by", "tokens", *cut, zeros).stdout)
    assert by_ranking == by_scores


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"quantile": 0.9}, b"another N"),
        ({"quantile": 1.5}, b"without a quantile"),
        ({"rank": 7, "quantile": 7.5 / 8}, b"out of order"),
    ],
)
def test_the_checks_find_what_slice_refuses(change, fault, here):
    ranking = [{"perplexity": n, "rank": n, "quantile": (n + 0.5) / 8} for n in range(8)]
    ranking[3] |= change
    damaged = here("rank", "-c", "--by", "records", stdin=lines(ranking), status=1).stderr
    assert b"not in the order" in damaged or fault in damaged or b"out of order" in damaged
    refused = here("slice", "--by", "records", "--range", "0:1", stdin=lines(ranking), status=65).stderr
    assert fault in refused


def test_stat_verify_finds_ranks_that_are_not_those_of_the_head(here, tmp_path):
    here("rank", "-o", tmp_path / "r", stdin=lines({"perplexity": n} for n in range(8)))
    # The part of a stream with its head, and then records of another ranking.
    assert json.loads(here("stat", "--verify", tmp_path / "r").stdout)["verified"]
    other = [{"perplexity": n, "rank": n, "quantile": (n + 0.5) / 9} for n in range(3)]
    with pytest.raises(DataError):
        list(prune_cli.slice([*other, {**other[2], "quantile": 0.9}], by="records", keep="top", frac="1"))


def test_a_cut_by_tokens_needs_tokens(here):
    corpus = lines({"text": "t", "perplexity": n, "n_scored": 0} for n in range(3))
    by_tokens = ("--by", "tokens")
    assert b"has any tokens" in here("rank", *by_tokens, stdin=corpus, status=65).stderr
    cut = ("slice", "-k", "perplexity", "--keep", "top", "--frac", 0.5)
    assert b"has any tokens" in here(*cut, *by_tokens, stdin=corpus, status=65).stderr


scores = st.sampled_from([None, 1, 1.5, 2, -3, 10**300])
tokens = st.sampled_from([0, None, 1, 7, 2**40])
corpora = st.lists(
    st.fixed_dictionaries({"perplexity": scores, "n_scored": tokens, "source": st.sampled_from("ab")})
)
cuts = st.sampled_from(
    [{"keep": keep, "frac": frac} for keep in ("bottom", "middle", "top") for frac in ("0", "0.3", "1")]
    + [{"range": "0:1"}, {"range": "0.2:0.7"}, {"keep": "middle", "tokens": 8}, {"min": 1.5}]
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    corpora, st.sampled_from(["records", "tokens"]), st.booleans(), st.sampled_from([None, "source"]), cuts
)
@pytest.mark.filterwarnings("ignore::prune_cli.errors.PruneWarning")  # some corpora have no score
def test_every_cut_reads_what_rank_writes(corpus, unit, reverse, within, cut):
    try:
        ranked = list(prune_cli.rank(corpus, by=unit, reverse=reverse, within=within, key="perplexity"))
    except DataError:  # no tokens to rank by
        assert unit == "tokens"
        return
    if within:
        kept = (
            list(prune_cli.slice(ranked, by=unit, within=within, key="perplexity", **cut))
            if not {"tokens", "min"} & set(cut)
            else []
        )
        assert len(kept) <= len(corpus)
        return
    options = {**cut, **({"key": "perplexity"} if "min" in cut else {})}
    kept = list(prune_cli.slice(ranked, by=unit, **options))
    scored = [record for record in ranked if record["rank"] is not None]
    if Decimal(cut.get("frac", 0)) == 1 or cut.get("range") == "0:1":
        assert kept == scored
    if "tokens" in cut:
        assert sum(record["n_scored"] or 0 for record in kept) <= cut["tokens"]
    if "min" not in cut and "tokens" not in cut:
        # A ranking and its scores are cut alike, whichever way the file runs.
        alike = list(prune_cli.slice(ranked[::-1] if reverse else ranked, by=unit, key="perplexity", **cut))
        assert sorted(map(str, kept)) == sorted(map(str, alike)) or _has_ties(scored)


def _has_ties(scored):
    values = [record["perplexity"] for record in scored]
    return len(set(values)) < len(values)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(corpora, st.sampled_from(["records", "tokens"]), st.booleans(), st.sampled_from([None, "source"]))
def test_the_checks_accept_what_rank_writes(tmp_path_factory, corpus, unit, reverse, within):
    directory = tmp_path_factory.mktemp("rankings")
    (directory / "in.jsonl").write_bytes(lines(corpus) or b"\n")
    options = ["--by", unit, *(["-r"] if reverse else []), *(["--within", within] if within else [])]
    status = status_of("rank", "-k", "perplexity", *options, directory / "in.jsonl", "-o", directory / "r")
    if status == 65:  # no tokens to rank by
        return
    assert status == 0
    assert status_of("rank", "-q", "-c", directory / "r") == 0
    assert status_of("stat", "-q", "--verify", directory / "r", "-o", directory / "stat") == 0
    for cut in (["--keep", "middle", "--frac", "1"], ["--range", "0:1"], ["--keep", "top", "--tokens", "8"]):
        extra = ["--within", within] if within and "--tokens" not in cut else []
        assert status_of("slice", "-q", *cut, *extra, directory / "r", "-f", "-o", directory / "s") == 0
