"""The metric quality: the numbers of fastText's own predict, of classifiers written by hand or at random."""

import math
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import lines, records
from .small_models import LABELS, ONE_VS_ALL, classifier

fasttext = pytest.importorskip("fasttext", reason="classifiers need fasttext-predict")

WORDS_ALONE = 1  # a kind of model
TEXTS = ["good", "bad\ngood \n", " good\r\nbad bad\u2028good", "unknown words", "x" * 2000, ""]


def scored(here, *options: object, texts=TEXTS):
    corpus = lines({"text": text} for text in texts)
    return records(here("score", "-m", "quality", "--plain", *options, stdin=corpus).stdout)


def predicted(path: Path, text: str, label: str) -> Any:
    """The probability by fastText."""
    model = fasttext.load_model(str(path))
    return dict(zip(*model.predict(" ".join(text.strip().splitlines()), k=-1), strict=True)).get(label)


def test_quality_is_what_fasttext_predicts(here, tmp_path):
    path = tmp_path / "m.bin"
    classifier(path)
    for label in ("__label__cc", "cc"):
        for text, record in zip(TEXTS, scored(here, "--classifier", path, "--label", label), strict=True):
            assert record["quality"] == pytest.approx(predicted(path, text, "__label__cc"), abs=1e-6)


# Words of each kind, white space of each kind, and what looks like a label or like the end of a line.
PIECES = [
    *("good", "bad", "Größe", "日本語", "é" * 70, "unknown", "x" * 127, "y" * 128, "z" * 129, "ü" * 200),
    *(
        " ",
        "\t",
        "\v",
        "\f",
        "\r\n",
        "\0",
        "\x1c",
        "\x1d",
        "\x1e",
        "\x1f",
        "\x85",
        "\xa0",
        "\u2028",
        "\u2029",
        "\u3000",
    ),
    *("__label__hq", "__label__", "__label__other", "</s>", "</s>x", "x</s>"),
]


def texts_at_random(count: int) -> list[str]:
    source = random.Random(1)
    pieces = [*PIECES, *[" "] * len(PIECES)]
    return ["".join(source.choices(pieces, k=source.randrange(30))) for _ in range(count)]


def classifier_at_random(path: Path, **more) -> None:
    """Three labels, sequences of up to three words, and words that no text can have."""
    known = ["good", "</s>", "bad", "Größe", "日本語", "é" * 70, "y" * 128, "ü" * 200]
    words = [*known, "a\x1cb", "\x1c", "x\x85"]
    labels = (*LABELS, "__label__é")
    shape: dict[str, Any] = {"words": words, "labels": labels, "word_ngrams": 3, "buckets": 50} | more
    numbers = np.random.default_rng(1)
    vectors = numbers.normal(size=(len(shape["words"]) + shape["buckets"], 16))
    classifier(path, vectors=vectors, output=numbers.normal(size=(len(shape["labels"]), 16)), **shape)


@pytest.mark.parametrize(("batch", "few"), [(1, 16), (1 << 19, 0), (1 << 19, 7), (1 << 19, 16)])
@pytest.mark.parametrize(
    "shape", [{}, {"word_ngrams": 1, "buckets": 0}, {"word_ngrams": 2}, {"words": ["good"], "word_ngrams": 1}]
)
def test_classifiers_at_random(shape, batch, few, tmp_path, monkeypatch):
    from prune_cli.texts import linear_classifier
    from prune_cli.texts.classifier import TextClassifier

    monkeypatch.setattr(linear_classifier, "BATCH_BYTES", batch)
    monkeypatch.setattr(linear_classifier, "FEW", few)
    path = tmp_path / "m.bin"
    classifier_at_random(path, **shape)
    texts = [*texts_at_random(300), *TEXTS, "good </s> bad", "__label__cc"]
    monkeypatch.setitem(sys.modules, "fasttext", None)
    results = [*TextClassifier(path, "hq").probabilities(texts)]
    monkeypatch.undo()
    expected = [predicted(path, text, "__label__hq") for text in texts]
    assert [value is None for value in results] == [value is None for value in expected]
    pairs = [pair for pair in zip(results, expected, strict=True) if pair[0] is not None]
    assert len({value for value, _ in pairs}) > 40 or "words" in shape
    assert [value for value, _ in pairs] == pytest.approx([value for _, value in pairs], abs=3e-6)


def test_long_texts_are_more_exact_than_those_of_fasttext(here, tmp_path):
    """ "good" n times and the end of the line: the labels have 0.2 n/(n + 1) and -0.1 n/(n + 1)."""
    path = tmp_path / "m.bin"
    classifier(path, vectors=((0, 0), (0.1, 0), (0, 0.1)))
    [record] = scored(here, "--classifier", path, texts=["good " * 100_000])
    exact = 1 / (1 + math.exp(-0.3 * 100_000 / 100_001)) + 1e-5
    assert record["quality"] == pytest.approx(exact, abs=1e-7)
    assert 1e-6 < abs(predicted(path, "good " * 100_000, "__label__hq") - exact) < 1e-3


@pytest.mark.parametrize("shape", [{"maxn": 3}, {"loss": ONE_VS_ALL}, {"labels": ("__label__hq",)}])
def test_other_classifiers_are_left_to_fasttext(shape, here, tmp_path, monkeypatch):
    from prune_cli.errors import ConfigurationError
    from prune_cli.texts.classifier import TextClassifier

    path = tmp_path / "m.bin"
    classifier_at_random(path, **shape)
    texts = texts_at_random(50)
    for text, record in zip(texts, scored(here, "--classifier", path, texts=texts), strict=True):
        assert record["quality"] == predicted(path, text, "__label__hq")
    monkeypatch.setitem(sys.modules, "fasttext", None)
    with pytest.raises(ConfigurationError, match="needs fasttext"):
        TextClassifier(path, "hq")


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
        (["--classifier", "nan.bin"], 78, "nan.bin: has weights that are not finite"),
        (["--classifier", "c.jsonl"], 78, "c.jsonl: is truncated or damaged"),
    ],
)
def test_classifiers_that_cannot_be_used(options, status, said, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier(Path("m.bin"))
    classifier(Path("none.bin"), labels=())
    classifier(Path("vectors.bin"), kind=WORDS_ALONE)
    classifier(Path("old.bin"), version=11)
    classifier(Path("nan.bin"), vectors=((0, 0), (1, math.nan), (0, 1)))
    Path("c.jsonl").write_bytes(lines([{"text": "good"}]))
    done = here("score", "-m", "quality", *options, "-o", "out.zst", "c.jsonl", status=status)
    assert said in done.stderr.decode()
    assert not Path("out.zst").exists()


def test_every_truncation_is_seen(tmp_path):
    from prune_cli.errors import ConfigurationError
    from prune_cli.texts import fasttext_file

    path = tmp_path / "m.bin"
    whole = classifier(path)
    assert fasttext_file.read(path).labels == [*LABELS]
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ConfigurationError, match="is truncated or damaged"):
            fasttext_file.read(path)


def test_another_label_is_another_score(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    classifier(Path("m.bin"))
    Path("c.jsonl").write_bytes(lines([{"text": "good"}]))
    run = ("score", "-m", "quality", "--classifier", "m.bin", "-O", "out", "c.jsonl")
    here(*run)
    assert b"label" in here(*run, "--label", "cc", status=78).stderr
