"""How much does each worker of a divided ranking get: of memory, and of the text?"""

from dataclasses import dataclass

from ... import sizes
from ...settings.rank import Ranking
from ...storage.base import Input

PIECE = 64 << 20  # bytes of text in a part of the ranking that one worker merges and compresses
EXPANSION = 4  # bytes of text in a byte of compressed input, about
# Of the text that a run and a merge share, how many frames a merge reads: the first and last are read twice.
FRAMES = 16


@dataclass(frozen=True)
class WorkerShare:
    """Memory and sizes: none of them changes the records, or their order.

    `size` is the memory of a worker, `piece` the text of a part of the ranking, both in bytes.
    """

    size: int
    piece: int = PIECE

    @property
    def cell(self) -> int:
        """Bytes that are sorted at once by a worker that merges: rows and text, read and in order."""
        return self.size // 2


def share_of(ranking: Ranking, workers: int) -> WorkerShare:
    """The memory of each worker: -S, of which a percentage is one of the machine for all of them together."""
    size = sizes.parse(ranking.buffer_size)
    return WorkerShare(size // workers if ranking.buffer_size.strip().endswith("%") else size)


def text_bytes(file: Input) -> int:
    """About how many bytes of text an input holds."""
    size = file.size or 0
    return size if file.path.endswith((".jsonl", ".json", ".ndjson")) else EXPANSION * size
