"""Plans: which shards inputs are cut into, and that the shards of a file hold each of its records once."""

import pickle
import random
import subprocess
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_cli import storage
from prune_cli.engines.plan import InputFile, inspect, plan
from prune_cli.errors import DataError
from prune_cli.records.reader import ReadingLimits, Source, Wanted
from prune_cli.stream import writer
from prune_cli.stream.lookahead import Limits
from prune_cli.stream.section import Grain, Section, Shard

from ..conftest import lines, scored, status_of, zstd


def sections_of(path, target: int) -> list[Section]:
    sections = [shard.open_input() for shard in shards_of(path, target)]
    assert all(isinstance(section, Section) for section in sections)
    return sections  # type: ignore[return-value]


def text_of(*shards: Shard) -> bytes:
    """The records of shards, as any verb would read them."""
    batches = Source([shard.open_input() for shard in shards], ReadingLimits()).batches(Wanted({}))
    return b"".join(bytes(batch.text) for batch in batches)


def shards_of(path, target: int) -> list[Shard]:
    return plan([inspect(storage.input_at(str(path)), target)], target)


# --- The plan alone ---


def test_small_files_are_whole_shards():
    files = [InputFile("a", 7, (1, 2)), InputFile("b", None, None)]
    assert plan(files) == [
        Shard(number=1, of=2, input="a", identity=(1, 2)),
        Shard(number=2, of=2, input="b"),
    ]
    assert plan([]) == []


def test_a_plan_can_be_pickled_and_compared():
    shards = plan([InputFile("a", 7000, ("etag",), Grain.lines)], 1000)
    assert pickle.loads(pickle.dumps(shards)) == shards
    assert len({*shards, *pickle.loads(pickle.dumps(shards))}) == 7


def test_lines_are_cut_into_equal_parts_of_at_most_the_target():
    shards = plan([InputFile("a", 2500, (1,), Grain.lines)], 1000)
    assert [(shard.start, shard.end) for shard in shards] == [(0, 833), (833, 1666), (1666, 2500)]
    assert [(shard.part, shard.parts, shard.number) for shard in shards] == [(1, 3, 1), (2, 3, 2), (3, 3, 3)]


def test_frames_are_divided_by_their_text():
    # Five frames of 10 bytes, with 4, 4, 4, 4 and 100 bytes of text: the last is larger than a shard.
    offsets = (50, 60, 70, 80, 90, 100)
    shards = plan([InputFile("a", 200, (1,), Grain.frames, offsets, (4, 4, 4, 4, 100))], 58)
    assert [(shard.start, shard.end) for shard in shards] == [(50, 90), (90, 100)]


@given(
    texts=st.lists(st.integers(0, 50), min_size=1, max_size=40),
    target=st.integers(1, 100),
)
def test_frames_are_in_exactly_one_shard(texts, target):
    offsets = tuple(range(7, 7 + len(texts) + 1))
    shards = plan([InputFile("a", 1000, (1,), Grain.frames, offsets, tuple(texts))], target)
    if len(shards) == 1:
        assert shards[0].grain is Grain.whole
        return
    assert [shards[0].start, shards[-1].end] == [offsets[0], offsets[-1]]
    assert [shard.end for shard in shards[:-1]] == [shard.start for shard in shards[1:]]
    ends = [shard.end or 0 for shard in shards]
    assert all(shard.start < end for shard, end in zip(shards, ends, strict=True))
    # No shard has more than the target and a frame.
    sizes = [sum(texts[shard.start - 7 : end - 7]) for shard, end in zip(shards, ends, strict=True)]
    assert max(sizes) <= target + max(texts)


def test_thirty_thousand_files_are_planned_at_once():
    files = [
        InputFile(f"s3://corpus/{number:05}.jsonl", 10**9, ("etag",), Grain.lines) for number in range(30_000)
    ]
    shards = plan(files)
    assert len(shards) == 4 * 30_000
    assert shards[-1].number == shards[-1].of == len(shards)


# --- Lines ---


@given(
    text=st.lists(st.sampled_from(["", "{}", '{"a": 1}', '{"long": "' + "x" * 50 + '"}']), max_size=12),
    ends=st.booleans(),
    cuts=st.lists(st.integers(0, 400), max_size=6),
)
def test_a_line_belongs_to_the_section_in_which_it_starts(tmp_path_factory, text, ends, cuts):
    """Every line is in exactly one section, wherever the cuts are."""
    data = "\n".join(text).encode() + b"\n" * ends
    path = tmp_path_factory.getbasetemp() / "cuts.jsonl"
    path.write_bytes(data)
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    file = storage.input_at(str(path))
    for start, end in pairwise(bounds):
        section = Section(str(path), whole=file, grain=Grain.lines, start=start, end=end)
        with section.open():
            held = b"".join(section.events())
        starts = [0, *(at + 1 for at, byte in enumerate(data) if byte == 10)]
        wanted = [
            data[first:] if b"\n" not in data[first:] else data[first : data.index(b"\n", first) + 1]
            for first in starts
            if start <= first < end
        ]
        assert held == b"".join(wanted)


