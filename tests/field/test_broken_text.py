"""Invalid UTF-8 and lone surrogates: refused where the text is used, passed on where it is not."""

import pytest

pytest.importorskip("torch")

from prune_cli import reference

from ..conftest import records

MODEL = str(reference.DIRECTORY)

WELL = b'{"id":"a","text":"good text","source":"s","perplexity":1.0,"n_scored":3}\n'
BROKEN = {
    "a lone surrogate": rb"\ud83d",
    "a low one": rb"\udc00 x",
    "two high ones": rb"\ud83d\ud83d",
    "invalid UTF-8": b"\xff",
}
REMEDY = b"--skip-bad"


def record(text: bytes = b"t", source: bytes = b"s", note: bytes = b"n", key: bytes = b"x") -> bytes:
    fields = b'{"id":"b","%s":1,"text":"%s","source":"%s","note":"%s","perplexity":2.0,"n_scored":3}\n'
    return fields % (key, text, source, note)


SLICE = ["slice", "-k", "perplexity", "--keep", "top", "--frac", "1"]
PASSING = {
    "rank": ["rank"],
    "slice": SLICE,
    "stat": ["stat"],
    "score --only": ["score", "-m", "random", "--only", "id,random"],
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("verb", PASSING)
@pytest.mark.parametrize("first", [True, False])
def test_a_field_that_is_not_used_is_passed_on(here, verb, broken, first):
    arguments = PASSING[verb] + ([] if verb == "stat" else ["--plain"])
    line = record(note=broken, key=broken)
    out = here(*arguments, stdin=line + WELL if first else WELL + line)
    assert out.stderr == b""
    if verb in ("rank", "slice"):
        assert b'"note":"' + broken + b'","perplexity":2.0' in out.stdout
        assert b'"' + broken + b'":1' in out.stdout


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("verb", ["rank", "slice", "stat"])
def test_the_text_is_not_used_by_verbs_over_scores(here, verb, broken):
    here(*PASSING[verb], stdin=WELL + record(text=broken))


USING = {
    "score": ["score", "--overwrite"],
    "pack": ["pack", "--tokenizer", MODEL, "--context", "8"],
    "eval": ["eval", MODEL, "--data", "-"],
    "train": ["train", "--preset", "tiny", "--tokenizer", MODEL, "--steps", "1", "-o", "run"],
    "slice a sample": ["slice", "-k", "perplexity", "--keep", "random", "--frac", "1"],
    "stat for duplicates": ["stat", "--duplicates", "--group-by", "id"],
    "slice --within": [*SLICE, "--within", "source"],
    "rank --within": ["rank", "--within", "source"],
    "stat --group-by": ["stat", "--group-by", "source"],
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("verb", USING)
def test_a_field_that_is_used_is_refused(here, monkeypatch, tmp_path, verb, broken):
    monkeypatch.chdir(tmp_path)
    by_source = "--" in verb
    line = record(text=broken, source=broken if by_source else b"s")
    refused = here(*USING[verb], stdin=WELL + line, status=65).stderr
    field = b"source" if by_source else b"text"
    assert b"(standard input):2: " in refused
    assert REMEDY in refused
    if broken != b"\xff":
        assert b"`" + field + b"` has a lone surrogate (" + broken[:6] + b"), half of a character" in refused
    if verb == "train":
        return  # one good document is too short a corpus to train on
    skipped = here(*USING[verb], "--skip-bad", stdin=WELL + line, status=3).stderr
    assert b"(standard input):2: " in skipped


def test_pack_carries_broken_text_along(here):
    arguments = [
        "pack",
        "--tokenizer",
        MODEL,
        "--context",
        "8",
        "--last",
        "keep",
        "--carry",
        "source",
        "--plain",
    ]
    packed = here(*arguments, stdin=record(source=rb"\ud83d")).stdout
    assert rb'"source":"\ud83d"' in packed


def test_pairs_of_surrogates_are_text(here):
    out = here("rank", "--plain", stdin=record(text=rb"\ud83d\ude00 \\ud83d")).stdout
    assert records(out)[0]["text"] == "\U0001f600 \\ud83d"
