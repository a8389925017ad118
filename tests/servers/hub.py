"""What does a test ask for in the place of the Hugging Face Hub? A server of our own.

The real Hub cannot be reached from here. This one speaks the four endpoints that reading a dataset needs, by
the Hub's documentation and its library: a revision's commit, the tree, the entries of paths, and the files.
"""

import hashlib
import http.server
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from .gcs import serving

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Dataset:
    """The files of OWNER/NAME at its only commit, and what is asked for."""

    files: dict[str, bytes]
    token: str | None = None  # who does not send it gets 401
    failing: int = 0  # answers that are 503
    requests: list[str] = field(default_factory=list)
    port: int = 0

    def entry(self, path: str) -> dict[str, Any]:
        content = self.files[path]
        oid = hashlib.sha1(content).hexdigest()
        return {"type": "file", "path": path, "size": len(content), "oid": oid}


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    dataset: Dataset

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.dataset.requests.append(f"{self.command} {self.path}")
        path = unquote(urlsplit(self.path).path)
        if self.dataset.failing:
            self.dataset.failing -= 1
            self.answer(503, {})
        elif self.dataset.token and self.headers.get("Authorization") != f"Bearer {self.dataset.token}":
            self.answer(401, {}, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif path.startswith("/api/datasets/owner/name/"):
            self.describe(path.removeprefix("/api/datasets/owner/name/"), body)
        elif path.startswith(f"/datasets/owner/name/resolve/{COMMIT}/"):
            self.send_file(path.removeprefix(f"/datasets/owner/name/resolve/{COMMIT}/"))
        else:
            self.answer(404, {}, {"X-Error-Code": "RepoNotFound"})

    def describe(self, path: str, body: bytes) -> None:
        kind, _, rest = path.partition("/")
        if kind == "revision" and rest not in ("main", COMMIT):
            self.answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        elif kind == "revision":
            self.answer(200, {"id": "owner/name", "sha": COMMIT, "siblings": []})
        elif kind == "tree":
            folder = rest.partition("/")[2]
            paths = [path for path in self.dataset.files if path.startswith(folder)]
            self.answer(200, [self.dataset.entry(path) for path in paths])
        else:
            wanted = self.wanted(body)
            self.answer(200, [self.dataset.entry(path) for path in wanted if path in self.dataset.files])

    def wanted(self, body: bytes) -> list[str]:
        if "json" in self.headers.get("Content-Type", ""):
            return json.loads(body)["paths"]
        return parse_qs(body.decode())["paths"]

    def send_file(self, path: str) -> None:
        content = self.dataset.files.get(path)
        if content is None:
            self.answer(404, {}, {"X-Error-Code": "EntryNotFound"})
            return
        etag = f'"{hashlib.sha1(content).hexdigest()}"'
        self.answer(200, content, {"ETag": etag, "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"})

    def answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = handle_request

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def hub(files: dict[str, bytes]) -> Iterator[Dataset]:
    """A Hub with one dataset, owner/name."""
    dataset = Dataset(files)
    with serving(type("OneHub", (Handler,), {"dataset": dataset})) as dataset.port:
        yield dataset
