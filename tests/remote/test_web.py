"""Files of web servers: by range, or as a whole where a server knows no ranges."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow as pa
import pytest

from prune_cli import storage
from prune_cli.errors import DataError, UnavailableError
from prune_cli.storage.remote import retries

from ..conftest import lines, records, scored
from ..parquet_files import written

RECORDS = scored(300)
CONTENT = lines(RECORDS)


class Handler(BaseHTTPRequestHandler):
    server: "Server"
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        server = self.server
        path = self.path.partition("?")[0]
        server.requests.append((path, self.headers.get("Range")))
        if path == "/moved":
            self.answer(302, b"", {"Location": "/file"})
        elif path == "/absent":
            self.answer(404, b"none")
        elif path == "/private":
            self.answer(403, b"no")
        elif path == "/busy" and len(server.requests) < 3:
            self.answer(503, b"wait")
        else:
            self.send_file(path)

    def send_file(self, path):
        body = self.server.content
        asked = self.headers.get("Range")
        # A name says what this server cannot do.
        headers = {} if "untagged" in path else {"ETag": self.server.tag}
        if asked is None or "rangeless" in path:
            length = {} if "endless" in path else {"Content-Length": str(len(body))}
            self.answer(200, body[: len(body) // 2] if "cut" in path else body, {**headers, **length})
            return
        first, last = (int(part) for part in asked.removeprefix("bytes=").split("-"))
        if first >= len(body):
            self.answer(416, b"")
            return
        piece = body[first : last + 1]
        headers["Content-Range"] = f"bytes {first}-{first + len(piece) - 1}/{len(body)}"
        self.answer(206, piece, {**headers, "Content-Length": str(len(piece))})

    def answer(self, status, body, headers=None):
        self.send_response(status)
        headers = {"Content-Length": str(len(body))} if headers is None else headers
        for name, value in headers.items():
            self.send_header(name, value)
        if "Content-Length" not in headers or int(headers["Content-Length"]) != len(body):
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        return


class Server(ThreadingHTTPServer):
    content = CONTENT
    tag = '"one"'

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def web(monkeypatch):
    monkeypatch.setenv(retries.VARIABLE, "2")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["file", "moved", "busy", "rangeless", "untagged", "file?signature=a%2Fb"])
def test_a_file_is_read_from_a_web_server(name, web, here, tmp_path):
    here("rank", f"{web.url}/{name}", "-o", tmp_path / "ranked")
    (tmp_path / "in.jsonl").write_bytes(CONTENT)
    here("rank", tmp_path / "in.jsonl", "-o", tmp_path / "local")
    assert (tmp_path / "ranked").read_bytes() == (tmp_path / "local").read_bytes()


def test_a_file_without_ranges_is_fetched_once_and_read_as_often_as_needed(web, here):
    kept = here("slice", "--keep", "top", "--frac", "0.5", "-k", "perplexity", f"{web.url}/rangeless").stdout
    scores = sorted(record["perplexity"] for record in RECORDS if record["perplexity"] is not None)
    assert min(record["perplexity"] for record in records(kept)) == scores[len(scores) // 2]
    # The look at its beginning, which this server answers in full, and the file.
    assert [asked for _, asked in web.requests] == ["bytes=0-0", None]


def test_an_empty_file_is_reported_as_one(web, here):
    web.content = b""
    assert b"no bytes at all" in here("rank", f"{web.url}/file", status=65).stderr


@pytest.mark.parametrize(
    ("name", "status", "fault"),
    [
        ("absent", 66, b"answered 404"),
        ("private", 77, b"answered 403"),
        ("rangeless-cut", 69, b"tries"),
        ("rangeless-endless", 69, b"does not say how long the file is"),
    ],
)
def test_failures_have_their_status_and_name_the_address(name, status, fault, web, here):
    said = here("rank", f"{web.url}/{name}", status=status).stderr
    assert fault in said
    assert f"{web.url}/{name}".encode() in said


def test_a_server_that_is_not_there_is_69(here, monkeypatch):
    monkeypatch.setenv(retries.VARIABLE, "0.1")
    assert b"refused" in here("rank", "http://127.0.0.1:1/x", status=69).stderr


def test_a_file_that_changes_between_two_ranges_is_an_error(web):
    with storage.input_at(f"{web.url}/file").open() as file:
        file.read_at(0, 10)
        web.tag = '"two"'
        file.forget()
        with pytest.raises(DataError, match="changed while it was read"):
            file.read_at(0, 10)


def test_a_server_that_sends_another_range_is_not_believed(web, monkeypatch):
    with storage.input_at(f"{web.url}/file").open() as file:
        monkeypatch.setattr(Handler, "send_file", send_everything)
        with pytest.raises(UnavailableError, match="another range"):
            file.read_at(10, 10)


def send_everything(handler, path):
    """Obey no range, as some servers do once a file is in their cache."""
    body = handler.server.content
    handler.answer(200, body, {"ETag": handler.server.tag, "Content-Length": str(len(body))})


def test_a_web_server_cannot_be_written_to(web, here, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(CONTENT)
    said = here("rank", tmp_path / "in.jsonl", "-o", f"{web.url}/out", status=73).stderr
    assert b"a web server cannot be written to" in said


@pytest.mark.parametrize("name", ["file", "rangeless", "untagged"])
def test_parquet_is_read_by_range_or_copied(name, web, here):
    web.content = written(pa.Table.from_pylist(RECORDS), row_group_size=100)
    assert records(here("rank", f"{web.url}/{name}").stdout) == records(here("rank", stdin=CONTENT).stdout)
    # The start, both ends, and each of three row groups; a server without ranges sends everything.
    assert len(web.requests) <= 8
