"""How is plain text read? Unchanged. Data of other formats is an error that says how to convert it."""

from collections.abc import Iterator

from ..errors import DataError
from ..stream.lookahead import Limits, LookAhead, Warn
from .base import START, Format

# Formats that are not read, by magic number: their names, for whoever named the wrong file, and remedies.
FOREIGN = {
    b"BZh": ("bzip2", "decompress it first: bzip2 -dc FILE | prune-cli ..."),
    b"\xfd7zXZ": ("xz", "decompress it first: xz -dc FILE | prune-cli ..."),
    b"\x04\x22\x4d\x18": ("lz4", "decompress it first: lz4 -dc FILE | prune-cli ..."),
    b"PK\x03\x04": ("zip", "unpack it first"),
    b"ARROW1": ("Arrow", "convert it to JSON Lines first"),
    b"\x22\xb5\x2f\xfd": ("obsolete zstd (before 0.8)", "recompress it with a current zstd"),
}
# A file begins like this that git puts in the place of a large one until `git lfs pull`.
POINTER = b"version"


def _matches(start: bytes) -> bool:
    # Text has no magic number: everything that no other format recognizes is read, or refused, here.
    return True


def _read(source: LookAhead, limits: Limits, warn: Warn) -> Iterator[bytes]:
    _check(source.peek(START))
    while chunk := source.chunk():
        yield chunk


def is_text(start: bytes) -> bool:
    """Whether a file that begins with these bytes is read as text, and not refused."""
    try:
        _check(start)
    except DataError:
        return False
    return True


def _check(start: bytes) -> None:
    encoding = _encoding(start)
    if encoding:
        remedy = f"convert it: iconv -f {encoding} -t UTF-8 FILE | prune-cli ..."
        raise DataError(f"{encoding} text, not UTF-8 (it starts with {start[:4].hex(' ')})", remedy=remedy)
    for magic, (name, remedy) in FOREIGN.items():
        if start.startswith(magic):
            raise DataError(f"{name} data (it starts with {magic.hex(' ')}), not JSON Lines", remedy=remedy)
    # No JSON begins with a letter v.
    if start.startswith(POINTER):
        fault = "only a pointer of Git LFS: the file itself was not downloaded"
        raise DataError(fault, remedy="run git lfs pull in its folder")
    # These are the only control characters that JSON allows outside of strings, where a record begins.
    if start[0] < 32 and start[:1] not in b"\t\n\r":
        raise DataError(
            f"not JSON Lines, zstd or gzip: it starts with {start.hex(' ')}",
            remedy="decompress or convert it first",
        )


def _encoding(start: bytes) -> str:
    """The name of a wide encoding of Unicode that text starts with; "" for UTF-8."""
    # UTF-32 first: its little-endian mark begins like that of UTF-16.
    if start[:4] in (b"\xff\xfe\0\0", b"\0\0\xfe\xff"):
        return "UTF-32"
    if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "UTF-16"
    # Without a mark the zero half of the first character tells: a record begins with a brace.
    if start[:2] == b"{\0":
        return "UTF-16LE"
    return "UTF-16BE" if start[:2] == b"\0{" else ""


FORMAT = Format("plain", suffixes=(".jsonl", ".json"), matches=_matches, read=_read)
