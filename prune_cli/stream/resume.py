"""How is a stopped run resumed? FILE.partial keeps the whole frames that it wrote, and the next run appends.

The next run reads the same input again, checks that the frames hold its first records, and continues after
them. The finished file is byte for byte what a single run would have written. The output of a finished run is
checked in the same way: nothing is written, but the file must already hold everything that this
run would write.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import islice, zip_longest
from typing import Any, TypeVar

from .. import storage
from ..errors import CannotCreateError, ConfigurationError, DataError, PruneError
from ..storage.base import Input, Output, ResumableOutput
from ..storage.os_errors import display
from . import container
from .batch import Record
from .lookahead import Raw
from .writer import Frames, Sink

log = logging.getLogger(__name__)

SAME_AGAIN = "resume with the same input and options, or start over with -f and without --resume"
NAMED = 3  # settings that a message names: a different metric alone changes twenty
Source = TypeVar("Source")  # a record's origin, such as a document; its str() is its place, for messages


@contextmanager
def afresh(path: str | None, inputs: Sequence[Input] = (), *, force: bool = False) -> Iterator[Output]:
    """An output for a run without --resume, as `storage.create` makes it.

    With `force`, the unfinished output of a run with --resume is removed; without, it is a CannotCreateError.
    """
    with storage.create(path, inputs, force=force) as output:
        # A pipe, a device or an open descriptor has no FILE.partial.
        if path is not None and not storage.is_stream(path):
            _remove_partial(path, force)
        yield output


@contextmanager
def resume(path: str, inputs: Sequence[Input] = (), *, force: bool = False) -> Iterator["Partial"]:
    """The output at `path`, to be continued. It stays `path`.partial if the block fails.

    A finished output is compared with what the block writes: CannotCreateError if they differ. Raises
    TryAgainError if a signal stops the block or another run holds the output, and what `storage.create` does.
    """
    with storage.resume(path, inputs, force=force) as held:
        if not held.finished:
            yield Partial(held)
            return
        finished = Finished(held)
        yield finished
        finished.end()


def take_up(
    output: Output, sink: Sink, sources: Iterator[Source], read_back: Callable[[Source, bytes], Record | None]
) -> int:
    """Skip the sources whose records the output already holds, and return their number.

    The sink counts these records. `read_back` returns the record that was written for a source, given its
    line in the output, or None if the line was not made from it. Raises what `Partial.refused` returns if
    the output holds anything else.
    """
    if not isinstance(output, Partial):
        return 0
    assert isinstance(sink, Frames)  # nothing else is written to a resumed output
    for text, size, crc in output.whole_frames():
        lines = text.split(b"\n")[:-1]
        # zip_longest, so that more lines than sources are an error and not silently dropped.
        pairs = zip_longest(lines, islice(sources, len(lines)))
        numbered = enumerate(pairs, sink.records + 1)
        # A list: a record that does not match has to fail before the sink counts any of the frame.
        sink.adopt([_held_record(output, number, *pair, read_back) for number, pair in numbered], size, crc)
    return sink.records


def _held_record(
    output: "Partial",
    number: int,
    line: bytes,
    source: Source | None,
    read_back: Callable[[Source, bytes], Record | None],
) -> Record:
    if source is None:
        raise output.refused(f"holds more than the {number - 1} records of the input")
    record = read_back(source, line)
    if record is None:
        raise output.refused(f"its record {number} is not made from {source}")
    return record


def _remove_partial(path: str, force: bool) -> None:
    """Remove the unfinished output of a run with --resume. Raises CannotCreateError without `force`."""
    with storage.unfinished(path) as held:
        if held is None:
            return
        start = held.read_at(0, len(container.START))
        # A file that does not begin like a prune-cli stream belongs to someone else, and is left alone.
        if not container.START.startswith(start):
            return
        # A shorter one was stopped before its first record: nothing is lost with it.
        if start == container.START and not force:
            raise CannotCreateError(
                "holds an unfinished run",
                place=display(held.path),
                remedy="--resume continues it, -f starts over",
            )
        held.discard()


class Partial(Output):
    """An output with the whole frames of an earlier run, if any, to which this run appends.

    Call `begin`, then `whole_frames`, then `write`. `position` is the offset of the next read.
    """

    resumable = True

    def __init__(self, held: ResumableOutput) -> None:
        super().__init__(held.path)
        self.held = held
        self.position = 0

    def begin(self, start: bytes) -> None:
        """Write the first bytes of a stream, or check that they are there.

        Raises ConfigurationError if a run with different options wrote them, and DataError if they are not
        the beginning of a stream.
        """
        # `start` is the magic number and the head, which has every option that the records depend on.
        first = self.held.read_at(0, len(start))
        if first != start:
            # An earlier run that was killed while it wrote these bytes left nothing else to lose.
            if not start.startswith(first):
                raise self._another_run(start)
            self._cut(0)
            self.write(start)
        self.position = len(start)

    def write(self, data: bytes | memoryview) -> None:
        self.held.write(data)
        self.written += len(data)

    def read(self, size: int, /) -> bytes:
        """The next bytes of the output, for the reader of `container`."""
        data = self.held.read_at(self.position, size)
        self.position += len(data)
        return data

    def whole_frames(self) -> Iterator[container.WholeFrame]:
        """The whole frames after the head. At the end, anything after the last whole frame is cut off."""
        # The reader below reads ahead, so `position` is not where a frame ends.
        end = self.position
        for text, size, crc in container.whole_frames(self, self._broken):
            yield text, size, crc
            end += size
        self._cut(end)
        self.position = end

    def refused(self, fault: str) -> PruneError:
        """The error to raise if the output does not come from this run's input and options."""
        return DataError(fault, place=display(self.path), remedy=SAME_AGAIN)

    def _cut(self, size: int) -> None:
        self.held.cut(size)

    def _broken(self, fault: str) -> None:
        log.warning("%s: %s; resuming from there", display(self.path), fault)

    def _another_run(self, start: bytes) -> PruneError:
        """The error for an output that begins differently. It names the options that changed."""
        place = display(self.path)
        self.position = 0
        try:
            before = _settings(self)
        except DataError:
            return DataError(
                "is not the beginning of a prune-cli stream",
                place=place,
                remedy="remove it, or start over with -f and without --resume",
            )
        now = _settings(BytesIO(start))
        changes = changed_settings(before, now)
        return ConfigurationError(f"was begun with {changes}", place=place, remedy=SAME_AGAIN)


