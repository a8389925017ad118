"""How is an object looked up, read and written? The only file that imports the client library.

A request is made once: `retries` repeats it. Only the parts of an upload are repeated by the library itself,
because it does not let go of a part.
"""

import os
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from ...errors import NoInputError, PermissionDeniedError
from ..os_errors import display
from ..remote import retries
from ..remote.reading import Meta
from ..remote.retries import TransientError, patience, persist
from . import credentials
from .answers import BucketAbsentError, ChangedError, failure_of, misconfigured, spent
from .urls import Bucket

# Metadata of what we write: tells our own object from somebody else's, if the answer to a write is lost.
TOKEN = "prunecli"
ANSWER_TIMEOUT = timedelta(seconds=120)  # body included
LISTING_RETRIES = 6  # of a page, before the listing is begun again
PAGE = 1000  # keys of a listing, the most that S3 returns
STALL_TIMEOUT = timedelta(seconds=30)  # without a byte
CONNECT_TIMEOUT = timedelta(seconds=10)
PART_TIMEOUT = timedelta(seconds=300)  # for a part of an upload

_STORES: dict[str, Callable[..., S3Store | GCSStore | AzureStore]] = {
    "s3": S3Store,
    "gs": GCSStore,
    "az": AzureStore,
}
_RELEVANT = re.compile("AWS_|AZURE_|GOOGLE_|PRUNE_CLI_")
Answer = TypeVar("Answer")
__all__ = ["BucketAbsentError", "ChangedError", "Client", "Meta", "Upload", "client_of"]


class Client:
    """The objects of one bucket.

    Every method blocks, so it is called in a thread of `workers`. All raise the PruneErrors of
    `answers.failure_of`, with the URL of the object, and UnavailableError once the patience is spent.
    """

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.is_known = False  # whether a request showed that the bucket is there
        self.is_conditional: bool | None = None  # whether the store was seen to obey If-None-Match
        self.credentials = credentials.chosen(bucket)
        self._once = self._store(max_retries=0, timeout=ANSWER_TIMEOUT)

    def url(self, key: str) -> str:
        """The URL of an object, for messages."""
        host = f"{self.bucket.name}@{self.bucket.account}" if self.bucket.account else self.bucket.name
        return display(f"{self.bucket.scheme}://{host}/{key}")

    def head(self, key: str) -> Meta:
        """Size and version of an object. Raises NoInputError."""
        try:
            meta = self._ask(key, lambda: self._head(key))
        except (NoInputError, PermissionDeniedError):
            # The answer to HEAD has no body, and does not say why. That to GET does.
            meta = self._ask(key, lambda: self._explained(key))
        self.is_known = True
        return meta

    def find(self, key: str) -> Meta | None:
        """As `head`; None if the bucket has no such object. Raises BucketAbsentError."""
        try:
            return self.head(key)
        except BucketAbsentError:
            raise
        except NoInputError:
            self.is_known = True
            return None

    def get(self, key: str, start: int, stop: int, meta: Meta) -> memoryview:
        """The bytes of a range of the object that `meta` describes. Raises ChangedError if it is another."""
        return self._ask(key, lambda: self._range(key, start, stop, meta))

    def put(self, key: str, data: bytes | bytearray, token: str, *, exclusive: bool) -> bool:
        """Write a small object in one request. Returns False if `exclusive` and the key is taken."""
        mode: Literal["create", "overwrite"] = "create" if exclusive else "overwrite"

        def request() -> bool:
            try:
                attributes = {TOKEN: token}
                obstore.put(
                    self._once, key, bytes(data), attributes=attributes, mode=mode, use_multipart=False
                )
            except AlreadyExistsError:
                return False
            return True

        return self._ask(key, request)

    def copy(self, key: str, target: str) -> None:
        """Have the store copy an object within the bucket."""
        self._ask(target, lambda: obstore.copy(self._once, key, target, overwrite=True))

    def upload(self, key: str, part: int, concurrency: int, token: str) -> "Upload":
        """An upload in parts of `part` bytes. No request is made before the first part is full."""
        return Upload(self, key, part, concurrency, token)

    def entries(self, prefix: str) -> list[tuple[str, Meta]]:
        """Key and description of every object whose key begins with the folder `prefix`."""
        return self._ask(prefix, lambda: self._listing(prefix))

    # --- Single requests ---

    def _head(self, key: str) -> Meta:
        result = obstore.get(self._once, key, options={"head": True})
        return _meta(result.meta, result.attributes.get(TOKEN))

    def _listing(self, prefix: str) -> list[tuple[str, Meta]]:
        # The library follows the pages, and repeats one that fails: to begin behind a key instead is not
        # obeyed by every store, and would list the first page for ever.
        store = self._store(max_retries=LISTING_RETRIES, timeout=ANSWER_TIMEOUT)
        pages = obstore.list(store, prefix or None, chunk_size=PAGE)
        return [(entry["path"], _meta(entry)) for page in pages for entry in page]

    def _explained(self, key: str) -> Meta:
        result = obstore.get(self._once, key, options={"range": (0, 1)})
        return _meta(result.meta)

    def _range(self, key: str, start: int, stop: int, meta: Meta) -> memoryview:
        options: dict[str, Any] = {"range": (start, stop)}
        # A weak ETag never matches: the comparison below has to do.
        if meta.etag and not meta.etag.startswith("W/"):
            options["if_match"] = meta.etag
        result = obstore.get(self._once, key, options=options)  # type: ignore[arg-type]
        # Not every server obeys If-Match.
        answered = _meta(result.meta)
        if (answered.tag, answered.size) != (meta.tag, meta.size):
            raise ChangedError("changed while it was read", place=self.url(key), remedy="run again")
        data = memoryview(result.bytes())
        if len(data) != stop - start or tuple(result.range) != (start, stop):
            raise TransientError(f"{len(data)} bytes came of the {stop - start} asked for")
        return data

    def _ask(self, key: str, request: Callable[[], Answer]) -> Answer:
        url = self.url(key)

        def translated() -> Answer:
            try:
                return request()
            except (BaseError, OSError, ValueError) as error:
                raise failure_of(error, url, self.credentials.origin) from None

        return persist(translated, url)

    # --- Stores of the library ---

    def _store(self, max_retries: int, timeout: timedelta) -> S3Store | GCSStore | AzureStore:
        common: dict[str, Any] = {
            "client_options": {
                "timeout": timeout,
                "connect_timeout": CONNECT_TIMEOUT,
                "read_timeout": STALL_TIMEOUT,
                # Only a user who names an http:// endpoint gets one.
                "allow_http": True,
            },
            "retry_config": {
                "max_retries": max_retries,
                "retry_timeout": timedelta(seconds=patience() + 1),
                "backoff": {
                    "init_backoff": timedelta(seconds=retries.FIRST_PAUSE),
                    "max_backoff": timedelta(seconds=retries.LONGEST_PAUSE),
                    "base": 2,
                },
            },
            **self.credentials.options,
        }
        if self.bucket.account:
            common["account_name"] = self.bucket.account
        try:
            return _STORES[self.bucket.scheme](self.bucket.name, **common)
        except (BaseError, ValueError) as error:
            raise misconfigured(error, f"{self.bucket.scheme}://{self.bucket.name}") from None


