"""The cases in tests/cases: a command, its input, and exactly the output and messages that it is to give.

`tests/cases/<verb>/<name>/` holds `cmd`, a line for the shell, `out` and `err`, which are its standard output
and standard error (no file where nothing is expected), and the input files that it names. The status is in
`cmd`: it ends with `; echo $?` where it matters. `python -m tests.test_cases CASE...` writes `out` and `err`
anew.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
CASES = Path(__file__).parent / "cases"


def run_case(case: Path, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Run a case's command in a copy of its folder, with `prune-cli` on the PATH."""
    copy = shutil.copytree(case, folder / "case")
    (folder / "prune-cli").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m prune_cli "$@"\n')
    (folder / "prune-cli").chmod(0o755)
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        ["bash", "-c", (case / "cmd").read_text()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=copy,
        env=environment,
        timeout=600,
    )


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


@pytest.mark.parametrize("cmd", sorted(CASES.glob("*/*/cmd")), ids=lambda cmd: "/".join(cmd.parts[-3:-1]))
def test_a_case_gives_exactly_its_output_and_messages(cmd, tmp_path):
    done = run_case(cmd.parent, tmp_path)
    assert done.stderr.decode() == content(cmd.parent / "err")
    assert done.stdout.decode() == content(cmd.parent / "out")


def write(case: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        done = run_case(case, Path(folder))
    for name, data in (("out", done.stdout), ("err", done.stderr)):
        (case / name).unlink(missing_ok=True)
        if data:
            (case / name).write_bytes(data)


if __name__ == "__main__":
    for argument in sys.argv[1:]:
        write(Path(argument).resolve())
