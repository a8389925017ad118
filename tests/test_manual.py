"""What is said of the verbs is made from what is declared, up to date, clean for the readers of manual pages,
and a screen at most.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from prune_cli import metrics
from prune_cli.cli import application
from prune_cli.help import manual
from prune_cli.help.promises import PROMISES
from prune_cli.help.spec import verbs

from .conftest import ROOT, on_a_terminal, prune

VERBS = {verb.name: verb for verb in verbs(application())}
PAGES = sorted((ROOT / "man").glob("*.1"))
LINES, COLUMNS = 45, 80


def needs(tool: str) -> None:
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")


def test_generated_documents_are_committed():
    assert [path.name for path, text in manual.documents().items() if path.read_text() != text] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.parametrize(
    "reader",
    [["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-ww", "-man", "-Tutf8", "-z"]],
    ids=lambda one: one[0],
)
def test_mandoc_and_groff_find_no_fault_in_a_page(page, reader):
    needs(reader[0])
    done = subprocess.run([*reader, page], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_fits_a_screen_and_is_the_same_in_a_pipe(verb):
    piped = prune(*([verb] if verb else []), "--help").stdout
    shown = piped.decode().splitlines()
    assert len(shown) <= LINES
    assert max(map(len, shown)) <= COLUMNS
    assert on_a_terminal("stdout", *([verb] if verb else []), "--help", COLUMNS="200").encode() == piped


def test_the_command_alone_shows_the_pipeline_and_the_verbs():
    said = prune(status=2).stderr.decode()
    assert "prune-cli score corpus/*.jsonl.zst | prune-cli rank" in said
    assert all(verb.summary.split()[0] in said for verb in VERBS.values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["rnak"], "Did you mean 'rank'? (prune-cli --help)"),
        (["rank", "--kye", "x"], "--key"),
        (["train", "--chedule", "wsd"], "--schedule"),
        (["score", "-m", "perplexty"], "did you mean perplexity?"),
        (["slice", "--keep", "midle"], "'middle'"),
    ],
)
def test_a_misspelt_word_gets_a_suggestion(arguments, said):
    assert said in prune(*arguments, status=2).stderr.decode()


def test_help_as_a_verb():
    assert prune("help", "rank").stdout == prune("rank", "--help").stdout


def test_the_list_of_options_is_complete():
    """Adding, renaming or dropping an option is a decision: users' scripts hold them. Change the list with
    it.
    """
    found = [f"{verb.name} {' '.join(option.names)}" for verb in VERBS.values() for option in verb.options]
    assert found == (ROOT / "tests/cases/options.txt").read_text().splitlines()


def test_every_metric_is_in_the_manual():
    page = (ROOT / "man/prune-cli-score.1").read_text()
    for name in metrics.names():
        assert f"\\fB{name}\\fP\n" in page


def test_every_promise_names_a_test_that_is_there():
    for test in PROMISES.values():
        path, _, name = test.partition("::")
        assert f"def {name}(" in (ROOT / path).read_text()


def test_the_wheel_installs_pages_and_completions(tmp_path: Path):
    copy = tmp_path / "source"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".*", "demo", "tests", "__pycache__", "build", "*.egg-info")
    )
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        tmp_path,
        copy,
    ]
    subprocess.run(build, check=True, capture_output=True)
    names = zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist()
    assert {page.name for page in PAGES} == {Path(name).name for name in names if "/share/man/man1/" in name}
    for path in (
        "bash-completion/completions/prune-cli.bash",
        "zsh/site-functions/_prune-cli",
        "fish/vendor_completions.d/prune-cli.fish",
    ):
        assert any(name.endswith(f".data/data/share/{path}") for name in names)
