"""A job is a value: pickled, sent to a new process and run there, it writes what the command writes."""

import pickle
from multiprocessing import get_context
from pathlib import Path

import pytest

from prune_cli.engines import local
from prune_cli.errors import UsageError
from prune_cli.settings.rank import Ranking
from prune_cli.settings.slice import Keep, Selection, Slicing
from prune_cli.settings.stat import Inspection
from prune_cli.settings.streams import Reading, Streams, Unit
from prune_cli.stages.rank.run import RankJob
from prune_cli.stages.slice.run import SliceJob
from prune_cli.stages.stat.run import StatJob

from .conftest import lines, records, scored, status_of


def run_elsewhere(*jobs):
    """The reports of jobs that a spawned process ran, which gets nothing but their pickles."""
    with get_context("spawn").Pool(1) as pool:
        return [pickle.loads(report) for report in pool.map(run_pickled, [pickle.dumps(job) for job in jobs])]


def run_pickled(pickled: bytes) -> bytes:
    return pickle.dumps(pickle.loads(pickled).run())


def test_rank_slice_and_stat_write_the_same_bytes_in_a_spawned_process(corpus, ranked, tmp_path):
    def output(name: str) -> str:
        return str(tmp_path / name)

    ranking = Ranking(by=Unit.tokens)
    jobs = [
        RankJob((str(corpus),), ranking, Streams(output=output("rank-job"))),
        SliceJob(
            (str(ranked),),
            Selection(keep=Keep.middle, frac="0.5"),
            Slicing(summary=output("summary-job")),
            Streams(output=output("slice-job")),
        ),
        StatJob((str(ranked),), Inspection(verify=True, output=output("stat-job")), Reading()),
    ]
    ranked_report, sliced_report, stat_report = run_elsewhere(*jobs)
    commands = {
        "rank": ("rank", "--by", "tokens", corpus),
        "slice": ("slice", "--keep", "middle", "--frac", "0.5", "--summary", output("summary"), ranked),
        "stat": ("stat", "--verify", ranked),
    }
    for verb, command in commands.items():
        assert status_of(*command, "-o", output(verb)) == 0
        assert Path(output(f"{verb}-job")).read_bytes() == Path(output(verb)).read_bytes(), verb
    assert Path(output("summary-job")).read_bytes() == Path(output("summary")).read_bytes()
    assert ranked_report.records + ranked_report.nulls == sliced_report.records == stat_report.records == 200


def test_pack_writes_the_same_bytes_in_a_spawned_process(tmp_path):
    pytest.importorskip("torch")
    from prune_cli.reference import DIRECTORY
    from prune_cli.settings.pack import Packing
    from prune_cli.stages.pack.run import PackJob

    corpus = tmp_path / "corpus.jsonl"
    corpus.write_bytes(lines(scored(40)))
    packing = Packing(tokenizer=Path(DIRECTORY), context=32, carry="source")
    job = PackJob((str(corpus),), packing, Streams(output=str(tmp_path / "job.zst")))
    [report] = run_elsewhere(job)
    options = ("--tokenizer", DIRECTORY, "--context", 32, "--carry", "source")
    assert status_of("pack", *options, corpus, "-o", tmp_path / "command.zst") == 0
    assert (tmp_path / "job.zst").read_bytes() == (tmp_path / "command.zst").read_bytes()
    assert report.blocks == len(records((tmp_path / "job.zst").read_bytes()))


def test_the_report_of_a_slice_adds_up(corpus, tmp_path):
    job = SliceJob(
        (str(corpus),),
        Selection(keep=Keep.easy, frac="0.3"),
        Slicing(key="perplexity"),
        Streams(output=str(tmp_path / "easy")),
    )
    report = job.run()
    assert report.records == sum(amount.records for amount in report.total.values()) == 200
    for fate, amount in report.total.items():
        assert amount.records == sum(group[fate].records for group in report.groups.values())


def test_skipped_records_are_status_3(tmp_path, capsys):
    path = tmp_path / "bad.jsonl"
    path.write_bytes(lines(scored(3)) + b"{\n")
    reading = Reading(skip_bad=True, quiet=True)
    job = StatJob((str(path),), Inspection(output=str(tmp_path / "out")), reading)
    assert local.run(job, reading) == 3


def test_a_job_that_cannot_run_says_so_before_it_reads(tmp_path):
    missing = (str(tmp_path / "missing"),)
    with pytest.raises(UsageError, match="nothing says what to keep"):
        SliceJob(missing, Selection(), Slicing(), Streams()).run()