class Upload:
    """An object that is written in parts, and absent until `complete` returns.

    One thread at a time. The library repeats the parts itself.
    """

    def __init__(self, client: Client, key: str, part: int, concurrency: int, token: str) -> None:
        self.client = client
        self.key = key
        # As many tries as fit into the patience: the pauses grow to 15 seconds.
        store = client._store(max_retries=1000, timeout=PART_TIMEOUT)
        self.file = obstore.open_writer(
            store, key, buffer_size=part, max_concurrency=concurrency, attributes={TOKEN: token}
        )

    def write(self, data: bytes | bytearray) -> None:
        """Append bytes. Raises PruneError."""
        self._do(lambda: self.file.write(data))

    def complete(self) -> None:
        """Make the object visible. Raises PruneError; it may be there even so, if only the answer is lost."""
        self._do(self.file.close)

    def abort(self) -> None:
        """Remove the parts. Raises nothing."""
        with suppress(BaseError, OSError, ValueError):
            self.file.__exit__(ValueError, ValueError("abandoned"), None)

    def _do(self, step: Callable[[], object]) -> None:
        try:
            step()
        except (BaseError, OSError, ValueError) as error:
            url = self.client.url(self.key)
            failure = failure_of(error, url, self.client.credentials.origin)
            if isinstance(failure, TransientError):
                failure = spent(failure, url)
            raise failure from None


def _meta(entry: Any, token: str | None = None) -> Meta:
    etag = entry["e_tag"]
    if etag and not etag.endswith('"'):
        # Azure quotes it in the headers of an object, and does not in a listing.
        etag = f'"{etag}"'
    changed: datetime = entry["last_modified"]
    return Meta(entry["size"], etag or changed.isoformat(), etag, token)


def client_of(bucket: Bucket) -> Client:
    """The client of a bucket: one for each bucket of the process, so that connections are used again."""
    return _client(bucket, tuple(sorted(item for item in os.environ.items() if _RELEVANT.match(item[0]))))


@cache
def _client(bucket: Bucket, environment: tuple[tuple[str, str], ...]) -> Client:
    # The library reads the variables once, and a process may change them between two runs.
    return Client(bucket)
