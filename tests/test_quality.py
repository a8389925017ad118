"""The metric quality: the very numbers of fastText's own predict, of a classifier written by hand."""

import math
from pathlib import Path

import pytest

from .conftest import lines, records
from .small_models import LABELS, classifier

fasttext = pytest.importorskip("fasttext", reason="classifiers need fasttext-predict")

WORDS_ALONE = 1  # a kind of model
TEXTS = ["good", "bad\ngood \n", " good\r\nbad bad\u2028good", "unknown words", "x" * 2000, ""]


def scored(here, *options: object, texts=TEXTS):
    corpus = lines({"text": text} for text in texts)
    return records(here("score", "-m", "quality", "--plain", *options, stdin=corpus).stdout)


def test_quality_is_what_fasttext_predicts(here, tmp_path):
    path = tmp_path / "m.bin"
    classifier(path)
    model = fasttext.load_model(str(path))
    for label in ("__label__cc", "cc"):
        for text, record in zip(TEXTS, scored(here, "--classifier", path, "--label", label), strict=True):
            found = model.predict(" ".join(text.strip().splitlines()), k=-1)
            assert record["quality"] == dict(zip(*found, strict=True))["__label__cc"]


def test_quality_by_hand(here, tmp_path):
    """ "good" and the end of the line have the mean vector (1/2, 0), so the labels have 1 and -1/2."""
    classifier(tmp_path / "m.bin")
    [record] = scored(here, "--classifier", tmp_path / "m.bin", texts=["good"])
    # fastText adds 1e-5 in its logarithm.
    assert record["quality"] == pytest.approx(1 / (1 + math.exp(-1.5)) + 1e-5, abs=1e-6)
    block = here("score", "-m", "quality", "--classifier", tmp_path / "m.bin", stdin=b'{"input_ids":[1]}\n')
    assert records(block.stdout) == [{"input_ids": [1], "quality": None}]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        ([], 2, "quality needs --classifier"),
        (["--classifier", "missing.bin"], 66, "missing.bin: "),
        (
            ["--classifier", "m.bin", "--label", "wiki"],
            78,
            "no label __label__wiki: it has __label__cc, __label__hq",
        ),
        (["--classifier", "none.bin"], 78, "none.bin: has no label __label__hq: it has none"),
        (["--classifier", "vectors.bin"], 78, "vectors.bin: has word vectors, but is no classifier"),
        (["--classifier", "old.bin"], 78, "old.bin: is no fastText model of version 12"),
        (["--classifier", "c.jsonl"], 78, "c.jsonl: is truncated or damaged"),
    ],
)
def test_classifiers_that_cannot_be_used(options, status, said, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier(Path("m.bin"))
    classifier(Path("none.bin"), labels=())
    classifier(Path("vectors.bin"), kind=WORDS_ALONE)
    classifier(Path("old.bin"), version=11)
    Path("c.jsonl").write_bytes(lines([{"text": "good"}]))
    done = here("score", "-m", "quality", *options, "-o", "out.zst", "c.jsonl", status=status)
    assert said in done.stderr.decode()
    assert not Path("out.zst").exists()


def test_every_truncation_is_seen(tmp_path):
    from prune_cli.errors import ConfigurationError
    from prune_cli.texts import fasttext_file

    path = tmp_path / "m.bin"
    whole = classifier(path)
    assert fasttext_file.labels(path) == [*LABELS]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ConfigurationError, match="is truncated or damaged"):
            fasttext_file.labels(path)


def test_another_label_is_another_score(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier(Path("m.bin"))
    Path("c.jsonl").write_bytes(lines([{"text": "good"}]))
    run = ("score", "-m", "quality", "--classifier", "m.bin", "-O", "out", "c.jsonl")
    here(*run)
    assert b"label" in here(*run, "--label", "cc", status=78).stderr
