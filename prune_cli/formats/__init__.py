"""Which format does a file have? FORMATS is the one list of them; the first bytes decide, never the name.

To add a format: write a file of this folder that defines `FORMAT` (see `base.Format`), and put it into
FORMATS before `jsonl`, which matches everything. If its magic number is in `jsonl.FOREIGN`, take it out there.
A format that may stand behind another one in a file, as gzip behind zstd, is also listed in `trailing.py`; a
compressed one has its suffix in `storage/output_paths.py`, which names the outputs of `-O`.
"""

from collections.abc import Iterator

from ..errors import DataError
from ..stream.lookahead import REMEDY, Limits, LookAhead, Raw, Warn
from ..stream.schema import Event
from . import gzip, jsonl, trailing, zstd
from .base import START, Format

FORMATS = (zstd.FORMAT, gzip.FORMAT, jsonl.FORMAT)


def read(
    raw: Raw, limits: Limits = Limits(), warn: Warn = lambda message: None, name: str = ""
) -> Iterator[Event]:
    """The text of a file in pieces, and the heads and trailers of prune-cli streams in their places.

    `name` is only compared with the content. Raises DataError as `base.Format.read` does, and for a file
    without any bytes, because a command that failed before a pipe leaves that.
    """
    source = LookAhead(raw)
    start = source.peek(START)
    if not start:
        if limits.allow_empty:
            return
        raise DataError(
            "no bytes at all",
            remedy="the command before it may have failed; --allow-empty accepts this as no records",
        )
    if len(start) < 4 and (zstd.MAGIC.startswith(start) or gzip.MAGIC.startswith(start[:2])):
        raise DataError(f"truncated at byte {len(start)}, inside the first magic number", remedy=REMEDY)
    detected = detect(start)
    named = _named(name)
    if named is not None and named is not detected:
        warn(f"the name says {named.name}, the content is {detected.name}: read as {detected.name}")
    yield from detected.read(source, limits, warn)
    while detected.is_framed and (start := source.peek(START)):
        # `cat a.zst b.gz` is what `zstd -dc` reads, too: frames of either format in any order.
        detected = detect(start)
        if not detected.is_framed:
            trailing.drop(source, limits, warn)
            return
        yield from detected.read(source, limits, warn)


def detect(start: bytes) -> Format:
    """The format of a file that begins with these bytes."""
    return next(each for each in FORMATS if each.matches(start))


def _named(name: str) -> Format | None:
    return next((each for each in FORMATS if name.endswith(each.suffixes)), None)
