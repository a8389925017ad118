"""The head of a stream says how it was made: no default wins over it, and contradictions are errors."""

import json

import pytest

from ..conftest import lines, records, scored

# No ties: a reversed ranking has the last of equal scores first, and sorting it again turns them round.
CORPUS = [
    record | ({"perplexity": record["perplexity"] + number / 1e5} if record["perplexity"] else {})
    for number, record in enumerate(scored(120))
]
CORPUS = [record | {"n_scored": record["n_scored"] * 128 + number} for number, record in enumerate(CORPUS)]


def plain(here, *arguments, **more):
    return here("rank", "--plain", *arguments, **more).stdout


@pytest.fixture
def parts(here, tmp_path):
    """Rankings of two halves of the corpus, made with the same options."""

    def make(*options, halves=(CORPUS[:50], CORPUS[50:])):
        paths = []
        for number, half in enumerate(halves):
            paths.append(tmp_path / f"part-{number}-{len(options)}.zst")
            here("rank", *options, "-f", "-o", paths[-1], stdin=lines(half))
        return paths

    return make


@pytest.mark.parametrize(
    "options",
    [
        ["--by", "tokens"],
        ["-r"],
        ["--prefix", "ppl_"],
        ["--within", "source"],
        ["--by", "tokens", "--within", "source", "-r"],
        ["-k", "n_scored"],
        ["--by", "tokens", "--tokens-field", "perplexity_tokens"],
    ],
)
def test_merging_rankings_gives_the_ranking_of_the_whole(options, here, parts, tmp_path):
    corpus = [record | {"perplexity_tokens": record["n_scored"] // 2 + 1} for record in CORPUS]
    paths = parts(*options, halves=(corpus[:50], corpus[50:]))
    whole = plain(here, *options, stdin=lines(corpus))
    assert plain(here, "--merge", *paths) == whole
    concatenated = b"".join(path.read_bytes() for path in paths)
    assert plain(here, "--merge", stdin=concatenated) == whole
    here("rank", "--merge", *paths, "-o", tmp_path / "merged")
    described = json.loads(here("stat", tmp_path / "merged").stdout)
    assert described["unit"] == ("tokens" if "tokens" in options else "records")
    assert described["reverse"] == ("-r" in options)
    here("rank", "-c", tmp_path / "merged")


@pytest.mark.parametrize(
    "option",
    [
        ["--by", "tokens"],
        ["-r"],
        ["-k", "n_scored"],
        ["--tokens-field", "other"],
        ["--within", "source"],
        ["--prefix", "q_"],
    ],
)
def test_an_option_that_contradicts_the_merged_rankings_is_an_error(option, here, parts):
    said = here("rank", "--merge", *option, *parts(), status=2).stderr
    assert b"rank --overwrite" in said
    assert said.count(b"\n") == 1


@pytest.mark.parametrize("option", [["--by", "tokens"], ["-r"], ["-k", "n_scored"], ["--within", "source"]])
def test_rankings_that_were_made_differently_are_not_merged(option, here, parts):
    one, _ = parts()
    _, other = parts(*option)
    both = one.read_bytes() + other.read_bytes()
    for arguments, stdin in (((one, other), b""), ((), both)):
        said = here("rank", "--merge", "--mixed", *arguments, stdin=stdin, status=65).stderr
        assert b"the rankings differ" in said


def test_a_ranking_that_is_made_again_keeps_its_unit(here, parts):
    path, _ = parts("--by", "tokens", "--prefix", "p_")
    assert plain(here, "--overwrite", path) == plain(
        here, "--by", "tokens", "--prefix", "p_", stdin=lines(CORPUS[:50])
    )
    again = records(plain(here, "--overwrite", "--by", "records", path))
    assert again[0]["p_quantile"] == 0.5 / sum(record["perplexity"] is not None for record in CORPUS[:50])


def test_the_direction_of_a_ranking_is_that_of_its_head(here, parts):
    path, _ = parts("-r")
    here("rank", "-c", path)
    here("rank", "-c", "-r", path)


def test_tokens_are_counted_in_the_field_that_the_ranking_names(here, tmp_path):
    corpus = [{"text": "t", "perplexity": n, "words": 10, "n_scored": 1} for n in range(10)]
    here("rank", "--by", "tokens", "--tokens-field", "words", "-o", tmp_path / "r", stdin=lines(corpus))
    kept = here("slice", "--keep", "bottom", "--tokens", 30, "--summary", tmp_path / "s", tmp_path / "r")
    assert len(records(kept.stdout)) == 3
    assert json.loads((tmp_path / "s").read_text())["kept"] == {"records": 3, "tokens": 30}
    assert json.loads(here("stat", "--verify", tmp_path / "r").stdout)["tokens"] == 100
    fault = here("slice", "--range", "0:1", "--tokens-field", "n_scored", tmp_path / "r", status=2).stderr
    assert b"counts tokens in `words`" in fault


def test_groups_are_counted_by_the_field_of_the_head(here, tmp_path):
    corpus = [{"text": "t", "perplexity": n, "n_scored": 1, "site": "ab"[n % 2]} for n in range(10)]
    here("rank", "--group-by", "site", "-o", tmp_path / "r", stdin=lines(corpus))
    here("slice", "-k", "perplexity", "--keep", "top", "--frac", 0.5, tmp_path / "r", "-o", tmp_path / "s")
    assert set(json.loads(here("stat", tmp_path / "s").stdout)["groups"]) == {"a", "b"}
    assert set(json.loads(here("stat", "--verify", tmp_path / "s").stdout)["groups"]) == {"a", "b"}


def test_a_slice_with_another_unit_or_prefix_than_the_ranking_is_refused(here, ranked):
    for options in (
        ["--by", "tokens", "--keep", "top", "--tokens", 10],
        ["--by", "tokens", "--within", "source", "--keep", "top", "--frac", 1],
        ["--prefix", "x_", "--range", "0:1"],
    ):
        here("slice", *options, ranked, status=2)


def test_a_corpus_that_is_cut_by_a_file_of_scores_does_not_become_a_ranking(here, tmp_path):
    corpus = [{"id": n, "text": "t", "perplexity": n, "n_scored": 1} for n in range(4)]
    here("rank", "-o", tmp_path / "r", stdin=lines(corpus))
    here(
        *("slice", "--scores", tmp_path / "r", "--keep", "top", "--frac", 1, "-o", tmp_path / "s"),
        stdin=lines({"id": n, "text": "t"} for n in range(4)),
    )
    assert "key" not in json.loads(here("stat", "--verify", tmp_path / "s").stdout)
