"""Metrics of texts, which need no model: against values worked out by hand and tools that others wrote."""

import json
import random
import string
import subprocess
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from prune_cli import metrics
from prune_cli.settings.score import WITHOUT_MODEL
from prune_cli.training.token_file import content_hash

from .conftest import lines, records, zstd
from .small_models import tiny_gpt2

TEXTS = [
    "The quick brown fox jumps over the lazy dog. " * 30,
    "Sphinx of black quartz, judge my vow!",
    "naïve café 日本語 " * 5 + "\n\n1, 2, 3",
    "x",
]


def scored(here, *arguments: object, texts=TEXTS, **more):
    corpus = lines({"id": at, "text": text} for at, text in enumerate(texts))
    return records(here("score", *arguments, "--plain", stdin=corpus, **more).stdout)


def test_the_settings_know_which_metrics_need_no_model():
    loaded = [metrics.load(name) for name in metrics.names()]
    assert {metric.name for metric in loaded if not metric.needs_model} == WITHOUT_MODEL


def test_options_of_models_have_no_effect_on_texts(here):
    said = here("score", "-m", "compression", "--context", 3, stdin=b"", status=2).stderr
    assert b"--context has no effect: no chosen metric uses a model" in said


# --- compression ---


def test_compression_is_the_ratio_that_zstd_prints(here, tmp_path: Path):
    out = scored(here, "-m", "compression")
    for text, record in zip(TEXTS, out, strict=True):
        (tmp_path / "text").write_bytes(text.encode())
        # The frame has the size of its content, as that of a file has, and no checksum.
        command = ["zstd", "-3", "--single-thread", "--no-check", "-c", tmp_path / "text"]
        frame = subprocess.run(command, capture_output=True, check=True).stdout
        # Releases of zstd differ by a byte or two.
        assert record["compression"] == pytest.approx(len(text.encode()) / len(frame), rel=0.02)


def test_compression_by_hand(here):
    """One byte: a frame of 4 bytes of magic, a descriptor, a size, and 3 bytes before the byte itself."""
    out = scored(here, "-m", "compression", texts=["x", ""])
    assert [record["compression"] for record in out] == [1 / 10, None]
    [block] = records(here("score", "-m", "compression", "--plain", stdin=b'{"input_ids":[1]}\n').stdout)
    assert block["compression"] is None


# --- overlap ---

PUNCTUATION = {chr(code) for code in range(0x110000) if unicodedata.category(chr(code))[0] == "P"}


def sequences(text: str, n: int) -> list[tuple[str, ...]]:
    """As Brown et al. 2020 compare texts, in plain Python."""
    kept = (letter for letter in text.lower() if letter not in PUNCTUATION | set(string.punctuation))
    words = "".join(kept).split()
    return [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]


def random_text(source: random.Random) -> str:
    """Words of few kinds, so that sequences repeat; of every length; with all sorts of white space."""
    words = ["a", "A,", "bc", "eight888", "nine99999", "x" * 127, "y" * 128, "z" * 129 + "!", "--", "\0"]
    words += ["日本語", "«naïve»", "ΣΑΣ", "İstanbul", "don't", "$5", "€5", "\U0001f600"]
    spaces = [" ", "  ", "\n", "\t", "\r\n", "\u00a0", "\u2028", "\x1c", "\u3000"]
    count = source.choice([0, 1, 2, 3, 30, 300])
    return "".join(source.choice(words) + source.choice(spaces) for _ in range(count))


