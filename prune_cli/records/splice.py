"""Members of a record put in, taken out and chosen: bytes in, bytes out, and every other byte as it was."""

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

import orjson

BLANK = b" \t\r\n"


def splice(line: bytes, members: bytes) -> bytes:
    """The record with `members` (`"rank":3,"quantile":0.5`) put before its closing brace.

    >>> splice(b'{"id": 1}', b'"rank":0')
    b'{"id": 1,"rank":0}'
    """
    end = line.rindex(b"}")
    empty = line[end - 1 : end] in (b"{", b" ", b"\t") and line[:end].strip(BLANK) == b"{"
    return b"".join((line[:end], b"" if empty else b",", members, line[end:]))


def spliced(line: bytes, base: bytes) -> dict[str, Any] | None:
    """The fields that were spliced into `base` to make `line`; None if that is not how it was made."""
    end = base.rindex(b"}")
    if not line.startswith(base[:end]) or not line.endswith(base[end:]) or len(line) < len(base):
        return None
    between = line[end : len(line) - len(base) + end]
    try:
        found = orjson.loads(b"{" + between.removeprefix(b",") + b"}")
    except orjson.JSONDecodeError:
        return None
    return found if splice(base, between.removeprefix(b",")) == line or not between else None


def members(fields: dict[str, Any]) -> bytes:
    """Fields as they are spliced: a JSON object without its braces.

    Floats are written so that they read back equal.
    """
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
NUMBERS = rb'\[[^\[\]{}"]*+\]'  # a list of them is passed over at once
TOKEN = re.compile(STRING + rb"|" + NUMBERS + rb"|[\[\]{},:]", re.DOTALL)


def without(line: bytes, names: Iterable[str]) -> bytes:
    """The record with the members called `names` cut out, every other byte as it was."""
    gone = set(names)
    pieces = [piece for name, piece in _top_level(line) if name not in gone]
    start, end = line.index(b"{") + 1, line.rindex(b"}")
    return line[:start] + b",".join(pieces) + line[end:]


def only(line: bytes, names: Iterable[str]) -> tuple[bytes, list[str]]:
    """The record with none but the members called `names`, each as it was, and which of the names it does not
    have.

    >>> only(b'{"id": 1.10, "text": "long", "x":[ ]}', ["x", "id", "y"])
    (b'{"id": 1.10,"x":[ ]}', ['y'])
    """
    wanted = dict.fromkeys(names)
    kept = [(name, piece) for name, piece in _top_level(line) if name in wanted]
    start, end = line.index(b"{") + 1, line.rindex(b"}")
    found = {name for name, _ in kept}
    return line[:start] + b",".join(piece.strip(BLANK) for _, piece in kept) + line[end:], [
        name for name in wanted if name not in found
    ]


LONE_SURROGATE = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)
"""Every escape of JSON, pairs of surrogates as one; the group is a surrogate that stands alone."""


def lone_surrogate(text: bytes) -> bytes:
    """The first escape in a line of JSON that is half of a character; nothing if there is none."""
    return next((b"\\" + match[1] for match in LONE_SURROGATE.finditer(text) if match[1]), b"")


def without_lone_surrogates(line: bytes) -> bytes:
    """The line with U+FFFD in place of each lone surrogate: as long as before, and readable."""
    return LONE_SURROGATE.sub(lambda match: b"\\ufffd" if match[1] else match[0], line)


def values(line: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and value of each member of a valid JSON object, the value as it stands there."""
    for name, piece in _top_level(line):
        key = TOKEN.search(piece)
        assert key is not None  # `_top_level` found the name in it
        yield name, piece[piece.index(b":", key.end()) + 1 :].strip(BLANK)


def _top_level(line: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each member of a valid JSON object, white space included."""
    start, depth, name = line.index(b"{") + 1, 0, None
    end = line.rindex(b"}")
    for match in TOKEN.finditer(line, start - 1):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and name is None and token[:1] == b'"':
            name = _name(token)
        if name is not None and ((token == b"," and depth == 1) or depth == 0):
            yield name, line[start : min(match.start(), end)]
            start, name = match.end(), None


def _name(key: bytes) -> str:
    """The name that a key spells.

    One that is no UTF-8 keeps its quotes: no field that is asked for has them.
    """
    try:
        return str(orjson.loads(key))
    except orjson.JSONDecodeError:
        return key.decode("latin-1")


def uniform(seed: Any, identity: Any, content: str | list[int] | None) -> int:
    """64 random bits that depend on the seed, the record's id and its text or token ids alone (BLAKE2b)."""
    return int.from_bytes(blake2b(orjson.dumps([seed, identity, content]), digest_size=8).digest())
