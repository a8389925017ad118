"""How does a slice of a ranking become a dataset? Files that are kept whole are copied as files.

Only at the edges of the cut are parts made of frames.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from .... import storage
from ....engines.work import Engine, Places
from ....errors import DataError
from ....records.reader import Source
from ....storage.base import Input
from ....storage.os_errors import display
from ....stream.dataset import digest_of
from ....stream.index import Table
from ....stream.schema import Head
from ....stream.writer import Sink, Writing
from ....terminal import Progress
from ... import streams
from ...datasets import Making
from ...divided import sink_of_part
from ..copied import SplitFrame, WholeFrame
from ..plan import SlicePlan


@dataclass(frozen=True)
class CopyJob:
    """Copy a file."""

    source: str
    target: str
    size: int

    @property
    def name(self) -> str:
        """The file, for messages."""
        return display(self.source)


@dataclass(frozen=True)
class CopyStage:
    """Copies files."""

    verb: str = "slice"

    def open(self) -> "CopyWorker":
        """A worker."""
        return CopyWorker()


class CopyWorker:
    """Copies files, where it can without reading them."""

    def do(self, job: CopyJob, progress: Progress) -> None:
        """Make a copy. Raises DataError if the file changed meanwhile."""
        file = storage.input_at(job.source)
        file.check()
        before = digest_of(file)
        storage.copy(file, job.target)
        # The last bytes hold the checksums of all others.
        if digest_of(storage.input_at(job.target)) != before:
            raise DataError("changed while it was copied", place=job.name, remedy="run again")
        progress.advance(job.size)


@dataclass(frozen=True)
class FilePart:
    """A file of the ranking, and what is kept of its frames."""

    file: Input
    frames: tuple[SplitFrame | WholeFrame, ...]

    @property
    def name(self) -> str:
        """Its file name, which the part keeps."""
        return os.path.basename(self.file.path)

    @property
    def is_kept(self) -> bool:
        """Whether all records are kept."""
        return all(frame.is_kept for frame in self.frames)

    @property
    def is_cut(self) -> bool:
        """Whether no record is kept."""
        return not any(_keeps(frame) for frame in self.frames)


def _keeps(frame: SplitFrame | WholeFrame) -> bool:
    if isinstance(frame, WholeFrame):
        return frame.is_kept
    return any(split.kept for split in frame.splits)


@dataclass(frozen=True)
class FrameParts:
    """The parts of a slice of a ranking."""

    planned: SlicePlan
    table: Table
    source: Source
    engine: Engine

    def make(self, made: Making, head: Head) -> Making:
        """Make the parts that are missing."""
        with self.table.open():
            files = list(self._files())
            # A dataset has at least one part, if only an empty one.
            kept = [file for file in files if not file.is_cut] or files[:1]
            if not kept:
                return self._make_empty(made, head)
            made = made.with_parts([file.name for file in kept], self.source.inputs)
            for number, file in enumerate(kept, 1):
                if not (file.is_kept or made.is_made(number)):
                    self._write(file, made, number, head)
            self._copy([file for file in kept if file.is_kept], made)
        return made

    def _make_empty(self, made: Making, head: Head) -> Making:
        """The dataset of a ranking that has no records."""
        made = made.with_parts([os.path.basename(self.source.inputs[0].path)], self.source.inputs)
        path = made.path(made.plan.parts[0].name)
        if not made.is_made(1):
            with sink_of_part(path, head, Writing(threads=1), made.section(1)):
                pass
        return made

    def _files(self) -> Iterator[FilePart]:
        """The files that have frames, in order."""
        frames = (part for part in self.planned.parts if isinstance(part, SplitFrame | WholeFrame))
        for _, group in groupby(frames, key=lambda frame: id(self.table.locate(frame.index)[0])):
            own = tuple(group)
            yield FilePart(self.table.locate(own[0].index)[0].file, own)

    def _write(self, file: FilePart, made: Making, number: int, head: Head) -> None:
        """Make a part of what is kept of a file, in this process: there are two of them, at most a few."""
        writing = Writing(threads=1)
        with sink_of_part(made.path(file.name), head, writing, made.section(number)) as sink:
            for frame in file.frames:
                self._write_frame(frame, sink)

    def _write_frame(self, frame: SplitFrame | WholeFrame, sink: Sink) -> None:
        if isinstance(frame, SplitFrame):
            for split in frame.splits:
                if split.kept:
                    sink.write_lines(split.kept)
        elif frame.is_kept:
            sink.copy_frame(self.table, frame.index)

    def _copy(self, files: Sequence[FilePart], made: Making) -> None:
        """Copy files that are kept whole, unless a copy is there."""
        jobs = [
            CopyJob(file.file.path, made.path(file.name), file.file.size or 0)
            for file in files
            if made.begins_again or not _is_copy(made.path(file.name), file.file)
        ]
        self.engine.check_places(Places([job.source for job in jobs], [made.directory]))
        progress = streams.WorkerProgress(self.source, passes=1)
        self.engine.map(CopyStage(), jobs, progress, [job.size for job in jobs])


def _is_copy(path: str, file: Input) -> bool:
    if not storage.exists(path):
        return False
    copy = storage.input_at(path)
    return copy.size == file.size and digest_of(copy) == digest_of(file)
