"""Workers without processes, for tests of what they are given and of what becomes of their reports."""

import pytest

from prune_cli.engines.local import Serial
from prune_cli.engines.processes import WorkerProcesses


@pytest.fixture
def with_one_process(monkeypatch):
    """Stages run in this process, as workers would do them: a worker takes half a second to start, or four
    with torch.
    """

    monkeypatch.setattr(WorkerProcesses, "each", lambda self, *given: Serial(self.watch).each(*given))
    monkeypatch.setattr(WorkerProcesses, "map", lambda self, *given: Serial(self.watch).map(*given))
