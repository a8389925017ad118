"""How does Google Cloud Storage run on this machine? As moto behind a translator of its conditions.

GCS's XML interface is S3's but for its headers: a generation stands where S3 has an ETag. It asks for no
credentials. Copying is not translated, and a real GCS knows no condition on multipart uploads.
"""

import http.client
import http.server
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from . import signing, stores

HOP_BY_HOP = {"transfer-encoding", "connection", "content-length", "host", "authorization"}


class Translator(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    upstream: int

    def translate(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        generation = self.headers.get("x-goog-if-generation-match")
        if generation == "0":  # of an object that does not exist
            headers["If-None-Match"] = "*"
        elif generation:
            headers["If-Match"] = generation
        # A key's slashes arrive escaped; moto takes them as they stand.
        path = self.path.replace("%2F", "/").replace("%2E", ".")
        with closing(http.client.HTTPConnection("127.0.0.1", self.upstream)) as connection:
            url = f"http://127.0.0.1:{self.upstream}{path}"
            signed = signing.s3_headers(self.command, url, body, stores.KEY, stores.SECRET, {})
            connection.request(self.command, path, body, headers | signed)
            response = connection.getresponse()
            self._answer(response, response.read())

    def _answer(self, response: http.client.HTTPResponse, body: bytes) -> None:
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        if etag := response.getheader("ETag"):
            self.send_header("x-goog-generation", etag)
        length = response.getheader("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = translate

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[int]:
    """The port of an HTTP server in a thread of this process."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        # A connection that a client keeps open must not keep the test run alive.
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def gcs(folder: Path) -> Iterator[stores.Store]:
    with stores.moto(folder) as moto:
        handler = type("Handler", (Translator,), {"upstream": moto.port})
        with serving(handler) as port:
            # The looks of a test itself go to moto; the client gets the translator.
            endpoint = f"http://127.0.0.1:{port}"
            yield replace(
                moto, scheme="gs", variables={"GOOGLE_BASE_URL": endpoint, "GOOGLE_SKIP_SIGNATURE": "true"}
            )
