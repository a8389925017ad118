"""Which format does a file have? Its first bytes decide, never its name. FORMATS lists all formats.

To add a format: write a file of this folder that defines `FORMAT` (see `base.Format`), and put it into
FORMATS before `jsonl`, which matches everything. If its magic number is in `jsonl.FOREIGN`, take it out
there. A format that may stand behind another one in a file, as gzip behind zstd, is also listed in
`trailing.py`; a compressed one has its suffix in `storage/output_paths.py`, which names the outputs of `-O`.
"""

from collections.abc import Iterator

from ..errors import DataError
from ..stream.lookahead import REMEDY, Limits, LookAhead, Raw, Warn
from . import gzip, jsonl, parquet, trailing, zstd
from .base import START, Format, Piece

FORMATS = (zstd.FORMAT, gzip.FORMAT, parquet.FORMAT, jsonl.FORMAT)


def read(
    raw: Raw, limits: Limits = Limits(), warn: Warn = lambda message: None, name: str = ""
) -> Iterator[Piece]:
    """The text of a file in pieces, or its rows; and heads and trailers of prune-cli streams.

    `name` is only compared with the content. Raises DataError as `base.Format.read` does, and for a file
    without any bytes.
    """
    source = LookAhead(raw)
    start = source.peek(START)
    _check_start(start, limits)
    if not start:
        return
    detected = detect(start)
    named = _named(name)
    if named is not None and named is not detected:
        warn(f"the name says {named.name}, the content is {detected.name}: read as {detected.name}")
    if limits.columns and detected is not parquet.FORMAT:
        warn(f"--columns is for Parquet: all fields of this {detected.name} file are read")
    yield from detected.read(source, limits, warn)
    while detected.is_framed and (start := source.peek(START)):
        # `cat a.zst b.gz` is what `zstd -dc` reads, too: frames of either format in any order.
        detected = detect(start)
        if not detected.is_framed:
            trailing.drop(source, limits, warn)
            return
        yield from detected.read(source, limits, warn)


def _check_start(start: bytes, limits: Limits) -> None:
    """Raise DataError for an empty file, and for one that ends within its magic number."""
    # A command that failed leaves an empty pipe, which must not pass for a corpus without records.
    if not start and not limits.allow_empty:
        raise DataError(
            "no bytes at all",
            remedy="the command before it may have failed; --allow-empty accepts this as no records",
        )
    # gzip's magic number has two bytes and zstd's has four. Text may be as short, but begins differently.
    is_cut = zstd.MAGIC.startswith(start) or gzip.MAGIC.startswith(start[:2])
    if 0 < len(start) < 4 and is_cut:
        raise DataError(f"truncated at byte {len(start)}, inside the first magic number", remedy=REMEDY)


def detect(start: bytes) -> Format:
    """The format of a file that begins with these bytes."""
    return next(each for each in FORMATS if each.matches(start))


def _named(name: str) -> Format | None:
    """The format that a file name announces, if any."""
    return next((each for each in FORMATS if name.endswith(each.suffixes)), None)
