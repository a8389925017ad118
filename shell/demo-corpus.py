#!/usr/bin/env python3
"""Build the demo's corpus from the text that every Python installation carries: `demo-corpus.py DIRECTORY`.

Prose is what the documentation says (`topics`, `docstrings`, `comments`); the noise and the boilerplate a
crawl would have are source code (`code`), encoding tables (`tables`) and licence headers (`licences`). Four
files come out: `reference.jsonl` (prose only, to train the model that scores), `pool.jsonl` (everything, to
be pruned), and the tests `mixed.jsonl` (as the pool) and `prose.jsonl` (the prose of it). One Python makes
the same bytes on every run.
"""

import ast
import inspect
import io
import json
import re
import sys
import sysconfig
import textwrap
import tokenize
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from pydoc_data.topics import topics

PROSE = ("topics", "docstrings", "comments")
SHARES = {"reference": 0.25, "test": 0.10, "pool": 0.65}
# There is three times as much code as prose: one function of three and every other stretch of a table make it
# half of the tokens.
THINNED = {"code": 3, "tables": 2}
SHORTEST = 60  # characters; below it lie `See above.` and `# XXX`
SHORTEST_CODE = 200
TOPIC_CHARACTERS = 2000
TABLE_LINES = 24
# Not shipped by every installation (packaged apart, or for one system only).
ABSENT_SOMEWHERE = {
    "distutils",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "msilib",
    "test",
    "tkinter",
    "turtle",
    "turtledemo",
    "venv",
}
TESTS = {"test", "tests", "idle_test"}
LICENCE = re.compile(r"copyright|licen[cs]ed|all rights reserved|permission to use", re.IGNORECASE)
HEADING = re.compile(r"\n(?=[^\n]+\n([*=\-~^\"'])\1{2,}\n)")


@dataclass(frozen=True)
class Document:
    """One record; `family` is what it was dealt with, so that no two parts share a package."""

    id: str
    text: str
    source: str
    family: str


def main() -> None:
    """Write the four files and say what is in them."""
    if len(sys.argv) != 2:
        sys.exit(f"usage: {Path(sys.argv[0]).name} DIRECTORY")
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for name, documents in corpus().items():
        lines = [
            json.dumps({k: v for k, v in asdict(d).items() if k != "family"}, ensure_ascii=False) + "\n"
            for d in documents
        ]
        (directory / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8", newline="\n")
        print(f"{name + '.jsonl':16}{summary(documents)}")


def corpus() -> dict[str, list[Document]]:
    """The four files' documents, each in an order that has nothing to do with where they stood."""
    documents = sorted(distinct(thinned(everything())), key=lambda d: digest(d.id))
    part_of = deal(documents)
    parts = {part: [d for d in documents if part_of[d.family] == part] for part in SHARES}
    return {
        "reference": [d for d in parts["reference"] if d.source in PROSE],
        "pool": parts["pool"],
        "mixed": parts["test"],
        "prose": [d for d in parts["test"] if d.source in PROSE],
    }


def everything() -> Iterator[Document]:
    """All documents of this Python's topics and library, in a fixed order."""
    for name in sorted(topics):
        for number, text in enumerate(sections(topics[name])):
            yield Document(f"topics.{name}:{number}", text, "topics", f"topics.{name}")
    for module, path in modules(Path(sysconfig.get_path("stdlib"))):
        with tokenize.open(path) as file:
            yield from module_documents(module, file.read())


def module_documents(module: str, source: str) -> Iterator[Document]:
    """What one source file holds; each character of it in one document at most."""
    package = module.split(".")[0]
    # All tables live in one package: dealt whole, they would be missing from every part but one.
    family = module if package == "encodings" else package
    tree, bare = ast.parse(source), list(own_line_comments(source))
    written = list(docstrings(tree))
    for kind, found in (
        ("docstrings", ((d.lineno, text) for d, text in written)),
        ("comments", comments(bare)),
    ):
        for line, text in found:
            if len(text) >= SHORTEST:
                yield Document(f"{module}:{line}", text, "licences" if LICENCE.search(text) else kind, family)
    taken = {line for line, _ in bare}.union(*(span(d) for d, _ in written))
    lines = source.split("\n")  # splitlines() would also cut at form feeds, which the parser does not count
    for line, text in tables(tree, lines, taken) if package == "encodings" else ():
        yield Document(f"{module}:{line}", text, "tables", family)
    for line, text in functions(tree, lines, taken):
        if len(text) >= SHORTEST_CODE:
            yield Document(f"{module}:{line}", text, "code", family)


def modules(library: Path) -> Iterator[tuple[str, Path]]:
    """The dotted name and the file of every module that each installation ships."""
    for name in sorted(sys.stdlib_module_names - ABSENT_SOMEWHERE - {"pydoc_data"}):
        found = [library / f"{name}.py", *sorted((library / name).rglob("*.py"))]
        for path in filter(Path.is_file, found):
            parts = path.relative_to(library).with_suffix("").parts
            if not TESTS.intersection(parts):
                yield ".".join(parts).removesuffix(".__init__"), path


def sections(topic: str) -> Iterator[str]:
    """A topic cut at its headings (topics quote each other's sections whole), long sections between
    paragraphs.
    """
    for section in HEADING.split("\n" + topic)[::2]:
        piece = ""
        for paragraph in section.strip().split("\n\n"):
            if piece and len(piece) + len(paragraph) > TOPIC_CHARACTERS:
                yield piece
                piece = ""
            piece += ("\n\n" if piece else "") + paragraph.strip("\n")
        if len(piece) >= SHORTEST:
            yield piece


def docstrings(tree: ast.Module) -> Iterator[tuple[ast.stmt, str]]:
    """Every docstring: the statement it is, and its text without the indent."""
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef():
                if text := ast.get_docstring(node):
                    yield node.body[0], text


def comments(bare: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """First line and text of every block of comments that stand on lines of their own."""
    start, block = 0, list[str]()
    for line, text in bare:
        if line != start + len(block) or not block:
            yield from joined(start, block)
            start, block = line, []
        block.append(text.lstrip("#").removeprefix(" "))
    yield from joined(start, block)


def joined(start: int, block: list[str]) -> Iterator[tuple[int, str]]:
    """A block as one text, if anything is in it."""
    if text := inspect.cleandoc("\n" + "\n".join(block)).strip():
        yield start, text


def own_line_comments(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of the comments with nothing in front, the `#!` and `-*- coding` lines left out."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        bare = token.type == tokenize.COMMENT and not token.line[: token.start[1]].strip()
        if bare and not (token.start[0] < 3 and re.match(r"#!|#.*coding[:=]", token.string)):
            yield token.start[0], token.string


def functions(tree: ast.Module, lines: list[str], taken: set[int]) -> Iterator[tuple[int, str]]:
    """Every function and method that stands in no other, without the lines that its docstring and comments
    took.
    """
    bodies = [tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))]
    for node in chain.from_iterable(bodies):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.lineno, textwrap.dedent("\n".join(lines[n - 1] for n in span(node) if n not in taken))


def tables(tree: ast.Module, lines: list[str], taken: set[int]) -> Iterator[tuple[int, str]]:
    """The long literals of an encoding, in stretches of so many lines."""
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.Expr) and node.lineno not in taken:
            rows = span(node)
            for start in rows[: len(rows) - TABLE_LINES + 1 : TABLE_LINES]:
                yield start, "\n".join(lines[start - 1 : start - 1 + TABLE_LINES])


