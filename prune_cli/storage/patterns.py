"""Which names does a pattern in a URL stand for?

Shells expand patterns over local files, and leave those in URLs to us: `*` and `[a-z]` stand for characters
of one part of a key, `**` for any number of parts, `{a,b}` and `{0..9}` for each of several spellings, and a
slash at the end for all corpora in a folder.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from ..errors import NoInputError
from .os_errors import display

# Names that a folder is searched for. Others, such as checksums and read-me files, are no records.
_FORMS = (".jsonl", ".ndjson", ".json")
_COMPRESSIONS = ("", ".zst", ".zstd", ".gz")
SUFFIXES = (".parquet", *(form + compression for form in _FORMS for compression in _COMPRESSIONS))

_WILDCARD = re.compile(r"(?P<parts>\*\*/)|(?P<deep>\*\*)|(?P<part>\*)|\[(?P<not>[!^]?)(?P<of>\]?[^]]*)\]")
_BRACES = re.compile(r"\{([^{}]*)\}")
# Bucket and host are taken as they stand: the brackets of http://[::1]/ are no wildcard.
_HOST = re.compile("[^/]*//[^/]*/?")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True)
class Pattern:
    """One spelling of a URL with wildcards: `folder` is listed, and names that match `regex` are taken.

    Without wildcards `regex` is None, and `folder` is the name itself.
    """

    folder: str
    regex: re.Pattern[str] | None = None
    is_folder: bool = False  # whether the URL ended in a slash

    def takes(self, name: str) -> bool:
        """Whether the pattern stands for a name that lies in its folder."""
        # Some programs make an object for a folder, whose name ends in a slash.
        if self.regex is None or name.endswith("/") or not self.regex.fullmatch(name):
            return False
        # As in Spark and Hive, `_SUCCESS` and `.staging/` are not data.
        inside = "/" + name.removeprefix(self.folder)
        return not self.is_folder or (name.endswith(SUFFIXES) and not re.search("/[._]", inside))


def expand(url: str, below: Callable[[str], Iterable[str]]) -> list[str]:
    """The names that a URL stands for, sorted; one without wildcards stands for itself.

    `below` lists the names in a folder at any depth, the URL of the folder in front of each. Raises
    NoInputError if nothing matches.
    """
    names: set[str] = set()
    for pattern in parse(url):
        if pattern.regex is None:
            names.add(pattern.folder)
        else:
            names.update(filter(pattern.takes, below(pattern.folder)))
    if names:
        return sorted(names)
    if url.endswith("/"):
        fault, remedy = "no corpus in this folder", f"name a pattern such as {display(url)}*"
        raise NoInputError(f"{fault} (.jsonl, .json or .parquet)", place=display(url), remedy=remedy)
    remedy = "[*] stands for a star itself" if "*" in url else "[[] and [{] stand for a bracket itself"
    raise NoInputError("nothing matches this pattern", place=display(url), remedy=remedy)


def parse(url: str) -> Iterator[Pattern]:
    """The patterns of a URL: one for each spelling that its braces stand for."""
    match = _HOST.match(url)
    host = match[0] if match else ""
    for spelling in _spellings(url.removeprefix(host)):
        yield _pattern(host, spelling)


def _spellings(path: str) -> Iterator[str]:
    """The path with each choice of its braces, the innermost first; braces without a comma are no choice."""
    # What stands in brackets is not for braces: `[{]` is a brace itself.
    masked = re.sub(r"\[[!^]?\]?[^]]*\]", lambda match: "-" * len(match[0]), path)
    for match in _BRACES.finditer(masked):
        choices = _choices(path[match.start(1) : match.end(1)])
        if choices:
            for choice in choices:
                yield from _spellings(path[: match.start()] + choice + path[match.end() :])
            return
    yield path


def _choices(text: str) -> list[str]:
    """`a,b` are two choices, `08..10` are three numbers of one width, and anything else is none."""
    bounds = _RANGE.fullmatch(text)
    if bounds is None:
        return text.split(",") if "," in text else []
    first, last = bounds[1], bounds[2]
    width = max(len(first), len(last)) if first.startswith("0") or last.startswith("0") else 0
    return [str(number).zfill(width) for number in range(int(first), int(last) + 1)]


def _pattern(host: str, path: str) -> Pattern:
    """The pattern of a path without choices. The folder ends with the last slash before a wildcard."""
    is_folder = (host + path).endswith("/")
    pieces = [""]  # literals and, between two of them, a wildcard's regular expression
    start = 0
    for match in _WILDCARD.finditer(searched := path + "**" if is_folder else path):
        pieces[-1] += searched[start : match.start()]
        start = match.end()
        if len(match["of"] or "") == 1 and not match["not"]:
            pieces[-1] += match["of"]  # `[*]` is a star
        else:
            pieces += [_regex(match), ""]
    pieces[-1] += searched[start:]
    first = host + pieces[0]
    if len(pieces) == 1:
        return Pattern(first)
    regex = re.escape(first) + "".join(
        piece if number % 2 == 0 else re.escape(piece) for number, piece in enumerate(pieces[1:])
    )
    return Pattern(first[: first.rindex("/") + 1], re.compile(regex, re.DOTALL), is_folder)


def _regex(match: re.Match[str]) -> str:
    """The regular expression for a wildcard."""
    if match["parts"]:
        return "(?:.*/)?"
    if match["deep"]:
        return ".*"
    if match["part"]:
        return "[^/]*"
    # A range that is written backwards matches nothing in a shell, and is an error to `re`.
    characters = re.sub(r"(.)-(.)", lambda pair: pair[0] if pair[1] <= pair[2] else "", match["of"])
    escaped = re.sub(r"[\\\[\]&~|^]", r"\\\g<0>", characters)
    if match["not"]:
        return f"[^/{escaped}]"
    return f"(?!/)[{escaped}]" if escaped else "(?!)"
