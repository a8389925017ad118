"""Metrics of installed packages: found by their entry points, checked when they are loaded."""

import os
import re
import sys

import pytest

from prune_cli import metrics
from prune_cli.errors import ConfigurationError, UsageError

from .conftest import lines, prune, records

WORDS = '''"""Number of words."""

EASY = "low"


def words(content):
    return float(len(content.split())) if isinstance(content, str) else None
'''


def install(folder, package, metric, source):
    """Lay a package out as pip does: its modules, and a .dist-info with its entry points."""
    (folder / package).mkdir(parents=True)
    (folder / package / "__init__.py").touch()
    (folder / package / f"{metric}.py").write_text(source)
    information = folder / f"{package}-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[prune_cli.metrics]\n{metric} = {package}.{metric}\n")


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder where Python finds packages."""
    site = tmp_path / "site"
    monkeypatch.syspath_prepend(site)
    return site


def test_a_package_of_ten_lines_scores(tmp_path):
    install(tmp_path, "word_metrics", "words", WORDS)
    corpus = lines([{"text": "a b c"}, {"text": ""}, {"text": "d"}])
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    scored = prune("score", "-m", "words", "--plain", stdin=corpus, env={**os.environ, "PYTHONPATH": path})
    assert [record["words"] for record in records(scored.stdout)] == [3, 0, 1]
    sliced = prune(
        "slice",
        "-k",
        "words",
        "--keep",
        "easy",
        "--frac",
        "0.5",
        "--plain",
        stdin=scored.stdout,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert [record["text"] for record in records(sliced.stdout)] == ["", "d"]


def test_a_package_metric_is_a_metric(site):
    install(site, "package_a", "words", WORDS)
    metric = metrics.load("words")
    assert (metric.name, metric.description, metric.easy) == ("words", "Number of words.", "low")
    assert metric.needs == {"content"}
    assert not metric.needs_model
    assert metrics.of_field("my_words") == metric
    assert "words" not in metrics.names()


def test_an_unknown_metric_lists_those_of_packages(site):
    install(site, "package_b", "words", WORDS)
    with pytest.raises(UsageError, match=r"top_k_accuracy, words; did you mean words\?"):
        metrics.load("wordz")


def test_a_builtin_metric_wins_over_a_package_of_the_same_name(site):
    install(site, "package_c", "perplexity", WORDS.replace("words", "perplexity"))
    assert metrics.load("perplexity").needs == {"nll_sum", "n_scored"}


def test_two_packages_with_a_metric_of_one_name_are_an_error(site):
    install(site, "package_d", "words", WORDS)
    install(site, "package_e", "words", WORDS)
    with pytest.raises(ConfigurationError, match=r"two packages add a metric named 'words': .*; uninstall"):
        metrics.load("words")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "def words(nl): pass",
            "the metric words asks for 'nl': there are nll, .*, top_k; did you mean nll?",
        ),
        ("def words(nll, **more): pass", "the metric words asks for 'more': there are nll, "),
        ("def word(nll): pass", "package_f.words: the metric's module has no function words"),
        ("EASY = 'left'\ndef words(nll): pass", "EASY is 'left': expected 'low', 'high' or None"),
        (
            "import no_such_module",
            "cannot be imported: ModuleNotFoundError: No module named 'no_such_module'",
        ),
    ],
)
def test_a_module_that_is_not_a_metric_says_why(site, source, message, monkeypatch):
    install(site, "package_f", "words", source)
    for name in ("package_f", "package_f.words"):  # of the case before
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ConfigurationError) as error:
        metrics.load("words")
    assert re.search(message.replace("?", r"\?"), str(error.value))


def test_every_parameter_of_the_builtin_metrics_is_declared():
    for name in metrics.names():
        assert metrics.load(name).needs <= set(metrics.PARAMETERS)


def test_a_name_that_ends_like_a_built_in_one_has_its_own_easy_end(site):
    source = '"""Entropy of words."""\n\nEASY = "high"\n\n\ndef word_entropy(content):\n    return 1.0\n'
    install(site, "package_y", "word_entropy", source)
    assert metrics.of_field("my_word_entropy").easy == "high"
    assert metrics.of_field("my_entropy").easy == "low"


def test_a_metric_whose_parameters_cannot_be_read_is_refused(site):
    install(site, "package_z", "compiled", '"""Compiled."""\n\nfrom builtins import max as compiled\n')
    with pytest.raises(ConfigurationError, match="parameters of the metric compiled cannot be read"):
        metrics.load("compiled")
