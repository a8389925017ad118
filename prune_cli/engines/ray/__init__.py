"""Workers on a Ray cluster. The only rooms that import ray, and only with --engine ray."""

import os
import sys


def is_of_this_machine(address: str | None) -> bool:
    """Whether a cluster is started for this run, instead of one that runs already."""
    return address in (None, "", "local")


def prepare(address: str | None) -> None:
    """Set the variables that Ray reads when it is imported, unless the user has."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else it warns that it will stop to do what we do ourselves: hide the GPUs from a worker that has none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not is_of_this_machine(address) or "ray" in sys.modules:
        return
    # Whoever reaches the servers of a cluster can run code. Ray knows clusters that listen on 127.0.0.1 alone
    # only as those of macOS and Windows; without this, its servers listen on all interfaces.
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    if not any(name.startswith("RAY_AUTH_") for name in os.environ):
        # A token of this run keeps out the other users of this machine; the processes of Ray inherit it.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = os.urandom(32).hex()


def has_settled() -> bool:
    """Whether this process may end as usual: after the loss of a head, Ray's own exit waits, and crashes."""
    # Not loaded without --engine ray.
    cluster = sys.modules.get(f"{__name__}.cluster")
    return cluster is None or not bool(cluster.LOST.is_set())
