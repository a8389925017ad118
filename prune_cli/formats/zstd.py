"""How is a file of zstd frames read? Frame by frame; prune-cli streams are also checked as a whole."""

import struct
from collections.abc import Iterator

from ..errors import DataError
from ..stream.container import START, check_alone, read_stream
from ..stream.lookahead import Limits, LookAhead, Warn
from ..stream.schema import Event
from ..stream.zstd_blocks import ZSTD, Frame, is_zstd, new_decompressor
from .base import Format

MAGIC = ZSTD
TINY = 64 << 10  # bytes of text: shorter texts of frames are joined


def _read(source: LookAhead, limits: Limits, warn: Warn) -> Iterator[Event]:
    yield from _gathered(_frames(source, limits, warn), source)


def _frames(source: LookAhead, limits: Limits, warn: Warn) -> Iterator[Event]:
    decompressor = new_decompressor(limits)
    is_warned = False
    while is_zstd(source.peek(4)):
        # START is a zstd frame, too, so it has to be looked for first.
        if source.peek(len(START)) == START:
            yield from read_stream(source, limits)
        elif source.peek(4) == MAGIC:
            frame = Frame(source, decompressor, limits)
            yield from frame
            # Once for a file: its frames are usually all alike.
            if not frame.checksum and not is_warned:
                is_warned = True
                warn("no checksum in a zstd frame: damage to its contents cannot be seen")
        else:
            magic, size = struct.unpack("<II", source.take(8, "skippable frame"))
            check_alone(magic, source)
            source.skip(size)


def _gathered(events: Iterator[Event], source: LookAhead) -> Iterator[Event]:
    """The events, with the texts of tiny frames joined while the next bytes need no read."""
    # Passing a text on to the next thread costs more than decompressing a tiny frame. A text never waits for
    # a pipe, whose reader may want to see it now.
    waiting = bytearray()
    try:
        for event in events:
            if isinstance(event, bytes) and source.has_more_at_hand and len(waiting) + len(event) < TINY:
                waiting += event
                continue
            if waiting:
                yield bytes(waiting)
                waiting = bytearray()
            yield event
    except DataError:
        # The text before the damage is sound, and comes before the error.
        if waiting:
            yield bytes(waiting)
        raise
    if waiting:
        yield bytes(waiting)


FORMAT = Format("zstd", suffixes=(".zst", ".zstd"), matches=is_zstd, read=_read, is_framed=True)
