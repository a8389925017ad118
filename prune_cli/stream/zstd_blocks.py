"""Bytes in and out of compressed files: any zstd, gzip or plain text read, nothing hidden; our own streams checked to the bit.

A stream of ours is, in this order:

    START     a fixed empty zstd frame whose header `zstd` itself would not write
    head      skippable frame: who wrote this and how (JSON), CRC-32 of all before it
    data ...  zstd frames with a checksum, each ending on a line end
    trailer   skippable frame: what every data frame holds (JSON), CRC-32
    table     skippable frame: the official zstd seek table over everything above

A concatenation of such streams is a stream of several parts, each checked by its own head and trailer.

Reading goes frame by frame and block by block: zstd's own stream readers end a truncated file without an error. A block
yields at most 128 KiB, so feeding a bounded number of blocks bounds the memory that any input, however hostile, can take.
"""

import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Protocol

import orjson
import zstandard

from ..errors import DataError
from ..storage.os_errors import check_memory
from .schema import FrameCountsBuilder, Head, Trailer

ZSTD = b"\x28\xb5\x2f\xfd"
GZIP = b"\x1f\x8b"
# Single segment, checksum, an eight-byte content size of 0; one empty raw block; xxHash-64 of nothing.
START = ZSTD + b"\xe4" + bytes(8) + b"\x01\x00\x00" + b"\x99\xe9\xd8\x51"
HEAD, TRAILER, TABLE = 0x184D2A51, 0x184D2A52, 0x184D2A5E
TABLE_END = (
    b"\x00\xb1\xea\x92\x8f"  # no checksums in the table: the trailer has them; the format's own magic number
)

STEP = 16  # blocks fed to the decompressor at once: at most 2 MiB come out
BLOCK = 128 << 10  # the most text a zstd block may hold
TINY = 64 << 10  # bytes of text that wait for the next frame's
HEAD_LIMIT = 16 << 20
TRAILER_LIMIT_PER_FRAME = 32 << 10
SUFFIXES = {".zst": "zstd", ".zstd": "zstd", ".gz": "gzip", ".jsonl": "plain", ".json": "plain"}
FOREIGN = {
    b"PAR1": ("Parquet", "convert it: duckdb -c \"copy (from 'FILE') to '/dev/stdout' (format json)\""),
    b"BZh": ("bzip2", "decompress it first: bzip2 -dc FILE | prune-cli ..."),
    b"\xfd7zXZ": ("xz", "decompress it first: xz -dc FILE | prune-cli ..."),
    b"\x04\x22\x4d\x18": ("lz4", "decompress it first: lz4 -dc FILE | prune-cli ..."),
    b"PK\x03\x04": ("zip", "unpack it first"),
    b"ARROW1": ("Arrow", "convert it to JSON Lines first"),
    b"\x22\xb5\x2f\xfd": ("obsolete zstd (before 0.8)", "recompress it with a current zstd"),
}


class Raw(Protocol):
    """What the reader needs of a file: bytes, at most as many as asked for, none at the end."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Limits:
    """How far an input is trusted. `window_log` is zstd's --long: the largest decoder window, in bits."""

    window_log: int = 27
    ignore_trailing: bool = False
    allow_empty: bool = False


Event = bytes | Head | Trailer


class _Input:
    """A file with a look-ahead that knows its position and says where it broke off."""

    def __init__(self, raw: Raw) -> None:
        self.raw, self.buffer, self.at, self.position = raw, b"", 0, 0

    def peek(self, size: int) -> bytes:
        """The next `size` bytes without taking them; fewer only at the end of the file."""
        while len(self.buffer) - self.at < size:
            more = self.raw.read(max(1 << 20, size))
            if not more:
                break
            self.buffer, self.at = self.buffer[self.at :] + more, 0
        return self.buffer[self.at : self.at + size]

    def take(self, size: int, what: str = "zstd frame") -> bytes:
        taken = self.peek(size)
        if len(taken) < size:
            raise DataError(
                f"truncated {what} at byte {self.position + len(taken)}",
                remedy="the rest is missing: fetch or make it again",
            )
        self.at += size
        self.position += size
        return taken

    def pass_over(self, size: int) -> None:
        while size > 0:
            size -= len(self.take(min(size, 1 << 20), "skippable frame"))

    def chunk(self) -> bytes:
        """Whatever comes next, about a megabyte; nothing at the end."""
        chunk = self.buffer[self.at :] or self.raw.read(1 << 20)
        self.buffer, self.at = b"", 0
        self.position += len(chunk)
        return chunk


