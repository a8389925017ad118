"""What TAB offers in bash, zsh and fish themselves, and that they start nothing for it."""

import os
import pty
import re
import shlex
import shutil
import subprocess

import pytest

from prune_cli import metrics
from prune_cli.cli import application
from prune_cli.help.spec import verbs

from .conftest import PATIENCE, ROOT

FILES = ROOT / "shell" / "completions"
VERBS = {verb.name: verb for verb in verbs(application())}
# What each shell runs first. A line that is typed ends with TAB; the next key leaves what was offered in
# `offered`.
BASH = f"""
source {shlex.quote(str(FILES / "prune-cli.bash"))}
leave() {{ printf %s "${{READLINE_LINE#prune-cli }}" >../offered; exit; }}
bind '"\\t": insert-completions'
bind -x '"\\C-o": leave'
PS1=READY
"""
ZSH = f"""
fpath=({shlex.quote(str(FILES))} $fpath)
autoload -U compinit && compinit -u -D
compadd() {{ # note what is offered, too
    local -a found
    if [[ ${{@[1,(i)--]}} != *-[OAD]* ]]; then
        builtin compadd -O found "$@"
        print -rl -- $found >>../offered
    fi
    builtin compadd "$@"
}}
leave() {{ exit }}
zle -N leave
bindkey '^O' leave
PS1=READY
"""


def bash(line, folder):
    (folder.parent / "rc").write_text(BASH)
    before = len(shlex.split(line)) - bool(line and line[-1] != " ")
    return set(shlex.split(typed(["bash", "--noprofile", "--rcfile", "../rc", "-i"], line, folder))[before:])


def zsh(line, folder):
    (folder.parent / ".zshrc").write_text(ZSH)
    return set(typed(["zsh", "-i"], line, folder).split("\n")) - {""}


def fish(line, folder):
    script = (
        f"source {shlex.quote(str(FILES / 'prune-cli.fish'))}; complete -C {shlex.quote(f'prune-cli {line}')}"
    )
    shell = start(["fish", "--no-config", "-c", script], folder, stdout=subprocess.PIPE, text=True)
    return {one.partition("\t")[0] for one in shell.communicate(timeout=PATIENCE)[0].splitlines()}


def typed(shell, line, folder):
    """What is left in `offered` by a shell on a terminal of its own into which a line is typed, TAB, and the
    key that leaves.
    """
    outer, inner = pty.openpty()
    with start(shell, folder, stdin=inner, stdout=inner, stderr=inner, start_new_session=True):
        os.close(inner)
        said = b""
        while b"READY" not in said:
            said += os.read(outer, 4096)
        os.write(outer, f"prune-cli {line}\t\x0f".encode())
        while heard(outer):
            pass
    os.close(outer)
    return (folder.parent / "offered").read_text()


def start(shell, folder, **streams):
    """Start a shell in an environment in which it finds no other program to start."""
    path = shutil.which(shell[0])
    if path is None:
        pytest.skip(f"{shell[0]} is not installed")
    home = str(folder.parent)
    environment = {"PATH": home, "TERM": "dumb", "HOME": home, "ZDOTDIR": home, "INPUTRC": os.devnull}
    return subprocess.Popen([path, *shell[1:]], cwd=folder, env=environment, **streams)


def heard(terminal):
    try:
        return os.read(terminal, 4096)
    except OSError:  # a terminal has no end but the death of the other side
        return b""


SHELLS = {"bash": bash, "zsh": zsh, "fish": fish}


@pytest.fixture(params=SHELLS)
def offered(request, tmp_path):
    """What a shell offers for a line, in a folder with a corpus and a model."""
    (tmp_path / "offered").touch()
    (tmp_path / "at").mkdir()
    (tmp_path / "at" / "corpus.jsonl.zst").touch()
    (tmp_path / "at" / "model").mkdir()

    def offer(line):
        words = SHELLS[request.param](line, tmp_path / "at")
        return {re.sub(r"^--[a-z-]+=|/$", "", word) for word in words}

    return offer


METRICS = set(metrics.names())
OFFERED = {
    "ra": {"rank"},
    "s": {"score", "slice", "stat"},
    "rank --re": {"--reverse"},
    "rank --no": {"--no-progress", "--no-sign-request"},
    "score --metric ": METRICS,
    "score -m e": {name for name in METRICS if name.startswith("e")},
    "score -m el2n -m en": {"entropy"},
    "score --metric=perplexity_": {"perplexity_ratio"},
    "rank --key br": {"brier"},
    "slice --keep ": {"bottom", "middle", "top", "random", "easy", "hard"},
    "train --keep ": set(),
    "train --preset ": {"tiny", "124m", "1.5b"},
    "train --schedule w": {"wsd"},
    "eval --tasks r": {"rte"},
    "score --dtype b": {"bfloat16"},
    "score -o c": {"corpus.jsonl.zst"},
    "score --resume c": {"corpus.jsonl.zst"},
    "score -O ": {"model"},
    "score --model m": {"model"},
    "eval m": {"model"},
    "slice eval ": {"corpus.jsonl.zst", "model"},
}


@pytest.mark.parametrize("line", OFFERED)
def test_a_shell_offers_what_fits_at_the_cursor(line, offered):
    assert offered(line) == OFFERED[line]


@pytest.mark.parametrize("verb", VERBS.values(), ids=lambda verb: verb.name)
def test_a_shell_offers_every_long_option_of_a_verb(verb, offered):
    names = {
        name
        for option in verb.options
        for name in (*option.names, option.negation)
        if name and name.startswith("--")
    }
    assert {name.rstrip("=") for name in offered(f"{verb.name} --")} == names | {"--help"}
