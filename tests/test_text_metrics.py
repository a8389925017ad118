"""Metrics of texts, which need no model: against values worked out by hand and tools that others wrote."""

import subprocess
from pathlib import Path

import pytest

from prune_cli import metrics
from prune_cli.settings.score import WITHOUT_MODEL

from .conftest import lines, records

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
