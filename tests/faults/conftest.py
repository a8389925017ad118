"""Runs of every verb that nothing disturbed, to compare disturbed runs with."""

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from prune_cli import reference

from ..conftest import lines, prune, scored, status_of


@pytest.fixture(scope="session")
def run_of(tmp_path_factory) -> Callable[[str], tuple[list[object], bytes]]:
    """The arguments of a verb over a file, which is named last, and what an unbroken run of it writes."""
    folder = tmp_path_factory.mktemp("whole")
    corpus = folder / "corpus.jsonl"
    corpus.write_bytes(lines(scored(800)))

    @cache
    def made(verb: str) -> tuple[list[object], bytes]:
        if verb in ("pack", "eval"):
            pytest.importorskip("torch")
        if verb == "eval":
            (folder / "some.jsonl").write_bytes(lines(scored(60)))
            options = [
                "--data",
                folder / "some.jsonl",
                "--per-document",
                folder / "documents.zst",
                "-o",
                os.devnull,
            ]
            assert status_of("eval", reference.DIRECTORY, *options) == 0
        arguments = {
            "rank": [corpus],
            "score": ["-m", "random", corpus],
            "slice": ["--keep", "random", "--frac", "0.5", "-k", "perplexity", corpus],
            "stat": [corpus],
            "pack": ["--tokenizer", reference.DIRECTORY, "--context", 64, corpus],
            "eval": [folder / "documents.zst"],
        }[verb]
        assert status_of(verb, *arguments, "-o", folder / verb) == 0
        return [verb, *arguments], (folder / verb).read_bytes()

    return made


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("in") / "corpus.jsonl"
    path.write_bytes(lines(scored(800)))
    return path


@pytest.fixture(scope="session")
def whole(corpus) -> bytes:
    """What an unbroken run makes of the corpus."""
    return prune("rank", corpus).stdout
