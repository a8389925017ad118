"""Every example of --help, the manual pages and the README is run as it stands, but smaller where it would
take hours.
"""

import glob
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from prune_cli.cli import application
from prune_cli.help.screen import PIPELINE
from prune_cli.help.spec import verbs

from .conftest import ROOT, lines, scored, status_of, zstd
from .glue_examples import lay
from .harness_samples import lay as lay_samples
from .harness_samples import samples
from .small_models import ARPA, classifier, tiny_gpt2

SMALLER = {
    "--preset 124m": "--config small.toml",
    "--preset 1.5b": "--config small.toml",
    "--preset tiny": "--config small.toml",
    "--steps 14568": "--steps 2",
    "--steps 8000": "--steps 2",
    "--steps 500": "--steps 2",
    # One process, this one: tests/test_recipes.py and tests/test_processes.py start several.
    "torchrun --nproc-per-node 8 -m prune_cli": "prune-cli",
    "-T /scratch": "-T .",
}
SMALL = "layers = 1\nwidth = 32\nheads = 2\ncontext = 64\nbatch_tokens = 128\nlr = 1e-3\nvocabulary = 512\n"
MODELS = ("gpt2", "base", "a1", "a2", "a3", "b1", "b2", "b3", "chat-model")
EXAMPLES = {
    f"{verb.name}: {told}": command for verb in verbs(application()) for told, command in verb.examples
}
README = (ROOT / "README.md").read_text()


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples name: corpora, scored and ranked ones, models, GLUE."""
    place = tmp_path_factory.mktemp("stock")
    tiny_gpt2(place, n_positions=2048)
    model = place / "model"
    model.mkdir()
    for file in [one for one in place.iterdir() if one.is_file()]:
        file.rename(model / file.name)
    turns = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"
    prompt = "{% if add_generation_prompt %}assistant: {% endif %}"
    (model / "chat_template.jinja").write_text(turns + prompt)
    for name in MODELS:
        (place / name).symlink_to(model)
    texts = scored(160, seed=3)
    fields = ("id", "text", "source")
    corpus = [{name: record[name] for name in fields} for record in texts]
    (place / "corpus").mkdir()
    for name, records in {
        "corpus": corpus,
        "test": corpus[:60],
        "scored": texts,
        "new": corpus[:60],
        "pairs": [{"prompt": "Why?\n", "answer": record["text"]} for record in corpus[:9]],
        "conversations": [
            {"messages": [{"role": role, "content": record["text"]} for role in ("user", "assistant")]}
            for record in corpus[:9]
        ],
        "corpus/a": corpus[:80],
        "corpus/b": corpus[80:],
    }.items():
        (place / f"{name}.jsonl.zst").write_bytes(zstd(lines(records)))
    for number in (1, 2):
        (place / f"half-{number}.jsonl.zst").write_bytes(zstd(lines(texts[number::2])))
        assert (
            status_of("rank", place / f"half-{number}.jsonl.zst", "-o", place / f"part-{number}.jsonl.zst")
            == 0
        )
    assert (
        status_of("rank", "--by", "tokens", place / "scored.jsonl.zst", "-o", place / "ranked.jsonl.zst") == 0
    )
    assert (
        status_of(
            "slice",
            "--keep",
            "middle",
            "--frac",
            0.5,
            place / "ranked.jsonl.zst",
            "-o",
            place / "shard.jsonl.zst",
        )
        == 0
    )
    cut = ("-k", "perplexity", "--thresholds", "0.25,0.75", place / "scored.jsonl.zst")
    assert status_of("stat", *cut, "-o", place / "cut.json") == 0
    (place / "pool.jsonl").write_bytes(lines(corpus))
    # What a training run and an evaluation leave behind, for `report`.
    (model / "metrics.jsonl").write_bytes(lines({"step": step, "loss": 9 / step} for step in range(1, 30)))
    effect = {"effect": -0.01, "effect_interval": [-0.02, 0.001], "p": 0.08, "documents": 60}
    comparison = {"result": "comparison", "model": "run", "against": "base", "data": "test", **effect}
    (place / "results.jsonl").write_bytes(lines([comparison]))
    for name, answers in {"run": [1, 1, 0], "base": [1, 0, 0]}.items():
        lay_samples(place / "harness" / name, quiz=samples(acc=answers * 20))
    (place / "small.toml").write_text(SMALL)
    classifier(place / "quality.bin")
    (place / "en.arpa").write_text(ARPA)
    (place / "glue").mkdir()
    lay(place / "glue/SST-2", "sentence\tlabel", *["it 's charming \t1", "it is dull \t0"] * 8)
    lay(
        place / "glue/MRPC",
        "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String",
        *["1\t0\t1\ta b\ta b", "0\t0\t1\ta b\tc d"] * 8,
    )
    lay(
        place / "glue/RTE",
        "index\tsentence1\tsentence2\tlabel",
        *["0\tA.\tB.\tnot_entailment", "1\tA.\tA.\tentailment"] * 8,
    )
    return place


@pytest.fixture
def place(stock: Path, tmp_path: Path) -> Path:
    """A copy of it, where only the example's own output is missing."""
    copy = tmp_path / "place"
    shutil.copytree(stock, copy, symlinks=True)
    return copy


