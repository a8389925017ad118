"""What every test may use: the command itself, small corpora, and streams of ours to damage."""

import json
import logging
import os
import pty
import random
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import zstandard

from prune_cli import cli

from . import warm
from .servers.fixtures import azurite, gcs, into, moto, proxy, rclone, seaweedfs  # noqa: F401

# Tests run side by side: threads of one process that wait for each other while another has their processor
# take minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The command is started hundreds of times: without kept bytecode each start compiles the package anew, and
# takes twice as long.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell ignores SIGINT for what it starts with `&`, and what is ignored stays so in the runs that the tests
# stop.
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.SIG_DFL)

# Machines that do something else meanwhile are slow for a moment: no deadline for an example.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"

shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason="the project's shared data is not beside this checkout"
)

PATIENCE = 600  # seconds that no run takes, not even on a machine that does something else meanwhile

Corpus = list[dict[str, Any]]


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "prune_cli", *map(str, arguments)]


def prune(
    *arguments: object, stdin: bytes = b"", status: int = 0, **more: Any
) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own and hold it to its exit status.

    In an environment or with limits of its own it is a fresh process, else one that has imported its modules.
    """
    if more:
        done = subprocess.run(
            command(*arguments),
            input=stdin,
            capture_output=True,
            timeout=PATIENCE,
            cwd=more.pop("cwd", ROOT),
            **more,
        )
    else:
        done = warm.run(arguments, stdin)
    assert done.returncode == status, done.stderr.decode()
    return done


@pytest.fixture
def here(capfdbinary):
    """Like `prune`, but inside this process: torch and transformers are imported once for all tests."""

    def run(*arguments: object, stdin: bytes = b"", status: int = 0) -> subprocess.CompletedProcess[bytes]:
        terminal = os.dup(0)
        with tempfile.TemporaryFile() as file:
            file.write(stdin)
            file.seek(0)
            os.dup2(file.fileno(), 0)
            capfdbinary.readouterr()
            try:
                found = status_of(*arguments)
            finally:
                os.dup2(terminal, 0)
                os.close(terminal)
        out, said = capfdbinary.readouterr()
        assert found == status, said.decode()
        return subprocess.CompletedProcess([], found, out, said)

    return run


@pytest.fixture(autouse=True)
def unconfigured_log() -> None:
    """Forget the handler of the last command that ran in this process: it writes to that test's standard
    error, and it would keep messages from `caplog`.
    """
    log = logging.getLogger("prune_cli")
    log.handlers = []
    log.propagate = True
    log.setLevel(logging.NOTSET)


def on_a_terminal(stream: str, *arguments: object, **variables: str) -> str:
    """What a command says to who watches its `stdout` or `stderr`."""
    ours, theirs = pty.openpty()
    with open(theirs, "r+b", buffering=0) as terminal:
        streams: dict[str, Any] = {stream: terminal}
        started = warm.Started(arguments, environment={"TERM": "xterm", **variables}, **streams).go()
    said = bytearray()
    with suppress(OSError):  # a terminal has no end but the death of the other side
        while piece := os.read(ours, 1 << 16):
            said += piece
    os.close(ours)
    started.wait()
    return said.decode().replace("\r\n", "\n")


def status_of(*arguments: object) -> int:
    """The exit status of a command run inside this process, for tests that run hundreds."""
    return cli.run([str(argument) for argument in arguments])


def lines(records: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def records(data: bytes) -> Corpus:
    """What zstd(1), not our own reader, makes of a stream."""
    if data[:4] == b"\x28\xb5\x2f\xfd":
        data = subprocess.run(["zstd", "-dc"], input=data, capture_output=True, check=True).stdout
    return [json.loads(line) for line in data.splitlines()]


def zstd(*texts: bytes, **settings: Any) -> bytes:
    """Each text as a zstd frame of its own."""
    settings.setdefault("write_checksum", True)
    return b"".join(zstandard.ZstdCompressor(**settings).compress(text) for text in texts)


def scored(count: int, seed: int = 1) -> Corpus:
    """Records with scores that tie, some of them null, and a text of any length."""
    dice = random.Random(seed)
    return [
        {
            "id": f"doc-{index}",
            "text": " ".join(
                dice.choice(("lorem", "ipsum", "dolor", "ünï")) for _ in range(dice.randint(1, 80))
            ),
            "source": dice.choice("abc"),
            "perplexity": None
            if dice.random() < 0.05
            else round(dice.lognormvariate(3, 1), dice.choice((0, 6))),
            "n_scored": dice.randint(1, 300),
        }
        for index in range(count)
    ]


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For models that are so small that threads only wait for each other."""
    import torch  # not at the top: other interpreters run tests without it

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """200 scored records as one foreign zstd file."""
    path = tmp_path / "corpus.jsonl.zst"
    path.write_bytes(zstd(lines(scored(200))))
    return path


@pytest.fixture
def ranked(corpus: Path, tmp_path: Path) -> Path:
    """The same records as a ranked stream of ours."""
    path = tmp_path / "ranked.jsonl.zst"
    assert status_of("rank", corpus, "-o", path) == 0
    return path


def damaged(data: bytes, places: int, seed: int = 0) -> Iterable[tuple[str, bytes]]:
    """`places` cuts and as many flipped bits, a quarter of them near either end, where head, trailer and seek
    table lie.
    """
    dice = random.Random(seed)
    edges = [*range(1, 40), *range(len(data) - 40, len(data))]
    spots = [
        *dice.sample(edges, places // 4),
        *(dice.randrange(1, len(data)) for _ in range(places - places // 4)),
    ]
    for at in spots:
        yield f"cut at {at}", data[:at]
        bit = dice.randrange(8)
        yield f"bit {bit} of byte {at} flipped", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
