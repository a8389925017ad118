"""Which inputs do operands name: patterns and folders in URLs, and lists of files?"""

import fnmatch
import os
import subprocess
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_cli import api
from prune_cli.errors import NoInputError, UsageError
from prune_cli.storage import patterns

from .conftest import lines, records
from .test_storage import Object, memory, run  # noqa: F401

KEYS = [
    "a/_SUCCESS",
    "a/_temporary/part.jsonl",
    "a/.part.jsonl.swp",
    "a/README.md",
    "a/[1]*.jsonl",
    "a/deep/er/y2.json.gz",
    "a/x.jsonl",
    "a/y1.jsonl.zst",
    "a/y10.jsonl.zst",
    "a/y2.parquet",
    "a/",
    "top.jsonl",
]


def expanded(pattern: str) -> list[str]:
    """The keys that a pattern stands for, asked of a listing that is not sorted."""
    names = [f"s3://bucket/{key}" for key in reversed(KEYS)]
    listed = patterns.expand(
        f"s3://bucket/{pattern}", lambda folder: [name for name in names if name.startswith(folder)]
    )
    return [name.removeprefix("s3://bucket/") for name in listed]


# --- Patterns ---


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("a/y*", ["a/y1.jsonl.zst", "a/y10.jsonl.zst", "a/y2.parquet"]),
        ("a/*.md", ["a/README.md"]),
        ("*.jsonl", ["top.jsonl"]),
        ("**/*.jsonl", ["a/[1]*.jsonl", "a/_temporary/part.jsonl", "a/x.jsonl", "top.jsonl"]),
        ("**.gz", ["a/deep/er/y2.json.gz"]),
        ("a/**/y2.*", ["a/deep/er/y2.json.gz", "a/y2.parquet"]),
        ("*/*/*/y[0-9].*", ["a/deep/er/y2.json.gz"]),
        ("a/[x-z]*[!t]", ["a/x.jsonl"]),
        ("a/{y2,x}.{jsonl,parquet}*", ["a/x.jsonl", "a/y2.parquet"]),
        ("a{,/deep/er}/y2*", ["a/deep/er/y2.json.gz", "a/y2.parquet"]),
        # Without a wildcard nothing is listed, so a name that is not there is for `check` to find.
        ("part-{08..10}.zst", ["part-08.zst", "part-09.zst", "part-10.zst"]),
        ("{x}", ["{x}"]),
        ("a[b", ["a[b"]),
        ("why?.jsonl", ["why?.jsonl"]),
        # The escaping rule: brackets around a character make it itself.
        ("a/[[]1][*].jsonl", ["a/[1]*.jsonl"]),
        ("[{]a,b}", ["{a,b}"]),
        # Folders.
        ("a/", ["a/[1]*.jsonl", "a/deep/er/y2.json.gz", *KEYS[6:10]]),
        ("a/_temporary/", ["a/_temporary/part.jsonl"]),
        ("", ["a/[1]*.jsonl", "a/deep/er/y2.json.gz", *KEYS[6:10], "top.jsonl"]),
    ],
)
def test_a_pattern_stands_for_the_keys_that_it_matches_in_sorted_order(pattern, keys):
    assert expanded(pattern) == sorted(keys)


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("a/z*", "nothing matches this pattern; [*] stands for a star itself"),
        ("a/[z-a]", "nothing matches this pattern; [[] and [{] stand for a bracket itself"),
        (
            "b/",
            "no corpus in this folder (.jsonl, .json or .parquet); name a pattern such as s3://bucket/b/*",
        ),
    ],
)
def test_a_pattern_without_a_match_is_an_error(pattern, message):
    with pytest.raises(NoInputError) as error:
        expanded(pattern)
    assert str(error.value) == f"s3://bucket/{pattern}: {message}"


def test_brackets_of_a_host_are_no_pattern():
    assert patterns.expand("http://[::1]:80/x{1,2}", list) == ["http://[::1]:80/x1", "http://[::1]:80/x2"]


@given(st.text("ab*[]!^-/", max_size=9), st.text("ab-^!/", max_size=6))
def test_wildcards_within_a_part_match_as_in_a_shell(pattern, key):
    """Against fnmatch of the standard library, part by part; it knows neither `**` nor `[^`."""
    if "**" in pattern or "[^" in pattern or pattern.endswith("/") or not key or "/" in key[-1:]:
        return
    (parsed,) = patterns.parse(f"s3://b/{pattern}")
    parts = list(zip(pattern.split("/"), key.split("/"), strict=False))
    # A class that holds a slash is cut in two here, and matches nothing there.
    if any("[" in part and "]" not in part[part.index("[") :] for part, _ in parts) or parsed.regex is None:
        return
    same = pattern.count("/") == key.count("/")
    expected = same and all(fnmatch.fnmatchcase(name, part) for part, name in parts)
    assert parsed.takes(f"s3://b/{key}") == expected


