"""Workers on a Ray cluster. The only rooms that import ray, and only with --engine ray."""

import os
import secrets
import sys


def is_of_this_machine(address: str | None) -> bool:
    """Whether a cluster is started for this run, instead of one that runs already."""
    return address in (None, "", "local")


def prepare(address: str | None) -> None:
    """Set the variables that Ray reads when it is imported, unless the user has."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Else it warns that it will stop to do what we do ourselves: hide the GPUs from a worker that has none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    has_token = any(name.startswith("RAY_AUTH_") for name in os.environ)
    if is_of_this_machine(address) and not has_token and "ray" not in sys.modules:
        # Its servers listen on all interfaces, and whoever reaches them can run code. A token of this run
        # alone keeps everybody else out; the processes that it starts inherit it.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
