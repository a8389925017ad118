"""An output that can be gone on with: FILE.partial keeps the whole frames that a run wrote before it was stopped, however it was.

The next run reads the same input again, makes sure that the frames hold its first records, and goes on behind them. What it then
finishes is, byte for byte, what one run would have written. An output that is finished is gone through in the same way: then nothing
is written, and what would be is what is there.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from itertools import islice, zip_longest
from typing import Any, TypeVar

from ..errors import (
    CannotCreateError,
    ConfigurationError,
    DataError,
    Interrupted,
    PruneError,
    TryAgainError,
    UsageError,
)
from ..records.reader import Record
from ..storage import local
from ..storage.local import Input, Output
from ..storage.locks import locked
from ..storage.os_errors import display, failure
from . import zstd_blocks
from .writer import Frames, Sink

log = logging.getLogger(__name__)

GO_ON = "go on with the same input and options, or start over with -f and without --resume"
Made = TypeVar("Made")  # what a record is made from, a document for example; as a string, where it stands


@contextmanager
def afresh(path: str | None, inputs: Sequence[Input] = (), *, force: bool = False) -> Iterator[Output]:
    """An output as `files.create` makes it. What a run with --resume left of it is removed by `force`, and else in the way."""
    with local.create(path, inputs, force=force) as output:
        if path not in (None, "-"):
            _start_over(path, force)
        yield output


@contextmanager
def resume(path: str, inputs: Sequence[Input] = (), *, force: bool = False) -> Iterator["Partial"]:
    """The output at `path`, gone on with in `path`.partial, which is kept when the block fails and takes its name when it ends well.

    One that is there already is held to what the block would write. Raises CannotCreateError where it is anything else, TryAgainError
    when a signal stops the block, and at once where another run holds the output; else as `files.create`.
    """
    if local.is_special(path):
        raise UsageError(
            "is no file that could be gone on with", place=display(path), remedy="leave out --resume"
        )
    is_there = os.path.isfile(path) and not force
    local.check_target(path, inputs, force=force or is_there)
    target = os.path.realpath(path)
    name = _beside(target)
    if is_there:
        with _finished(target, path) as finished:
            yield finished
        return
    with _locked(target, path) as descriptor:
        try:
            local.check_target(path, inputs, force=force)  # another run may have made it since we looked
            yield Partial(descriptor, name)
            local.commit(descriptor, name, target, path, force)
        except Interrupted:
            remedy = (
                "the same command goes on from there"
                if os.fstat(descriptor).st_size
                else "nothing was done yet: run it again"
            )
            raise TryAgainError("stopped early", place=display(name), remedy=remedy) from None


def take_up(
    output: Output, sink: Sink, documents: Iterator[Made], read_back: Callable[[Made, bytes], Record | None]
) -> int:
    """Pass over the documents whose records the output holds already, have the sink count them, and say how many there are.

    `read_back` makes of a document and an output's line the record that was written; None where the line is not that document's.
    Raises there what the output is `refused` with.
    """
    if not isinstance(output, Partial):
        return 0
    assert isinstance(sink, Frames)  # nothing else is written to a partial output
    for text, size, crc in output.whole_frames():
        lines = text.split(b"\n")[:-1]
        places = enumerate(zip_longest(lines, islice(documents, len(lines))), sink.records + 1)
        sink.adopt([_taken_up(output, number, *pair, read_back) for number, pair in places], size, crc)
    return sink.records


def _taken_up(
    output: "Partial",
    number: int,
    line: bytes,
    document: Made | None,
    read_back: Callable[[Made, bytes], Record | None],
) -> Record:
    if document is None:
        raise output.refused(f"holds more than the {number - 1} records of the input")
    record = read_back(document, line)
    if record is None:
        raise output.refused(f"its record {number} is not made from {document}")
    return record


def _beside(target: str) -> str:
    return f"{target}.partial"


@contextmanager
def _locked(target: str, path: str) -> Iterator[int]:
    """The partial file for this process alone. A run without --resume locks another one, so that is held until this one is."""
    other = local.beside(target)
    with ExitStack() as stack:
        with locked(other, path):
            try:
                descriptor = stack.enter_context(locked(_beside(target), path))
            finally:
                local.remove(other)
        yield descriptor


@contextmanager
def _finished(target: str, path: str) -> Iterator["Finished"]:
    """An output that is whole, read again."""
    name = _beside(target)
    if os.path.exists(name) and os.path.samefile(
        name, target
    ):  # whoever finished it was killed before the first name went
        with locked(name, path):
            local.remove(name)
    with local.Input(target).open() as file:
        found = Finished(file.descriptor, path)
        yield found
        found.end()


def _start_over(path: str, force: bool) -> None:
    name = _beside(os.path.realpath(path))
    if not os.path.isfile(name):
        return
    with locked(name, path) as descriptor:
        found = os.pread(descriptor, len(zstd_blocks.START), 0)
        if not zstd_blocks.START.startswith(found):
            return  # nothing of ours, and not in our way
        if found == zstd_blocks.START and not force:
            fault = "holds a run that was not finished"
            raise CannotCreateError(
                fault, place=display(name), remedy="--resume goes on with it, -f starts over"
            )
        local.remove(name)


class Partial(Output):
    """What an earlier run left of an output, if anything, and what this one adds to it."""

    resumable = True

    def begin(self, start: bytes) -> None:
        """Write the first bytes of a stream, or find them written. Raises ConfigurationError where they are another run's."""
        found = os.pread(self.descriptor, len(start), 0)
        if found != start:
            if not start.startswith(found):  # else it was killed before it had written anything of use
                raise self._another_run(start)
            self.cut(0)
            self.write(start)
        os.lseek(self.descriptor, len(start), os.SEEK_SET)

    def refused(self, fault: str) -> PruneError:
        """What is raised where it is not this run's."""
        return DataError(fault, place=display(self.path), remedy=GO_ON)

    def _another_run(self, start: bytes) -> PruneError:
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        try:
            before, now = _settings(self), _settings(BytesIO(start))
        except DataError:
            fault = "is not the beginning of a prune-cli stream"
            return DataError(
                fault,
                place=display(self.path),
                remedy="remove it, or start over with -f and without --resume",
            )
        changes = [
            f"{name} {before.get(name)!r}, not {now.get(name)!r}"
            for name in now | before
            if before.get(name) != now.get(name)
        ]
        return ConfigurationError(
            f"was begun with {', '.join(changes)}", place=display(self.path), remedy=GO_ON
        )

    def read(self, size: int, /) -> bytes:
        try:
            return os.read(self.descriptor, size)
        except OSError as error:
            raise failure(error, self.path, "reading") from None

    def whole_frames(self) -> Iterator[tuple[bytes, int, int]]:
        """Text, size and CRC-32 of every whole frame behind the beginning; at the end, what comes after the last of them is cut off."""
        end = os.lseek(self.descriptor, 0, os.SEEK_CUR)
        for text, size, crc in zstd_blocks.whole_frames(self, self._warn):
            yield text, size, crc
            end += size
        self.cut(end)
        os.lseek(self.descriptor, end, os.SEEK_SET)

    def _warn(self, fault: str) -> None:
        log.warning("%s: %s; going on from there", display(self.path), fault)


