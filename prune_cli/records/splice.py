"""How are fields put into a record, taken out and chosen, while every other byte stays as it is?"""

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from typing import Any

import orjson

BLANK = b" \t\r\n"  # the white space of JSON


def splice(line: bytes, members: bytes) -> bytes:
    """The record with `members` (`"rank":3,"quantile":0.5`) before its closing brace.

    >>> splice(b'{"id": 1}', b'"rank":0')
    b'{"id": 1,"rank":0}'
    """
    end = line.rindex(b"}")
    # A record without fields needs no comma. The first test is cheap and true for nearly no record.
    is_empty = line[end - 1 : end] in (b"{", b" ", b"\t") and line[:end].strip(BLANK) == b"{"
    comma = b"" if is_empty else b","
    return b"".join((line[:end], comma, members, line[end:]))


def spliced(line: bytes, base: bytes) -> dict[str, Any] | None:
    """The fields that make `line` if they are spliced into `base`; None if no fields do."""
    end = base.rindex(b"}")
    if not line.startswith(base[:end]) or not line.endswith(base[end:]) or len(line) < len(base):
        return None
    between = line[end : len(line) - len(base) + end]
    members = between.removeprefix(b",")
    try:
        fields = orjson.loads(b"{" + members + b"}")
    except orjson.JSONDecodeError:
        return None
    # Splicing again also compares the comma, which an empty record must not have.
    is_same = not between or splice(base, members) == line
    return fields if is_same else None


def members(fields: dict[str, Any]) -> bytes:
    """The fields as `splice` takes them: a JSON object without its braces.

    Floats are written so that they read back equal.
    """
    return orjson.dumps(fields, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]


# Possessive quantifiers (`*+`): the expressions never backtrack, so hostile input costs linear time.
STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
NUMBERS = rb'\[[^\[\]{}"]*+\]'  # a list of numbers is one token: token ids are most of a packed record
TOKEN = re.compile(STRING + rb"|" + NUMBERS + rb"|[\[\]{},:]", re.DOTALL)


def without(line: bytes, names: Iterable[str]) -> bytes:
    """The record without the fields called `names`."""
    removed = set(names)
    pieces = [piece for name, piece in _top_level(line) if name not in removed]
    start, end = _braces(line)
    return line[:start] + b",".join(pieces) + line[end:]


def only(line: bytes, names: Iterable[str]) -> tuple[bytes, list[str]]:
    """The record with only the fields called `names`, and the names that it does not have.

    >>> only(b'{"id": 1.10, "text": "long", "x":[ ]}', ["x", "id", "y"])
    (b'{"id": 1.10,"x":[ ]}', ['y'])
    """
    wanted = dict.fromkeys(names)
    kept = [(name, piece) for name, piece in _top_level(line) if name in wanted]
    present = {name for name, _ in kept}
    missing = [name for name in wanted if name not in present]
    start, end = _braces(line)
    body = b",".join(piece.strip(BLANK) for _, piece in kept)
    return line[:start] + body + line[end:], missing


def _braces(line: bytes) -> tuple[int, int]:
    """Offsets after the opening brace and of the closing brace."""
    return line.index(b"{") + 1, line.rindex(b"}")


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
    """Name and bytes, white space included, of each field of a valid JSON object."""
    start, end = _braces(line)
    depth = 0
    name = None
    for match in TOKEN.finditer(line, start - 1):
        token = match[0]
        if token in (b"{", b"["):
            depth += 1
        elif token in (b"}", b"]"):
            depth -= 1
        # The first string of a field is its name; later ones at this depth are its value.
        elif depth == 1 and name is None and token[:1] == b'"':
            name = _name(token)
        # A comma ends a field, and so does the brace that closes the record.
        if name is not None and ((token == b"," and depth == 1) or depth == 0):
            yield name, line[start : min(match.start(), end)]
            start = match.end()
            name = None


def _name(key: bytes) -> str:
    """The name that a JSON string spells.

    Invalid UTF-8 keeps its quotes: it then equals no name that a user can ask for.
    """
    try:
        return str(orjson.loads(key))
    except orjson.JSONDecodeError:
        return key.decode("latin-1")


def uniform(seed: Any, identity: Any, content: str | list[int] | None) -> int:
    """64 random bits that depend only on the seed, the record's id, and its text or token ids (BLAKE2b)."""
    # The same in every run and on every shard, because no generator carries state from record to record.
    return int.from_bytes(blake2b(orjson.dumps([seed, identity, content]), digest_size=8).digest())
