"""What are the bytes that follow the last frame of a file, and may they be dropped?"""

from ..errors import DataError
from ..stream.lookahead import REMEDY, Limits, LookAhead, Warn
from . import gzip, jsonl, zstd

LOOK = 64 << 10  # bytes that are looked at before a remedy is chosen


def drop(source: LookAhead, limits: Limits, warn: Warn) -> None:
    """Read the rest of the file and warn with its size if the limits ignore it; else raise DataError.

    The remedy depends on the bytes: `--ignore-trailing` is named only where they hold no records.
    """
    place = source.position
    start = source.peek(LOOK)
    content, remedy = _described(start)
    fault = f"unrecognized data after the last frame, at byte {place} ({content or start[:4].hex(' ')})"
    if not limits.ignore_trailing:
        raise DataError(fault, remedy=remedy)
    size = sum(map(len, iter(source.chunk, b"")))
    warn(f"{fault}: {size} bytes are dropped (--ignore-trailing)")


def _described(start: bytes) -> tuple[str, str]:
    """What the bytes are, if that can be seen, and the remedy."""
    # Zeros alone up to the end of the file: tapes and some archivers fill the last block. More than LOOK of
    # them may have anything behind them.
    if len(start) < LOOK and not start.strip(b"\0"):
        return "padding of zero bytes", "--ignore-trailing drops it"
    if any(magic.startswith(start) for magic in (zstd.MAGIC, gzip.MAGIC)):
        return "the beginning of another frame", f"the rest is missing: {REMEDY}"
    for magic, (name, _) in jsonl.FOREIGN.items():
        if start.startswith(magic):
            return f"{name} data", "decompress or convert it, and name it as a file of its own"
    if start.lstrip()[:1] in (b"{", b"["):
        remedy = "compress both parts or neither before they are joined, or name them as two files"
        return "uncompressed text", remedy
    return "", "inspect them, or drop them with --ignore-trailing"
