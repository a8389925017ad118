"""slice by several workers: what is kept, what is counted and what is said are those of one process."""

import json
import logging

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prune_cli.errors import DataError
from prune_cli.settings.slice import Keep, Selection, Slicing
from prune_cli.settings.streams import Streams, Unit
from prune_cli.stages.slice.run import SliceJob, SliceOnEngine

from ..conftest import prune, scored
from .sharded import CORPORA, Several, contents, files

ENDS = st.sampled_from([Keep.bottom, Keep.top])
FRACTIONS = st.sampled_from(["0", "0.3", "0.5", "1"])
BUDGETS = st.sampled_from([0, 8, 100_007, 10**7])
SELECTIONS = st.one_of(
    st.builds(Selection, keep=st.sampled_from(Keep), frac=FRACTIONS, invert=st.booleans()),
    st.builds(Selection, keep=st.sampled_from(Keep), tokens=BUDGETS, keep_unscored=st.booleans()),
    st.builds(Selection, keep=ENDS, frac=FRACTIONS, sample=st.just(2.0), seed=st.integers(0, 3)),
    st.builds(Selection, range_=st.sampled_from(["0.2:0.7", "0:1", "25%:25%"])),
    st.builds(Selection, least=st.sampled_from([-2.5, 0.0]), most=st.sampled_from([0.0, 1.0, 1e301])),
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    corpus=CORPORA,
    selection=SELECTIONS,
    by=st.sampled_from([None, *Unit]),
    within=st.sampled_from([None, "kind"]),
    has_rejects=st.booleans(),
)
def test_records_counts_and_messages_are_those_of_one_process(
    tmp_path_factory, caplog, corpus, selection, by, within, has_rejects
):
    folder = tmp_path_factory.mktemp("slice")
    paths = tuple(files(folder, corpus))
    results = []
    for number in ("one", "several"):
        kept, rejected = folder / number, folder / f"{number}.rejected"
        slicing = Slicing(
            key="perplexity",
            by=by,
            within=None if selection.tokens is not None else within,
            rejects=str(rejected) if has_rejects else None,
            summary=str(folder / f"{number}.json"),
        )
        job = SliceJob(paths, selection, slicing, Streams(output=str(kept), allow_empty=True, progress=False))
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            try:
                report = job.run() if number == "one" else SliceOnEngine(job, Several()).run()
            except DataError as error:
                results.append(str(error))
                continue
        summary = json.loads((folder / f"{number}.json").read_bytes())
        # The names of the files differ, and nothing else.
        written = [contents(path) for path in (kept, rejected)[: 1 + has_rejects]]
        results.append((written, summary, report, caplog.messages))
    assert results[0] == results[1]


def test_worker_processes_keep_what_one_process_keeps(tmp_path):
    paths = files(tmp_path, [scored(80), scored(40), scored(60)])
    options = ("slice", "-k", "perplexity", "--keep", "middle", "--frac", "0.4", *paths)
    prune(*options, "-o", tmp_path / "one", "--rejects", tmp_path / "one.rejects")
    prune(*options, "-o", tmp_path / "two", "--rejects", tmp_path / "two.rejects", "-j", 2)
    assert contents(tmp_path / "two") == contents(tmp_path / "one")
    assert contents(tmp_path / "two.rejects") == contents(tmp_path / "one.rejects")
    one = contents(tmp_path / "one")[0]
    assert prune(*options, "--plain", "-j", 2).stdout == one


def test_bad_records_are_skipped_by_both_readings(tmp_path):
    paths = files(tmp_path, [scored(20), scored(20)])
    for path in paths:
        with open(path, "a") as file:
            file.write('{"perplexity": "high"}\n')
    options = (
        "slice",
        "-k",
        "perplexity",
        "--min",
        "0",
        "--skip-bad",
        "--expect-records",
        42,
        "--plain",
        *paths,
    )
    one = prune(*options, "--group-by", "nothing", status=3)
    several = prune(*options, "--group-by", "nothing", "-j", 2, status=3)
    assert several.stdout == one.stdout
    assert several.stderr.count(b"2 bad records were skipped") == 1
    assert several.stderr.count(b"no record has a field `nothing`") == 1


def test_groups_that_are_too_many_for_a_trailer_are_in_none(tmp_path):
    corpus = [[{"perplexity": 1, "source": f"{part}-{row}"} for row in range(200)] for part in range(2)]
    paths = tuple(files(tmp_path, corpus))
    outputs = []
    for number, engine in (("one", None), ("several", Several())):
        output = tmp_path / number
        SliceJob(paths, Selection(least=0.0), Slicing(key="perplexity"), Streams(output=str(output))).run(
            engine
        )
        outputs.append(contents(output))
    assert outputs[0] == outputs[1]
    assert not outputs[0][2].groups
