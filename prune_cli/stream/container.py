"""What is a prune-cli stream made of, byte for byte? In this order:

    START     a fixed empty zstd frame whose header `zstd` itself would not write
    head      skippable frame: who wrote the stream and how (JSON), CRC-32 of everything before it
    data ...  zstd frames with a checksum, each ending at a line end
    trailer   skippable frame: the counts of each data frame (JSON), CRC-32
    table     skippable frame: the official zstd seek table over everything above

Streams can be concatenated: each is checked by its own head and trailer. `zstd -dc` reads them all as one
file.
"""

import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import orjson

from ..errors import DataError
from .lookahead import REMEDY, Limits, LookAhead, Raw, Warn
from .schema import Event, FrameCountsBuilder, Head, Trailer
from .zstd_blocks import ZSTD, Frame, new_decompressor

# Single segment, checksum, an eight-byte content size of 0; one empty raw block; xxHash-64 of nothing.
START = ZSTD + b"\xe4" + bytes(8) + b"\x01\x00\x00" + b"\x99\xe9\xd8\x51"
HEAD = 0x184D2A51
TRAILER = 0x184D2A52
TABLE = 0x184D2A5E
# No checksums in the seek table, since the trailer has them; then the magic number of the seekable format.
TABLE_END = b"\x00\xb1\xea\x92\x8f"

# Upper limits on the size that a head or trailer may claim: its checksum comes only after the whole of it.
HEAD_LIMIT = 16 << 20
TRAILER_LIMIT_PER_FRAME = 32 << 10

WholeFrame = tuple[bytes, int, int]  # text, size and CRC-32 of the compressed bytes


def read_stream(source: LookAhead, limits: Limits) -> Iterator[Event]:
    """The head, the text and the trailer of a stream that begins at the next byte.

    Raises DataError at truncation, at damage, and if the frames are not those that the trailer and the table
    describe.
    """
    source.take(len(START))
    head, head_size = _skippable(source, HEAD, "head", HEAD_LIMIT, START)
    yield Head.parse(head)
    counts = FrameCountsBuilder()
    yield from _data_frames(source, limits, counts)
    content, trailer_size = _skippable(source, TRAILER, "trailer", trailer_limit(len(counts.size)))
    trailer = Trailer.parse(content, len(counts.size))
    if any(getattr(trailer.frames, name) != list(getattr(counts, name)) for name in ("size", "text", "crc")):
        raise broken("the trailer and the frames before it disagree", source)
    table = seek_table(frame_sizes(head_size, counts, trailer_size))
    if source.take(len(table), "seek table") != table:
        raise broken("the seek table and the frames before it disagree", source)
    yield trailer


def _data_frames(source: LookAhead, limits: Limits, counts: FrameCountsBuilder) -> Iterator[bytes]:
    decompressor = new_decompressor(limits)
    # START is a zstd frame, too: another one means that the next stream begins, and that this one has no
    # trailer.
    while source.peek(4) == ZSTD and source.peek(len(START)) != START:
        frame = Frame(source, decompressor, limits, with_crc=True)
        yield from frame
        counts.size.append(frame.size)
        counts.text.append(frame.text)
        counts.crc.append(frame.crc)


def read_head(raw: Raw) -> Head:
    """The head of a stream. The rest of the stream may be missing. Raises DataError if there is none."""
    source = LookAhead(raw)
    if source.peek(len(START)) != START:
        raise DataError("not a prune-cli stream", remedy=REMEDY)
    source.take(len(START))
    return Head.parse(_skippable(source, HEAD, "head", HEAD_LIMIT, START)[0])


def whole_frames(raw: Raw, warn: Warn) -> Iterator[WholeFrame]:
    """The data frames of a stream that was cut off, from its head to the first that is not whole."""
    source = LookAhead(raw)
    limits = Limits(window_log=31)
    decompressor = new_decompressor(limits)
    while source.peek(4) == ZSTD:
        frame = Frame(source, decompressor, limits, with_crc=True)
        try:
            text = b"".join(frame)
        except DataError as error:
            # A killed run leaves a truncated frame at the end; damage before the end is worth a warning.
            if source.peek(1):
                warn(f"{error.fault}, with more behind it")
            return
        if not frame.checksum or not text.endswith(b"\n"):
            return
        yield text, frame.size, frame.crc


def check_alone(magic: int, source: LookAhead) -> None:
    """Raise DataError if a skippable frame of this magic number is a head or trailer without its stream."""
    if magic in (HEAD, TRAILER) and source.peek(10) == b"prune-cli ":
        raise broken("a head or trailer outside a prune-cli stream", source)


def broken(fault: str, source: LookAhead) -> DataError:
    """The error for a stream whose parts do not belong together."""
    return DataError(
        f"{fault} (byte {source.position})", remedy=f"the file is damaged or truncated: {REMEDY}"
    )


# --- Heads, trailers and seek tables as bytes ---


def skippable(magic: int, kind: str, content: dict[str, Any], before: bytes = b"") -> bytes:
    """A head or trailer as a skippable frame.

    Its last four bytes are the CRC-32 of `before` and of the frame up to them.
    """
    payload = f"prune-cli {kind}\n".encode() + orjson.dumps(content) + b"\n"
    frame = struct.pack("<II", magic, len(payload) + 4) + payload
    return frame + struct.pack("<I", zlib.crc32(before + frame))


def unpacked(frame: bytes, magic: int, kind: str, before: bytes = b"") -> dict[str, Any]:
    """The content of a head or trailer that is at hand as a whole frame.

    Raises DataError if it is damaged.
    """
    return _skippable(LookAhead(BytesIO(frame)), magic, kind, len(frame), before)[0]


def _skippable(
    source: LookAhead, magic: int, kind: str, limit: int, before: bytes = b""
) -> tuple[dict[str, Any], int]:
    """The content of a head or trailer, and the size of its frame."""
    found, size = struct.unpack("<II", source.take(8, f"prune-cli {kind}"))
    tag = f"prune-cli {kind}\n".encode()
    if found != magic or not len(tag) + 4 < size <= limit:
        raise broken(f"a prune-cli stream without its {kind}", source)
    payload = source.take(size, f"prune-cli {kind}")
    crc = zlib.crc32(before + struct.pack("<II", magic, size) + payload[:-4])
    if payload[-4:] != struct.pack("<I", crc) or not payload.startswith(tag):
        raise broken(f"the {kind} does not match its checksum", source)
    try:
        content = orjson.loads(payload[len(tag) : -4])
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise broken(f"the {kind} is not a JSON object", source)
    return content, size + 8


def seek_table(sizes: list[tuple[int, int]]) -> bytes:
    """The official zstd seek table (contrib/seekable_format): compressed and decompressed size of every frame
    before it.
    """
    entries = b"".join(struct.pack("<II", *pair) for pair in sizes)
    end = struct.pack("<I", len(sizes)) + TABLE_END
    return struct.pack("<II", TABLE, len(entries) + len(end)) + entries + end


def frame_sizes(head_size: int, counts: FrameCountsBuilder, trailer_size: int) -> list[tuple[int, int]]:
    """Compressed and decompressed size of every frame of a stream, START and skippable frames included."""
    data = zip(counts.size, counts.text, strict=True)
    return [(len(START), 0), (head_size, 0), *data, (trailer_size, 0)]


def trailer_limit(frames: int) -> int:
    """The largest size that is believed of the trailer of so many frames."""
    return HEAD_LIMIT + TRAILER_LIMIT_PER_FRAME * frames