@pytest.mark.parametrize("n", [1, 2, 5])
def test_overlap_is_that_of_a_set_of_tuples(n, here, tmp_path, caplog):
    source = random.Random(n)
    texts = [random_text(source) for _ in range(60)]
    texts += [texts[at][:200] + texts[at + 9][:200] for at in range(9)]
    (tmp_path / "test.jsonl").write_bytes(lines({"text": text} for text in texts[:7]))
    (tmp_path / "more.jsonl.zst").write_bytes(zstd(lines([{"text": texts[8][: len(texts[8]) // 2]}])))
    held_out = {one for text in [*texts[:7], texts[8][: len(texts[8]) // 2]] for one in sequences(text, n)}
    files = ("--held-out", tmp_path / "test.jsonl", "--held-out", tmp_path / "more.jsonl.zst")
    out = scored(here, "-m", "overlap", *files, "--ngram", n, texts=texts)
    for text, record in zip(texts, out, strict=True):
        own = sequences(text, n)
        expected = sum(one in held_out for one in own) / len(own) if own else 0
        assert record["overlap"] == expected
    assert {record["overlap"] for record in out} > {0, 1}


def test_overlap_by_hand(here, tmp_path):
    """Of "a b", "b x", "x c" and "c d" the first and the last are held out."""
    (tmp_path / "test.jsonl").write_bytes(lines([{"text": "a b c d"}]))
    options = ("-m", "overlap", "--held-out", tmp_path / "test.jsonl", "--ngram", 2)
    out = scored(here, *options, texts=["A, b! (x) - C\nd", "a", ""])
    assert [record["overlap"] for record in out] == [0.5, 0, 0]
    [block] = records(here("score", *options, "--plain", stdin=b'{"text":"a b","input_ids":[1]}\n').stdout)
    assert block["overlap"] is None


def test_a_corpus_is_cleaned_of_its_test_set(here, tmp_path):
    story = " ".join(f"word{number}" for number in range(40))
    corpus = [f"before it {story[50:200]} and after", "nothing of it", story, "x " * 50]
    (tmp_path / "test.jsonl").write_bytes(lines([{"text": story}]))
    options = ("-m", "overlap", "--held-out", tmp_path / "test.jsonl")
    out = here("score", *options, stdin=lines({"text": text} for text in corpus)).stdout
    described = json.loads(here("stat", "-k", "overlap", stdin=out).stdout)["scores"]["overlap"]
    assert (described["records"], described["touched"]) == (4, 2)
    clean = here("slice", "-k", "overlap", "--max", 0, "--plain", stdin=out).stdout
    assert [record["text"] for record in records(clean)] == [corpus[1], corpus[3]]


OVERLAP = ["-m", "overlap", "--held-out", "test.jsonl"]


@pytest.mark.parametrize(
    ("content", "options", "status", "said"),
    [
        (b"", ["-m", "overlap"], 2, "overlap needs --held-out; name a file with --held-out FILE"),
        (b"", ["-m", "random", "--held-out", "test.jsonl"], 2, "--held-out has no effect"),
        (None, OVERLAP, 66, "test.jsonl: "),
        (b"", OVERLAP, 65, "test.jsonl:1: no bytes at all"),
        (b'{"body":"a"}\n', OVERLAP, 65, "test.jsonl:1: no field `text`"),
        (b'{"text":"a b"}\n', OVERLAP, 65, "none of its 1 texts has 13 words; lower --ngram"),
        (
            b'{"text":"a b"}\n{"text":"a b c"}\n',
            [*OVERLAP, "--ngram", 3],
            0,
            "test.jsonl: 1 of 2 texts have fewer than 3 words (--ngram): nothing overlaps with them",
        ),
    ],
)
def test_held_out_files_that_cannot_be_used(content, options, status, said, here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("test.jsonl").write_bytes(content)
    Path("corpus.jsonl").write_bytes(lines([{"text": "a b c"}]))
    done = here("score", *options, "-o", "out.zst", "corpus.jsonl", status=status)
    assert said in done.stderr.decode()
    assert Path("out.zst").exists() == (status == 0)


def test_other_held_out_texts_are_other_scores(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("corpus.jsonl").write_bytes(lines([{"text": "a b c"}]))
    for name, text in {"one": "a b", "same": "a b", "other": "b c"}.items():
        Path(f"{name}.jsonl").write_bytes(lines([{"text": text}]))
    options = ("score", "-m", "overlap", "--ngram", 2, "-O", "out", "corpus.jsonl", "--held-out")
    here(*options, "one.jsonl")
    here(*options, "same.jsonl")
    assert b"held_out" in here(*options, "other.jsonl", status=78).stderr


def test_eval_warns_of_test_documents_that_a_model_was_trained_on(here, tmp_path):
    model = tiny_gpt2(tmp_path / "model")
    seen, unseen = "The quick fox.", "The lazy dog."
    np.save(model / "documents.npy", np.array([content_hash(seen)], np.uint64))
    (tmp_path / "test.jsonl").write_bytes(lines({"text": text} for text in [seen, unseen]))
    done = here("eval", model, "--data", tmp_path / "test.jsonl")
    assert b"test.jsonl: 1 of 2 documents are in the training data of " in done.stderr
