"""A field that an option names and that no record has is said, and so are scores that are not there."""

import warnings

import pytest

import prune_cli
from prune_cli.errors import PruneWarning

from ..conftest import lines

CORPUS = lines(
    {"id": at, "text": "some text", "perplexity": at, "n_scored": 2, "meta": {"source": "a"}}
    for at in range(6)
)
NULLS = lines({"id": at, "text": "t", "perplexity": None} for at in range(3))
SLICE = ("slice", "-k", "perplexity", "--keep", "top", "--frac", 0.5)


@pytest.mark.parametrize("command", [["rank"], SLICE, ["stat"], ["score", "-m", "random"]])
def test_a_group_field_that_no_record_has_is_warned_of(command, here):
    said = here(*command, "--group-by", "typo", stdin=CORPUS).stderr
    assert said.count(b"no record has a field `typo`") == 1
    nested = here(*command, "--group-by", "meta.source", stdin=CORPUS).stderr
    assert b"jq -c '.source = .meta.source'" in nested
    assert b"no record has" not in here(*command, "--group-by", "id", stdin=CORPUS).stderr
    assert b"no record has" not in here(*command, stdin=CORPUS).stderr


def test_a_tokens_field_that_no_record_has_is_warned_of(here):
    assert b"no record has a field `words`" in here("rank", "--tokens-field", "words", stdin=CORPUS).stderr


@pytest.mark.parametrize(
    "command",
    [
        ["rank", "-k", "meta.source"],
        ["rank", "--within", "meta.source"],
        ["rank", "--by", "tokens", "--tokens-field", "meta.source"],
        ["slice", "-k", "meta.source", "--keep", "top", "--frac", 1],
        ["score", "-m", "random", "--text-field", "meta.source"],
        ["stat", "-k", "meta.source"],
    ],
)
def test_a_nested_field_is_refused_with_the_way_out(command, here):
    assert b"nested fields are not supported: jq -c" in here(*command, stdin=CORPUS, status=65).stderr


def test_the_python_functions_warn_too():
    with pytest.warns(PruneWarning, match="no record has a field `typo`"):
        list(prune_cli.rank([{"perplexity": 1}], group_by="typo"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(prune_cli.rank([{"perplexity": 1, "source": "a"}], group_by="source"))


def test_scores_that_are_all_null_are_warned_of(here):
    assert b"none of 3 records has a score" in here(*SLICE, stdin=NULLS).stderr
    ranked = here("rank", stdin=NULLS)
    assert b"none of 3 records has a score" in ranked.stderr
    assert b"none of 3 records" in here("slice", "--keep", "top", "--frac", 1, stdin=ranked.stdout).stderr


def test_scores_without_an_id_are_blamed_and_not_the_corpus(here, tmp_path):
    here("score", "-m", "random", "--only", "random", "-o", tmp_path / "scores", stdin=CORPUS)
    cut = ("slice", "--scores", tmp_path / "scores", "--keep", "top", "--frac", 1)
    said = here(*cut, stdin=CORPUS, status=65).stderr
    assert b"record 1 of the scores has no id" in said
    assert b"--only id,random" in said


@pytest.mark.parametrize(
    "options", [["-k", "nope"], ["-k", "nope", "-k", "perplexity"], ["--verify", "-k", "nope"]]
)
def test_a_score_that_no_record_has_is_refused(options, here, ranked):
    for operands, stdin in (([], CORPUS), ([ranked], b""), ([], NULLS)):
        assert (
            b"no record has a field `nope`"
            in here("stat", *options, *operands, stdin=stdin, status=65).stderr
        )


def test_a_field_that_one_of_several_rankings_has_is_not_warned_of(here, tmp_path):
    for name, more in (("a", {}), ("b", {"lang": "en"})):
        here("rank", "-o", tmp_path / name, stdin=lines([{"perplexity": 1.0, **more}]))
    said = here("rank", "--merge", "--group-by", "lang", tmp_path / "a", tmp_path / "b").stderr.decode()
    assert "lang" not in said


def test_a_bad_first_record_is_counted_once(here):
    bad_first = b"not json\n" + lines([{"id": 1, "text": "t"}])
    options = ("--skip-bad", "--expect-records", 2)
    said = here("score", "-m", "random", *options, stdin=bad_first, status=3).stderr.decode()
    assert "1 bad records were skipped" in said
    assert said.count("record skipped") == 1