class Finished(Partial):
    """An output that is whole: nothing is written to it. Raises CannotCreateError where what would be is not what is there."""

    def begin(self, start: bytes) -> None:
        try:
            super().begin(start)
        except (ConfigurationError, DataError) as error:
            raise self.refused(error.fault) from None

    def write(self, data: bytes | memoryview) -> None:
        if os.pread(self.descriptor, len(data), os.lseek(self.descriptor, 0, os.SEEK_CUR)) != data:
            raise self.refused("holds something else than this run would write")
        os.lseek(self.descriptor, len(data), os.SEEK_CUR)
        self.written += len(data)

    def cut(self, size: int) -> None:
        """What follows is no rest of a broken run, but what the end will be held to."""

    def end(self) -> None:
        if self.read(1):
            raise self.refused("holds more than this run would write")

    def refused(self, fault: str) -> PruneError:
        return CannotCreateError(f"exists, and {fault}", place=display(self.path), remedy="-f replaces it")

    def _warn(self, fault: str) -> None:
        raise self.refused(f"has a {fault}")


def _settings(raw: zstd_blocks.Raw) -> dict[str, Any]:
    """What the head of a stream says, one level deep."""
    head = next(zstd_blocks.read(raw))
    if not isinstance(head, zstd_blocks.Head):
        raise DataError("no head")
    flat: dict[str, Any] = {}
    for name, value in head.content.items():
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
