"""How is an object read? By range, from the bucket that its URL names."""

from dataclasses import dataclass
from functools import cached_property

from ..remote.reading import Meta, RemoteInput
from .client import Client, client_of
from .urls import object_at


@dataclass
class ObjectInput(RemoteInput):
    """An object. Raises UsageError for a URL that names none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.address = object_at(self.path)

    @cached_property
    def client(self) -> Client:
        """The client of the bucket. Raises PermissionDeniedError where there are no credentials."""
        return client_of(self.address.bucket)

    def prepare(self) -> None:
        # Here and not in a thread: who has no credentials should hear it once, before any request.
        if self.meta is None:
            _ = self.client
        super().prepare()

    def look(self) -> Meta:
        return self.client.head(self.address.key)

    def fetch(self, start: int, stop: int, meta: Meta) -> memoryview:
        return self.client.get(self.address.key, start, stop, meta)
