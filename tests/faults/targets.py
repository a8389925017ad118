"""What the fuzzer feeds: everything that reads bytes it did not write. Frames, head, trailer, seek table,
lines and the splicer.

The first byte of an input says which of the targets gets the rest. An input that makes one fail is a finding.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from io import BytesIO
from tempfile import TemporaryDirectory
from zlib import crc32

import zstandard

from prune_cli import cli, formats
from prune_cli.errors import DataError
from prune_cli.records import splice
from prune_cli.records.decoder import Decoder
from prune_cli.records.lines import Block, line_ends
from prune_cli.records.reader import Number, ReadingLimits, Source, Wanted
from prune_cli.storage.local.reading import LocalInput
from prune_cli.stream import container, index, zstd_blocks
from prune_cli.stream.container import HEAD, START, TRAILER
from prune_cli.stream.lookahead import Limits

LIMITS = Limits(window_log=20)
MOST = 8 << 20  # bytes of text that one input may become: finding larger bombs is slow, not interesting
WANTED = Wanted(
    {"perplexity": Number, "text": str}, ("text",), ("perplexity", "text"), ("rank",), overwrite=True
)
EXPECTED = {0, 1, 2, 3, 65, 66, 78}  # the statuses that a damaged file may lead to; 70 is a bug


def one_input(data: bytes) -> None:
    if data:
        TARGETS[data[0] % len(TARGETS)](data[1:])


def streams(data: bytes) -> None:
    """What is read without an error is what zstandard makes of the same bytes."""
    text = bytearray()
    try:
        for event in formats.read(BytesIO(data), LIMITS):
            text += event if isinstance(event, bytes) else b""
            if len(text) > MOST:
                return
    except DataError:
        return
    if data[:4] == zstd_blocks.ZSTD:
        reader = zstandard.ZstdDecompressor(max_window_size=1 << 20).stream_reader(
            data, read_across_frames=True
        )
        with suppress(zstandard.ZstdError):  # it does not pass over skippable frames
            assert reader.read(len(text) + 1) == text


def partial_outputs(data: bytes) -> None:
    """What is taken up of a file that broke off is whole lines, and no byte is taken twice."""
    size = 0
    for text, packed, crc in container.whole_frames(BytesIO(data), lambda message: None):
        assert text.endswith(b"\n")
        assert crc == crc32(data[size : size + packed])
        size += packed
    assert size <= len(data)


def sealed(magic: int, kind: str, payload: bytes, before: bytes = b"") -> bytes:
    """A head or trailer of any content, its checksum right: without it nothing behind the checksum would be
    reached.
    """
    payload = f"prune-cli {kind}\n".encode() + payload
    frame = magic.to_bytes(4, "little") + (len(payload) + 4).to_bytes(4, "little") + payload
    return frame + crc32(before + frame).to_bytes(4, "little")


def liars(data: bytes) -> None:
    """Our own stream around a head and a trailer that say anything: `stat` and `slice` must not believe them,
    nor trip over them.
    """
    head, _, trailer = data.partition(b"\n")
    text = b'{"perplexity":1.0,"rank":0,"quantile":0.25}\n{"perplexity":2.0,"rank":1,"quantile":0.75}\n'
    frame = zstandard.ZstdCompressor(write_checksum=True).compress(text)
    beginning = START + sealed(HEAD, "head", head, START)
    facts = {b"@SIZE": len(frame), b"@CRC": crc32(frame), b"@TEXT": len(text), b"@HEAD": crc32(beginning)}
    for name, value in facts.items():
        trailer = trailer.replace(name, str(value).encode())
    end = sealed(TRAILER, "trailer", trailer)
    sizes = [(len(START), 0), (len(beginning) - len(START), 0), (len(frame), len(text)), (len(end), 0)]
    commands(beginning + frame + end + container.seek_table(sizes))


def tables(data: bytes) -> None:
    """A table is found only in a stream that reads as whole, and its frames are the frames that are read."""
    path = f"{FOLDER.name}/table"
    with open(path, "wb") as file:
        file.write(data)
    if table := index.read_table(LocalInput(path)):
        with table.file.open(), suppress(DataError):
            text = b"".join(table.text(number) for number in range(len(table.offsets)))
            assert text == b"".join(
                event for event in formats.read(BytesIO(data), LIMITS) if isinstance(event, bytes)
            )


def commands(data: bytes) -> None:
    """A whole command over a file: any status but that of a bug."""
    path = f"{FOLDER.name}/stream"
    with open(path, "wb") as file:
        file.write(data)
    for arguments in (
        ["stat"],
        ["slice", "--keep", "middle", "--frac", "0.5", "-f", "-o", f"{FOLDER.name}/out"],
    ):
        status = cli.run(
            [*arguments, "-q", "--threads", "1", path] if arguments != ["stat"] else ["stat", "-q", path]
        )
        assert status in EXPECTED, (arguments, status)


def lines(data: bytes) -> None:
    """The fast way and the slow way of reading a block agree, and what is spliced in is found again."""
    text = data if data.endswith(b"\n") else data + b"\n"
    block = Block("fuzz", 1, text, line_ends(text))
    decoder = Decoder(WANTED, max_line=ReadingLimits().max_line)
    fast = decoder.fast(block)
    source = Source([], ReadingLimits())
    try:
        slow = source._decode_slowly(block, decoder)
    except DataError:
        assert fast is None
        return
    if fast is not None:
        assert (fast.text, fast.columns["perplexity"]) == (slow.text, slow.columns["perplexity"])
    for line in slow.lines:
        new = splice.splice(line, splice.members({"rank": 3}))
        with suppress(
            ValueError, UnicodeDecodeError, RecursionError
        ):  # Python's own parser is stricter about UTF-8
            before, after = json.loads(line), json.loads(new)
            assert after == {**before, "rank": 3}
            assert json.loads(splice.without(new, ["rank"])) == before
        assert splice.spliced(new, line) == {"rank": 3}


TARGETS: list[Callable[[bytes], None]] = [streams, partial_outputs, liars, tables, commands, lines]
FOLDER = TemporaryDirectory(prefix="prune-cli-fuzz-")
