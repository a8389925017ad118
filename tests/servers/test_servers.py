"""Do the servers and the chaos proxy do as the tests of object storage take for granted?

Asked by http.client, so that nothing is repaired on the way.
"""

import http.client
import re
import time
from contextlib import closing
from pathlib import Path

import pytest

from . import signing
from .chaos import ACTIONS, Proxy
from .stores import BUCKET, KEY, PUBLIC_BUCKET, SECRET, Answer, Store, send

STORES = ("seaweedfs", "moto", "azurite", "gcs")
S3 = ("seaweedfs", "moto")


@pytest.fixture
def store(request) -> Store:
    return request.getfixturevalue(request.param)


def part(store: Store, key: str, number: int, upload: str, body: bytes) -> str:
    """Upload a part and return its ETag."""
    answer = store.send("PUT", f"{BUCKET}/{key}?partNumber={number}&uploadId={upload}", body)
    assert answer.status == 200, answer
    return answer.headers["etag"]


def begin(store: Store, key: str) -> str:
    return store.send("POST", f"{BUCKET}/{key}?uploads=").texts("UploadId")[0]


def complete(store: Store, key: str, upload: str, etags: list[str]) -> Answer:
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        for number, etag in enumerate(etags, 1)
    )
    body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
    return store.send("POST", f"{BUCKET}/{key}?uploadId={upload}", body)


@pytest.mark.parametrize("store", STORES, indirect=True)
def test_an_object_is_stored_listed_and_read_in_part(store):
    store.put("smoke/some=key", b"0123456789")
    assert store.get("smoke/some=key") == b"0123456789"
    assert store.keys("smoke/some") == ["smoke/some=key"]
    assert store.get("smoke/none") is None
    ranged = store.send("GET", f"{BUCKET}/smoke/some%3Dkey", headers={"Range": "bytes=2-4"})
    assert (ranged.status, ranged.body) == (206, b"234")


@pytest.mark.parametrize("store", STORES, indirect=True)
def test_conditions_are_kept(store):
    kind = {"x-ms-blob-type": "BlockBlob"} if store.scheme == "az" else {}
    store.put("smoke/condition", b"old")
    create = store.send("PUT", f"{BUCKET}/smoke/condition", b"new", {"If-None-Match": "*", **kind})
    assert create.status in (409, 412)
    changed = store.send("GET", f"{BUCKET}/smoke/condition", headers={"If-Match": '"other"'})
    assert changed.status == 412
    assert store.get("smoke/condition") == b"old"


@pytest.mark.parametrize("store", S3, indirect=True)
def test_an_upload_in_parts_is_invisible_until_it_is_completed(store):
    key = "smoke/parts"
    upload = begin(store, key)
    etags = [part(store, key, 1, upload, b"a" * (5 << 20)), part(store, key, 2, upload, b"b")]
    assert store.keys(key) == []
    assert store.open_uploads("smoke/parts") == [key]
    assert complete(store, key, upload, etags).status == 200
    assert store.open_uploads("smoke/parts") == []
    assert store.get(key) == b"a" * (5 << 20) + b"b"


@pytest.mark.parametrize("store", S3, indirect=True)
def test_an_aborted_upload_leaves_nothing(store):
    upload = begin(store, "smoke/aborted")
    part(store, "smoke/aborted", 1, upload, b"a")
    assert store.send("DELETE", f"{BUCKET}/smoke/aborted?uploadId={upload}").status == 204
    assert store.open_uploads("smoke/aborted") == store.keys("smoke/aborted") == []


def test_blocks_that_were_not_committed_are_found(azurite):
    path = f"{BUCKET}/smoke/blocks?comp=block&blockid=YQ%3D%3D"
    assert azurite.send("PUT", path, b"a").status == 201
    assert azurite.keys("smoke/blocks") == []
    assert azurite.open_uploads("smoke/blocks") == ["smoke/blocks"]


def test_seaweedfs_knows_who_asks(seaweedfs):
    url = f"{seaweedfs.endpoint}/{BUCKET}/smoke/secret"
    wrong = signing.s3_headers("GET", url, b"", "tests", "another secret", {})
    assert send("GET", url, headers=wrong).status == 403
    assert send("GET", url).status == 403
    assert seaweedfs.send("PUT", f"{PUBLIC_BUCKET}/smoke", b"for all").status == 200
    public = f"{seaweedfs.endpoint}/{PUBLIC_BUCKET}/smoke"
    assert send("GET", public).body == b"for all"
    assert send("PUT", public, b"not by all").status == 403


def test_rclone_overwrites_when_it_is_asked_to_create(rclone):
    rclone.put("smoke", b"old")
    rclone.send("PUT", f"{BUCKET}/smoke", b"new", {"If-None-Match": "*"})
    assert rclone.get("smoke") == b"new"


