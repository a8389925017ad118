"""How is a file of a dataset on the Hugging Face Hub read? As a copy of its own, at a pinned commit.

The Hub does not welcome thousands of ranged reads, so a file is fetched whole, by the Hub's own library, into
a temporary file (in TMPDIR) that has no name any more when it is read.
"""

import os
import re
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Any, TypeVar
from urllib.parse import unquote

import huggingface_hub
from huggingface_hub import RepoFile
from huggingface_hub import errors as hub_errors
from huggingface_hub import utils as hub_utils

from ...errors import (
    CannotCreateError,
    DataError,
    NoInputError,
    PermissionDeniedError,
    PruneError,
    UnavailableError,
    UsageError,
)
from ..base import Identity, Input, Progress, RangedInput, ignore_progress
from ..os_errors import display, failure
from .read_only import ReadOnly
from .retries import TransientError, persist
from .workers import WORKERS

_URL = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.*))?", re.DOTALL)
KEPT = 2  # copies: a trailer is read first, and then the same file from its first byte
# Packages whose exceptions mean that the connection failed; the library changed from one to another.
_TRANSPORTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")

Answer = TypeVar("Answer")
Entry = tuple[int, str]  # size and hash of a file at its commit


@dataclass(frozen=True)
class HubAddress:
    """A path in a dataset. `revision` is as the user wrote it: a branch, tag or commit."""

    repository: str
    revision: str
    path: str


class Hub(ReadOnly):
    """URLs of hf://datasets/OWNER/NAME@REVISION/PATH, which are read and never written."""

    def input(self, path: str, progress: Progress = ignore_progress) -> Input:
        return HubInput(path, progress)

    def below(self, folder: str) -> Iterable[str]:
        address = parse(folder)
        pinned = commit(address)
        files = WORKERS.run(partial(_ask, partial(_listing, address, pinned), folder))
        base = folder.removesuffix(address.path)
        _LISTED.update((base + name, entry) for name, entry in files.items())
        return [base + name for name in files]

    def unwritable(self, path: str) -> CannotCreateError:
        remedy = "write to files, and upload them with `hf upload-large-folder`"
        return CannotCreateError("datasets of the Hub are not written to", place=display(path), remedy=remedy)


class HubCopy:
    """A file without a name that is closed with the last input that reads it."""

    def __init__(self, path: str) -> None:
        self.descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __del__(self) -> None:
        os.close(self.descriptor)


@dataclass
class HubInput(RangedInput):
    """A file of a dataset. It is downloaded when it is opened, and the copy goes when it is closed."""

    copy: HubCopy | None = field(default=None, init=False, repr=False)

    @property
    def size(self) -> int | None:
        return self._entry()[0]

    @property
    def identity(self) -> Identity | None:
        return (self.path, *self._entry())

    def check(self) -> None:
        self._entry()

    @contextmanager
    def open(self) -> Iterator[Input]:
        self.copy = self._copied()
        try:
            with super().open() as opened:
                yield opened
        finally:
            self.copy = None

    def read_at(self, offset: int, size: int) -> bytes:
        assert self.copy is not None
        return os.pread(self.copy.descriptor, size, offset)

    def _entry(self) -> Entry:
        return _entry_of(self.path)

    def _copied(self) -> HubCopy:
        size, _ = self._entry()
        copy = _COPIES.pop(self.path, None)
        if copy is None:
            copy = WORKERS.run(partial(_ask, partial(_download, self.path), self.path))
        if os.fstat(copy.descriptor).st_size != size:
            raise DataError("the Hub sent another size than it lists", place=self.name, remedy="run again")
        _COPIES[self.path] = copy
        while len(_COPIES) > KEPT:
            _COPIES.popitem(last=False)
        return copy


# What a listing said, by URL: one request for all files of a pattern, instead of one for each.
_LISTED: dict[str, Entry] = {}
_COPIES: OrderedDict[str, HubCopy] = OrderedDict()


def parse(url: str) -> HubAddress:
    """The dataset, revision and path of a URL. Raises UsageError if it names no dataset."""
    match = _URL.fullmatch(url)
    if match is None:
        remedy = "hf://datasets/OWNER/NAME@REVISION/PATH"
        raise UsageError("names no dataset of the Hub", place=display(url), remedy=remedy)
    # A revision with slashes, as refs/convert/parquet, is written with %2F.
    return HubAddress(match[1], unquote(match[2] or "main"), match[3] or "")


def commit(address: HubAddress) -> str:
    """The commit that a revision means in this process: a branch that moves meanwhile changes nothing."""
    return _commit(address.repository, address.revision, _endpoint())


