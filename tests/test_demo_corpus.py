"""The demo's corpus: what becomes a document, what it is called, and which part it is dealt to."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parent.parent / "shell" / "demo-corpus.py"
PROSE = {"topics", "docstrings", "comments"}
FILES = ("reference", "pool", "mixed", "prose")

MODULE = '''#!/usr/bin/env python3
# Copyright 1999 by somebody who reserved all the rights there were to reserve.

"""Say in a sentence of more than sixty characters what this module is for.

    And show an example.
"""

table = {}  # a comment behind code belongs to the code


class Thing:
    # A block of comments that stands on its own lines,
    #   whose indent is kept, and which is long enough.

    def method(self, argument):
        """Short."""
        # A note inside.
        first = [argument + number for number in range(100) if number % 3 == 0]
        second = [argument - number for number in range(100) if number % 5 == 0]
        third = [argument * number for number in range(100) if number % 7 == 0]
        return first, second, third
'''


@pytest.fixture(scope="module")
def builder() -> ModuleType:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("demo_corpus", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["demo_corpus"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, once for this module."""
    directory = tmp_path_factory.mktemp("corpus")
    subprocess.run([sys.executable, SCRIPT, directory], check=True, capture_output=True)
    return directory


FEW_MODULES = """
import runpy, sys
sys.stdlib_module_names = {"argparse", "asyncio", "encodings", "heapq", "json", "logging", "pickle"}
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def build_few(directory: Path, hash_seed: str) -> Path:
    """Run the script over a tenth of the library; a set's order changes with the hash seed."""
    command = [sys.executable, "-c", FEW_MODULES, SCRIPT, directory]
    environment = os.environ | {"PYTHONHASHSEED": hash_seed}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    return directory


def records(built: Path, name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (built / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_module_is_taken_apart_into_licence_docstring_comment_and_code(builder):
    found = {(d.source, d.id): d.text for d in builder.module_documents("package.module", MODULE)}
    assert (
        found["licences", "package.module:2"]
        == "Copyright 1999 by somebody who reserved all the rights there were to reserve."
    )
    assert found["docstrings", "package.module:4"].endswith(
        "what this module is for.\n\nAnd show an example."
    )
    assert (
        found["comments", "package.module:13"].splitlines()[1]
        == "  whose indent is kept, and which is long enough."
    )
    code = found["code", "package.module:16"]
    assert code.startswith("def method(self, argument):\n    first = ")
    assert "Short." not in code
    assert "note" not in code
    assert len(found) == 4


def test_an_encoding_table_is_cut_into_stretches_and_its_module_is_a_family(builder):
    table = "decoding_map = {\n" + "".join(f"    0x{n:04x}: 0x{n:04x},\n" for n in range(60)) + "}\n"
    found = list(builder.module_documents("encodings.cp0", table))
    assert [(d.source, d.id, d.family, d.text.count("\n") + 1) for d in found] == [
        ("tables", "encodings.cp0:1", "encodings.cp0", 24),
        ("tables", "encodings.cp0:25", "encodings.cp0", 24),
    ]


def test_a_topic_is_cut_at_its_headings(builder):
    topic = 'The "if" statement\n******************\n\n' + "It selects exactly one of the suites. " * 3
    topic += "\n\n\nSyntax\n======\n\n" + "The syntax is as follows, and it is long enough. " * 2
    assert [text.split("\n")[0] for text in builder.sections(topic)] == ['The "if" statement', "Syntax"]


def test_a_long_section_is_cut_between_paragraphs(builder):
    paragraph = "word " * 150 + "."
    pieces = list(builder.sections("\n\n".join([paragraph] * 5)))
    assert [len(piece) // len(paragraph) for piece in pieces] == [2, 2, 1]


def test_texts_that_differ_only_in_white_space_are_kept_once(builder):
    twice = [
        builder.Document("a", "one  two\nthree", "code", "x"),
        builder.Document("b", "one two three ", "code", "x"),
    ]
    assert [d.id for d in builder.distinct(twice)] == ["a"]


def test_text_that_utf8_cannot_encode_is_left_out(builder):
    assert list(builder.distinct([builder.Document("a", "a lone \ud800 surrogate", "docstrings", "x")])) == []


def test_families_are_dealt_whole_and_by_fractions(builder):
    documents = [
        builder.Document(f"{n}:{i}", "x" * 100, "code", f"m{n}") for n in range(100) for i in range(2)
    ]
    part_of = builder.deal(documents)
    dealt = list(part_of.values())
    assert {part: dealt.count(part) for part in builder.SHARES} == {"reference": 25, "test": 10, "pool": 65}


def test_the_same_bytes_come_out_of_every_run(tmp_path):
    one, two = (build_few(tmp_path / seed, hash_seed=seed) for seed in "12")
    for name in FILES:
        assert len(content := (one / f"{name}.jsonl").read_bytes()) > 10_000
        assert content == (two / f"{name}.jsonl").read_bytes()


def test_reference_and_prose_test_are_prose_and_pool_and_mixed_test_hold_every_source(built):
    sources = {name: {record["source"] for record in records(built, name)} for name in FILES}
    everything = PROSE | {"code", "tables", "licences"}
    assert sources == {"reference": PROSE, "pool": everything, "mixed": everything, "prose": PROSE}


def test_no_package_is_in_two_parts_and_no_text_occurs_twice(built):
    parts = {name: records(built, name) for name in ("reference", "pool", "mixed")}
    families = [{family(record["id"]) for record in part} for part in parts.values()]
    assert not families[0] & families[1]
    assert not families[0] & families[2]
    assert not families[1] & families[2]
    texts = [" ".join(record["text"].split()) for part in parts.values() for record in part]
    assert len(texts) == len(set(texts))


def family(identifier: str) -> str:
    """What a document was dealt with: its topic, its encoding, or its top-level package."""
    words = identifier.split(":")[0].split(".")
    return ".".join(words[:2] if words[0] in ("topics", "encodings") else words[:1])


def test_a_document_has_an_id_of_its_own_and_enough_text(built):
    pool = records(built, "pool")
    assert len({record["id"] for record in pool}) == len(pool)
    assert {tuple(record) for record in pool} == {("id", "text", "source")}
    assert min(len(record["text"]) for record in pool) >= 60