def read(
    raw: Raw, limits: Limits = Limits(), warn: Callable[[str], None] = lambda message: None, name: str = ""
) -> Iterator[Event]:
    """Yield the text of a file in pieces of at most a few megabytes, and the heads and trailers of our own streams as they pass.

    Raises DataError, with the byte where it happened, at any truncation, checksum failure or disagreement between the frames
    and the tables that describe them. What was yielded before the error is what `zstd -dc` would have printed before its own.
    """
    source = _Input(raw)
    start = source.peek(8)
    if not start:
        if limits.allow_empty:
            return
        raise DataError(
            "no bytes at all",
            remedy="the command before it may have failed; --allow-empty accepts this as no records",
        )
    if len(start) < 4 and (ZSTD.startswith(start) or GZIP.startswith(start[:2])):
        raise DataError(
            f"truncated at byte {len(start)}, inside the first magic number", remedy="fetch or make it again"
        )
    kind = "gzip" if start[:2] == GZIP else "zstd" if _is_zstd(start) else "plain"
    named = next((kind for suffix, kind in SUFFIXES.items() if name.endswith(suffix)), kind)
    if kind != named:
        warn(f"the name says {named}, the content is {kind}: read as {kind}")
    if kind == "gzip":
        yield from _gzip(source, limits)
    elif kind == "zstd":
        yield from _gathered(_zstd(source, limits, warn), source)
    else:
        yield from _plain(source, start)


def _gathered(events: Iterator[Event], source: _Input) -> Iterator[Event]:
    """The texts of tiny frames together, as long as more is at hand: a million pieces of text cost more than a million frames."""
    held = bytearray()
    try:
        for event in events:
            if isinstance(event, bytes) and len(held) + len(event) < TINY and source.at < len(source.buffer):
                held += event
                continue
            if held:
                text, held = bytes(held), bytearray()
                yield text
            yield event
    except DataError:
        if held:
            yield bytes(held)
        raise
    if held:
        yield bytes(held)


def _is_zstd(start: bytes) -> bool:
    return start[:4] == ZSTD or (start[1:4] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50)


def _plain(source: _Input, start: bytes) -> Iterator[bytes]:
    for magic, (name, remedy) in FOREIGN.items():
        if start.startswith(magic):
            raise DataError(f"{name} data (it starts with {magic.hex(' ')}), not JSON Lines", remedy=remedy)
    if start[0] < 32 and start[:1] not in b"\t\n\r":
        raise DataError(
            f"not JSON Lines, zstd or gzip: it starts with {start.hex(' ')}",
            remedy="decompress or convert it first",
        )
    while chunk := source.chunk():
        yield chunk


def _gzip(source: _Input, limits: Limits) -> Iterator[bytes]:
    while source.peek(2) == GZIP:
        stream = zlib.decompressobj(wbits=31)
        while not stream.eof:
            chunk = stream.unconsumed_tail or source.chunk()
            if not chunk:
                raise DataError(
                    f"truncated gzip member at byte {source.position}",
                    remedy="the rest is missing: fetch or make it again",
                )
            try:
                text = stream.decompress(chunk, STEP * BLOCK)
            except zlib.error as error:
                raise DataError(
                    f"damaged gzip member before byte {source.position} ({error})",
                    remedy="fetch or make it again",
                ) from None
            if text:
                yield text
        source.position -= len(stream.unused_data)
        source.buffer, source.at = stream.unused_data, 0
    _nothing_follows(source, limits)


def _nothing_follows(source: _Input, limits: Limits) -> None:
    if (rest := source.peek(4)) and not limits.ignore_trailing:
        raise DataError(
            f"trailing bytes that are no frame at byte {source.position} ({rest.hex(' ')})",
            remedy="--ignore-trailing accepts them",
        )


