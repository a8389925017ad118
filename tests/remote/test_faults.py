"""Fault 40: what a store, the network, or a run that is killed does to objects, and what users see."""

import os
import re
import signal
import subprocess
import time

import pytest

from prune_cli import storage, terminal
from prune_cli.errors import CannotCreateError, DataError, UnavailableError
from prune_cli.storage import objects
from prune_cli.storage.remote import reading, retries

from ..conftest import command, lines, scored
from ..servers.stores import BUCKET, PUBLIC_BUCKET

RECORDS = scored(2000)
CONTENT = lines(RECORDS)
BIG = os.urandom(11 << 20)
A_WHILE = range(1, 3)


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Retries as in life, but in tenths of a second, and small ranges and parts."""
    monkeypatch.setenv(retries.VARIABLE, "10")
    monkeypatch.setattr(retries, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(retries, "LONGEST_PAUSE", 0.2)
    monkeypatch.setattr(reading, "RANGE", 1 << 20)
    monkeypatch.setattr(objects, "part_size", lambda inputs: 5 << 20)  # S3 takes no less


@pytest.fixture
def store(seaweedfs, proxy, into):
    """A real store behind the proxy, with an object of scored records and a large one."""
    seaweedfs.put("in.jsonl", CONTENT)
    seaweedfs.put("big", BIG[: 3 << 20])
    store = proxy(seaweedfs)
    into(seaweedfs.via(store.port))
    return store


def write(key, data, *, force=False, before_the_end=lambda: None):
    with storage.create(f"s3://{BUCKET}/{key}", force=force) as output:
        output.write(data)
        before_the_end()


def fresh(name):
    """A key that no other test of this session has used."""
    return f"{name}-{time.monotonic_ns()}"


def read(key):
    with storage.input_at(f"s3://{BUCKET}/{key}").open() as file:
        return file.read_all()


# --- a to d: stores and networks that fail for a while, and for ever ---

READING = [
    ("status", {"status": 503}),
    ("status", {"status": 429}),
    ("status", {"status": 500}),
    ("reset", {}),
    ("lost answer", {}),
    ("reset in body", {}),
    ("short body", {}),
    ("reset after body", {}),
    ("slow body", {"seconds": 0.01}),
    ("latency", {"seconds": 0.1}),
]


WRITING = ["^PUT", "^PUT .*partNumber=2", "^POST .*uploadId"]


@pytest.mark.parametrize(("action", "more"), READING, ids=lambda value: str(value))
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_what_fails_for_a_while_is_read_right(method, action, more, store):
    store.fail(f"^{method} .*/big", action, when=A_WHILE, **more)
    assert read("big") == BIG[: 3 << 20]


@pytest.mark.parametrize("action", ["status", "reset", "short body"])
def test_what_fails_for_ever_is_69_with_the_key_and_the_number_of_tries(action, store, here, monkeypatch):
    monkeypatch.setenv(retries.VARIABLE, "1")
    store.fail("^GET .*in.jsonl", action)
    said = here("rank", f"s3://{BUCKET}/in.jsonl", status=69).stderr.decode()
    tries = re.findall(rf"s3://{BUCKET}/in.jsonl: .*gave up after (\d+) tries in 1 s", said)
    assert int(tries[0]) == len(store.requests("^GET .*in.jsonl")) > 2


@pytest.mark.parametrize("is_watched", [True, False])
def test_who_watches_is_told_that_a_request_is_repeated(is_watched, store, here, monkeypatch):
    monkeypatch.setattr(terminal, "is_interactive", lambda: is_watched)
    monkeypatch.setattr(retries, "ANNOUNCED_AFTER", 0.0)
    monkeypatch.setattr(retries, "_announced_at", -retries.ANNOUNCED_EVERY)
    store.fail("^GET .*in.jsonl", "status", when=A_WHILE)
    said = here("stat", f"s3://{BUCKET}/in.jsonl").stderr
    assert (b"503 SlowDown; trying again (try" in said) == is_watched


@pytest.mark.parametrize("action", ["status", "reset", "reset upload", "lost answer"])
@pytest.mark.parametrize("match", [*WRITING, "^POST .*uploads"])
def test_what_fails_for_a_while_is_written_right_and_once(match, action, store, seaweedfs):
    write_through(store, seaweedfs, match, action, force=False)


@pytest.mark.parametrize("match", [*WRITING, "^HEAD"])
def test_an_object_that_may_be_replaced_is_written_right_as_well(match, store, seaweedfs):
    write_through(store, seaweedfs, match, "lost answer", force=True)


def write_through(store, seaweedfs, match, action, force):
    data = BIG[:1000] if match == "^PUT" else BIG
    key = fresh("out")
    store.fail(f"{match}", action, when=A_WHILE)
    write(key, data, force=force)
    assert seaweedfs.get(key) == data
    # A lost answer to the beginning of an upload may leave one without parts, whose number nobody was told.
    if (match, action) != ("^POST .*uploads", "lost answer"):
        assert seaweedfs.open_uploads(key) == []


@pytest.mark.parametrize("match", WRITING)
def test_a_write_that_fails_for_ever_leaves_nothing(match, store, seaweedfs, monkeypatch):
    monkeypatch.setenv(retries.VARIABLE, "1")
    key = fresh("never")
    store.fail(match, "status")
    with pytest.raises(UnavailableError, match=rf"s3://{BUCKET}/{key}: .*503 SlowDown; gave up after \d+ tr"):
        write(key, BIG[:1000] if match == "^PUT" else BIG)
    assert seaweedfs.get(key) is None
    assert seaweedfs.open_uploads(key) == []


def test_a_run_that_fails_leaves_no_object_and_no_upload(store, seaweedfs, here):
    seaweedfs.put("bad.jsonl", CONTENT + b"oops\n")
    key = fresh("failed")
    here("rank", f"s3://{BUCKET}/bad.jsonl", "-o", f"s3://{BUCKET}/{key}", status=65)
    with pytest.raises(ZeroDivisionError):
        write(key, BIG, before_the_end=lambda: 1 / 0)
    assert seaweedfs.get(key) is None
    assert seaweedfs.open_uploads(key) == []


# --- e and f: credentials, and what is not there ---


@pytest.mark.parametrize(
    ("variables", "fault"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "wrong"},
            "SignatureDoesNotMatch",
        ),
        ({"AWS_ACCESS_KEY_ID": "nobody"}, "InvalidAccessKeyId"),
    ],
)
def test_bad_credentials_are_77_with_where_they_came_from(variables, fault, store, here, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    said = here("rank", f"s3://{BUCKET}/in.jsonl", status=77).stderr.decode()
    assert f"s3://{BUCKET}/in.jsonl: the credentials were not accepted ({fault})" in said
    assert "they came from the variable AWS_ACCESS_KEY_ID" in said


def test_missing_credentials_are_77_with_where_they_were_looked_for(store, here, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # A metadata service that nobody has: on a cloud machine there would be one.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://169.254.169.254.invalid")
    said = here("rank", f"s3://{BUCKET}/in.jsonl", status=77).stderr.decode()
    assert "no credentials" in said
    assert "AWS_ACCESS_KEY_ID" in said


def test_a_public_bucket_is_read_without_credentials(store, here, monkeypatch, seaweedfs):
    answer = seaweedfs.send("PUT", f"{PUBLIC_BUCKET}/in.jsonl", CONTENT)
    assert answer.status == 200
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    here("rank", "--no-sign-request", f"s3://{PUBLIC_BUCKET}/in.jsonl")
    assert "authorization" not in store.requests("^GET")[0].headers
    here("rank", "--no-sign-request", f"s3://{BUCKET}/in.jsonl", status=77)


@pytest.mark.parametrize(
    ("url", "fault"),
    [(f"s3://{BUCKET}/none", "no such object"), ("s3://no-such-bucket/none", "no such bucket")],
)
def test_a_key_or_bucket_that_is_not_there_is_66(url, fault, store, here):
    assert f"{url}: {fault}" in here("rank", url, status=66).stderr.decode()


# --- g and h: objects that change, answers that are lost ---


def test_an_object_that_changes_between_two_ranges_is_65_and_named(store, seaweedfs):
    with storage.input_at(f"s3://{BUCKET}/big").open() as file:
        assert file.read(10) == BIG[:10]
        seaweedfs.put("big", BIG[::-1])
        with pytest.raises(DataError, match=f"s3://{BUCKET}/big: changed while it was read"):
            file.read_all()


def test_the_lost_answer_of_a_create_is_recognised_as_our_own_write(store, seaweedfs):
    key = fresh("create")
    lost = store.fail(f"^PUT .*{key}", "lost answer", when=[1])
    write(key, b"text")
    assert lost.matched == 2  # the second was told that the object exists
    assert seaweedfs.get(key) == b"text"


def test_the_lost_answer_of_a_complete_is_recognised_as_our_own_write(store, seaweedfs):
    key = fresh("complete")
    store.fail("^POST .*uploadId", "lost answer", when=[1])
    write(key, BIG)
    assert seaweedfs.get(key) == BIG


@pytest.mark.parametrize("data", [b"text", BIG], ids=["small", "large"])
def test_an_object_that_appears_while_ours_is_made_is_kept(data, store, seaweedfs):
    key = fresh("race")
    with pytest.raises(CannotCreateError, match="appeared while it was being made"):
        write(key, data, before_the_end=lambda: seaweedfs.put(key, b"theirs"))
    assert seaweedfs.get(key) == b"theirs"
    assert seaweedfs.open_uploads(key) == []
    with pytest.raises(CannotCreateError, match="exists; -f replaces it"):
        write(key, data)
    write(key, data, force=True)
    assert seaweedfs.get(key) == data


# --- i: runs that are stopped, and killed ---


def start(store, key, tmp_path):
    """A run that writes 40 MB in parts, of which the third is never taken."""
    with (tmp_path / "in.jsonl").open("wb") as file:
        text = os.urandom(500).hex()
        for number in range(40_000):
            file.write(b'{"id": %d, "perplexity": %d.5, "text": "%s"}\n' % (number, number, text.encode()))
    stuck = store.fail(f"^PUT .*{key}.*partNumber=3", "status")
    run = subprocess.Popen(
        command("rank", "--plain", tmp_path / "in.jsonl", "-o", f"s3://{BUCKET}/{key}"),
        env={**os.environ, retries.VARIABLE: "60"},
        stderr=subprocess.PIPE,
    )
    deadline = time.monotonic() + 60
    while not stuck.matched and time.monotonic() < deadline:
        time.sleep(0.05)
    return run, stuck


def test_an_upload_that_kill_9_leaves_behind_is_named_by_the_next_run(store, seaweedfs, tmp_path, caplog):
    key = fresh("killed")
    run, stuck = start(store, key, tmp_path)
    run.kill()
    run.communicate()
    assert seaweedfs.get(key) is None
    assert seaweedfs.open_uploads(key) == [key]
    store.faults.remove(stuck)
    write(key, b"text")
    assert f"s3://{BUCKET}/{key}: an upload that began at 20" in caplog.text
    assert "AbortIncompleteMultipartUpload" in caplog.text


def test_a_signal_stops_an_upload_at_once_and_removes_its_parts(store, seaweedfs, tmp_path):
    key = fresh("stopped")
    run, stuck = start(store, key, tmp_path)
    run.send_signal(signal.SIGTERM)
    # The part that is under way is let go of when the store answers it; then the rest is removed.
    time.sleep(0.5)
    store.faults.remove(stuck)
    start_of_wait = time.monotonic()
    _, said = run.communicate(timeout=30)
    assert run.returncode == -signal.SIGTERM, said
    assert time.monotonic() - start_of_wait < 25
    assert seaweedfs.get(key) is None
    assert seaweedfs.open_uploads(key) == []


def test_a_signal_is_not_kept_waiting_by_a_store_that_does_not_answer(store, tmp_path):
    store.fail("in.jsonl", "status")
    run = subprocess.Popen(
        command("rank", f"s3://{BUCKET}/in.jsonl"),
        env={**os.environ, retries.VARIABLE: "60"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    while not store.requests("in.jsonl"):
        time.sleep(0.05)
    run.send_signal(signal.SIGINT)
    sent = time.monotonic()
    run.communicate(timeout=30)
    assert run.returncode == -signal.SIGINT
    assert time.monotonic() - sent < 5


# --- j: servers that ignore what they are asked ---


# An emulator, because a real store checks the signature of the headers that the proxy takes away.


def hostile(moto, proxy, into, *headers):
    store = proxy(moto, strip=frozenset(headers))
    into(moto.via(store.port))
    return store


def test_a_server_that_ignores_if_match_is_noticed(moto, proxy, into):
    hostile(moto, proxy, into, "if-match")
    moto.put("swapped", BIG)
    with storage.input_at(f"s3://{BUCKET}/swapped").open() as file:
        file.read(10)
        moto.put("swapped", BIG[::-1])
        with pytest.raises(DataError, match="changed while it was read"):
            file.read_all()


def test_a_server_that_ignores_ranges_is_noticed(moto, proxy, into, here):
    hostile(moto, proxy, into, "range")
    moto.put("in.jsonl", CONTENT)
    moto.put("big", BIG)
    said = here("stat", f"s3://{BUCKET}/big", status=69).stderr.decode()
    assert f"s3://{BUCKET}/big: the server ignores the range of a request" in said


def test_a_server_that_ignores_if_none_match_is_noticed(moto, proxy, into, caplog):
    hostile(moto, proxy, into, "if-none-match")
    key = fresh("unconditional")
    write(key, b"text")
    assert "ignores If-None-Match" in caplog.text
    assert moto.get(key) == b"text"