def span(node: ast.stmt) -> range:
    """The lines of a statement, counted from 1."""
    return range(node.lineno, (node.end_lineno or node.lineno) + 1)


def thinned(documents: Iterable[Document]) -> Iterator[Document]:
    """Fewer of the kinds there is too much of; which ones, their names decide."""
    return (d for d in documents if int(digest(d.id), 16) % THINNED.get(d.source, 1) == 0)


def distinct(documents: Iterable[Document]) -> Iterator[Document]:
    """The first of those that are equal but for white space, and no text that UTF-8 cannot carry (docstrings
    about surrogates).
    """
    seen = set[str]()
    for document in documents:
        words = " ".join(document.text.split())
        if words not in seen and words == words.encode("utf-8", "ignore").decode():
            seen.add(words)
            yield document


def deal(documents: Iterable[Document]) -> dict[str, str]:
    """Give every family to one part: the longest first, each to the part that lacks most; topics, encodings
    and the rest apart.
    """
    sizes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for document in documents:
        kind = document.family.split(".")[0] if "." in document.family else ""
        sizes[kind][document.family] += len(document.text)
    part_of: dict[str, str] = {}
    for families in sizes.values():
        given, total = dict.fromkeys(SHARES, 0), sum(families.values())
        for family, size in sorted(families.items(), key=lambda item: (-item[1], item[0])):
            part = max(SHARES, key=lambda part: SHARES[part] * total - given[part])
            part_of[family] = part
            given[part] += size
    return part_of


def digest(name: str) -> str:
    """A number that looks random and is the same everywhere."""
    return blake2b(name.encode(), digest_size=8).hexdigest()


def summary(documents: Iterable[Document]) -> str:
    """How many documents and characters, and the shares of the sources."""
    characters: dict[str, int] = defaultdict(int)
    for document in documents:
        characters[document.source] += len(document.text)
    total = sum(characters.values())
    shares = ", ".join(
        f"{source} {size / total:.0%}"
        for source, size in sorted(characters.items(), key=lambda item: -item[1])
    )
    return f"{len(list(documents)):6,} documents {total / 1e6:5.2f} M characters: {shares}"


if __name__ == "__main__":
    main()
