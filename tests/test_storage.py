"""A storage of a third kind, in memory: the verbs run on it as they run on files."""

import json
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field

import pytest

from prune_cli import cli, storage
from prune_cli.errors import CannotCreateError, InputOutputError, NoInputError
from prune_cli.storage.base import Input, Output, Progress, RangedInput, Storage, committed, ignore_progress

from .conftest import lines, records, scored

# --- The storage ---


@dataclass
class Object:
    content: bytes
    version: int


@dataclass
class ObjectInput(RangedInput):
    objects: dict[str, Object] = field(default_factory=dict, repr=False)
    requests: list[tuple[int, int]] = field(default_factory=list, repr=False)

    @property
    def size(self) -> int:
        self.check()
        return len(self.objects[self.path].content)

    @property
    def identity(self) -> tuple[int]:
        self.check()
        return (self.objects[self.path].version,)

    def check(self) -> None:
        if self.path not in self.objects:
            raise NoInputError("no such object", place=self.name)

    def read_at(self, offset: int, size: int) -> bytes:
        self.requests.append((offset, size))
        return self.objects[self.path].content[offset : offset + size]


class ObjectOutput(Output):
    def __init__(self, path: str, objects: dict[str, Object]) -> None:
        super().__init__(path)
        self.objects = objects
        self.parts: list[bytes] = []

    def write(self, data: bytes | memoryview) -> None:
        self.parts.append(bytes(data))
        self.written += len(data)

    def commit(self) -> None:
        self.objects[self.path] = Object(b"".join(self.parts), len(self.objects))


class Memory(Storage):
    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.requests: list[tuple[int, int]] = []

    def input(self, path: str, progress: Progress = ignore_progress) -> Input:
        return ObjectInput(path, progress, objects=self.objects, requests=self.requests)

    def below(self, folder: str) -> list[str]:
        return [path for path in self.objects if path.startswith(folder)]

    def exists(self, path: str) -> bool:
        return path in self.objects

    @contextmanager
    def create(self, path: str, inputs: Sequence[Input] = (), *, force: bool = False) -> Iterator[Output]:
        self.check_target(path, inputs, force=force)
        with committed(ObjectOutput(path, self.objects)) as output:
            yield output


# --- The verbs on it ---

RECORDS = [record for record in scored(1100) if record["perplexity"] is not None][:1000]


@pytest.fixture
def memory(monkeypatch):
    """An empty storage for paths that start with memory://, with one object of scored records."""
    made = Memory()
    monkeypatch.setattr(storage, "_MAKERS", {"memory": lambda: made})
    monkeypatch.setattr(storage, "_STORAGES", {})
    made.objects["memory://in.jsonl"] = Object(lines(RECORDS), 0)
    return made


def run(*arguments: str, status: int = 0) -> None:
    assert cli.run([*arguments, "--no-progress"]) == status


def content(memory: Memory, path: str) -> list[dict]:
    return records(memory.objects[path].content)


def test_the_example_is_as_short_as_the_guide_promises():
    """A storage takes under 80 lines."""
    with open(__file__) as file:
        text = file.read()
    example = text[text.index("# --- The storage ---") : text.index("# --- The verbs on it ---")]
    assert len(example.splitlines()) < 80


@pytest.mark.parametrize(
    ("options", "fields"),
    [(("-m", "random", "--seed", "1"), {"random"}), ((), {"perplexity", "nll_sum", "n_scored", "n_bytes"})],
    ids=["random", "shipped model"],
)
def test_score_reads_and_writes_it(options, fields, memory):
    memory.objects["memory://in.jsonl"] = Object(lines({"text": r["text"]} for r in RECORDS[:5]), 0)
    run("score", *options, "memory://in.jsonl", "-o", "memory://scored.jsonl.zst")
    results = content(memory, "memory://scored.jsonl.zst")
    assert [record["text"] for record in results] == [record["text"] for record in RECORDS[:5]]
    assert all(fields <= record.keys() for record in results)


def test_rank_slice_and_stat_read_and_write_it(memory):
    run("rank", "memory://in.jsonl", "-o", "memory://ranked.jsonl.zst")
    ranked = content(memory, "memory://ranked.jsonl.zst")
    assert [record["rank"] for record in ranked] == [*range(len(RECORDS))]
    run(
        "slice", "--keep", "top", "--frac", "0.5", "memory://ranked.jsonl.zst", "-o", "memory://top.jsonl.zst"
    )
    assert content(memory, "memory://top.jsonl.zst") == ranked[len(RECORDS) // 2 :]
    run("stat", "memory://top.jsonl.zst", "-o", "memory://stat.json")
    assert json.loads(memory.objects["memory://stat.json"].content)["records"] == len(RECORDS) // 2


def test_the_same_bytes_as_from_files(memory, tmp_path):
    (tmp_path / "in.jsonl").write_bytes(memory.objects["memory://in.jsonl"].content)
    run("rank", str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "ranked"))
    run("rank", "memory://in.jsonl", "-o", "memory://ranked")
    assert memory.objects["memory://ranked"].content == (tmp_path / "ranked").read_bytes()


