"""Worker processes: every job once, in order, whoever dies; what they see, and how they end."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from prune_cli.engines.crew import TRIES, WorkerBug
from prune_cli.engines.local import Serial
from prune_cli.engines.processes import WorkerProcesses, environment
from prune_cli.errors import DataError, Interrupted, TryAgainError
from prune_cli.settings.streams import Messages, processors
from prune_cli.terminal import silent

from ..conftest import ROOT
from .toy import Toy, ToyJob

SOON = 30.0  # seconds within which a process that was told to ends


@pytest.fixture(scope="module")
def workers():
    """Two workers for the tests that leave them alive."""
    with WorkerProcesses(2, Messages()) as engine:
        yield engine


def squares(count: int) -> list[int]:
    return [number**2 for number in range(count)]


def until(condition) -> None:
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


# --- Every job once, in order ---


def test_reports_come_in_the_order_of_the_jobs(workers):
    jobs = [ToyJob(number, "sleep_longer_if_early") for number in range(20)]
    bar = silent()
    assert workers.map(Toy(), jobs, bar) == list(range(20))
    assert bar.done == 2 * len(jobs)
    with Serial() as serial:
        assert serial.map(Toy(), jobs, silent()) == list(range(20))


def test_the_largest_jobs_are_done_first():
    with WorkerProcesses(1, Messages()) as engine:
        jobs = [ToyJob(number, "note_the_time") for number in range(4)]
        began = engine.map(Toy(), jobs, silent(), sizes=[1, 30, 2, 30])
    assert sorted(range(4), key=began.__getitem__) == [1, 3, 2, 0]


def test_no_jobs_need_no_workers():
    with WorkerProcesses(2, Messages()) as engine:
        assert engine.map(Toy(), [], silent()) == []
        assert not engine.idle


def test_workers_stay_for_the_next_stage_and_open_it_anew(workers):
    jobs = [ToyJob(number, "self_description") for number in range(2)]
    first = workers.map(Toy(), jobs, silent())
    second = workers.map(Toy(), jobs, silent())
    assert {each["pid"] for each in first} == {each["pid"] for each in second}
    assert [each["jobs"] for each in second] == [1, 1]


def test_workers_are_at_most_a_few_jobs_ahead_of_a_slow_caller(workers):
    reports = workers.each(Toy(), [ToyJob(number, "note_the_time") for number in range(12)], silent())
    next(reports)
    time.sleep(0.5)
    asked = time.monotonic()
    began = list(reports)
    # Two jobs a worker may lie finished; of the one that was taken another may have followed.
    assert sum(moment < asked for moment in began) <= 4
    assert len(began) == 11


# --- Workers that die ---


@pytest.mark.parametrize("action", ["die_once", "lose_the_gpu", "terminate_once"])
def test_the_job_of_a_dead_worker_is_done_by_another(action, tmp_path, caplog):
    jobs = [ToyJob(number, action if number == 1 else "square", str(tmp_path)) for number in range(5)]
    bar = silent()
    with WorkerProcesses(2, Messages()) as engine:
        assert engine.map(Toy(), jobs, bar) == squares(5)
        assert engine.watch.tries == 1
    # What the dead worker had done of its job is taken back.
    assert bar.done == 2 * len(jobs)
    assert "job 1 is tried again" in caplog.text


def test_every_worker_may_die_once(tmp_path):
    jobs = [ToyJob(number, "die_once", str(tmp_path)) for number in range(6)]
    with WorkerProcesses(2, Messages()) as engine:
        assert engine.map(Toy(), jobs, silent()) == squares(6)
        assert engine.watch.tries == 6


def test_a_job_that_kills_three_workers_is_named(tmp_path):
    jobs = [ToyJob(0), ToyJob(1, "die_always", str(tmp_path)), ToyJob(2)]
    with WorkerProcesses(2, Messages()) as engine, pytest.raises(TryAgainError) as failure:
        engine.map(Toy(), jobs, silent())
    assert str(failure.value).startswith("job 1: its worker died 3 times (killed by SIGKILL: out of memory?)")
    assert jobs[1].mark.read_bytes() == b"x" * TRIES


def test_memory_that_runs_out_three_times_ends_the_run_with_75():
    with WorkerProcesses(1, Messages()) as engine, pytest.raises(TryAgainError) as failure:
        engine.map(Toy(), [ToyJob(0, "run_out_of_memory")], silent())
    assert "no memory left; lower --batch-tokens" in str(failure.value)
    assert failure.value.status == 75


def test_an_idle_worker_that_dies_is_replaced(tmp_path):
    with WorkerProcesses(1, Messages()) as engine:
        [before] = engine.map(Toy(), [ToyJob(0, "self_description")], silent())
        os.kill(before["pid"], signal.SIGKILL)
        assert engine.map(Toy(), [ToyJob(3)], silent()) == [9]


def test_bad_data_ends_the_run_at_once_with_its_own_status(tmp_path):
    jobs = [ToyJob(0, "find_bad_data"), ToyJob(1, "wait", str(tmp_path))]
    with WorkerProcesses(2, Messages()) as engine, pytest.raises(DataError) as failure:
        engine.map(Toy(), jobs, silent())
    assert str(failure.value) == "web.jsonl:7: not JSON; mend it"
    # The other job, if it had begun, was stopped in order.
    assert jobs[1].mark.exists() == jobs[1].mark.with_suffix(".stopped").exists()


def test_a_worker_that_is_stopped_in_a_finalizer_says_nothing(tmp_path, capfd):
    [job] = jobs = [ToyJob(0, "wait_in_a_finalizer", str(tmp_path))]

    def stop() -> None:
        until(job.mark.exists)
        os.kill(os.getpid(), signal.SIGUSR1)

    def interrupt(number, frame):
        raise Interrupted(number)

    before = signal.signal(signal.SIGUSR1, interrupt)
    threading.Thread(target=stop).start()
    try:
        with WorkerProcesses(1, Messages()) as engine, pytest.raises(Interrupted):
            engine.map(Toy(), jobs, silent())
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert capfd.readouterr().err == ""


def test_a_bug_in_a_worker_keeps_its_traceback():
    with (
        WorkerProcesses(1, Messages()) as engine,
        pytest.raises(WorkerBug, match=r"return job\.number / 0") as bug,
    ):
        engine.map(Toy(), [ToyJob(0, "divide_by_zero")], silent())
    assert "ZeroDivisionError" in str(bug.value)


# --- What a worker sees ---


def test_workers_share_the_processors_and_see_a_gpu_each(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    jobs = [ToyJob(number, "self_description") for number in range(4)]
    with WorkerProcesses(4, Messages(), devices=["GPU-a", "MIG-b"]) as engine:
        workers = engine.map(Toy(), jobs, silent())
    assert sorted(each["CUDA_VISIBLE_DEVICES"] for each in workers) == ["GPU-a"] * 2 + ["MIG-b"] * 2
    assert {each["processors"] for each in workers} == {max(1, processors() // 4)}
    assert {each["OMP_NUM_THREADS"] for each in workers} == {str(max(1, processors() // 4))}
    assert "OMP_NUM_THREADS" not in os.environ


def test_threads_that_the_user_chose_are_left_alone(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment(1, 2, []) == {}


# --- How a run ends ---

SCRIPT = """
import signal, sys
from prune_cli import cli
from prune_cli.engines.processes import WorkerProcesses
from prune_cli.errors import Interrupted, TryAgainError
from prune_cli.settings.streams import Messages
from prune_cli.terminal import silent
from tests.engines.toy import Toy, ToyJob

