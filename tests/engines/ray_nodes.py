"""Nodes of a Ray cluster on this machine, by Ray's own utilities, to be killed and replaced."""

import os
from pathlib import Path

from ray.cluster_utils import Cluster

OPTIONS = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 80 << 20}
# A raylet that is killed is noticed after three seconds, instead of fifteen.
QUICK = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 1000,
    "health_check_failure_threshold": 3,
}


class Nodes:
    """A head and another node, started in the folder `there`."""

    def __init__(self, there: Path, **options: int) -> None:
        self.there = there
        self.cluster = self._elsewhere(
            lambda: Cluster(True, head_node_args={**OPTIONS, "_system_config": QUICK})
        )
        self.address = self.cluster.address
        self.add(**options)

    def add(self, **options: int) -> None:
        """Start a node."""
        self.node = self._elsewhere(lambda: self.cluster.add_node(**OPTIONS, **options))

    def kill_raylet(self) -> None:
        """Kill the process of the node that holds all others of it, as if its machine were lost."""
        self.node.all_processes["raylet"][0].process.kill()

    def raylets(self) -> list[int]:
        """The processes of the head and of the other node that hold all others of them."""
        nodes = (self.cluster.head_node, self.node)
        processes = [node.all_processes["raylet"][0].process for node in nodes]
        return [process.pid for process in processes if process.poll() is None]

    def shutdown(self) -> None:
        self.cluster.shutdown()

    def _elsewhere(self, start):
        before = os.getcwd()
        os.chdir(self.there)
        try:
            return start()
        finally:
            os.chdir(before)
