"""An empty name, as an unset variable of the shell gives, is a usage error before any work; never absent."""

import pytest

from prune_cli.cli import application

from ..conftest import lines, status_of

RECORDS = lines([{"id": 1, "text": "one", "perplexity": 1}])
VERBS = application().commands
# Every option of every verb that takes a value, but for --prefix.
OPTIONS = [
    (verb, option.opts[0])
    for verb, command in VERBS.items()
    for option in command.params
    if option.param_type_name == "option"
    and not getattr(option, "is_flag", False)
    and option.opts[0] != "--prefix"
]


def test_the_options_of_all_verbs_are_found():
    names = {option for _, option in OPTIONS}
    assert names >= {"--output", "--rejects", "--summary", "--per-document", "--model", "--against"}
    assert names >= {"--temporary-directory", "--tokenizer", "--output-directory", "--scores"}


@pytest.mark.parametrize(("verb", "option"), OPTIONS)
def test_an_empty_value_is_refused(verb, option, capfd):
    assert status_of(verb, option, "", "no such file") == 2
    assert f"{option} is empty; is a shell variable unset?" in capfd.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_an_empty_operand_is_refused(verb, capfd):
    assert status_of(verb, "") == 2
    assert "an operand is empty" in capfd.readouterr().err


@pytest.mark.parametrize("spelling", [["-o", ""], ["--output="], ["--output", ""]])
def test_every_spelling_is_seen(spelling, here):
    assert b"--output is empty" in here("rank", *spelling, stdin=RECORDS, status=2).stderr


def test_an_empty_prefix_is_no_prefix(here):
    assert b'"rank":0' in here("rank", "--plain", "--prefix", "", stdin=RECORDS).stdout


def test_an_empty_name_among_others_is_refused(here, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(RECORDS)
    assert b"an operand is empty" in here("rank", path, "", status=2).stderr
    assert b"--model is empty" in here("score", "--model", path, "--model", "", path, status=2).stderr
