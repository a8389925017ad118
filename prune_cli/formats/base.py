"""How does an input format say how it is recognized, and how its bytes become lines of JSON?"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ..stream.batch import Text
from ..stream.lookahead import Limits, LookAhead, Warn
from ..stream.schema import Event

START = 8  # bytes of a file that `matches` sees; every magic number is shorter


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a table as whole lines of JSON; `ends` are the offsets of the line ends in `text`."""

    text: Text
    ends: np.ndarray


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that has no line of JSON, in its place among the others."""

    fault: str
    remedy: str


Piece = Event | Rows | BadRow  # what a format yields


@dataclass(frozen=True)
class Format:
    """An input format.

    `suffixes` are the ends of its file names: a file with a name of one format and the content of another
    gets a warning.

    `matches` takes the first bytes of a file: START of them, fewer only if the file is shorter. `read` yields
    the text in pieces of a few megabytes, cut anywhere, or rows, and heads and trailers of prune-cli streams
    where they occur. It raises DataError, with the byte, if the file is truncated or damaged, after the same
    text that `zstd -dc` or `gzip -dc` would print before their own error.

    A format that `is_framed` reads its own frames and leaves the bytes after them: the next frame may belong
    to a different framed format, and `formats.read` passes it on.
    """

    name: str
    suffixes: tuple[str, ...]
    matches: Callable[[bytes], bool]
    read: Callable[[LookAhead, Limits, Warn], Iterator[Piece]]
    is_framed: bool = False
