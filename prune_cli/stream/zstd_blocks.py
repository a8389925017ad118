"""How is a zstd frame decompressed so that no damage stays hidden, in bounded memory? Block by block (RFC
8878).

zstd's own stream readers end a truncated file without an error, so the frame is taken apart here and only
whole blocks are handed to the decompressor. A block yields at most 128 KiB: feeding a bounded number of
blocks bounds the memory that any input can take, however hostile it is.
"""

import threading
import zlib
from collections.abc import Iterator

import zstandard

from ..errors import DataError
from ..storage.os_errors import check_memory
from .lookahead import REMEDY, Limits, LookAhead

ZSTD = b"\x28\xb5\x2f\xfd"
SKIPPABLE = b"\x2a\x4d\x18"  # bytes 1 to 3 of the magic numbers 0x184D2A50 to 0x184D2A5F

BLOCK = 128 << 10  # the most text that a zstd block may hold (RFC 8878, 3.1.1.2.4)
STEP = 16  # blocks that are decompressed at once: at most 2 MiB come out


def is_zstd(start: bytes) -> bool:
    """Whether a zstd frame or a skippable frame begins with these bytes."""
    return start[:4] == ZSTD or (start[1:4] == SKIPPABLE and start[0] & 0xF0 == 0x50)


def new_decompressor(limits: Limits) -> zstandard.ZstdDecompressor:
    """A decompressor that refuses larger windows than the limits allow."""
    return zstandard.ZstdDecompressor(max_window_size=1 << limits.window_log)


class Frame:
    """One data frame. Iterate to get its text; then its sizes, its checksum flag and its CRC-32 are known.

    `with_crc` computes the CRC-32 of the compressed bytes, which a trailer holds for each frame of our
    streams.
    """

    def __init__(
        self,
        source: LookAhead,
        decompressor: zstandard.ZstdDecompressor,
        limits: Limits,
        with_crc: bool = False,
    ) -> None:
        self.source = source
        self.decompressor = decompressor
        self.limits = limits
        self.with_crc = with_crc
        self.start = source.position
        self.size = 0  # compressed bytes
        self.text = 0  # decompressed bytes
        self.crc = 0
        self.checksum = False

    def __iter__(self) -> Iterator[bytes]:
        """The text in pieces of at most 2 MiB.

        Raises DataError at damage, truncation, and beyond the limits.
        """
        stream = self.decompressor.decompressobj(write_size=STEP * BLOCK)
        for piece in self._pieces():
            if self.with_crc:
                self.crc = zlib.crc32(piece, self.crc)
            try:
                text = stream.decompress(piece)
            except zstandard.ZstdError as error:
                check_memory(error)
                raise DataError(_fault(str(error), self.start), remedy=REMEDY) from None
            self.text += len(text)
            if text:
                yield text
        self.size = self.source.position - self.start
        # The decompressor would wait for more input here; our own walk over the blocks knows that there is
        # none.
        if not stream.eof:
            raise DataError(
                f"zstd frame at byte {self.start} does not end where its last block does", remedy=REMEDY
            )

    def _pieces(self) -> Iterator[bytes]:
        """The compressed bytes: whole blocks, and never a byte past the end of the frame."""
        parts = [self._header()]
        last = False
        while not last:
            header = self.source.take(3)
            # 24 bits, little endian: last block, two bits of type (1 is a run of one byte, 3 is reserved),
            # size.
            word = int.from_bytes(header, "little")
            last = bool(word & 1)
            kind = word >> 1 & 3
            size = word >> 3
            if kind == 3 or size > BLOCK:
                raise DataError(f"damaged zstd block at byte {self.source.position - 3}", remedy=REMEDY)
            parts += header, self.source.take(1 if kind == 1 else size)
            if len(parts) > 2 * STEP:
                yield b"".join(parts)
                parts.clear()
        parts.append(self.source.take(4 if self.checksum else 0))
        yield b"".join(parts)

    def _header(self) -> bytes:
        """The frame header (RFC 8878, 3.1.1.1).

        Raises DataError if it wants a dictionary or too large a window.
        """
        flags = self.source.take(5)[4]
        is_single_segment = flags >> 5 & 1
        self.checksum = bool(flags >> 2 & 1)
        window_size = 0 if is_single_segment else 1
        dictionary_size = (0, 1, 2, 4)[flags & 3]
        # Two flag bits encode 0, 2, 4 or 8 bytes of content size; 0 means 1 in a single segment.
        content_size = (is_single_segment, 2, 4, 8)[flags >> 6]
        fields = self.source.take(window_size + dictionary_size + content_size)
        if any(fields[window_size : window_size + dictionary_size]):
            raise DataError(
                f"zstd frame at byte {self.start} needs a dictionary",
                remedy="decompress it with zstd -D first",
            )
        # A single segment has no window: its content is the window.
        window = _window(fields[0]) if window_size else int.from_bytes(fields[dictionary_size:], "little")
        self._check_window(window)
        return ZSTD + bytes([flags]) + fields

    def _check_window(self, window: int) -> None:
        if window <= 1 << self.limits.window_log:
            return
        bits = (window - 1).bit_length()
        raise DataError(
            f"zstd frame at byte {self.start} wants {window >> 20} MiB of memory",
            remedy=f"--long {bits} allows it" if bits <= 31 else "no zstd decoder has that much",
        )


def _window(descriptor: int) -> int:
    # Five bits of exponent, three of mantissa: 2^(10 + e) * (1 + m / 8).
    base = 1 << 10 + (descriptor >> 3)
    return base + (base >> 3) * (descriptor & 7)


def _fault(error: str, start: int) -> str:
    if "checksum" in error:
        return f"checksum mismatch in the zstd frame at byte {start}"
    return f"damaged zstd frame at byte {start} ({error.removeprefix('zstd decompressor error: ')})"


class _OfThread(threading.local):
    def __init__(self) -> None:
        self.compressors: dict[int, zstandard.ZstdCompressor] = {}


_of_thread = _OfThread()


def compressed_size(text: bytes, level: int) -> int:
    """Bytes of a text that is compressed as a single frame."""
    # A compressor for each call would take 1.6 times as long; one may not be used by two threads at once.
    if level not in _of_thread.compressors:
        _of_thread.compressors[level] = zstandard.ZstdCompressor(level=level)
    return len(_of_thread.compressors[level].compress(text))