@pytest.fixture
def run(place: Path, here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Run a script as a shell does, its `prune-cli` inside this process, which has loaded torch already.

    `tests/test_score.py` pipes real processes into each other.
    """
    monkeypatch.chdir(place)

    def stage(words: str, stdin: bytes) -> bytes:
        if not words.startswith("prune-cli "):
            return subprocess.run(["bash", "-ec", words], input=stdin, capture_output=True, check=True).stdout
        operands = [sorted(glob.glob(word)) or [word] for word in shlex.split(words)]
        return here(*chain.from_iterable(operands[1:]), stdin=stdin).stdout

    def all_lines(script: str) -> str:
        for large, small in SMALLER.items():
            script = script.replace(large, small)
        make_room(script, place)
        for line in script.splitlines():
            pipeline, _, target = line.partition(" > ")
            data = b""
            for words in pipeline.split(" | "):
                data = stage(words, data)
            if target:
                (place / target).write_bytes(data)
        return data.decode() if not target else ""

    return all_lines


def make_room(script: str, place: Path) -> None:
    """Remove the outputs of a script: `place` has them already, for examples that read them."""
    for output in re.findall(r"(?:-o |-O |> |--summary |--rejects |--per-document )([\w./-]+)", script):
        if output not in ("run/", "scored/"):
            (place / output).unlink(missing_ok=True)


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_of_a_verb_runs(example, place, run):
    if ".arpa" in EXAMPLES[example]:
        pytest.importorskip("kenlm", reason="n-gram models need kenlm")
    if EXAMPLES[example].startswith(("prune-cli eval run/", "prune-cli report")):
        (place / "run").symlink_to(place / "gpt2")
    if "scored/*" in EXAMPLES[example]:
        (place / "scored").mkdir()
        (place / "scored/part.jsonl.zst").symlink_to(place / "scored.jsonl.zst")
    if EXAMPLES[example].endswith(" ranked/"):
        run("prune-cli rank -k perplexity -O ranked/ scored.jsonl.zst")
    run(EXAMPLES[example])


def test_the_pipeline_runs(place, run):
    run(PIPELINE)
    assert (place / "run/model.safetensors").exists()


@pytest.mark.parametrize("session", re.findall(r"^```console\n(.*?)^```", README, re.DOTALL | re.MULTILINE))
def test_a_session_of_the_readme_prints_the_fields_it_shows(session, run):
    """The numbers are those of other data."""
    for command, shown in re.findall(r"^\$ (.*?)\n((?:(?!\$ ).*\n)*)", session, re.MULTILINE):
        assert fields(run(command)) == fields(shown)


def fields(records: str) -> set[tuple[str, ...]]:
    return {tuple(json.loads(line)) for line in records.splitlines()}


# The corpus of this test is too small for the tokenizer of a preset, among other things.
@pytest.mark.filterwarnings("ignore::prune_cli.errors.PruneWarning")
@pytest.mark.parametrize("script", re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE))
def test_the_python_of_the_readme_runs(script, place, monkeypatch):
    for large, small in {'preset="tiny"': 'config="small.toml"', "steps=500": "steps=2"}.items():
        script = script.replace(large, small)
    monkeypatch.chdir(place)
    exec(compile(script, "README.md", "exec"), {})
