"""How does a test start a server of somebody else, wait until it answers, and end it?"""

import http.client
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

# shell/install-servers puts them beside the environment that runs the tests.
INSTALLED = Path(sys.prefix) / "servers"
PROGRAMS = INSTALLED / "python" / "bin"

READY_SECONDS = 60  # SeaweedFS takes four on an idle machine; others run beside it


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nothing listens on; all are held until the last is known, so they differ."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def program(path: Path) -> str:
    """The path of an installed server; the test that asks skips where it is missing."""
    if not path.exists():
        pytest.skip(f"{path.name} is not installed; shell/install-servers installs it")
    return str(path)


def answers(port: int) -> bool:
    """Whether somebody on the port speaks HTTP, whatever is said."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    with closing(connection), suppress(OSError, http.client.HTTPException):
        connection.request("GET", "/")
        with connection.getresponse():
            return True
    return False


@contextmanager
def running(
    command: list[str], folder: Path, is_ready: Callable[[], bool], **more: Any
) -> Iterator[subprocess.Popen]:
    """Run a server in the folder until the block is left; enter the block when the server is ready."""
    # Where the test run itself is killed, the kernel ends the server.
    with_parent = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
    log = folder / "log"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*with_parent, *command],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            **more,
        )
    try:
        _wait_until_ready(server, is_ready, log)
        yield server
    finally:
        server.kill()
        server.wait()


def _wait_until_ready(server: subprocess.Popen, is_ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not is_ready():
        if server.poll() is not None or time.monotonic() > deadline:
            last = log.read_text(errors="replace")[-2000:]
            pytest.fail(f"{server.args!r} ended with {server.returncode}, or is not ready in time:\n{last}")
        time.sleep(0.1)