def _zstd(source: _Input, limits: Limits, warn: Callable[[str], None]) -> Iterator[Event]:
    """Frames of any kind. `part` is the stream of ours that we are inside of, if any."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=1 << limits.window_log)
    unchecked = False
    while _is_zstd(source.peek(4)):
        if source.peek(len(START)) == START:
            yield from _ours(source, decompressor, limits)
        elif source.peek(4) == ZSTD:
            frame = _Frame(source, decompressor, limits)
            yield from frame
            if not frame.checksum and not unchecked:
                unchecked = True
                warn("no checksum in a zstd frame: damage to its contents cannot be seen")
        else:
            magic, size = struct.unpack("<II", source.take(8, "skippable frame"))
            if magic in (HEAD, TRAILER) and source.peek(10) == b"prune-cli ":
                raise _broken("the head or trailer of a prune-cli stream stands alone", source)
            source.pass_over(size)
    _nothing_follows(source, limits)


class _Frame:
    """One zstd data frame: iterate for its text, then ask for its sizes, whether it had a checksum and, of ours, its CRC."""

    def __init__(
        self, source: _Input, decompressor: zstandard.ZstdDecompressor, limits: Limits, ours: bool = False
    ) -> None:
        self.source, self.decompressor, self.limits, self.ours = source, decompressor, limits, ours
        self.start, self.size, self.text, self.crc, self.checksum = source.position, 0, 0, 0, False

    def __iter__(self) -> Iterator[bytes]:
        stream = self.decompressor.decompressobj(write_size=STEP * BLOCK)
        for piece in self._pieces():
            self.crc = zlib.crc32(piece, self.crc) if self.ours else 0
            try:
                text = stream.decompress(piece)
            except zstandard.ZstdError as error:
                check_memory(error)
                raise DataError(_fault(str(error), self.start), remedy="fetch or make it again") from None
            self.text += len(text)
            if text:
                yield text
        self.size = self.source.position - self.start
        if not stream.eof:
            raise DataError(
                f"zstd frame at byte {self.start} does not end where its last block does",
                remedy="fetch or make it again",
            )

    def _pieces(self) -> Iterator[bytes]:
        """The frame's bytes, whole blocks at a time and never a byte past its end."""
        parts, last = [self._header()], False
        while not last:
            header = self.source.take(3)
            word = int.from_bytes(header, "little")
            last, kind, size = bool(word & 1), word >> 1 & 3, word >> 3
            if kind == 3 or size > BLOCK:
                raise DataError(
                    f"damaged zstd block at byte {self.source.position - 3}", remedy="fetch or make it again"
                )
            parts += header, self.source.take(1 if kind == 1 else size)
            if len(parts) > 2 * STEP:
                yield b"".join(parts)
                parts.clear()
        parts.append(self.source.take(4 if self.checksum else 0))
        yield b"".join(parts)

    def _header(self) -> bytes:
        """The frame header (RFC 8878, 3.1.1.1), its window checked against the limit."""
        flags = self.source.take(5)[4]
        single, self.checksum = flags >> 5 & 1, bool(flags >> 2 & 1)
        window_size = 0 if single else 1
        dictionary_size = (0, 1, 2, 4)[flags & 3]
        content_size = (single, 2, 4, 8)[flags >> 6]
        rest = self.source.take(window_size + dictionary_size + content_size)
        if any(rest[window_size : window_size + dictionary_size]):
            raise DataError(
                f"zstd frame at byte {self.start} needs a dictionary",
                remedy="decompress it with zstd -D first",
            )
        window = _window(rest[0]) if window_size else int.from_bytes(rest[dictionary_size:], "little")
        if window > 1 << self.limits.window_log:
            bits = (window - 1).bit_length()
            raise DataError(
                f"zstd frame at byte {self.start} wants {window >> 20} MiB of memory",
                remedy=f"--long {bits} allows it" if bits <= 31 else "no zstd reader can give it that",
            )
        return ZSTD + bytes([flags]) + rest


def _window(descriptor: int) -> int:
    base = 1 << 10 + (descriptor >> 3)
    return base + (base >> 3) * (descriptor & 7)


def _fault(error: str, at: int) -> str:
    if "checksum" in error:
        return f"checksum mismatch in the zstd frame at byte {at}"
    return f"damaged zstd frame at byte {at} ({error.removeprefix('zstd decompressor error: ')})"


def _broken(fault: str, source: _Input) -> DataError:
    return DataError(
        f"{fault} (byte {source.position})", remedy="the file is damaged or was cut: fetch or make it again"
    )


# Our own streams: START, head, data ..., trailer, table.


def skippable(magic: int, kind: str, content: dict[str, Any], before: bytes = b"") -> bytes:
    """A head or trailer as a skippable frame; its last four bytes are the CRC-32 of `before` and all the bytes of the frame until there."""
    payload = f"prune-cli {kind}\n".encode() + orjson.dumps(content) + b"\n"
    frame = struct.pack("<II", magic, len(payload) + 4) + payload
    return frame + struct.pack("<I", zlib.crc32(before + frame))