def test_braces_expand_as_in_bash():
    for first, second in product(["{a,b}", "{a,{b,c}d}", "{1..3}", "{09..11}", "{a}", "{,x}"], repeat=2):
        word = f"s3://b/{first}x{second}"
        script = f"set -f; printf '%s\\n' {word}"
        bash = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
        assert patterns.expand(word, list) == sorted({*bash.stdout.split()})


def test_verbs_read_what_a_pattern_stands_for(memory):  # noqa: F811
    for version, name in enumerate(("p2", "p1", "q")):
        content = lines([{"text": name, "perplexity": 1}])
        memory.objects[f"memory://c/{name}.jsonl"] = Object(content, version)
    run("rank", "memory://c/p*.jsonl", "-o", "memory://ranked.jsonl")
    assert [record["text"] for record in records(memory.objects["memory://ranked.jsonl"].content)] == [
        "p1",
        "p2",
    ]
    assert [record["text"] for record in api.read("memory://c/")] == ["p1", "p2", "q"]


def test_a_storage_without_listings_refuses_patterns():
    with pytest.raises(UsageError, match="what lies here cannot be listed"):
        list(api.read("https://localhost:1/corpus/*.jsonl"))


# --- Lists ---


@pytest.fixture
def corpora(tmp_path, monkeypatch):
    """Files of one record each, named by its text, in the current directory."""
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", "with space", "star*", "#"):
        (tmp_path / name).write_bytes(lines([{"text": name}]))
    return tmp_path


def texts(done: subprocess.CompletedProcess) -> list[str]:
    return [record["text"] for record in records(done.stdout)]


SCORE = ("score", "-m", "random", "--plain")


def test_a_list_names_inputs_behind_the_operands(corpora, here):
    (corpora / "list").write_bytes(b"with space\n\n#\nstar*")
    assert texts(here(*SCORE, "b", "--files-from", "list")) == ["b", "with space", "#", "star*"]


def test_a_list_comes_from_standard_input(corpora, here):
    assert texts(here(*SCORE, "--files-from", "-", stdin=b"b\na\n")) == ["b", "a"]


def test_names_that_end_in_nul_hold_any_byte(corpora, here):
    odd = os.fsencode("new\nline") + b"\xff"
    (corpora / os.fsdecode(odd)).write_bytes(lines([{"text": "odd"}]))
    found = subprocess.run(["find", ".", "-name", "*line*", "-print0"], capture_output=True, check=True)
    assert texts(here(*SCORE, "--files-from", "-", "-0", stdin=found.stdout + b"a")) == ["odd", "a"]


def test_standard_input_may_be_named_in_a_file(corpora, here):
    (corpora / "list").write_bytes(b"a\n-\n")
    piped = lines([{"text": "piped"}])
    assert texts(here(*SCORE, "--files-from", "list", stdin=piped)) == ["a", "piped"]


@pytest.mark.parametrize(
    ("arguments", "content", "status", "message"),
    [
        (["--files-from", "absent"], b"", 66, "absent: no such file or directory"),
        (["--files-from", "list"], b"\n", 66, "list: names no file"),
        (["--files-from", "list"], b"a\nabsent\n", 66, "absent: no such file or directory"),
        (["--files-from", "list", "-0"], b"a\0\0b\0", 65, "list: name 2 of the list is empty"),
        (["-", "--files-from", "-"], b"a\n", 2, "as an input and as the list of inputs"),
        (["--files-from", "-"], b"a\n-\n", 2, "as an input and as the list of inputs"),
        (["--null", "a"], b"", 2, "name the list with --files-from"),
        (["--files-from", "."], b"", 66, "is a directory"),
    ],
)
def test_a_list_that_cannot_be_used_is_named(corpora, here, arguments, content, status, message):
    (corpora / "list").write_bytes(content)
    done = here(*SCORE, *arguments, stdin=content, status=status)
    assert done.stdout == b""
    assert message in done.stderr.decode()


@pytest.mark.parametrize(
    "verb", [["rank", "--plain"], ["slice", "--keep", "random", "--frac", "1", "--plain"], ["stat"]]
)
def test_every_verb_takes_a_list(corpora, here, verb):
    (corpora / "scored").write_bytes(lines([{"id": 1, "text": "x", "perplexity": 1}]))
    here(*verb, "--files-from", "-", stdin=b"scored\n")


def test_a_list_of_a_hundred_thousand_names_takes_a_second(corpora):
    """A million take ten times as long: the loop has nothing in it that grows with the number of names."""
    from prune_cli.storage import file_list

    (corpora / "list").write_bytes(b"".join(b"folder/%09d.jsonl.zst\n" % number for number in range(100_000)))
    names = file_list.named([], "list", null=False)
    assert len(names) == 100_000
    assert names[-1] == "folder/000099999.jsonl.zst"
