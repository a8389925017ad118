"""What is an input format? How it is recognised, and how its bytes become lines of JSON."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..stream.lookahead import Limits, LookAhead, Warn
from ..stream.schema import Event

START = 8  # bytes of a file that `matches` sees; every magic number is shorter


@dataclass(frozen=True)
class Format:
    """An input format. `suffixes` are those of its file names: a name that says otherwise is worth a warning.

    `matches` gets the first bytes of a file (START of them, fewer only if the file is shorter). `read` yields
    the text in pieces of a few megabytes, cut anywhere, and the heads and trailers of prune-cli streams in
    their places. It raises DataError, with the byte, where the file is truncated or damaged: what it yielded
    before is what `zstd -dc` or `gzip -dc` would have printed before their own error.

    A format that `is_framed` reads its own frames and leaves the bytes after them: the next frame may be of
    another framed format, and `formats.read` hands it to that one.
    """

    name: str
    suffixes: tuple[str, ...]
    matches: Callable[[bytes], bool]
    read: Callable[[LookAhead, Limits, Warn], Iterator[Event]]
    is_framed: bool = False
