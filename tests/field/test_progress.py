"""The bar counts what is done: records that are scored or written, not bytes that were read ahead."""

import random

import pytest

from prune_cli import terminal
from prune_cli.settings.score import Scores, ScoreSettings
from prune_cli.settings.streams import Streams
from prune_cli.stages.score import windows
from prune_cli.stages.score.job import ScoreJob
from prune_cli.stages.score.worker import ScoreWorker

from ..conftest import lines, status_of, zstd

RECORDS = [{"id": number, "text": "word " * 20, "perplexity": number} for number in range(200)]


class Bar(terminal._Silent):
    """Remembers where it stood, and what stood beside it."""

    def __init__(self) -> None:
        self.position = 0.0
        self.positions: list[float] = []
        self.notes: list[str] = []

    def advance(self, amount: float) -> None:
        assert amount >= 0
        self.position += amount
        self.positions.append(self.position)

    def describe(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def bar(monkeypatch):
    """The bar of every run in this process."""
    bar = Bar()

    class Shown:
        def __enter__(self):
            return bar

        def __exit__(self, *error):
            return

    monkeypatch.setattr(terminal, "progress", lambda *arguments, **options: Shown())
    return bar


def scored(paths, bar):
    scores = Scores(metric=["random"])
    streams = Streams(output=str(paths[0]) + ".out")
    settings = ScoreSettings(scores=scores, streams=streams)
    job = ScoreJob(tuple(map(str, paths)), streams.output, settings)
    return ScoreWorker(settings).do(job, bar)


@pytest.mark.parametrize("compress", [bytes, zstd])
def test_scoring_a_small_file_advances_window_by_window(compress, tmp_path, monkeypatch):
    """It is read whole before its first record is scored; the bar used to stand at 100 % from then on."""
    monkeypatch.setattr(windows, "WINDOW_BYTES", 3000)
    path = tmp_path / "a.jsonl"
    path.write_bytes(compress(lines(RECORDS)))
    bar = Bar()
    scored([path], bar)
    size = path.stat().st_size
    assert bar.position == size
    parts = [position / size for position in bar.positions]
    assert len(parts) > 5
    assert parts[0] < 0.2
    # In step with the records of the notes: 'N records'.
    counts = [int(note.split()[0].replace(",", "")) / len(RECORDS) for note in bar.notes]
    for part, count in zip(parts, counts, strict=False):
        assert part == pytest.approx(count, abs=0.05)


def test_bad_records_and_several_files_end_at_all_bytes(tmp_path, here):
    dice = random.Random(0)
    paths = []
    for name in "abc":
        path = tmp_path / f"{name}.jsonl"
        path.write_bytes(lines(RECORDS[: dice.randrange(200)]))
        paths.append(path)
    bar = Bar()
    scored(paths, bar)
    assert bar.position == sum(path.stat().st_size for path in paths)


def test_ranking_is_half_done_when_everything_is_read(bar, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(lines(RECORDS))
    assert status_of("rank", path, "-o", tmp_path / "out.zst") == 0
    size = path.stat().st_size
    assert bar.positions[0] == size
    assert bar.position == 2 * size


def test_without_a_rate_the_bar_shows_no_bytes_per_second(capfd):
    for rate in (True, False):
        with terminal.progress("score", 100, at_once=True, rate=rate) as bar:
            assert isinstance(bar, terminal._Bar)
            assert any("Speed" in type(column).__name__ for column in bar.bar.columns) == rate