@pytest.mark.parametrize(("size", "count"), [(1, 4), (7, 12), (64, 60), (1000, 60)])
def test_the_shards_of_text_hold_each_record_once(size, count, tmp_path):
    """Each shard is an opening of the file: fewer records where a shard is a byte or a few."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(scored(count)).removesuffix(b"\n"))
    assert text_of(*shards_of(path, size)) == lines(scored(count))


def test_a_line_may_be_longer_than_several_sections(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines([{"text": "x" * 5_000_000}, {"text": "y"}, {"text": "z" * 3_000_000}]))
    shards = shards_of(path, 1_000_000)
    assert len(shards) == 9
    counts = [text_of(shard).count(b"\n") for shard in shards]
    assert counts == [1, 0, 0, 0, 0, 2, 0, 0, 0]


def test_a_fault_behind_the_first_section_names_the_byte_it_begins_at(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"{}\n" * 10 + b"oops\n" + b"{}\n" * 10)
    shards = shards_of(path, 30)
    with pytest.raises(DataError, match=r"a\.jsonl from byte 21:4: not JSON"):
        text_of(*shards)


# --- Frames ---


@pytest.fixture
def stream(tmp_path, monkeypatch):
    """A stream of many small frames."""
    monkeypatch.setattr(writer, "FRAME", 1000)
    (tmp_path / "in.jsonl").write_bytes(lines(scored(100)))
    path = tmp_path / "scored.jsonl.zst"
    assert status_of("score", "-m", "random", tmp_path / "in.jsonl", "-o", tmp_path / "s.zst") == 0
    assert status_of("rank", "-k", "random", tmp_path / "s.zst", "-o", path) == 0
    return path


def unpacked(path) -> bytes:
    return subprocess.run(["zstd", "-dc", path], capture_output=True, check=True).stdout


@pytest.mark.parametrize("target", [1, 3000, 10_000])
def test_the_shards_of_a_stream_hold_each_record_once(target, stream):
    shards = shards_of(stream, target)
    assert {shard.grain for shard in shards} == {Grain.frames}
    assert text_of(*shards) == unpacked(stream)


def test_a_section_of_a_stream_has_its_head_and_line_numbers(stream):
    section = sections_of(stream, 3000)[2]
    source = Source([section], ReadingLimits())
    head, _ = source.peek()
    assert head.verb == "rank"
    first = next(source.batches(Wanted({})))
    place = unpacked(stream).index(bytes(first.text))
    assert section.first_line() == unpacked(stream)[:place].count(b"\n") + 1


def test_a_damaged_frame_is_named_by_its_shard_alone(stream):
    shards = shards_of(stream, 3000)
    data = bytearray(stream.read_bytes())
    data[shards[1].start + 100] ^= 1
    stream.write_bytes(data)
    whole = storage.input_at(str(stream))
    sections = [
        Section(
            shard.input,
            whole=whole,
            grain=shard.grain,
            start=shard.start,
            end=shard.end or 0,
        )
        for shard in shards
    ]
    list(Source([sections[0], *sections[2:]], ReadingLimits()).batches(Wanted({})))
    with pytest.raises(DataError, match="damaged zstd frame"):
        list(Source([sections[1]], ReadingLimits()).batches(Wanted({})))


def test_digests_of_sections_differ_and_stay_the_same(stream, tmp_path):
    digests = [section.digest() for section in sections_of(stream, 3000)]
    assert len({*digests}) == len(digests)
    assert digests == [section.digest() for section in sections_of(stream, 3000)]
    text = tmp_path / "in.jsonl"
    before = [section.digest() for section in sections_of(text, 3000)]
    data = bytearray(text.read_bytes())
    data[4000] ^= 1
    text.write_bytes(data)
    after = [section.digest() for section in sections_of(text, 3000)]
    assert [one == other for one, other in zip(before, after, strict=True)] == [
        number != 1 for number in range(len(before))
    ]


# --- What is not cut ---


def test_foreign_files_pipes_and_small_files_are_whole(tmp_path):
    dice = random.Random(1)
    text = lines({"text": dice.randbytes(50).hex()} for _ in range(100))
    foreign = tmp_path / "foreign.zst"
    foreign.write_bytes(zstd(text))
    utf16 = tmp_path / "utf16.jsonl"
    utf16.write_bytes(text.decode().encode("utf-16"))
    small = tmp_path / "small.jsonl"
    small.write_bytes(text)
    assert [len(shards_of(path, 100)) for path in (foreign, utf16)] == [1, 1]
    assert len(shards_of(small, 8 * len(text))) == 1
    [pipe] = plan([inspect(storage.input_at("-"), 100)], 100)
    assert pipe.grain is Grain.whole


@pytest.mark.parametrize("change", [b"{}\n", b""])
def test_an_input_that_changed_since_the_plan_is_named(change, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(scored(60)))
    shards = shards_of(path, 1000)
    path.write_bytes(path.read_bytes() + change)
    with pytest.raises(DataError, match=r"a\.jsonl: changed since the run began"):
        shards[1].open_input()


# --- Parquet ---


@pytest.mark.parametrize("target", [1, 2000, 100_000])
def test_the_shards_of_a_parquet_file_hold_each_row_once(target, tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "web.parquet"
    rows = [{"id": at, "text": "lorem ipsum " * (at % 9), "nested": {"a": [at, None]}} for at in range(500)]
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=40)
    shards = shards_of(path, target)
    # 13 row groups of at least a kilobyte of text each.
    assert len(shards) == {1: 13, 2000: len(shards), 100_000: 1}[target]
    assert text_of(*shards) == lines(rows).replace(b": ", b":").replace(b", ", b",")
    if target == 2000:
        assert 2 < len(shards) < 13
        digests = [section.digest() for section in sections_of(path, target)]
        assert len({*digests}) == len(shards)


def test_columns_of_a_parquet_section_are_those_that_are_asked_for(tmp_path):
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "web.parquet"
    pq.write_table(pa.table({"a": range(100), "b": ["x"] * 100}), path, row_group_size=10)
    section = sections_of(path, 100)[-1]
    source = Source([section], ReadingLimits(limits=Limits(columns=("b",))))
    text = b"".join(bytes(batch.text) for batch in source.batches(Wanted({})))
    assert {*text.splitlines()} == {b'{"b":"x"}'}
