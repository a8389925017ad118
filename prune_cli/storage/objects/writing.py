"""How is an object written? As an upload that is completed only when the output is whole."""

import logging
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial

from ...errors import CannotCreateError, InputOutputError, NoInputError, PermissionDeniedError, PruneError
from ..base import Input, Output
from ..os_errors import display
from ..remote.reading import Meta
from ..remote.workers import WORKERS
from .client import Upload, client_of
from .urls import object_at

MOST_PARTS = 9_000  # of an upload: S3 allows 10,000, and the size of the output is only estimated
SMALLEST_PART = 8 << 20
LARGEST_PART = 512 << 20  # S3 would take 5 GiB; an object may have 5 TiB
# For input of unknown size: enough for 288 GB. Four parts are held in memory.
UNKNOWN_PART = 32 << 20
# An output may be larger than its input: plain text of a compressed file, with more fields.
GROWTH = 10
MEMORY = 96 << 20  # bytes of parts under way
MOST_AT_ONCE = 4  # parts under way
PIECE = 4 << 20  # bytes that are handed to the library at once
ABORTING = 20.0  # seconds that a run that failed waits for its parts to be removed

log = logging.getLogger(__name__)


def part_size(inputs: Sequence[Input]) -> int:
    """Bytes of a part, so that an output made of these inputs has few enough of them."""
    sizes = [file.size for file in inputs]
    if not sizes or None in sizes:
        return UNKNOWN_PART
    expected = GROWTH * sum(size for size in sizes if size is not None)
    return min(max(SMALLEST_PART, -(-expected // MOST_PARTS)), LARGEST_PART)


class ObjectOutput(Output):
    """An object that is absent, or as it was, until `commit`.

    Up to `part` bytes are collected, and a small output is one request. Larger ones are uploaded in parts.
    """

    def __init__(self, path: str, part: int, *, force: bool) -> None:
        super().__init__(path)
        address = object_at(path)
        self.key = address.key
        self.client = client_of(address.bucket)
        self.part = part
        self.force = force
        # Tells our object from somebody else's, if the answer of the store is lost.
        self.token = secrets.token_hex(16)
        self.buffer = bytearray()
        self.upload: Upload | None = None
        self.pending: Future[None] | None = None  # the step of the upload that is under way

    def write(self, data: bytes | memoryview) -> None:
        self.buffer += data
        self.written += len(data)
        if len(self.buffer) >= (PIECE if self.upload else self.part):
            self._send()

    def commit(self) -> None:
        if self.upload is None:
            self._put()
        else:
            self._complete()
        self._verify()

    def abandon(self) -> None:
        self.buffer = bytearray()
        upload = self.upload
        if upload is None:
            return
        try:
            # The writer is used by one thread at a time: a part that is under way comes first.
            if self.pending:
                _wait(self.pending, ABORTING)
            WORKERS.submit(upload.abort).result(ABORTING)
        except FutureTimeoutError:
            log.warning(
                "%s: the store does not answer, so parts of the upload may be left; "
                "a rule for incomplete uploads removes them (see the manual)",
                display(self.path),
            )

    # --- Steps ---

    def _send(self) -> None:
        """Hand what was collected to the upload, once the step before is done."""
        if self.upload is None:
            at_once = max(1, min(MOST_AT_ONCE, MEMORY // self.part))
            self.upload = self.client.upload(self.key, self.part, at_once, self.token)
        self._finish_step()
        data = self.buffer
        self.buffer = bytearray()
        self.pending = WORKERS.submit(partial(self.upload.write, data))

    def _finish_step(self) -> None:
        if self.pending:
            pending = self.pending
            self.pending = None
            try:
                pending.result()
            except PruneError:
                raise
            except BaseException:
                self.pending = pending  # a signal: the step goes on
                raise

    def _put(self) -> None:
        """Write a small output in one request, under the condition that nobody else has written it."""
        data = bytes(self.buffer)
        put = partial(self.client.put, self.key, data, self.token, exclusive=not self.force)
        if WORKERS.run(put):
            if not self.force:
                self._test_condition(put)
            return
        # A store says "exists" also to the one who created it, if its first answer was lost.
        meta = self._look()
        if not self._is_ours(meta) and not self._has_content(meta, data):
            raise self._appeared()

    def _test_condition(self, put: Callable[[], bool]) -> None:
        """Warn, once for each bucket, if the store does not obey the condition: the same again must fail."""
        if self.client.is_conditional is None:
            self.client.is_conditional = not WORKERS.run(put)
        if not self.client.is_conditional:
            self.client.is_conditional = True  # one warning is enough
            log.warning(
                "%s: the store ignores If-None-Match, so two runs that write one object may not notice",
                display(self.path),
            )

    def _has_content(self, meta: Meta | None, data: bytes) -> bool:
        """Whether the object holds these very bytes: then it does not matter who wrote it."""
        if meta is None or meta.size != len(data):
            return False
        if not data:
            return True
        return WORKERS.run(partial(self.client.get, self.key, 0, len(data), meta)) == data

    def _complete(self) -> None:
        upload = self.upload
        assert upload is not None
        if self.buffer:
            self._send()
        self._finish_step()
        # Uploads in parts have no condition: between this look and the end another run may finish.
        if not self.force and self._look() is not None:
            raise self._appeared()
        try:
            WORKERS.run(upload.complete)
        except PruneError:
            # The upload may be complete, and only the answer lost.
            if not self._is_ours(self._look()):
                raise
        self.upload = None

    def _verify(self) -> None:
        """Compare the object with what was written, and keep its version."""
        try:
            meta = WORKERS.run(partial(self.client.head, self.key))
        except PermissionDeniedError:
            return  # who may write to a bucket is not always allowed to read from it
        except NoInputError:
            raise InputOutputError("is not there after it was written", place=display(self.path)) from None
        # A store that keeps no metadata has no token: then the size has to do.
        if meta.token not in (None, self.token):
            raise InputOutputError(
                "was replaced by somebody else right after it was written", place=display(self.path)
            )
        if meta.size != self.written:
            fault = f"holds {meta.size} bytes after {self.written} were written"
            raise InputOutputError(fault, place=display(self.path), remedy="write it again with -f")
        self.etag = meta.etag

    def _look(self) -> Meta | None:
        try:
            return WORKERS.run(partial(self.client.find, self.key))
        except PermissionDeniedError:
            return None

    def _is_ours(self, meta: Meta | None) -> bool:
        return meta is not None and meta.token == self.token

    def _appeared(self) -> CannotCreateError:
        return CannotCreateError(
            "appeared while it was being made", place=display(self.path), remedy="-f replaces it"
        )


def _wait(future: "Future[None]", seconds: float) -> None:
    """Wait for a step, whose failure has been reported or does not matter any more."""
    try:
        future.result(seconds)
    except (PruneError, CancelledError):
        return
