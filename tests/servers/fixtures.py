"""The servers as pytest fixtures: each starts when a test first asks, and lives as long as the session."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from . import gcs as google
from . import stores
from .chaos import Proxy
from .stores import Store


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory) -> Iterator[Store]:
    with stores.seaweedfs(tmp_path_factory.mktemp("seaweedfs")) as store:
        yield store


@pytest.fixture(scope="session")
def moto(tmp_path_factory) -> Iterator[Store]:
    with stores.moto(tmp_path_factory.mktemp("moto")) as store:
        yield store


@pytest.fixture(scope="session")
def azurite(tmp_path_factory) -> Iterator[Store]:
    with stores.azurite(tmp_path_factory.mktemp("azurite")) as store:
        yield store


@pytest.fixture(scope="session")
def gcs(tmp_path_factory) -> Iterator[Store]:
    with google.gcs(tmp_path_factory.mktemp("gcs")) as store:
        yield store


@pytest.fixture(scope="session")
def rclone(tmp_path_factory) -> Iterator[Store]:
    with stores.rclone(tmp_path_factory.mktemp("rclone")) as store:
        yield store


@pytest.fixture
def proxy() -> Iterator[Callable[..., Proxy]]:
    """`proxy(store)` is a chaos proxy in front of the store; `store.via(proxy.port)` leads through it."""
    with ExitStack() as stack:
        yield lambda store, **settings: stack.enter_context(Proxy(store.port, **settings))


@pytest.fixture
def into(monkeypatch) -> Callable[[Store], Store]:
    """`into(store)` makes this process see the store and no other."""

    def enter(store: Store) -> Store:
        for name in list(os.environ):
            if stores.FOREIGN_VARIABLES.match(name):
                monkeypatch.delenv(name)
        for name, value in store.variables.items():
            monkeypatch.setenv(name, value)
        # Long enough for a busy machine, and not the ten minutes that a user would want.
        monkeypatch.setenv("PRUNE_CLI_REMOTE_PATIENCE", "30")
        return store

    return enter
