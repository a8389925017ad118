"""What is one job of `score`? Its inputs, its output and all settings, by value."""

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from zlib import crc32

from ... import storage
from ...records.reader import Source
from ...settings.score import Scores, ScoreSettings
from ...settings.streams import Streams
from ...storage.base import Input, Output
from ...storage.os_errors import display
from ...stream import resume
from ...stream.section import Shard
from . import resources


@dataclass(frozen=True)
class ScoreJob:
    """Score `inputs` into one output. Picklable: it can run in another process."""

    inputs: tuple[str, ...]
    output: str | None  # None is standard output
    settings: ScoreSettings
    # The piece of the only input that is scored, for an output of a directory.
    piece: Shard | None = None
    # For a part of one output, the group field of the whole. The part itself is a temporary stream.
    group: str | None = None
    # When the run began, its output was not there: if it is now, a worker has died behind it.
    was_absent: bool = False

    @property
    def name(self) -> str:
        """The first of the inputs, for messages."""
        return display(self.inputs[0] if self.inputs else "-")

    @property
    def dealt(self) -> str | None:
        """I/N if the job gets every N-th run of the records, and not a shard of a plan."""
        return self.settings.results.shard if self.piece is None else None

    def open_inputs(self) -> list[Input]:
        """The inputs, checked. Raises what `storage.operands` raises, and DataError for one that changed."""
        return storage.operands(self.inputs) if self.piece is None else [self.piece.open_input()]

    @property
    def streams(self) -> Streams:
        """How records are read and written, with the output of this job."""
        return replace(self.settings.streams, output=self.output)

    def is_finished(self) -> bool:
        """Whether an output of the directory exists, so that it is checked instead of made.

        `finished.py` says whether it is the output of this very job.
        """
        return self.skips_finished and storage.exists(self.output or "")

    @property
    def skips_finished(self) -> bool:
        """Whether an output that exists is left as it is."""
        return self.settings.results.output_directory is not None and not self.streams.force

    def anew(self) -> "ScoreJob":
        """The job with an output that replaces the one that is there."""
        return replace(
            self, settings=replace(self.settings, streams=replace(self.settings.streams, force=True))
        )

    def open_output(self, inputs: Sequence[Input]) -> AbstractContextManager[Output]:
        """The output, resumed if that is asked for."""
        force = self.streams.force
        if self.group is not None:
            return storage.create(self.output, force=True)
        if self.settings.results.resume:
            return resume.resume(self.output or "", inputs, force=force)
        return resume.afresh(self.output, inputs, force=force)

    def deal(self, source: Source) -> None:
        """Leave the records of other shards out of `source`."""
        results = self.settings.results
        if self.dealt is None or results.shard_of is None:
            return
        # A file's name decides which shard gets its first run of records. If it were always shard 1, that
        # shard would get all of every short file.
        name = os.path.basename(self.inputs[0]) if self.inputs else ""
        first = crc32(os.fsencode(name)) if results.output_directory else 0
        source.deal(*results.shard_of, first)


def read_by(jobs: Sequence[ScoreJob]) -> list[str]:
    """What the jobs read: their inputs, the folders of models, and the files of metrics."""
    inputs = [path for job in jobs for path in job.inputs]
    scores = jobs[0].settings.scores if jobs else Scores()
    models = [*(scores.model or ()), scores.against, os.environ.get("PRUNE_CLI_MODEL")]
    # A name that is no folder, and no file of an n-gram model, is one of the hub.
    folders = [name for name in models if name and os.path.exists(name)]
    return list(dict.fromkeys([*inputs, *folders, *resources.paths(scores)]))
