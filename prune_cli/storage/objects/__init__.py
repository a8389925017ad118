"""The storage of objects: S3 and what speaks its language, Google Cloud Storage and Azure."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from ...errors import (
    CannotCreateError,
    NoInputError,
    PermissionDeniedError,
    PruneError,
    UnavailableError,
    UsageError,
)
from ..base import Input, Output, Progress, ResumableOutput, Storage, committed, ignore_progress, is_an_input
from ..os_errors import display
from ..remote.reading import Meta
from ..remote.workers import WORKERS
from . import uploads
from .client import BucketAbsentError, client_of
from .reading import ObjectInput
from .urls import object_at, parse
from .writing import ObjectOutput, part_size

MANY = 8  # objects of a folder from which on a listing of it costs less than to ask for each
LARGEST_COPY = 5 << 30  # bytes of an object that S3 copies in one request

log = logging.getLogger(__name__)


class Objects(Storage):
    """URLs of objects. Requests are made only for URLs that a command names."""

    def __init__(self) -> None:
        # What a listing said of objects that nobody has opened yet.
        self.listed: dict[str, Meta] = {}

    def input(self, path: str, progress: Progress = ignore_progress) -> Input:
        # Once: who opens the object again, perhaps an hour later, should see how it is then.
        return ObjectInput(path, progress, meta=self.listed.pop(path, None))

    def below(self, folder: str) -> Iterable[str]:
        address = parse(folder)
        client = client_of(address.bucket)
        base = folder.removesuffix(address.key)
        # A page of a listing holds a thousand keys, with their sizes and ETags: they are not asked for again.
        entries = WORKERS.run(lambda: client.entries(address.key))
        self.listed.update((base + key, meta) for key, meta in entries)
        return [base + key for key, _ in entries]

    def exists(self, path: str) -> bool:
        address = object_at(path)
        client = client_of(address.bucket)
        return WORKERS.run(lambda: client.find(address.key)) is not None

    def existing(self, paths: Sequence[str]) -> set[str]:
        by_folder: dict[str, list[str]] = {}
        for path in paths:
            by_folder.setdefault(path[: path.rindex("/") + 1], []).append(path)
        return {path for folder in by_folder.items() for path in self._existing_in(*folder)}

    def _existing_in(self, folder: str, paths: list[str]) -> set[str]:
        if len(paths) < MANY:
            return super().existing(paths)
        address = parse(folder)
        client = client_of(address.bucket)
        try:
            entries = WORKERS.run(lambda: client.entries(address.key))
        except PermissionDeniedError:
            # Who may look at objects is not always allowed to list them.
            return super().existing(paths)
        keys = {key for key, _ in entries}
        return {path for path in paths if object_at(path).key in keys}

    def is_file(self, path: str) -> bool:
        # By its name, without a request: each of a thousand operands is looked at, one after another.
        return not path.endswith("/")

    def location(self, path: str) -> str:
        address = parse(path)
        return f"{address.bucket.scheme}://{address.bucket.account}/{address.bucket.name}/{address.key}"

    @contextmanager
    def create(self, path: str, inputs: Sequence[Input] = (), *, force: bool = False) -> Iterator[Output]:
        self.check_target(path, inputs, force=force)
        uploads.warn_of_unfinished(path)
        with committed(ObjectOutput(path, part_size(inputs), force=force)) as output:
            yield output

    def copy(self, source: Input, path: str) -> bool:
        origin, target = parse(source.path), object_at(path)
        # Larger ones would have to be copied in parts.
        if origin.bucket != target.bucket or (source.size or 0) > LARGEST_COPY:
            return False
        client = client_of(target.bucket)
        try:
            WORKERS.run(lambda: client.copy(origin.key, target.key))
        except UnavailableError:
            raise
        except PruneError as error:
            log.info("%s: the store does not copy it by itself (%s)", display(path), error.fault)
            return False
        return True

    def check_target(self, path: str, inputs: Sequence[Input] = (), *, force: bool = False) -> None:
        if any(isinstance(file, ObjectInput) and self.is_same(file.path, path) for file in inputs):
            raise is_an_input(path)
        address = object_at(path)
        client = client_of(address.bucket)
        # With `force` one look is enough for all outputs in the bucket: whether it is there, and open to us.
        if force and client.is_known:
            return
        try:
            present = self.exists(path)
        except BucketAbsentError as error:
            remedy = "make the bucket first"
            raise CannotCreateError(error.fault, place=display(path), remedy=remedy) from None
        except NoInputError as error:
            raise CannotCreateError(error.fault, place=display(path), remedy=error.remedy) from None
        except PermissionDeniedError:
            # Who may write to a bucket is not always allowed to read from it.
            if not force or not client.is_known:
                raise
            return
        if present and not force:
            raise CannotCreateError("exists", place=display(path), remedy="-f replaces it")

    def is_same(self, path: str, other: str) -> bool:
        """Whether two URLs name one object."""
        return self.location(path) == self.location(other)

    def resume(
        self, path: str, inputs: Sequence[Input] = (), *, force: bool = False
    ) -> AbstractContextManager[ResumableOutput]:
        # A part of an upload cannot be read back, and an object cannot be appended to.
        raise UsageError(
            "--resume cannot continue an object",
            place=display(path),
            remedy="-O URL/ writes one object per input and skips finished ones, or write to a local -o FILE",
        )

    def scratch(self, path: str) -> AbstractContextManager[ResumableOutput]:
        raise UsageError(
            "--resume keeps its results in a file beside the output, which an object cannot have",
            place=display(path),
            remedy="write to a local -o FILE",
        )
