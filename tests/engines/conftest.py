"""Workers without processes, for tests of what they are given and of what becomes of their reports."""

import pytest

from prune_cli.engines.local import Serial
from prune_cli.engines.processes import WorkerProcesses


@pytest.fixture
def with_one_process(monkeypatch):
    """Stages run in this process, as workers would do them: a worker takes half a second to start, or four
    with torch.
    """

    def each(self, stage, jobs, progress):
        return Serial(self.watch).each(stage, jobs, progress)

    monkeypatch.setattr(WorkerProcesses, "each", each)
    monkeypatch.setattr(WorkerProcesses, "map", lambda self, *stage: list(each(self, *stage)))
