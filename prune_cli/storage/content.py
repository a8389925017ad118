"""Does an input hold the same bytes as one of an earlier run? Told by a digest that reads little of it."""

from collections.abc import Sequence
from hashlib import blake2b

from .base import Input

PIECE = 64 << 10  # bytes of each sample
PIECES = 8  # the first, the last, and others at even distances between them


def digests(inputs: Sequence[Input]) -> list[str] | None:
    """The digest of each input; None if one of them is a pipe, whose bytes can be read only once."""
    made = [digest(file) for file in inputs]
    present = [each for each in made if each is not None]
    return present if len(present) == len(made) else None


def digest(file: Input) -> str | None:
    """A digest of the size and of samples of the content, the whole of it up to 512 KiB; None for a pipe.

    It depends neither on the path nor on times: files are moved and copied between two runs. A change that
    keeps the size and lies between the samples is not seen, except in our own streams and in seekable zstd
    files, where every change moves the table at the end. Raises what `Input.open` raises.
    """
    if file.identity is None:
        return None
    # An input of its own: the caller may be reading `file`.
    with file.duplicate().open() as opened:
        size = opened.size or 0
        # The size is hashed too, or two files of the same samples would be equal.
        summary = blake2b(f"{size}\n".encode(), digest_size=16)
        for offset in _offsets(size):
            summary.update(opened.read_at(offset, PIECE))
    return summary.hexdigest()


def _offsets(size: int) -> list[int]:
    """Where the samples begin. Those of a small file follow each other without a gap."""
    last = max(0, size - PIECE)
    if size <= PIECE * PIECES:
        return list(range(0, size, PIECE))
    return [index * last // (PIECES - 1) for index in range(PIECES)]