if __name__ == "__main__":
    cli._catch_signals()
    jobs = [ToyJob(number, sys.argv[1], sys.argv[2]) for number in range(2)]
    try:
        with WorkerProcesses(2, Messages()) as engine:
            engine.map(Toy(), jobs, silent())
    except Interrupted as stop:
        sys.exit(128 + stop.args[0])
    except TryAgainError as error:
        print(error)
        sys.exit(error.status)
"""


@pytest.fixture
def run(tmp_path):
    """A process whose two workers wait; the process, and the ids of its workers."""
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    started = []

    def start(action: str) -> tuple[subprocess.Popen[bytes], list[int]]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(script), action, str(tmp_path)]
        # A group of its own: a signal to it reaches the workers, too, but not the tests.
        process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, start_new_session=True)
        started.append(process)
        marks = [ToyJob(number, action, str(tmp_path)).mark for number in range(2)]
        until(lambda: all(mark.exists() and mark.read_text() for mark in marks))
        return process, [int(mark.read_text()) for mark in marks]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def stopped(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.stopped"))


def is_gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    # A zombie waits only for its parent to take notice.
    return re.sub(r".*\) ", "", state).startswith("Z")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize("to_group", [False, True])
def test_a_signal_stops_workers_in_order(number, to_group, run, tmp_path):
    process, workers = run("wait")
    (os.killpg if to_group else os.kill)(process.pid, number)
    process.wait(SOON)
    until(lambda: all(map(is_gone, workers)))
    # With SIGTERM to the group, the parent may see a worker stop before its own signal comes.
    assert process.returncode == 128 + number
    assert set(stopped(tmp_path)) >= {"wait-0", "wait-1"}


def test_workers_end_in_order_when_their_parent_is_killed(run, tmp_path):
    process, workers = run("wait")
    process.kill()
    until(lambda: all(map(is_gone, workers)))
    assert stopped(tmp_path) == ["wait-0", "wait-1"]


def test_a_stopped_run_that_can_be_resumed_says_so(run):
    process, _ = run("wait_and_resume")
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=SOON)
    assert (process.returncode, said) == (75, b"job 0: stopped early; resume\n")