def test_slice_copies_frames_by_range(memory):
    """Of a ranked object only head, trailer and the frames that are kept or cut are fetched."""
    text = "x" * 20_000  # five frames of 4 MiB
    memory.objects["memory://in.jsonl"] = Object(lines({**r, "text": text} for r in RECORDS), 0)
    run("rank", "memory://in.jsonl", "-o", "memory://ranked.jsonl.zst")
    memory.requests.clear()
    run(
        "slice",
        "--keep",
        "top",
        "--frac",
        "0.25",
        "memory://ranked.jsonl.zst",
        "-o",
        "memory://top.jsonl.zst",
    )
    assert len(content(memory, "memory://top.jsonl.zst")) == len(RECORDS) // 4
    fetched = sum(size for _, size in memory.requests)
    assert fetched < 0.8 * len(memory.objects["memory://ranked.jsonl.zst"].content)


def test_a_failed_run_leaves_no_object(memory):
    memory.objects["memory://in.jsonl"].content += b"oops\n"
    run("rank", "memory://in.jsonl", "-o", "memory://ranked", status=65)
    assert [*memory.objects] == ["memory://in.jsonl"]


def test_an_output_is_refused_where_it_exists_or_is_an_input(memory):
    run("rank", "-f", "memory://in.jsonl", "-o", "memory://in.jsonl", status=73)
    memory.objects["memory://out"] = Object(b"old", 1)
    run("rank", "memory://in.jsonl", "-o", "memory://out", status=73)
    assert memory.objects["memory://out"].content == b"old"
    run("rank", "-f", "memory://in.jsonl", "-o", "memory://out")
    assert len(content(memory, "memory://out")) == len(RECORDS)


def test_unsupported_operations_are_refused_with_a_message(memory, capfd):
    run("rank", "memory://none", status=66)
    assert "memory://none: no such object" in capfd.readouterr().err
    run("score", "-m", "random", "--resume", "memory://in.jsonl", "-o", "memory://out", status=2)
    assert "memory://out: --resume needs a regular output file" in capfd.readouterr().err


def test_an_input_that_changes_while_it_is_read_is_an_error(memory):
    reading = ExitStack()
    reading.enter_context(storage.input_at("memory://in.jsonl").open()).read(10)
    memory.objects["memory://in.jsonl"] = Object(b"new", 9)
    with pytest.raises(InputOutputError, match="changed while reading"):
        reading.close()


# --- Dispatch ---


def test_operands_of_several_storages_are_read_in_turn(memory, tmp_path):
    (tmp_path / "more.jsonl").write_bytes(lines(RECORDS[:3]))
    run("rank", "memory://in.jsonl", str(tmp_path / "more.jsonl"), "-o", "memory://ranked")
    assert len(content(memory, "memory://ranked")) == len(RECORDS) + 3


def test_a_scheme_that_is_not_registered_is_a_file_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nowhere:").mkdir()
    with storage.create("nowhere://out") as output:
        output.write(b"text")
    assert (tmp_path / "nowhere:" / "out").read_bytes() == b"text"
    with storage.input_at("nowhere://out").open() as file:
        assert file.read_all() == b"text"


def test_a_storage_is_made_once_and_replaced_by_registering_again(monkeypatch):
    monkeypatch.setattr(storage, "_MAKERS", {})
    storage.register("twice", Memory)
    first = storage.storage_of("twice://a")
    assert storage.storage_of("twice://b") is first
    storage.register("twice", Memory)
    assert storage.storage_of("twice://b") is not first


# --- Inputs and outputs of this machine ---


def test_a_file_says_its_size_and_identity(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    file = storage.input_at(str(path))
    before = file.identity
    assert (file.size, storage.total_size([file, file])) == (10, 20)
    path.write_bytes(b"012345678")
    assert file.identity != before
    assert storage.input_at("/dev/null").identity is None
    assert storage.total_size([file, storage.input_at("/dev/null")]) is None


def test_a_file_is_read_by_range_without_moving_the_reader(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    file = storage.input_at(str(tmp_path / "file"))
    with file.open(), file.duplicate().open() as other:
        assert file.read(3) == b"012"
        assert (file.read_at(7, 2), file.read_at(8, 9)) == (b"78", b"89")
        buffer = bytearray(4)
        assert file.read_into(memoryview(buffer), 1) == 4
        assert (bytes(buffer), file.read(2), other.read(2)) == (b"1234", b"34", b"01")


def stop(output: AbstractContextManager[Output], data: bytes) -> None:
    """Write to an output, and stop as a run does that fails."""
    with suppress(ZeroDivisionError), output as file:
        file.write(data)
        raise ZeroDivisionError


def test_an_interrupted_scratch_file_is_kept_and_found_again(tmp_path):
    path = str(tmp_path / "out")
    stop(storage.scratch(path), b"first\n")
    with storage.scratch(path) as file:
        assert file.read_at(0, file.size) == b"first\n"
        file.write(b"second\n")
        assert file.read_at(6, 100) == b"second\n"
    assert [*tmp_path.iterdir()] == []


def test_a_resumed_file_is_cut_extended_and_committed(tmp_path):
    path = str(tmp_path / "out")
    stop(storage.resume(path), b"whole, torn")
    with storage.unfinished(path) as left:
        assert left.size == 11
    with storage.resume(path) as file:
        file.cut(6)
        file.write(b" again")
    assert (tmp_path / "out").read_bytes() == b"whole, again"
    with storage.resume(path) as file:
        assert file.finished
    with pytest.raises(CannotCreateError, match="exists"), storage.create(path):
        pass
