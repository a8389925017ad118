"""How is one output made of the streams that workers wrote? Their frames are copied as they are, in order."""

import os
import tempfile
from dataclasses import dataclass

from .. import storage
from ..errors import DataError
from ..stream import index
from ..stream.schema import Totals
from ..stream.writer import Sink


@dataclass
class Joiner:
    """Appends whole temporary streams to a sink, and removes them."""

    sink: Sink
    unscored_tokens: int = 0

    def append(self, path: str) -> Totals:
        """Write the frames of a stream. Returns its totals. Raises DataError if it is damaged."""
        table = index.read_table(storage.input_at(path))
        if table is None:
            raise DataError("a temporary file is damaged", place=path, remedy="run again")
        with table.file.open():
            for frame in range(len(table.frames)):
                self.sink.copy_frame(table, frame)
            # Frames are read in threads: the file is open until they are done.
            self.sink.drain()
        os.unlink(path)
        # Of a frame with some unscored records a sink cannot count their tokens, but the trailer has.
        self.unscored_tokens += table.totals.unscored_tokens or 0
        self.sink.facts["unscored_tokens"] = self.unscored_tokens
        return table.totals


def temporary_directory(output: str | None) -> str:
    """Where the parts are: beside an output of this machine, which has room for it, else in TMPDIR."""
    if output is None or output == "-" or "://" in output or storage.is_stream(output):
        return tempfile.gettempdir()
    return os.path.dirname(output) or "."
