"""How is a gzip file read? All members, as `gzip -dc` does: bgzip and concatenated files have many."""

import zlib
from collections.abc import Iterator

from ..errors import DataError
from ..stream.lookahead import REMEDY, Limits, LookAhead, Warn
from .base import Format

MAGIC = b"\x1f\x8b"
PIECE = 2 << 20  # bytes of text at a time: bounds the memory, however far a hostile member expands
GZIP_HEADER = 16 + zlib.MAX_WBITS  # makes zlib check the header, length and CRC-32 of a gzip member


def _matches(start: bytes) -> bool:
    return start[:2] == MAGIC


def _read(source: LookAhead, limits: Limits, warn: Warn) -> Iterator[bytes]:
    while source.peek(2) == MAGIC:
        yield from _member(source)


def _member(source: LookAhead) -> Iterator[bytes]:
    stream = zlib.decompressobj(wbits=GZIP_HEADER)
    while not stream.eof:
        chunk = stream.unconsumed_tail or source.chunk()
        if not chunk:
            raise DataError(
                f"truncated gzip member at byte {source.position}",
                remedy=f"the rest is missing: {REMEDY}",
            )
        try:
            text = stream.decompress(chunk, PIECE)
        except zlib.error as error:
            fault = f"damaged gzip member before byte {source.position} ({error})"
            raise DataError(fault, remedy=REMEDY) from None
        if text:
            yield text
    # The last chunk usually contains the beginning of the next member.
    source.give_back(stream.unused_data)


FORMAT = Format("gzip", suffixes=(".gz",), matches=_matches, read=_read, is_framed=True)
