"""Input that is laid out otherwise names the command that converts it; repeated operands are warned of."""

import pytest

from ..conftest import lines

RECORD = '{"id":1,"text":"one","perplexity":1.0}'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"[{RECORD},{RECORD}]\n", "not an object but a list; `jq -c '.[]'` makes lines of an array"),
        (f"[\n{RECORD},\n{RECORD}\n]\n", "`jq -c '.[]'` makes lines of an array"),
        ('{\n  "id": 1,\n  "text": "one"\n}\n', "`jq -c .` makes lines of records"),
        ('{"id": 1,\n "text": "one"}\n', "`jq -c .` makes lines of records"),
    ],
)
@pytest.mark.parametrize("verb", [["rank"], ["stat"], ["score", "-m", "random"]])
def test_json_over_lines_or_in_an_array(here, verb, text, said):
    assert said in here(*verb, stdin=text.encode(), status=65).stderr.decode()


@pytest.mark.parametrize(
    ("encoding", "name"),
    [
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16LE"),
        ("utf-16-be", "UTF-16BE"),
        ("utf-32", "UTF-32"),
    ],
)
def test_wide_encodings_are_named(here, encoding, name):
    said = here("rank", stdin=RECORD.encode(encoding), status=65).stderr.decode()
    assert f"{name} text, not UTF-8" in said
    assert f"iconv -f {name} -t UTF-8 FILE" in said


def test_text_and_compressed_data_in_one_file(here):
    data = RECORD.encode() + b"\n"
    said = here("rank", stdin=data + here("rank", stdin=data).stdout, status=65).stderr
    assert b"(standard input):2: " in said
    assert b"compress both parts or neither" in said


@pytest.mark.parametrize(
    "verb", [["rank"], ["stat"], ["score", "-m", "random"], ["slice", "-k", "perplexity", "--min", "0"]]
)
def test_a_file_that_is_named_twice_is_warned_of_once(here, tmp_path, verb):
    path = tmp_path / "a.jsonl"
    path.write_bytes(RECORD.encode() + b"\n")
    (tmp_path / "link").symlink_to(path)
    said = here(*verb, path, tmp_path / "link").stderr.decode()
    assert said.count("is named twice: its records are read twice") == 1
    assert here(*verb, path).stderr == b""


def test_resume_names_a_few_settings(here, tmp_path):
    data = lines([{"id": 1, "text": "one"}])
    path = tmp_path / "a.jsonl"
    path.write_bytes(data)
    output = tmp_path / "out.zst"
    here("score", "-m", "random", "--resume", "-o", output, path)
    said = here("score", "--resume", "-o", output, path, status=73).stderr.decode()
    assert said.count(", not ") <= 3
    assert "more settings differ" in said
