"""A small model for the tests of its folder, and a copy that a test may change."""

import shutil
from pathlib import Path

import pytest

from ..small_models import tiny_gpt2


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory) -> Path:
    return tiny_gpt2(tmp_path_factory.mktemp("gpt2"))


@pytest.fixture
def copy(gpt2, tmp_path) -> Path:
    return Path(shutil.copytree(gpt2, tmp_path / "copy"))