@cache
def _commit(repository: str, revision: str, endpoint: str | None) -> str:
    def request() -> str:
        return str(_api().repo_info(repository, repo_type="dataset", revision=revision).sha)

    place = f"hf://datasets/{repository}@{revision}"
    return WORKERS.run(partial(_ask, request, place))


def _entry_of(url: str) -> Entry:
    """Size and hash of a file. Raises NoInputError if the dataset has no such file."""
    return _LISTED[url] if url in _LISTED else _looked_up(url, _endpoint())


@cache
def _looked_up(url: str, endpoint: str | None) -> Entry:
    address = parse(url)
    pinned = commit(address)

    def request() -> Entry:
        entries = _api().get_paths_info(
            address.repository, [address.path], revision=pinned, repo_type="dataset"
        )
        for entry in entries:
            if isinstance(entry, RepoFile) and entry.path == address.path:
                return entry.size, entry.blob_id
        raise NoInputError("no such file in the dataset", place=display(url))

    return WORKERS.run(partial(_ask, request, url))


def _listing(address: HubAddress, pinned: str) -> dict[str, Entry]:
    """The files below a folder, by path."""
    entries = _api().list_repo_tree(
        address.repository,
        address.path.rstrip("/") or None,
        recursive=True,
        revision=pinned,
        repo_type="dataset",
    )
    return {entry.path: (entry.size, entry.blob_id) for entry in entries if isinstance(entry, RepoFile)}


def _download(url: str) -> HubCopy:
    """The file as an open copy without a name."""
    address = parse(url)
    try:
        # The library makes a folder of its own names in it; all goes when the file is open.
        with tempfile.TemporaryDirectory(prefix="prune-cli-") as folder:
            path = huggingface_hub.hf_hub_download(
                address.repository,
                address.path,
                repo_type="dataset",
                revision=commit(address),
                local_dir=folder,
                endpoint=_endpoint(),
            )
            return HubCopy(path)
    except OSError as error:
        if error.errno is None or isinstance(error, ConnectionError):
            raise  # not of the disk
        raise failure(error, tempfile.gettempdir(), "copying the input to a temporary file") from None


def _endpoint() -> str | None:
    # The library reads the variable once, when it is imported.
    return os.environ.get("HF_ENDPOINT") or None


def _api() -> Any:
    hub_utils.disable_progress_bars()  # type: ignore[attr-defined]
    hub_utils.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    return huggingface_hub.HfApi(endpoint=_endpoint())


# --- Failures ---


def _ask(request: Callable[[], Answer], url: str) -> Answer:
    """The answer to a request, repeated while the Hub does not answer. For a thread of `workers`."""

    def translated() -> Answer:
        try:
            return request()
        except (PruneError, TransientError):
            raise
        except Exception as error:
            raise failure_of(error, display(url)) from None

    return persist(translated, display(url))


def failure_of(error: Exception, place: str) -> Exception:
    """The error to raise for an exception of the library; exceptions of our own making stay as they are."""
    if isinstance(error, hub_errors.OfflineModeIsEnabled):
        remedy = "unset HF_HUB_OFFLINE"
        return UnavailableError("HF_HUB_OFFLINE forbids to ask the Hub", place=place, remedy=remedy)
    if isinstance(error, hub_errors.GatedRepoError | hub_errors.DisabledRepoError):
        remedy = "ask for access on the Hub, and set HF_TOKEN"
        return PermissionDeniedError("access to the dataset is restricted", place=place, remedy=remedy)
    if isinstance(error, hub_errors.LocalEntryNotFoundError):  # a download whose connection failed
        return TransientError("the Hub does not answer")
    if isinstance(error, hub_errors.RepositoryNotFoundError):
        remedy = "HF_TOKEN shows private ones"
        return NoInputError("no such dataset, or it is private", place=place, remedy=remedy)
    if isinstance(error, hub_errors.RevisionNotFoundError):
        return NoInputError("no such revision of the dataset", place=place)
    if isinstance(error, hub_errors.EntryNotFoundError):
        return NoInputError("no such file in the dataset", place=place)
    if isinstance(error, hub_errors.HFValidationError):
        remedy = "hf://datasets/OWNER/NAME@REVISION/PATH"
        return UsageError("is no name of a dataset", place=place, remedy=remedy)
    return _failed_request(error, place)


def _failed_request(error: Exception, place: str) -> Exception:
    response = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if status in (401, 403):
        remedy = "check HF_TOKEN"
        return PermissionDeniedError(f"the Hub refused access ({status})", place=place, remedy=remedy)
    if status in (408, 429) or (status or 0) >= 500:
        return TransientError(f"the Hub answered {status}")
    if status is not None:
        return UnavailableError(f"the Hub answered {status}", place=place)
    if isinstance(error, ConnectionError) or type(error).__module__.split(".")[0] in _TRANSPORTS:
        return TransientError("the Hub cannot be reached")
    return error