class Finished(Partial):
    """An output that an earlier run finished. Nothing is written: `write` compares its data with the file.

    Raises CannotCreateError at the first difference.
    """

    def begin(self, start: bytes) -> None:
        try:
            super().begin(start)
        except (ConfigurationError, DataError) as error:
            raise self.refused(error.fault) from None

    def write(self, data: bytes | memoryview) -> None:
        if self.read(len(data)) != data:
            raise self.refused("differs from what this run would write")
        self.written += len(data)

    def end(self) -> None:
        """Raise CannotCreateError if the file goes on after everything that was compared."""
        if self.read(1):
            raise self.refused("holds more than this run would write")

    def refused(self, fault: str) -> PruneError:
        return CannotCreateError(f"exists, and {fault}", place=display(self.path), remedy="-f replaces it")

    def _cut(self, size: int) -> None:
        """Cut nothing: the trailer follows, and `write` and `end` compare it."""

    def _broken(self, fault: str) -> None:
        raise self.refused(f"has a {fault}")


def changed_settings(before: dict[str, Any], now: dict[str, Any]) -> str:
    """The settings that differ, a few of them by name."""
    names = [name for name in now | before if before.get(name) != now.get(name)]
    # Another metric has settings of its own: those that both runs have say most.
    names.sort(key=lambda name: name not in before or name not in now)
    named = [f"{name} {before.get(name)!r}, not {now.get(name)!r}" for name in names[:NAMED]]
    more = len(names) - len(named)
    return "; ".join(named) + (f"; {more} more settings differ" if more else "")


def _settings(raw: Raw) -> dict[str, Any]:
    """The fields of the head of a stream, flattened one level deep. Raises DataError if it has no head."""
    head = container.read_head(raw)
    flat: dict[str, Any] = {}
    for name, value in head.json.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
