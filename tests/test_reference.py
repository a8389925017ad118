"""The reference model that comes with the package: whole, small, found without a path, and worth asking."""

import math
import random
import shutil
import subprocess
import sys
import tarfile
import zipfile
from functools import cache
from io import BytesIO
from pathlib import Path

import pytest
from safetensors import safe_open

from prune_cli import formats, reference
from prune_cli.models import safety

from .conftest import ROOT, SHARED, lines, records, shared

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

PROSE = (
    "The committee met on Tuesday to discuss the new road, which will cross the river a mile below the "
    "old bridge. "
    "Several members said that the money would be better spent on the school, and the question was put "
    "off until the spring."
)


def head(stream: bytes) -> dict:
    """What a stream says of its scores."""
    return next(formats.read(BytesIO(stream))).json["score"]


def test_the_model_is_complete_in_bfloat16_and_has_at_most_8_mb():
    safety.check_directory(reference.DIRECTORY)
    assert sum(path.stat().st_size for path in reference.DIRECTORY.iterdir() if path.is_file()) <= 8e6
    with safe_open(reference.DIRECTORY / "model.safetensors", framework="pt") as weights:
        assert {weights.get_slice(name).get_dtype() for name in weights.keys()} == {"BF16"}  # noqa: SIM118


def test_the_model_is_the_default(here):
    without = here("score", stdin=lines([{"text": PROSE}])).stdout
    assert head(without)["names"] == ["reference"]
    assert head(without)["models"] == [safety.directory_hash(reference.DIRECTORY)]
    assert without == here("score", "--model", reference.DIRECTORY, stdin=lines([{"text": PROSE}])).stdout


def test_an_option_or_the_environment_chooses_another_model(here, tmp_path, monkeypatch):
    other = tmp_path / "another one"
    shutil.copytree(reference.DIRECTORY, other)
    assert head(here("score", "--model", other, stdin=lines([{"text": PROSE}])).stdout)["names"] == [
        "another one"
    ]
    monkeypatch.setenv("PRUNE_CLI_MODEL", str(other))
    assert head(here("score", stdin=lines([{"text": PROSE}])).stdout)["names"] == ["another one"]


def test_per_model_includes_the_default_model(here):
    [record] = records(here("score", "--per-model", stdin=lines([{"text": PROSE}])).stdout)
    assert record["perplexity_1"] == record["perplexity"]


def test_a_second_model_is_compared_with_it(here):
    [record] = records(
        here(
            "score", "-m", "excess_loss", "--against", reference.DIRECTORY, stdin=lines([{"text": PROSE}])
        ).stdout
    )
    assert record["excess_loss"] == 0


def test_scores_of_the_model_equal_plain_transformers_in_float64(here):
    [record] = records(here("score", "--dtype", "float32", stdin=lines([{"text": PROSE}])).stdout)
    model = transformers.AutoModelForCausalLM.from_pretrained(reference.DIRECTORY, dtype=torch.float64).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(reference.DIRECTORY)
    ids = torch.tensor([[tokenizer.bos_token_id, *tokenizer(PROSE, add_special_tokens=False)["input_ids"]]])
    with torch.inference_mode():
        expected = math.exp(model(input_ids=ids, labels=ids).loss)
    assert record["perplexity"] == pytest.approx(expected, rel=1e-4)


def test_prose_scores_lower_than_its_words_out_of_order_code_tables_and_another_language(here):
    words = PROSE.split()
    random.Random(0).shuffle(words)
    code = 'for (int i = 0; i < n; i++) {\n    if (!seen[i]) { printf("%d\\n", a[i] & 0xff); }\n}\n'
    table = "\n".join(
        f"{number * 7919 % 1000:03d} | {number * 104729 % 977:4d} | x{number:02x}" for number in range(12)
    )
    german = (
        "Der Ausschuss trat am Dienstag zusammen, um über die neue Straße zu beraten, die den "
        "Fluss überqueren soll."
    )
    texts = [PROSE, " ".join(words), code, table, german]
    prose, *others = [
        record["bits_per_byte"]
        for record in records(
            here("score", "-m", "bits_per_byte", stdin=lines({"text": text} for text in texts)).stdout
        )
    ]
    assert prose < min(others)


@cache
def documents():
    """Those to train on, and those held out."""
    from .bench.reference_data import streams

    return streams(SHARED / "data" / "clean.jsonl.zst")


@shared
def test_held_out_works_take_1_8_bits_per_byte_at_most(here):
    """Every 160th document; the card has the number of all of them."""
    _, heldout = documents()
    out = records(here("score", stdin=lines({"text": document.text} for document in heldout[::160])).stdout)
    bits = sum(record["nll_sum"] for record in out) / math.log(2)
    assert bits / sum(record["n_bytes"] for record in out) < 1.8


@shared
def test_whole_works_are_held_out():
    training, heldout = documents()
    assert not {document.work for document in training} & {document.work for document in heldout}
    assert {document.source for document in heldout} == {
        "abc",
        "inaugural",
        "novels",
        "state_union",
        "wikipedia",
    }
    assert all("-english-" in document.id for document in training if document.source == "genesis")


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_packages_contain_the_model(kind, tmp_path):
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in tracked.stdout.decode().split("\0")[:-1]:
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "tree" / name)
    build = f"from setuptools import build_meta; build_meta.build_{kind}({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=tmp_path / "tree", check=True, capture_output=True)
    assert {path.name for path in reference.DIRECTORY.iterdir() if path.is_file()} <= packed(tmp_path, kind)


def packed(folder: Path, kind: str) -> set[str]:
    """What a package holds in the reference model's folder."""
    if kind == "wheel":
        names = zipfile.ZipFile(next(folder.glob("*.whl"))).namelist()
    else:
        with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
            names = archive.getnames()
    return {Path(name).name for name in names if Path(name).parent.name == "reference"}