def seek_table(sizes: list[tuple[int, int]]) -> bytes:
    """The official zstd seek table (contrib/seekable_format): compressed and decompressed size of every frame before it."""
    entries = b"".join(struct.pack("<II", *pair) for pair in sizes)
    end = struct.pack("<I", len(sizes)) + TABLE_END
    return struct.pack("<II", TABLE, len(entries) + len(end)) + entries + end


def _ours(source: _Input, decompressor: zstandard.ZstdDecompressor, limits: Limits) -> Iterator[Event]:
    source.take(len(START))
    head, head_size = _skippable(source, HEAD, "head", HEAD_LIMIT, START)
    yield Head.parse(head)
    seen = FrameCountsBuilder()
    while source.peek(4) == ZSTD:
        if source.peek(len(START)) == START:
            break
        frame = _Frame(source, decompressor, limits, ours=True)
        yield from frame
        seen.size.append(frame.size)
        seen.text.append(frame.text)
        seen.crc.append(frame.crc)
    content, trailer_size = _skippable(source, TRAILER, "trailer", trailer_limit(len(seen.size)))
    trailer = Trailer.parse(content, len(seen.size))
    if any(getattr(trailer.frames, name) != list(getattr(seen, name)) for name in ("size", "text", "crc")):
        raise _broken("the trailer and the frames before it disagree", source)
    table = seek_table(frame_sizes(head_size, seen, trailer_size))
    if source.take(len(table), "seek table") != table:
        raise _broken("the seek table and the frames before it disagree", source)
    yield trailer


def whole_frames(raw: Raw, warn: Callable[[str], None]) -> Iterator[tuple[bytes, int, int]]:
    """Text, size and CRC-32 of each data frame of a stream of ours that broke off, from behind its head to the first that is not whole."""
    source, decompressor = _Input(raw), zstandard.ZstdDecompressor(max_window_size=1 << 31)
    while source.peek(4) == ZSTD:
        frame = _Frame(source, decompressor, Limits(31), ours=True)
        try:
            text = b"".join(frame)
        except DataError as error:
            if source.peek(1):  # else it was cut short, which is how a killed run ends
                warn(f"{error.fault}, with more behind it")
            return
        if not frame.checksum or not text.endswith(b"\n"):
            return
        yield text, frame.size, frame.crc


def unpacked(frame: bytes, magic: int, kind: str, before: bytes = b"") -> dict[str, Any]:
    """What a head or trailer says that is at hand as a whole frame. Raises DataError where it is damaged or something else."""
    return _skippable(_Input(BytesIO(frame)), magic, kind, len(frame), before)[0]


def trailer_limit(frames: int) -> int:
    """The most bytes that the trailer of so many frames is believed to have."""
    return HEAD_LIMIT + TRAILER_LIMIT_PER_FRAME * frames


def frame_sizes(head_size: int, counts: FrameCountsBuilder, trailer_size: int) -> list[tuple[int, int]]:
    """Compressed and decompressed size of every frame of a stream of ours, START and skippable frames included."""
    return [(len(START), 0), (head_size, 0), *zip(counts.size, counts.text, strict=True), (trailer_size, 0)]


def _skippable(
    source: _Input, magic: int, kind: str, limit: int, before: bytes = b""
) -> tuple[dict[str, Any], int]:
    found, size = struct.unpack("<II", source.take(8, f"prune-cli {kind}"))
    tag = f"prune-cli {kind}\n".encode()
    if found != magic or not len(tag) + 4 < size <= limit:
        raise _broken(f"a prune-cli stream without its {kind}", source)
    payload = source.take(size, f"prune-cli {kind}")
    expected = zlib.crc32(before + struct.pack("<II", found, size) + payload[:-4])
    if payload[-4:] != struct.pack("<I", expected) or not payload.startswith(tag):
        raise _broken(f"the {kind} does not match its checksum", source)
    try:
        content = orjson.loads(payload[len(tag) : -4])
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict):
        raise _broken(f"the {kind} is not a JSON object", source)
    return content, size + 8


def compressed_size(text: bytes, level: int) -> int:
    """Bytes of a text that is compressed as a single frame."""
    return len(zstandard.ZstdCompressor(level=level).compress(text))
