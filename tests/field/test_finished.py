"""score -O skips an output only if it is of this input, these settings and these models."""

import gzip

import pytest

from ..conftest import lines, records, zstd

ONE = [{"id": 1, "text": "one"}, {"id": 2, "text": "two"}]
OTHER = [{"id": 3, "text": "three"}, {"id": 4, "text": "four"}]


@pytest.fixture
def corpus(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_bytes(lines(ONE))
    return path


@pytest.fixture
def score(here, tmp_path, corpus):
    """Score into the directory `od`, and return standard error."""

    def run(*options: object, status: int = 0, **more: object) -> str:
        arguments = options if "-m" in options else ("-m", "random", *options)
        done = here("score", *arguments, "-O", tmp_path / "od", corpus, status=status, **more)
        return done.stderr.decode()

    return run


@pytest.fixture
def output(tmp_path):
    return tmp_path / "od" / "c.jsonl.zst"


def test_the_same_command_skips_the_output(score, output):
    score()
    before = output.stat()
    assert "1 outputs were already finished" in score("-v")
    assert output.stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        (["--seed", 3], "was made with seed 0, not 3"),
        (["--only", "id,random"], "was made with only [], not ['id', 'random']"),
        (["--prefix", "new_"], "was made with fields ['random'], not ['new_random']"),
        (["--group-by", "id"], "was made with group 'source', not 'id'"),
        (["-m", "perplexity"], "was made with fields ['random'], not ['perplexity']"),
    ],
)
def test_other_settings_are_refused_by_name(options, difference, score, output):
    score()
    before = output.read_bytes()
    said = score(*options, status=78)
    assert f"od/c.jsonl.zst: {difference}" in said
    assert said.endswith("; -f makes it again, another -O DIR keeps it\n")
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    ("given", "difference"),
    [
        (OTHER, "its record 1 is not made from {}:1"),
        ([*ONE, *OTHER], "lacks the record {}:3"),
        (ONE[:1], "holds more than the 1 records of the input"),
    ],
)
def test_other_input_is_refused(given, difference, score, output, corpus):
    score()
    corpus.write_bytes(lines(given))
    assert f"c.jsonl.zst: {difference.format(corpus)}; -f" in score(status=78)
    score("-f")
    assert [record["id"] for record in records(output.read_bytes())] == [record["id"] for record in given]
    assert "already finished" in score("-v")


def test_another_model_is_refused(here, tmp_path, corpus):
    pytest.importorskip("torch")
    from ..small_models import tiny_gpt2

    first = tiny_gpt2(tmp_path / "first")
    second = tiny_gpt2(tmp_path / "second", n_layer=1)
    arguments = ("score", "-O", tmp_path / "od", corpus, "--model")
    here(*arguments, first)
    assert b"1 outputs were already finished" in here(*arguments, first, "-v").stderr
    said = here(*arguments, second, status=78).stderr
    assert b"was made with models ['" in said
    # The weights tell, not the folder that they are in.
    first.rename(tmp_path / "moved")
    here(*arguments, tmp_path / "moved")


@pytest.mark.parametrize("compress", [zstd, gzip.compress])
def test_input_that_was_compressed_anew_is_the_same(compress, score, corpus):
    score()
    corpus.write_bytes(compress(lines(ONE)))
    assert "1 outputs were already finished" in score("-v")


def test_an_output_of_an_earlier_version_is_compared_record_by_record(here, score, output, corpus):
    """Streams without digests of their inputs, as -o writes them and version 0.1.0 wrote them all."""
    output.parent.mkdir()
    output.write_bytes(here("score", "-m", "random", corpus).stdout)
    assert "1 outputs were already finished" in score("-v")
    corpus.write_bytes(lines(OTHER))
    assert "its record 1 is not made from" in score(status=78)


def test_the_group_field_of_the_input_is_not_another_setting(here, score, output, corpus):
    ranking = here("rank", "-k", "id", "--group-by", "text", corpus).stdout
    corpus.write_bytes(ranking)
    score()
    assert "1 outputs were already finished" in score("-v")
    assert "was made with group 'text', not 'id'" in score("--group-by", "id", status=78)


def test_any_other_file_is_refused(here, score, output, corpus):
    output.parent.mkdir()
    ranking = here("rank", "-k", "id", corpus).stdout
    for content in (b"", b"done", lines(ONE), ranking):
        output.write_bytes(content)
        assert "exists, and is not a finished stream of score; -f" in score(status=78)


def test_plain_outputs_are_compared_by_their_records_with_a_warning(score, corpus):
    score("--plain")
    assert "only its records were compared with the input" in score("--plain")
    corpus.write_bytes(lines(OTHER))
    assert "its record 1 is not made from" in score("--plain", status=78)


def test_outputs_that_exist_are_checked_before_anything_is_scored(here, tmp_path, score, corpus):
    score()
    earlier = tmp_path / "a.jsonl"
    earlier.write_bytes(lines(ONE))
    here("score", "-m", "random", "--seed", 1, "-O", tmp_path / "od", earlier, corpus, status=78)
    assert not (tmp_path / "od" / "a.jsonl.zst").exists()


@pytest.mark.parametrize("name", ["/dev/fd/0", "/dev/stdin", "/proc/self/fd/0"])
def test_an_input_without_a_name_of_its_own_is_refused(name, here, tmp_path):
    said = here("score", "-m", "random", "-O", tmp_path / "od", name, stdin=lines(ONE), status=2).stderr
    assert b"has no name to give to its output" in said


@pytest.mark.parametrize("count", [3000, 30000])
def test_a_change_between_the_ends_of_a_large_file_is_seen(score, corpus, count):
    """Plain text is read whole, whatever its size: 0.4 and 4 MB here."""
    many = [{"id": number, "text": "word " * 20} for number in range(count)]
    corpus.write_bytes(lines(many))
    score()
    changed = count // 2 + 77
    many[changed]["text"] = "wird " + "word " * 19
    corpus.write_bytes(lines(many))
    assert f"its record {changed + 1} is not made from" in score(status=78)


def test_an_output_of_the_same_input_is_skipped_without_reading_its_records(score, monkeypatch):
    score()
    monkeypatch.setattr("prune_cli.stages.score.finished.compare_records", None)
    assert "1 outputs were already finished" in score("-v")


def test_another_batch_size_is_not_another_setting(score, output, here):
    score("-m", "perplexity")
    before = output.stat().st_mtime_ns
    score("-m", "perplexity", "--batch-tokens", 64)
    assert output.stat().st_mtime_ns == before
