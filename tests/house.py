"""How far is the code from its house style? `python -m tests.house [PREFIX]` prints the counts, file by file.

`tests/test_house.py` holds the counts to their thresholds.
"""

import ast
import io
import statistics
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "prune_cli"

COLUMNS = 110
LINES_PER_FILE = 400
FILES_PER_FOLDER = 12

# Names that the glossary replaced: no module may be called so ...
OLD_MODULES = {
    *("wish", "tables", "kept", "seen", "outputs", "forms", "table", "rows", "failures", "rehearsal"),
    *("places", "shape", "tally", "throughput", "pieces", "layers", "learning", "preparing"),
    *("fairness", "declarations", "screens", "reliability"),
}
# ... and nothing else may be called so.
OLD_IDENTIFIERS = {"chances", "steep", "of_weight", "unsummed", "Learner", "patient", "doubts"}

# Tokens that are neither code nor comment.
LAYOUT = {
    *(tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER, tokenize.COMMENT),
}
# Comments that are addressed to a tool, not to a reader.
DIRECTIVES = ("# type:", "# noqa", "#!", "# fmt:", "# mypy:")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class File:
    """The counts of one Python file."""

    path: Path
    long_lines: list[int]
    nested_conditionals: list[int]
    comments: int
    code: int
    functions: list[tuple[str, int]]  # name and number of lines
    lines: int
    late_imports: list[int]  # line numbers of relative imports inside functions
    identifiers: frozenset[str]
    classes: tuple[str, ...]  # public classes at the top level

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def comments_per_hundred(self) -> float:
        return 100 * self.comments / max(self.code, 1)


def package_files() -> list[File]:
    return [measure(path) for path in sorted(PACKAGE.rglob("*.py"))]


def all_files() -> list[File]:
    """The package, its tests and the Python scripts of shell/."""
    others = [*sorted((ROOT / "tests").rglob("*.py")), *sorted((ROOT / "shell").rglob("*.py"))]
    return [*package_files(), *(measure(path) for path in others)]


@cache
def measure(path: Path) -> File:
    text = path.read_text()
    tree = ast.parse(text)
    comments, code = _comments_and_code(text, tree)
    return File(
        path=path,
        long_lines=[number for number, line in enumerate(text.splitlines(), 1) if len(line) > COLUMNS],
        nested_conditionals=sorted(_nested_conditionals(tree)),
        comments=comments,
        code=code,
        functions=[(node.name, _length(node)) for node in ast.walk(tree) if isinstance(node, Function)],
        lines=len(text.splitlines()),
        late_imports=sorted(_late_imports(tree)),
        identifiers=frozenset(_identifiers(tree)),
        classes=tuple(
            node.name
            for node in tree.body
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
        ),
    )


def _comments_and_code(text: str, tree: ast.Module) -> tuple[int, int]:
    """Comments for a reader, and lines that hold code: neither blank lines nor docstrings count as code."""
    comments = 0
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            comments += not token.string.startswith(DIRECTIVES)
        elif token.type not in LAYOUT:
            code.update(range(token.start[0], token.end[0] + 1))
    return comments, len(code - set(_docstring_lines(tree)))


def _docstring_lines(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | Function) and ast.get_docstring(node, clean=False):
            docstring = node.body[0]
            yield from range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1)


def _length(node: Function) -> int:
    """Lines from `def` to the last statement, docstring included."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _nested_conditionals(tree: ast.Module) -> Iterator[int]:
    """Line numbers of conditional expressions inside another one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.IfExp):
            inner = (part for part in ast.walk(node) if isinstance(part, ast.IfExp) and part is not node)
            yield from (part.lineno for part in inner)


def _late_imports(tree: ast.Module) -> set[int]:
    return {
        statement.lineno
        for function in ast.walk(tree)
        if isinstance(function, Function)
        for statement in ast.walk(function)
        if isinstance(statement, ast.ImportFrom) and statement.level
    }


def _identifiers(tree: ast.Module) -> Iterator[str]:
    """Every name that is defined, assigned or used."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.arg(arg=name) | ast.Attribute(attr=name):
                yield name
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.alias(name=name) | ast.keyword(arg=str(name)):
                yield name


def median_function(files: list[File]) -> float:
    return statistics.median(length for file in files for _, length in file.functions)


def main(prefix: str = "") -> None:
    print("lines  >110  nested  com/100  median  longest function                file")
    for file in all_files():
        if not file.name.startswith(prefix):
            continue
        lengths = [length for _, length in file.functions] or [0]
        longest = max(file.functions, key=lambda function: function[1], default=("-", 0))
        print(
            f"{file.lines:5}{len(file.long_lines):6}{len(file.nested_conditionals):8}"
            f"{file.comments_per_hundred:9.1f}{statistics.median(lengths):8.1f}"
            f"  {longest[1]:4} {longest[0][:26]:26} {file.name}"
        )
    package = package_files()
    comments, code = sum(file.comments for file in package), sum(file.code for file in package)
    print(
        f"prune_cli: {100 * comments / code:.2f} comments a hundred lines of code ({comments}/{code});",
        end="",
    )
    print(f" median function {median_function(package)} lines")


if __name__ == "__main__":
    main(*sys.argv[1:])
