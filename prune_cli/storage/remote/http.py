"""How is a file read that a web server has? By range; from a server without ranges, as a copy.

Pages are read only, and without any library: the standard one follows redirects and obeys the variables that
name a proxy.
"""

import os
import re
import ssl
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from http.client import HTTPException, HTTPResponse

from ...errors import (
    CannotCreateError,
    DataError,
    InputOutputError,
    NoInputError,
    PermissionDeniedError,
    PruneError,
    UnavailableError,
)
from ...version import __version__
from ..base import CHUNK, Identity, Input, Progress, ignore_progress
from ..os_errors import display, failure
from .read_only import ReadOnly
from .reading import Meta, RemoteInput
from .retries import TransientError, persist
from .workers import WORKERS

SILENCE = 30.0  # seconds without a byte after which a request is repeated
THROTTLED = (408, 425, 429)  # and everything from 500 on
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


class Web(ReadOnly):
    """URLs of http:// and https://, which are read and never written."""

    def input(self, path: str, progress: Progress = ignore_progress) -> Input:
        return PageInput(path, progress)

    def is_file(self, path: str) -> bool:
        return not path.endswith("/")  # by its name, without a request

    def unwritable(self, path: str) -> CannotCreateError:
        remedy = "write to a file, or to s3://, gs:// or az://"
        return CannotCreateError("a web server cannot be written to", place=display(path), remedy=remedy)


class Copy:
    """A temporary file that is closed with the last input that reads it."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="prune-cli-")

    def __del__(self) -> None:
        self.file.close()

    def fill(self, response: HTTPResponse) -> None:
        """Store a body. Raises PruneError if the disk is full, TransientError if less than announced came."""
        try:
            while data := response.read(CHUNK):
                self._store(data)
        finally:
            self.file.flush()
        expected = response.headers.get("Content-Length")
        if expected is not None and self.file.tell() != int(expected):
            raise TransientError(f"{self.file.tell()} bytes came of {expected}")

    def _store(self, data: bytes) -> None:
        try:
            self.file.write(data)
        except OSError as error:
            raise failure(error, tempfile.gettempdir(), "copying the input to a temporary file") from None


@dataclass
class PageInput(RemoteInput):
    """A file of a web server.

    If the server knows no ranges, or does not say which version it sends, the file is fetched whole to a
    temporary file when it is opened: a response cannot be held open as long as a run may take.
    """

    copy: Copy | None = field(default=None, init=False, repr=False)

    @property
    def size(self) -> int | None:
        return self.version.size if self.version.size >= 0 else None

    @property
    def identity(self) -> Identity | None:
        # Without a version nothing could tell that the file is the same when it is read again.
        return super().identity if self.has_ranges else None

    @property
    def has_ranges(self) -> bool:
        """Whether the server sends parts of the file, and names the version that they are of."""
        return bool(self.version.tag)

    def duplicate(self) -> Input:
        duplicate = replace(self, keep=False)
        duplicate.copy = self.copy
        return duplicate

    @contextmanager
    def open(self) -> Iterator[Input]:
        if self.has_ranges:
            with super().open() as opened:
                yield opened
            return
        if self.copy is None:
            self.copy = WORKERS.run(partial(persist, self._download, self.name))
        self.copy.file.seek(0)
        yield self

    def read(self, size: int, /) -> bytes:
        if self.copy is None:
            return super().read(size)
        data = self.copy.file.read(size)
        self.progress(len(data))
        return data

    def read_at(self, offset: int, size: int) -> bytes:
        if self.copy is None:
            return super().read_at(offset, size)
        return os.pread(self.copy.file.fileno(), size, offset)

    def look(self) -> Meta:
        return persist(self._look, self.name)

    def fetch(self, start: int, stop: int, meta: Meta) -> memoryview:
        return persist(partial(self._fetch, start, stop, meta), self.name)

    # --- Single requests ---

    def _look(self) -> Meta:
        # Not HEAD: addresses that are signed for a time allow nothing but GET.
        try:
            with self._get({"Range": "bytes=0-0"}) as response:
                return _meta(response)
        except DataError:
            # An empty file has no first byte: some servers refuse the range, and some send nothing.
            with self._get({}) as response:
                return _meta(response)

    def _fetch(self, start: int, stop: int, meta: Meta) -> memoryview:
        headers = {"Range": f"bytes={start}-{stop - 1}"}
        if meta.etag and not meta.etag.startswith("W/"):
            headers["If-Match"] = meta.etag
        with self._get(headers) as response:
            # Not every server obeys If-Match, and some send the whole file for a range now and then.
            answered = _meta(response)
            if answered.size >= 0 and (answered.tag or meta.tag, answered.size) != (meta.tag, meta.size):
                raise self._changed()
            place = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
            if place is None or (int(place[1]), int(place[2])) != (start, stop - 1):
                raise UnavailableError("the server sent another range than was asked for", place=self.name)
            data = response.read(stop - start)
        if len(data) != stop - start:
            raise TransientError(f"{len(data)} bytes came of the {stop - start} asked for")
        return memoryview(data)

    def _download(self) -> Copy:
        """The whole file in a temporary one. Its length is that which the server announced."""
        copy = Copy()
        with self._get({}) as response:
            self._check_length(response)
            copy.fill(response)
        return copy

    def _check_length(self, response: HTTPResponse) -> None:
        # A body in chunks has an end of its own, which the library checks.
        is_chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if response.headers.get("Content-Length") is None and not is_chunked:
            fault = "the server does not say how long the file is, so that a cut could not be noticed"
            raise UnavailableError(fault, place=self.name, remedy="download it by other means, and check it")

    @contextmanager
    def _get(self, headers: dict[str, str]) -> Iterator[HTTPResponse]:
        """The response to a request. Raises TransientError, also while the block reads the body."""
        agent = {"User-Agent": f"prune-cli/{__version__}", "Accept-Encoding": "identity"}
        try:
            request = urllib.request.Request(self.path, headers={**agent, **headers})
            with urllib.request.urlopen(request, timeout=SILENCE) as response:
                yield response
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error.code, error.reason) from None
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise UnavailableError(str(error.reason), place=self.name) from None
            raise TransientError(str(error.reason)) from None
        except (ConnectionError, TimeoutError, ssl.SSLError, HTTPException) as error:
            raise TransientError(str(error) or type(error).__name__) from None
        except ValueError as error:
            raise InputOutputError(f"is not a URL that can be read: {error}", place=self.name) from None

    def _refusal(self, status: int, reason: str) -> PruneError | TransientError:
        fault = f"the server answered {status} {reason}"
        if status >= 500 or status in THROTTLED:
            return TransientError(fault)
        if status in (404, 410):
            return NoInputError(fault, place=self.name)
        if status in (401, 403):
            return PermissionDeniedError(fault, place=self.name)
        if status in (412, 416):
            return self._changed()
        return InputOutputError(fault, place=self.name)

    def _changed(self) -> DataError:
        return DataError("changed while it was read", place=self.name, remedy="run again")


def _meta(response: HTTPResponse) -> Meta:
    """Size and version by the headers; the version is empty if the server cannot be read by range."""
    etag = response.headers.get("ETag")
    tag = etag or response.headers.get("Last-Modified") or ""
    place = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status == 206 and place:
        return Meta(int(place[3]), tag, etag)
    return Meta(int(response.headers.get("Content-Length", -1)), "", None)