def test_a_store_without_its_conditions_is_hostile(moto, proxy):
    hostile = moto.via(proxy(moto, strip={"if-none-match", "if-match", "range"}).port)
    hostile.put("smoke/hostile", b"old")
    assert hostile.send("PUT", f"{BUCKET}/smoke/hostile", b"new", {"If-None-Match": "*"}).status == 200
    ranged = hostile.send("GET", f"{BUCKET}/smoke/hostile", headers={"Range": "bytes=1-1", "If-Match": "x"})
    assert (ranged.status, ranged.body) == (200, b"new")


BODY = bytes(range(256)) * 1024


@pytest.fixture
def chaos(moto, proxy) -> Proxy:
    moto.put("smoke/chaos", BODY)
    return proxy(moto)


def ask(connection: http.client.HTTPConnection, method: str = "GET") -> http.client.HTTPResponse:
    path = f"/{BUCKET}/smoke/chaos"
    url = f"http://{connection.host}:{connection.port}{path}"
    connection.request(method, path, headers=signing.s3_headers(method, url, b"", KEY, SECRET, {}))
    return connection.getresponse()


def get(connection: http.client.HTTPConnection) -> bytes:
    return ask(connection).read()


@pytest.fixture
def connection(chaos):
    with closing(http.client.HTTPConnection("127.0.0.1", chaos.port, timeout=20)) as opened:
        yield opened


def test_a_proxy_without_faults_changes_nothing_and_counts(chaos, connection, moto):
    assert get(connection) == BODY
    kept = connection.sock
    assert get(connection) == BODY
    assert connection.sock is kept, "the connection was not kept alive"
    with ask(connection, "HEAD") as head:
        assert head.headers["Content-Length"] == str(len(BODY))
    connection.request("PUT", f"/{BUCKET}/smoke/sent", body=iter([b"in ", b"chunks"]))
    with connection.getresponse() as answer:
        assert answer.status == 200
    assert moto.get("smoke/sent") == b"in chunks"
    assert chaos.exchanges[-1].received == len(b"3\r\nin \r\n6\r\nchunks\r\n0\r\n\r\n")
    assert [each.line.split()[0] for each in chaos.exchanges] == ["GET", "GET", "HEAD", "PUT"]
    assert chaos.sent("GET .*chaos") == 2 * len(BODY)
    assert chaos.sent("HEAD") == 0


def test_the_proxy_answers_in_the_place_of_the_server(chaos, connection):
    chaos.fail("GET", "status", when=[1], status=503)
    chaos.fail("GET", "status", when=[2], status=429, retry_after=7)
    statuses = []
    for _ in range(3):
        response = ask(connection)
        statuses.append((response.status, response.headers["Retry-After"]))
        response.read()
    assert statuses == [(503, None), (429, "7"), (200, None)]


@pytest.mark.parametrize("action", ["reset", "lost answer", "reset upload"])
def test_a_reset_before_the_answer_tells_nothing(chaos, connection, moto, action):
    moto.put("smoke/put", b"before")
    chaos.fail("PUT", action)
    with pytest.raises(ConnectionResetError):
        moto.via(chaos.port).put("smoke/put", b"after")
    expected = b"after" if action == "lost answer" else b"before"
    assert moto.get("smoke/put") == expected


def test_a_reset_in_the_body_comes_after_half_of_it(chaos, connection):
    chaos.fail("GET", "reset in body")
    response = ask(connection)
    with pytest.raises(ConnectionResetError):
        response.read()
    assert chaos.sent() == len(BODY) // 2


def test_a_short_body_ends_in_order(chaos, connection):
    chaos.fail("GET", "short body")
    with pytest.raises(http.client.IncompleteRead) as short:
        get(connection)
    assert short.value.partial == BODY[: len(BODY) // 2]


def test_a_reset_after_the_body_is_seen_by_the_next_request(chaos, connection):
    chaos.fail("GET", "reset after body", when=[1])
    assert get(connection) == BODY
    with pytest.raises(ConnectionError):
        get(connection)
    assert get(connection) == BODY


@pytest.mark.parametrize(("action", "least"), [("slow body", 16 * 0.02), ("latency", 0.02)])
def test_slowness_takes_its_time_and_loses_nothing(chaos, connection, action, least):
    chaos.fail("GET", action, seconds=0.02)
    began = time.monotonic()
    assert get(connection) == BODY
    assert time.monotonic() - began >= least


def test_every_action_is_tried_here():
    tried = set(re.findall('"([a-z ]+)"', Path(__file__).read_text()))
    assert set(ACTIONS) <= tried
