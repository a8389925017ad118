"""Are inputs the same bytes as those of an earlier run?"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b

from .. import storage
from ..formats import gzip, zstd
from ..storage.base import Input
from ..stream.section import Section

PIECE = 64 << 10  # bytes of each sample
PIECES = 8  # the first, the last, and others at even distances between them
CHUNK = 8 << 20  # bytes of a read where everything is read


def digests(inputs: Sequence[Input]) -> list[str] | None:
    """The digest of each input; None if one of them is a pipe, whose bytes can be read only once."""
    made = [digest(file) for file in inputs]
    present = [each for each in made if each is not None]
    return present if len(present) == len(made) else None


def version(file: Input) -> str:
    """A digest that changes with the content of a file that is no pipe, without reading much of it.

    A server says which version it has. Of a local file without checksums the times stand for the content.
    """
    if storage.has_folders(file.path):
        with file.duplicate().open() as opened:
            is_compressed = _is_compressed(opened)
        if is_compressed and (content := digest(file)):
            return content
    # The first of the five values of a local file is the device, which machines number as they like.
    named = repr((file.identity or ())[-4:])
    return blake2b(named.encode(), digest_size=16).hexdigest()


def digest(file: Input) -> str | None:
    """A digest of the size and the content; None for a pipe. Raises what `Input.open` raises.

    It depends neither on the path nor on times: files are moved and copied between two runs. Plain text is
    read whole. Of a compressed file, samples are enough: its last bytes hold a checksum of the text, and a
    change of the text moves or changes the bytes behind it. A change is missed only if it keeps the size of
    an earlier gzip member or zstd frame to the byte, and lies between the samples.
    """
    if isinstance(file, Section):
        return file.digest()
    if file.identity is None:
        return None
    # An input of its own: the caller may be reading `file`.
    with file.duplicate().open() as opened:
        size = opened.size or 0
        # The size is hashed too, or two files of the same samples would be equal.
        summary = blake2b(f"{size}\n".encode(), digest_size=16)
        for offset, length in _samples(size) if _is_compressed(opened) else _chunks(size):
            summary.update(opened.read_at(offset, length))
    return summary.hexdigest()


def _is_compressed(opened: Input) -> bool:
    return opened.read_at(0, 4).startswith((zstd.MAGIC, gzip.MAGIC))


def _chunks(size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of pieces that cover the whole."""
    return ((offset, CHUNK) for offset in range(0, size, CHUNK))


def _samples(size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of the samples; those of a small file cover it."""
    if size <= PIECE * PIECES:
        return ((offset, PIECE) for offset in range(0, size, PIECE))
    last = size - PIECE
    return ((index * last // (PIECES - 1), PIECE) for index in range(PIECES))
